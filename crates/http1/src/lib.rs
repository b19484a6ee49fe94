//! HTTP/1 heads, framing and chunked coding.
//!
//! Pure: bytes in, bytes out. The connection manager reads requests and writes responses with it,
//! the outgoing client (`origin`) does the reverse. Strict where RFC 9112 leaves room for two
//! readers to see different messages: such heads are refused, never repaired.

mod body;
mod chunked;
mod error;
mod fields;
mod head;
pub mod write;

pub use body::{BodyKind, Decoded, Decoder};
pub use chunked::{CHUNK_END, CHUNK_MAX, ChunkDecoder, ChunkHead, LAST_CHUNK, push_chunks};
pub use error::Reason;
pub use fields::{decimal, list_has, tokens, trim};
pub use head::{
    Header, HeaderSlots, RequestHead, ResponseHead, Version, parse_request, parse_response,
};

/// Most headers a head may have, in either direction (`spec/connmgr.md §4.1`).
pub const MAX_HEADERS: usize = 64;
