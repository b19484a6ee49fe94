//! Messages of a backend as frames: JSON strings, made piece by piece.

/// Turns the pieces of one message after the other into the inside of JSON strings.
#[derive(Debug, Default)]
pub struct Escaper {
    /// The start of a character whose rest comes with the next piece; at most three bytes.
    held: Vec<u8>,
    /// A part of the message went out.
    within: bool,
}

impl Escaper {
    /// The next piece, between `open` and `close` where the message begins and ends. What is not
    /// UTF-8 becomes replacement characters.
    pub fn piece(&mut self, data: &[u8], more: bool, open: &str, close: &str) -> Vec<u8> {
        let joined;
        let data = if self.held.is_empty() {
            data
        } else {
            self.held.extend_from_slice(data);
            joined = std::mem::take(&mut self.held);
            &joined
        };
        let ready = if more { data.len() - unfinished(data) } else { data.len() };
        let mut out = Vec::with_capacity(data.len() + 8);
        if !std::mem::replace(&mut self.within, more) {
            out.extend_from_slice(open.as_bytes());
        }
        let text = quoted(&String::from_utf8_lossy(&data[..ready]));
        out.extend_from_slice(&text.as_bytes()[1..text.len() - 1]);
        self.held = data[ready..].to_vec();
        if !more {
            out.extend_from_slice(close.as_bytes());
        }
        out
    }
}

/// A whole message as a frame of its own.
pub fn frame(message: &[u8]) -> Vec<u8> {
    Escaper::default().piece(message, false, "a[\"", "\"]")
}

/// A JSON string with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// How many bytes at the end are the start of a character that goes on.
fn unfinished(data: &[u8]) -> usize {
    let longest = data.len().min(3);
    for back in 1..=longest {
        let size = match data[data.len() - back] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 0,
        };
        return if size > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn frames() {
        assert_eq!(text(frame(b"")), "a[\"\"]");
        assert_eq!(
            text(frame("\"\\/\u{8}\u{c}\n\r\t\u{1}\u{7f}\u{e4}\u{1f600}".as_bytes())),
            "a[\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\u{7f}\u{e4}\u{1f600}\"]"
        );
        assert_eq!(text(frame(b"\xff\0\xc3\xa4")), "a[\"\u{fffd}\\u0000\u{e4}\"]");
    }

    proptest! {
        /// However a message is cut, the same comes out of it.
        #[test]
        fn pieces_do_not_matter(message in "\\PC{0,20}", cuts in prop::collection::vec(0usize..40, 0..4)) {
            let bytes = message.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut escaper = Escaper::default();
            let (mut out, mut start) = (Vec::new(), 0);
            for cut in cuts {
                out.extend(escaper.piece(&bytes[start..cut], true, "a[\"", "\"]"));
                start = cut;
            }
            out.extend(escaper.piece(&bytes[start..], false, "a[\"", "\"]"));
            prop_assert_eq!(&out, &frame(bytes));
            let inside = serde_json::from_slice::<Vec<String>>(&out[1..]).unwrap();
            prop_assert_eq!(inside, vec![message]);
        }
    }
}
