//! ZHTTP packets (spec/zhttp.md): what connection manager, proxy and handler say to each other.
//!
//! [`Packet::parse`] reads both directions without copying; [`write()`] appends a packet to a
//! buffer. [`split`] takes a ZeroMQ message apart that holds several packets. Nothing here
//! knows of sockets: [`route`] only names the frames around a packet.

mod ids;
mod packet;
pub mod route;
mod write;

pub use ids::{Id, Ids, IdsIter};
pub use packet::{Error, Ext, HeaderBuf, Headers, KeptHeaders, Kind, Packet, split};
pub use write::{Fields, Head, write};

/// Most session ids that one packet may list (spec/zhttp.md §4.2).
pub const MAX_IDS: usize = 128;

/// Most headers that a packet may carry (spec/zhttp.md §3.1).
pub const MAX_HEADERS: usize = 64;

/// Most bytes of an instance id or a session id (spec/zhttp.md, terms and §2).
pub const MAX_ID_BYTES: usize = 64;

/// Milliseconds without an accepted packet after which a session ends (spec/zhttp.md §7).
pub const SESSION_EXPIRY_MS: u64 = 60_000;

/// Milliseconds between two keep-alives of a session (spec/zhttp.md §7).
pub const KEEP_ALIVE_MS: u64 = 45_000;

#[cfg(test)]
mod tests;
