//! Packets as text for the trace log (`spec/zhttp.md §12`): `{ "key": value, … }` without body,
//! then the body's length and its beginning.

use std::fmt;

use tnetstring::Value;

/// Longest part of a line.
const PART_MAX: usize = 1000;

/// All packets of a message, as one line.
pub(crate) struct Dump<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, packet) in zhttp::split(self.0).enumerate() {
            if n > 0 {
                f.write_str(" + ")?;
            }
            write_packet(f, packet)?;
        }
        Ok(())
    }
}

fn write_packet(f: &mut fmt::Formatter<'_>, packet: &[u8]) -> fmt::Result {
    let parsed = packet.strip_prefix(b"T").map(tnetstring::parse);
    let Some(Ok((Value::Map(map), _))) = parsed else {
        return write!(f, "<{} bytes that are no packet>", packet.len());
    };
    let mut text = String::from("{");
    let mut body = None;
    for (key, value) in map.iter().flatten() {
        if key == "body" {
            body = value.as_bytes();
            continue;
        }
        let comma = if text.len() > 1 { "," } else { "" };
        text.push_str(&format!("{comma} \"{key}\": {value}"));
    }
    text.push_str(" }");
    f.write_str(cut(&text))?;
    if let Some(body) = body {
        write!(f, " {} {}", body.len(), cut(&format!("\"{}\"", body.escape_ascii())))?;
    }
    Ok(())
}

fn cut(text: &str) -> &str {
    let end = (0..=PART_MAX.min(text.len())).rev().find(|n| text.is_char_boundary(*n));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_packets() {
        let mut w = tnetstring::Writer::new();
        w.map(|w| {
            w.str("from");
            w.str("px");
            w.str("seq");
            w.int(1);
            w.str("ext");
            w.map(|w| {
                w.str("multi");
                w.bool(true);
            });
            w.str("body");
            w.str("a\nb");
            w.str("list");
            w.list(|w| w.int(1));
        });
        let packet = [b"T", w.into_vec().as_slice()].concat();
        let wanted = "{ \"from\": \"px\", \"seq\": 1, \"ext\": { \"multi\": true }, \
                      \"list\": [ 1 ] } 3 \"a\\nb\"";
        assert_eq!(Dump(&packet).to_string(), wanted);
        let two = [packet.as_slice(), &packet].concat();
        assert_eq!(Dump(&two).to_string(), format!("{wanted} + {wanted}"));
        assert_eq!(Dump(b"junk").to_string(), "<4 bytes that are no packet>");
    }
}
