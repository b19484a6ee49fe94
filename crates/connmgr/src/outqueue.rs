//! Bytes that a client's socket did not take. Only a blocked connection has such a queue. Small
//! pieces are copied, large ones are shared with the other clients that wait for the same body.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use bytes::{Buf, Bytes};

/// Pieces of one `writev`.
pub(crate) const SLICES_MAX: usize = 64;

/// Bytes, and the response body bytes they stand for once they are written.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    credit: u32,
}

/// The pieces in order.
#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    pieces: VecDeque<Piece>,
    len: usize,
}

impl OutQueue {
    pub(crate) fn push(&mut self, bytes: Bytes, credit: u32) {
        self.len += bytes.len();
        self.pieces.push_back(Piece { bytes, credit });
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Pieces in the queue.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
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
        queue.push(Bytes::from_static(b"head"), 0);
        queue.push(Bytes::from_static(b"abcd"), 3);
        queue.push(Bytes::from_static(b"e"), 1);
        assert_eq!((queue.len(), queue.slices().len()), (9, 3));
        assert_eq!(queue.written(5), 0);
        assert_eq!(&*queue.slices()[0], b"bcd");
        assert_eq!(queue.written(3), 3);
        assert_eq!((queue.written(1), queue.len()), (1, 0));
        assert!(queue.is_empty());
    }
}
