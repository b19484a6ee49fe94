//! Compressing messages. Each piece is compressed by itself and never refers to earlier ones, so
//! that its compressed form can be sent to any number of receivers, and nothing is kept for a
//! connection. Several pieces in a row still are one message to the receiver.

use std::fmt;

use flate2::{Compress, Compression, FlushCompress};

use crate::inflate::TAIL;

/// Room for the output of one step.
const STEP: usize = 4096;

/// A compressor that any number of connections share; it has about 300 KB of tables.
pub struct Deflater(Compress);

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deflater")
    }
}

impl Default for Deflater {
    fn default() -> Self {
        Self(Compress::new(Compression::default(), false))
    }
}

impl Deflater {
    /// Appends the compressed form of a piece of a message (RFC 7692 §7.2.1). `last`: no more of
    /// the message follows. An empty piece that is not the last gives nothing to send.
    pub fn piece(&mut self, out: &mut Vec<u8>, piece: &[u8], last: bool) {
        if piece.is_empty() {
            if last {
                // The start of an empty block, whose rest is left off (RFC 7692 §7.2.3.6).
                out.push(0);
            }
            return;
        }
        self.0.reset();
        let mut read = 0;
        loop {
            let (was_in, was_out) = (self.0.total_in(), self.0.total_out());
            let start = out.len();
            out.resize(start + STEP, 0);
            // Compressing cannot fail: the state is sound and has no dictionary to ask for.
            let _ = self.0.compress(&piece[read..], &mut out[start..], FlushCompress::Sync);
            let written = (self.0.total_out() - was_out) as usize;
            read += (self.0.total_in() - was_in) as usize;
            out.truncate(start + written);
            if written < STEP {
                break;
            }
        }
        debug_assert!(read == piece.len() && out.ends_with(&TAIL));
        if last {
            out.truncate(out.len() - TAIL.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflate::Inflater;
    use proptest::prelude::*;

    fn inflate(mut bytes: &[u8]) -> Vec<u8> {
        let (mut inflater, mut out) = (Inflater::new(), Vec::new());
        let mut room = [0; 100];
        loop {
            let (read, written) = inflater.step(bytes, &mut room).unwrap();
            bytes = &bytes[read..];
            out.extend_from_slice(&room[..written]);
            if bytes.is_empty() && written < room.len() {
                return out;
            }
        }
    }

    #[test]
    fn empty_messages() {
        let mut out = Vec::new();
        Deflater::default().piece(&mut out, b"", true);
        assert_eq!(out, [0]);
        out.extend(TAIL);
        assert_eq!(inflate(&out), b"");
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692 §7.2.3.1, .3 (no compression), .4 (a final block) and .5 (two blocks).
        let cases: [&[u8]; 4] = [
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        ];
        for case in cases {
            let bytes = [case, &TAIL].concat();
            assert_eq!(inflate(&bytes), b"Hello", "{case:x?}");
        }
        let mut out = Vec::new();
        Deflater::default().piece(&mut out, b"Hello", true);
        assert_eq!(out, cases[0]);
    }

    proptest! {
        #[test]
        fn pieces_are_one_message(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..300),
                    "[ab]{0,9000}".prop_map(String::into_bytes),
                    proptest::collection::vec(any::<u8>(), 4000..9000),
                ],
                1..5,
            ),
        ) {
            let (mut deflater, mut out) = (Deflater::default(), Vec::new());
            for (n, piece) in pieces.iter().enumerate() {
                deflater.piece(&mut out, piece, n + 1 == pieces.len());
            }
            out.extend(TAIL);
            prop_assert_eq!(inflate(&out), pieces.concat());
        }
    }
}
