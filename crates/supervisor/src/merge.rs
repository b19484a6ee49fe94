//! Merged output: the name of a child is put into each of its lines (spec/programs.md §2.4).

/// A line longer than this is passed on in pieces.
const LINE_MAX_BYTES: usize = 64 << 10;

/// Puts the bytes that a child writes together to lines.
#[derive(Debug)]
pub(crate) struct Merger {
    name: String,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Merger {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), partial: Vec::new() }
    }

    /// Takes what came and appends the lines that are whole to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LINE_MAX_BYTES {
                self.finish(out);
            }
        }
    }

    /// Ends a line that may lack its end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let line = self.partial.strip_suffix(b"\n").unwrap_or(&self.partial);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            let (head, rest) = line.split_at(message_at(line).unwrap_or(0));
            out.extend_from_slice(head);
            if !head.is_empty() {
                out.extend_from_slice(format!("[{}] ", self.name).as_bytes());
            }
            out.extend_from_slice(rest);
            out.push(b'\n');
        }
        self.partial.clear();
    }
}

/// Where the message of a log line begins, and the name goes: after the third space.
pub(crate) fn message_at(line: &[u8]) -> Option<usize> {
    if !line.starts_with(b"[") {
        return None;
    }
    let mut spaces = line.iter().enumerate().filter(|(_, b)| **b == b' ');
    spaces.nth(2).map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(pieces: &[&str]) -> String {
        let mut merger = Merger::new("handler");
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| merger.push(piece.as_bytes(), &mut out));
        merger.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_name_follows_the_third_space() {
        for (line, expected) in [
            (
                "[INFO] 2026-01-02 03:04:05.678 started\n",
                "[INFO] 2026-01-02 03:04:05.678 [handler] started\n",
            ),
            ("plain text of a child\n", "plain text of a child\n"),
            ("[INFO] two spaces\n", "[INFO] two spaces\n"),
            ("[WARN] a b \n", "[WARN] a b [handler] \n"),
            ("\n\n", ""),
            ("no end", "no end\n"),
            ("a\r\n", "a\n"),
        ] {
            assert_eq!(merged(&[line]), expected);
        }
    }

    #[test]
    fn pieces_are_put_together() {
        let expected = "[INFO] d t [handler] a b\nc\n";
        assert_eq!(merged(&["[INFO] d", " t a", " b\nc", "\n"]), expected);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut merger = Merger::new("x");
        let mut out = Vec::new();
        for _ in 0..100 {
            merger.push(&[b'x'; 10_000], &mut out);
            assert!(merger.partial.len() < LINE_MAX_BYTES);
        }
        assert!(out.len() > 900_000);
    }
}
