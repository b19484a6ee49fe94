//! Inflating a compressed message step by step, never more at once than the caller has room for.

use flate2::{Decompress, FlushDecompress, Status};

use crate::Error;

/// What a sender leaves off the end of a message (RFC 7692 §7.2.1).
pub(crate) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The state of one direction: about 43 KB, a window of 32 KB in it.
#[derive(Debug)]
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Inflates from `input` into `out`; gives bytes read and bytes written. With all input read
    /// and `out` filled, more may come without further input.
    pub(crate) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Error> {
        let (mut read, mut written) = (0, 0);
        loop {
            let (was_in, was_out) = (self.0.total_in(), self.0.total_out());
            let (from, to) = (&input[read..], &mut out[written..]);
            let status = self.0.decompress(from, to, FlushDecompress::None);
            let status = status.map_err(|_| Error::Inflate)?;
            let taken = (self.0.total_in() - was_in) as usize;
            read += taken;
            written += (self.0.total_out() - was_out) as usize;
            // A sender may end a stream and start another within one message (RFC 7692 §7.2.3.4).
            let again = status == Status::StreamEnd && taken > 0 && read < input.len();
            if status == Status::StreamEnd {
                self.0.reset(false);
            }
            if !again {
                return Ok((read, written));
            }
        }
    }
}
