//! Values as text, for lines of the log (spec/zhttp.md §12, spec/publish.md §5).

use std::fmt;

use crate::read::Value;

/// Containers within each other that are shown: whoever sends them must not choose how much stack
/// a line of the log takes.
const DEPTH_MAX: usize = 32;

impl fmt::Display for Value<'_> {
    /// As in `{ "ids": [ "a", "b\n" ], "more": true }`. What cannot be read ends its container, and
    /// `...` stands for containers in too many others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self, 0)
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &Value<'_>, depth: usize) -> fmt::Result {
    match value {
        Value::Bytes(bytes) => write_bytes(f, bytes),
        Value::Int(n) => write!(f, "{n}"),
        Value::Float(n) => write!(f, "{n}"),
        Value::Bool(b) => write!(f, "{b}"),
        Value::Null => f.write_str("null"),
        Value::List(_) | Value::Map(_) if depth >= DEPTH_MAX => f.write_str("..."),
        Value::List(list) => {
            f.write_str("[")?;
            for (at, item) in list.iter().flatten().enumerate() {
                write!(f, "{} ", comma(at))?;
                write_value(f, &item, depth + 1)?;
            }
            f.write_str(" ]")
        }
        Value::Map(map) => {
            f.write_str("{")?;
            for (at, (key, value)) in map.iter().flatten().enumerate() {
                write!(f, "{} \"{key}\": ", comma(at))?;
                write_value(f, &value, depth + 1)?;
            }
            f.write_str(" }")
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
