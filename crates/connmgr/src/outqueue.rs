//! Bytes that a client's socket did not take. Only a blocked connection has such a queue. Small
//! pieces are copied, large ones are shared with the other clients that wait for the same body.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use bytes::{Buf, Bytes, BytesMut};

/// Small pieces are put together up to this size, so that many of them do not cost many times
/// their bytes.
const JOINED_MAX: usize = 1024;

/// Pieces of one `writev`.
pub(crate) const SLICES_MAX: usize = 64;

/// Bytes, and the response body bytes they stand for once they are written.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    credit: u32,
    /// How many were put together.
    parts: usize,
}

impl Piece {
    /// Appends; in place unless the bytes are shared.
    fn join(&mut self, bytes: &[u8]) {
        let own = std::mem::take(&mut self.bytes).try_into_mut();
        let mut own = own.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        own.extend_from_slice(bytes);
        self.bytes = own.freeze();
    }
}

/// The pieces in order.
#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    pieces: VecDeque<Piece>,
    len: usize,
    parts: usize,
}

impl OutQueue {
    pub(crate) fn push(&mut self, bytes: Bytes, credit: u32) {
        self.len += bytes.len();
        self.parts += 1;
        if let Some(last) = self.pieces.back_mut()
            && last.bytes.len() + bytes.len() <= JOINED_MAX
        {
            last.join(&bytes);
            last.credit += credit;
            last.parts += 1;
            return;
        }
        self.pieces.push_back(Piece { bytes, credit, parts: 1 });
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many were pushed and have not left, nor those that were put together with them.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The first pieces, for one system call.
    pub(crate) fn slices(&self) -> ArrayVec<IoSlice<'_>, SLICES_MAX> {
        self.pieces.iter().take(SLICES_MAX).map(|piece| IoSlice::new(&piece.bytes)).collect()
    }

    /// Takes `n` written bytes off; gives the response body bytes that are through.
    pub(crate) fn written(&mut self, mut n: usize) -> u32 {
        self.len -= n;
        let mut credit = 0;
        while let Some(piece) = self.pieces.front_mut() {
            if n < piece.bytes.len() {
                piece.bytes.advance(n);
                break;
            }
            n -= piece.bytes.len();
            credit += piece.credit;
            self.parts -= piece.parts;
            self.pieces.pop_front();
        }
        credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_come_back_piece_by_piece() {
        let mut queue = OutQueue::default();
        let large = |byte| Bytes::from(vec![byte; JOINED_MAX]);
        queue.push(large(b'h'), 0);
        queue.push(large(b'b'), 1019);
        queue.push(Bytes::from_static(b"e"), 1);
        assert_eq!((queue.len(), queue.slices().len()), (2 * JOINED_MAX + 1, 3));
        assert_eq!(queue.written(JOINED_MAX + 1), 0);
        assert_eq!(queue.slices()[0].len(), JOINED_MAX - 1);
        assert_eq!(queue.written(JOINED_MAX - 1), 1019);
        assert_eq!((queue.written(1), queue.len()), (1, 0));
        assert!(queue.is_empty());
    }

    #[test]
    fn small_pieces_are_put_together() {
        let mut queue = OutQueue::default();
        let shared = Bytes::from_static(b"head ");
        queue.push(shared.clone(), 0);
        for n in 0..1000 {
            queue.push(Bytes::copy_from_slice(&[b'a' + (n % 26) as u8; 6]), 1);
        }
        assert_eq!((queue.slices().len(), queue.parts()), (6, 1001));
        assert_eq!(&queue.slices()[0][..11], b"head aaaaaa");
        assert_eq!(&shared[..], b"head ", "what others have is not touched");
        assert_eq!((queue.written(6005), queue.len(), queue.parts()), (1000, 0, 0));
    }
}
