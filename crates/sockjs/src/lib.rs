//! SockJS 0.3, server side (spec/proxy.md §10), without I/O and clock: what a path asks for
//! ([`request`], [`socket`]), frames of messages ([`Escaper`], [`messages`]), answers
//! ([`Answer`]), and the state of a session whose client polls ([`Polling`]). Used by the proxy,
//! which does the rest.

mod answer;
mod escape;
mod messages;
mod path;
mod polling;
mod query;

pub use answer::{Answer, Page, add_common};
pub use escape::{Escaper, frame};
pub use messages::messages;
pub use path::{Request, Socket, Transport, request, socket};
pub use polling::{Frame, Polling};
pub use query::{callback, form_field, query_field};

/// A heartbeat is due after this time of silence, milliseconds.
pub const HEARTBEAT_MS: u64 = 25_000;

/// Largest body of a request, bytes.
pub const BODY_MAX: usize = 100_000;

/// Largest frame of a WebSocket's client, bytes.
pub const FRAME_MAX: usize = 400_000;

/// Bytes that may wait in either direction.
pub const BUFFER_MAX: usize = 200_000;
