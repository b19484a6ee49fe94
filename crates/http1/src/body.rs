//! How the body of a message is framed, and the decoder that takes the framing off in place.

use std::ops::Range;

use crate::{ChunkDecoder, Reason};

/// The framing of a body (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// No body and nothing announced.
    None,
    /// Content-Length.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the peer closes; responses only.
    Close,
}

impl BodyKind {
    /// No byte will come: no body, or `Content-Length: 0`.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Whether a response of this status has neither body nor framing headers.
    pub fn forbidden_by(code: u16) -> bool {
        matches!(code, 100..=199 | 204 | 304)
    }
}

/// What one call of [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the buffer that are dealt with, framing and data.
    pub consumed: usize,
    /// Where the body bytes lie in the buffer; may be empty.
    pub data: Range<usize>,
    /// The body is complete; what follows belongs to the next message.
    pub end: bool,
}

/// Takes the framing off a body as it arrives, split in any way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// Inside a chunked body.
    Chunked(ChunkDecoder),
    /// Everything is body until the peer closes.
    Close,
}

impl Decoder {
    /// A decoder at the first byte of a body.
    pub fn new(kind: BodyKind) -> Self {
        match kind {
            BodyKind::None => Self::Length(0),
            BodyKind::Length(size) => Self::Length(size),
            BodyKind::Chunked => Self::Chunked(ChunkDecoder::new()),
            BodyKind::Close => Self::Close,
        }
    }

    /// Looks at `buf` and takes at most `max_data` body bytes in one piece. Framing is taken even
    /// with `max_data` 0, so that the end of a body needs no credit. Call again until nothing is
    /// consumed or `end` is set.
    pub fn decode(&mut self, buf: &[u8], max_data: usize) -> Result<Decoded, Reason> {
        let room = buf.len().min(max_data);
        match self {
            Self::Length(left) => {
                let take = (*left).min(room as u64);
                *left -= take;
                // `take` is at most the length of a slice.
                let take = take as usize;
                Ok(Decoded { consumed: take, data: 0..take, end: *left == 0 })
            }
            Self::Chunked(chunks) => chunks.decode(buf, max_data),
            Self::Close => Ok(Decoded { consumed: room, data: 0..room, end: false }),
        }
    }

    /// Whether the body is complete if the peer closes now.
    pub fn may_end_here(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::Close => true,
        }
    }
}
