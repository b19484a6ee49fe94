//! Packets as text for trace lines (spec/zhttp.md §12).

use std::fmt;

use tnetstring::Value;

/// Longest part that is printed.
const CUT: usize = 1_000;

/// One packet, beginning with its `T`.
pub(super) struct Dump<'a>(pub(super) &'a [u8]);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = self.0.strip_prefix(b"T").and_then(|frame| tnetstring::parse(frame).ok());
        let Some((Value::Map(map), _)) = parsed else {
            return write!(f, "{} bytes that are no packet", self.0.len());
        };
        f.write_str("{ ")?;
        let mut first = true;
        let mut body = None;
        for (key, value) in map.iter().flatten() {
            if key == "body" {
                body = value.as_bytes();
                continue;
            }
            let comma = if std::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}\"{key}\": {value}")?;
        }
        f.write_str(" }")?;
        if let Some(body) = body {
            let cut = &body[..body.len().min(CUT)];
            write!(f, " {} \"{}\"", body.len(), cut.escape_ascii())?;
        }
        Ok(())
    }
}
