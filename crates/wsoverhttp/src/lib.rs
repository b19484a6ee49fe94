//! WebSocket-over-HTTP (spec/proxy.md §12): a WebSocket whose backend is asked by HTTP requests
//! with events in their bodies.
//!
//! [`events`] codes the bodies. [`Link`] is one conversation as a pure state machine: messages of
//! the client go in, bodies of requests come out; responses go in, events for the client come
//! out. It does no I/O and has no clock; the proxy sends the requests.

pub mod events;
mod link;
mod waiting;

pub use events::{Event, Kind};
pub use link::{Failure, Link, Outcome, Reply, Request, Trouble};

/// The media type of requests and responses.
pub const CONTENT_TYPE: &str = "application/websocket-events";

/// Bytes of messages that may wait for the backend (spec/proxy.md §12.3).
pub const WAITING_MAX: usize = 200_000;

/// Most bytes of a response's body (spec/proxy.md §12.4).
pub const RESPONSE_MAX: usize = 1_000_000;

/// Most bytes of content in one request (spec/proxy.md §12.3).
pub const CONTENT_MAX: usize = 200_000;
