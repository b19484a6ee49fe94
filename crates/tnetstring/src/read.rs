//! The zero-copy reader.

use std::fmt;

/// Lengths above this are refused before anything is looked at: no packet of ours comes near.
const LENGTH_MAX: usize = 1 << 30;

/// Digits that a length may have, leading zeros included.
const LENGTH_DIGITS_MAX: usize = 12;

/// One decoded frame. Containers hold their undecoded payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `,` raw bytes.
    Bytes(&'a [u8]),
    /// `#` a signed decimal integer.
    Int(i64),
    /// `^` a decimal fraction (never used by ZHTTP packets).
    Float(f64),
    /// `!` `true` or `false`.
    Bool(bool),
    /// `~` nothing.
    Null,
    /// `]` a sequence of frames.
    List(List<'a>),
    /// `}` a sequence of key and value frames.
    Map(Map<'a>),
}

/// Why a frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input ends inside the frame.
    UnexpectedEof,
    /// The bytes are no frame, or its payload does not fit its type.
    InvalidData,
    /// A map key is not a `,` string holding valid UTF-8.
    BadMapKey,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnexpectedEof => "unexpected eof",
            Self::InvalidData => "invalid data",
            Self::BadMapKey => "map key must be a utf-8 string",
        })
    }
}

impl std::error::Error for Error {}

/// The payload of a `]` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a>(&'a [u8]);

/// The payload of a `}` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map<'a>(&'a [u8]);

/// Reads the frame at the start of `input`; gives it and the bytes after it.
pub fn parse(input: &[u8]) -> Result<(Value<'_>, &[u8]), Error> {
    let (length, start) = parse_length(input)?;
    let end = start.checked_add(length).ok_or(Error::InvalidData)?;
    let kind = *input.get(end).ok_or(Error::UnexpectedEof)?;
    let payload = &input[start..end];
    Ok((decode(kind, payload)?, &input[end + 1..]))
}

/// Reads one frame that must fill `input` whole.
pub fn parse_all(input: &[u8]) -> Result<Value<'_>, Error> {
    match parse(input)? {
        (value, []) => Ok(value),
        _ => Err(Error::InvalidData),
    }
}

/// The length before the colon, and where the payload starts.
fn parse_length(input: &[u8]) -> Result<(usize, usize), Error> {
    let mut length = 0usize;
    for (i, &byte) in input.iter().enumerate() {
        match byte {
            b'0'..=b'9' if i < LENGTH_DIGITS_MAX => {
                length = length * 10 + usize::from(byte - b'0');
            }
            b':' if i > 0 && length <= LENGTH_MAX => return Ok((length, i + 1)),
            _ => return Err(Error::InvalidData),
        }
    }
    Err(Error::UnexpectedEof)
}

fn decode(kind: u8, payload: &[u8]) -> Result<Value<'_>, Error> {
    Ok(match kind {
        b',' => Value::Bytes(payload),
        b'#' => Value::Int(parse_int(payload)?),
        b'^' => Value::Float(parse_text(payload)?),
        b'!' if payload == b"true" => Value::Bool(true),
        b'!' if payload == b"false" => Value::Bool(false),
        b'~' if payload.is_empty() => Value::Null,
        b']' => Value::List(List(payload)),
        b'}' => Value::Map(Map(payload)),
        _ => return Err(Error::InvalidData),
    })
}

/// Digits that fit an i64 whatever they are.
const SHORT_INT_MAX: usize = 18;

fn parse_int(payload: &[u8]) -> Result<i64, Error> {
    // Nearly all integers are sequence numbers and credits: a few digits.
    if (1..=SHORT_INT_MAX).contains(&payload.len()) && payload.iter().all(u8::is_ascii_digit) {
        return Ok(payload.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')));
    }
    parse_text(payload)
}

fn parse_text<T: std::str::FromStr>(payload: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(payload).map_err(|_| Error::InvalidData)?;
    text.parse().map_err(|_| Error::InvalidData)
}

impl<'a> Value<'a> {
    /// The name of the frame's type, for error texts.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "string",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::Null => "null",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// The bytes of a string frame.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text of a string frame that is valid UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The integer of an integer frame.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The truth of a boolean frame.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The list of a list frame.
    pub fn as_list(&self) -> Option<List<'a>> {
        match self {
            Self::List(list) => Some(*list),
            _ => None,
        }
    }

    /// The map of a map frame.
    pub fn as_map(&self) -> Option<Map<'a>> {
        match self {
            Self::Map(map) => Some(*map),
            _ => None,
        }
    }
}

impl<'a> List<'a> {
    /// A list without items.
    pub const EMPTY: Self = Self(b"");

    /// The list whose items are the frames in `payload`; they are checked as they are read.
    pub fn from_raw(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    /// The undecoded payload, to be copied into another list as it is.
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether the list has no items.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items in order; ends after the first error.
    pub fn iter(&self) -> ListIter<'a> {
        ListIter(self.0)
    }
}

/// Walks the items of a list.
#[derive(Clone, Debug)]
pub struct ListIter<'a>(&'a [u8]);

impl<'a> Iterator for ListIter<'a> {
    type Item = Result<Value<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        next_frame(&mut self.0)
    }
}

impl<'a> Map<'a> {
    /// A map without entries.
    pub const EMPTY: Self = Self(b"");

    /// Whether the map has no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The undecoded payload, to be copied into another map as it is.
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// The entries in order, duplicates included; ends after the first error.
    pub fn iter(&self) -> impl Iterator<Item = Result<(&'a str, Value<'a>), Error>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || next_entry(&mut rest))
    }

    /// The entries with the undecoded frame of each value, for fields that are passed on as
    /// they came.
    pub fn iter_raw(&self) -> impl Iterator<Item = Result<(&'a str, &'a [u8]), Error>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let before = rest;
            let entry = next_entry(&mut rest)?;
            Some(entry.and_then(|(key, _)| {
                let (_, value) = parse(before)?;
                Ok((key, &value[..value.len() - rest.len()]))
            }))
        })
    }

    /// The value under `key`; the last one where the key is given twice.
    pub fn get(&self, key: &str) -> Result<Option<Value<'a>>, Error> {
        let mut found = None;
        for entry in self.iter() {
            let (name, value) = entry?;
            if name == key {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// Takes one frame off `rest`; after an error nothing more comes.
fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<Result<Value<'a>, Error>> {
    if rest.is_empty() {
        return None;
    }
    match parse(rest) {
        Ok((value, after)) => {
            *rest = after;
            Some(Ok(value))
        }
        Err(error) => {
            *rest = b"";
            Some(Err(error))
        }
    }
}

fn next_entry<'a>(rest: &mut &'a [u8]) -> Option<Result<(&'a str, Value<'a>), Error>> {
    let key = match next_frame(rest)? {
        Ok(key) => key,
        Err(error) => return Some(Err(error)),
    };
    let Some(key) = key.as_str() else {
        *rest = b"";
        return Some(Err(Error::BadMapKey));
    };
    match next_frame(rest) {
        Some(value) => Some(value.map(|value| (key, value))),
        None => Some(Err(Error::UnexpectedEof)),
    }
}
