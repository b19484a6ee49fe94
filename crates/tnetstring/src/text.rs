//! Values as text, for lines of the log (spec/zhttp.md §12, spec/publish.md §5).

use std::fmt;

use crate::read::Value;

impl fmt::Display for Value<'_> {
    /// As in `{ "ids": [ "a", "b\n" ], "more": true }`. What cannot be read ends its container.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write_bytes(f, bytes),
            Self::Int(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Null => f.write_str("null"),
            Self::List(list) => {
                f.write_str("[")?;
                for (at, item) in list.iter().flatten().enumerate() {
                    write!(f, "{} {item}", comma(at))?;
                }
                f.write_str(" ]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (at, (key, value)) in map.iter().flatten().enumerate() {
                    write!(f, "{} \"{key}\": {value}", comma(at))?;
                }
                f.write_str(" }")
            }
        }
    }
}

fn comma(at: usize) -> &'static str {
    if at > 0 { "," } else { "" }
}

/// In quotes; what is not printable ASCII, a quote or a backslash is escaped.
fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("\"")?;
    for part in bytes.split_inclusive(|byte| *byte == b'\'') {
        let (text, quote) = match part {
            [text @ .., b'\''] => (text, "'"),
            text => (text, ""),
        };
        write!(f, "{}{quote}", text.escape_ascii())?;
    }
    f.write_str("\"")
}
