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
mod cross;
pub mod driver;
mod engine;
pub mod explain;
mod figures;
mod forward;
mod index;
mod inspecting;
mod log_line;
mod peers;
mod pem;
mod random;
mod rare;
mod response;
mod retry;
mod routing;
mod session;
mod settings;
mod share;
mod sig;
mod sockjs;
mod sums;
mod test_target;
mod timers;
mod uri;
pub mod words;
mod ws;
mod zmq_socket;
mod zmq_target;

use std::sync::Arc;

pub use engine::Proxy;
pub use origin::{Endpoint, Key, Opening, Request};
pub use routing::{Entry, Routes, Signing, Worker};
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
    /// Give a request to another worker, which has its SockJS session, by
    /// [`Proxy::handed_request`]; if it takes none, say [`Proxy::not_handed`].
    Elsewhere {
        /// Which worker.
        worker: usize,
        /// The packet.
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
    /// Say something about WebSockets to a handler; if it cannot be reached, say
    /// [`Proxy::control_gone`].
    Control {
        /// Instance id; none for whichever handler takes a new session.
        handler: Option<Arc<[u8]>>,
        /// The packet.
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
    /// Send a packet to a ZHTTP worker; if nobody takes it, say [`Proxy::worker_unreachable`].
    Worker {
        /// Address of the target.
        spec: Arc<str>,
        /// Request mode.
        req: bool,
        /// Names the request.
        key: Key,
        /// The worker; none for the first packet.
        to: Option<Arc<[u8]>>,
        /// The packet.
        message: Vec<u8>,
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
    /// Open a WebSocket to a backend.
    OpenWebSocket {
        /// Names the connection.
        key: Key,
        /// Where to.
        endpoint: Arc<Endpoint>,
        /// The handshake.
        opening: Opening,
        /// Bytes of messages that are taken for now; more by [`Output::Grant`].
        window: usize,
    },
    /// A piece of a message for a backend's WebSocket.
    Message {
        /// Names the connection.
        key: Key,
        /// Type of the message.
        kind: websocket::Type,
        /// Bytes, perhaps none.
        data: Vec<u8>,
        /// The message is complete.
        last: bool,
    },
    /// A ping for a backend's WebSocket.
    Ping {
        /// Names the connection.
        key: Key,
        /// At most 125 bytes.
        data: Vec<u8>,
    },
    /// A pong for a backend's WebSocket.
    Pong {
        /// Names the connection.
        key: Key,
        /// At most 125 bytes.
        data: Vec<u8>,
    },
    /// Close a backend's WebSocket; its end follows as an event.
    Close {
        /// Names the connection.
        key: Key,
        /// Code, if there is one.
        code: Option<u16>,
        /// Reason, perhaps empty.
        reason: String,
    },
    /// Take so many bytes more of a backend's WebSocket.
    Grant {
        /// Names the connection.
        key: Key,
        /// How many.
        bytes: usize,
    },
    /// Read no more of the response for now.
    Pause(Key),
    /// Go on reading.
    Resume(Key),
    /// End the request without a further event.
    Cancel(Key),
}
