//! What a client sends: a JSON array of texts.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

/// A text. Half of a surrogate pair, which a script may send, becomes replacement characters.
struct Text(String);

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

/// The messages of a send request or a frame. Nothing if it is no JSON array of texts.
pub fn messages(json: &[u8]) -> Option<Vec<String>> {
    let json = std::str::from_utf8(json).ok()?;
    let texts: Vec<Text> = serde_json::from_str(json).ok()?;
    Some(texts.into_iter().map(|text| text.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_texts() {
        assert_eq!(messages(b"[]").unwrap().len(), 0);
        assert_eq!(messages(b" [\"a\", \"\\u00e9\\n\"] ").unwrap(), ["a", "\u{e9}\n"]);
        assert_eq!(messages(b"[\"\\ud83d\\ude00\"]").unwrap(), ["\u{1f600}"]);
        assert!(messages(b"[\"x\\ud800\"]").unwrap()[0].starts_with("x\u{fffd}"));
        for junk in [
            &b""[..],
            b"[",
            b"\"a\"",
            b"[\"a\",1]",
            b"{}",
            b"[\"a\"]x",
            b"[[\"a\"]]",
            b"null",
            b"[\"\xff\"]",
        ] {
            assert_eq!(messages(junk), None, "{}", String::from_utf8_lossy(junk));
        }
    }
}
