//! The proxy: routes requests to backends and hands holds to the handler (spec/proxy.md).
//!
//! [`Proxy`] is the engine, a pure state machine: packets, backend events and time go in,
//! [`Output`] comes out. [`driver`] runs one engine per worker over ZeroMQ sockets and the
//! outgoing client of the `origin` crate.

mod accept;
mod answer;
mod arrival;
mod backend;
mod client;
mod command;
pub mod driver;
mod engine;
mod forward;
mod log_line;
mod peers;
mod response;
mod retry;
mod routing;
mod session;
mod settings;
mod sig;
mod sums;
mod test_target;
mod timers;
mod uri;
pub mod words;

use std::sync::Arc;

pub use engine::Proxy;
pub use origin::{Endpoint, Key, Request};
pub use routing::{Entry, Routes, Signing};
pub use settings::{ForwardedFor, ForwardedProto, Settings};
pub use sig::{SigKey, Signer};

/// What the engine wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a peer of client sessions: through the ROUTER (`[peer][empty][message]`)
    /// or the PUB socket (`peer SP message`).
    Client {
        /// Instance id.
        peer: Arc<[u8]>,
        /// Through the sockets for the handler's own requests.
        internal: bool,
        /// ROUTER, else PUB.
        router: bool,
        /// One packet, or several for a peer that announced `batch`.
        message: Vec<u8>,
    },
    /// Call `accept`; if the socket does not take it, say [`Proxy::accept_failed`].
    Accept {
        /// Session that waits for the reply.
        key: Key,
        /// The call.
        payload: Vec<u8>,
    },
    /// Call `inspect`; if the socket does not take it, say [`Proxy::inspect_failed`].
    Inspect {
        /// Session that waits for the reply.
        key: Key,
        /// The call.
        payload: Vec<u8>,
    },
    /// Publish a stats packet.
    Stats(Vec<u8>),
    /// Ask a backend.
    Start {
        /// Names the request.
        key: Key,
        /// Where to.
        endpoint: Arc<Endpoint>,
        /// What.
        request: Request,
    },
    /// More of the request's body.
    Body {
        /// Names the request.
        key: Key,
        /// Unframed bytes.
        data: Vec<u8>,
        /// Nothing follows.
        last: bool,
    },
    /// Read no more of the response for now.
    Pause(Key),
    /// Go on reading.
    Resume(Key),
    /// End the request without a further event.
    Cancel(Key),
}
