//! One tree for JSON and tnetstring documents, so that items and instructions are parsed by
//! one piece of code. Byte strings of a tnetstring share the message they came in.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting that is read from a tnetstring (serde_json has the same limit).
const DEPTH_MAX: usize = 128;

/// A decoded document.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing; a wrong type wherever a value is expected.
    Null,
    /// Truth.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction, or beyond 64 bits.
    Float(f64),
    /// Text (JSON) or bytes (tnetstring).
    Str(Bytes),
    /// Values in order.
    List(Vec<Value>),
    /// Keys and values in order; of equal keys the last one counts.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Reads a JSON document; `None` if it is malformed. It may begin with the mark that some
    /// programs write before UTF-8. Halves of a character, which a text has that was cut between
    /// two units of UTF-16, are question marks, as Pushpin has them.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let read = |text: &[u8]| serde_json::from_slice(text).ok();
        read(text).or_else(|| read(&without_halves(text)?))
    }

    /// Reads the tnetstring at the start of `message`; `None` if it is malformed.
    pub fn from_tnetstring(message: &Bytes) -> Option<Self> {
        let (value, _) = tnetstring::parse(message).ok()?;
        convert(message, value, 0)
    }

    /// The value under `key` of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Str(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text of a string; bytes that are no UTF-8 are replaced.
    pub fn as_text(&self) -> Option<String> {
        self.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Anything convertible to an integer (spec/publish.md §3): numbers are rounded, texts that
    /// are no number are 0; lists, maps and null are a wrong type.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Bool(b) => Some(i64::from(*b)),
            Self::Int(n) => Some(*n),
            Self::Float(f) => Some(f.round() as i64),
            Self::Str(text) => Some(text_to_int(text)),
            _ => None,
        }
    }

    /// The truth of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The values of a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a map.
    pub fn as_map(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }
}

/// JSON text without escapes of half a character; nothing if there are none.
fn without_halves(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut found) = (Vec::with_capacity(text.len()), text, false);
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let next = unit(escape.get(6..).unwrap_or_default());
        let (size, half) = match (unit(escape), next) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            _ => (escape.len().min(2), false),
        };
        let (whole, after) = escape.split_at(size);
        out.extend_from_slice(if half { b"?" } else { whole });
        (rest, found) = (after, found || half);
    }
    out.extend_from_slice(rest);
    found.then_some(out)
}

/// The unit of UTF-16 that the escape at the start of `text` stands for.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn text_to_int(text: &[u8]) -> i64 {
    std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn convert(message: &Bytes, value: tnetstring::Value<'_>, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value {
        tnetstring::Value::Bytes(bytes) => Value::Str(message.slice_ref(bytes)),
        tnetstring::Value::Int(n) => Value::Int(n),
        tnetstring::Value::Float(f) => Value::Float(f),
        tnetstring::Value::Bool(b) => Value::Bool(b),
        tnetstring::Value::Null => Value::Null,
        tnetstring::Value::List(list) => Value::List(
            list.iter()
                .map(|item| convert(message, item.ok()?, depth + 1))
                .collect::<Option<_>>()?,
        ),
        tnetstring::Value::Map(map) => Value::Map(
            map.iter()
                .map(|entry| {
                    let (key, value) = entry.ok()?;
                    Some((key.to_owned(), convert(message, value, depth + 1)?))
                })
                .collect::<Option<_>>()?,
        ),
    })
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(i64::try_from(n).map_or(Value::Float(n as f64), Value::Int))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Value, E> {
        Ok(Value::Float(f))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Str(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
