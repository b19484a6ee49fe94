//! The outgoing HTTP/1.1 client with its kept-alive pool.
//!
//! [`Exchange`] is one request and its response as a pure state machine: bytes in, bytes and
//! events out. [`Client`] drives many of them over non-blocking sockets in its caller's loop:
//! pool, names, connects, TLS. The proxy's driver and the connection manager's client side own
//! one each; their engines know only [`Endpoint`], [`Request`], [`Opening`], [`Event`],
//! [`Error`] and [`Target`].
//!
//! # WebSockets
//!
//! [`Opening::new`] encodes the handshake, [`Client::open_websocket`] starts it under a key like
//! a request. The backend takes it ([`WebSocketEvent::Open`]) or answers otherwise
//! ([`WebSocketEvent::Refused`], the end). Messages pass in pieces: what comes is limited by the
//! window that the caller gave and extends by [`Client::grant`]; what goes ([`Client::message`])
//! is queued here, so a caller that lets its own peer send on looks at [`Event::Queued`] first.
//! Pings and pongs are passed on both ways and never answered here. Each side closes once
//! ([`WebSocketEvent::Close`], [`Client::close_websocket`]); [`Event::End`] follows when both
//! have. [`Client::cancel`] ends it without a close frame, [`Event::Failed`] tells that the
//! connection ended without one. Masks and keys are drawn by the client.

mod client;
mod conn;
mod exchange;
mod names;
mod opening;
mod policy;
mod pool;
mod said;
mod socket;
mod talk;
mod target;
mod tls;

use std::fmt;
use std::sync::Arc;

pub use client::{Client, Counts, Limits};
pub use evloop::arena::Key;
pub use exchange::Exchange;
use http1::BodyKind;
pub use opening::Opening;
pub use policy::{INTERNAL, is_internal};
pub use target::{REDIRECTS_MAX, Target, becomes_get};

/// Where a request goes. Requests of equal endpoints share their idle connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address to connect to; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS to the backend, and how.
    pub tls: Option<TlsOptions>,
    /// Refuse internal addresses (`spec/connmgr.md §10.1`).
    pub deny_internal: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How TLS is done with a backend. Part of the pool's key, so that no connection is used with
/// other checks than it was made with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// Name for SNI and for the check of the certificate.
    pub server_name: String,
    /// Take any certificate.
    pub insecure: bool,
    /// PEM certificate chain shown to the backend; empty for none.
    pub client_cert: Arc<str>,
    /// PEM private key of it.
    pub client_key: Arc<str>,
}

/// A request, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The head, and the framed start of the body.
    pub bytes: Vec<u8>,
    /// Further body goes in chunks.
    pub chunked: bool,
    /// Bytes of body that the head announces beyond those in `bytes`; none: no number of them. More
    /// than these are not sent, for the backend would take them for another request.
    pub left: Option<u64>,
    /// `bytes` has everything; no body follows.
    pub complete: bool,
    /// The method is HEAD: the response has no body.
    pub to_head: bool,
    /// It may be sent again if a kept connection closes without an answer.
    pub idempotent: bool,
}

/// Whether a request may be sent again if a kept connection was closed (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

impl Request {
    /// A request of this encoded head, whose framing is `framing`, and of the body that is there;
    /// `complete`: nothing follows.
    pub fn new(
        method: &str,
        head: Vec<u8>,
        framing: BodyKind,
        body: &[u8],
        complete: bool,
    ) -> Self {
        let chunked = framing == BodyKind::Chunked;
        let (body, left) = match framing {
            BodyKind::Length(size) => within(size, body),
            _ => (body, None),
        };
        let mut bytes = head;
        if chunked {
            http1::push_chunks(&mut bytes, body);
        } else {
            bytes.extend_from_slice(body);
        }
        if chunked && complete {
            bytes.extend_from_slice(http1::LAST_CHUNK);
        }
        let (to_head, idempotent) = (method == "HEAD", is_idempotent(method));
        Self { bytes, chunked, left, complete, to_head, idempotent }
    }
}

/// As much of `body` as fits into `size` bytes, and how many are left of these.
fn within(size: u64, body: &[u8]) -> (&[u8], Option<u64>) {
    let fits = usize::try_from(size).map_or(body.len(), |size| size.min(body.len()));
    (&body[..fits], Some(size - fits as u64))
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Event<'a> {
    /// The response begins.
    Head {
        /// Status, never 1xx.
        code: u16,
        /// Reason phrase.
        reason: &'a str,
        /// In order, as sent.
        headers: &'a [http1::Header<'a>],
        /// Bytes of body, where the head tells it.
        length: Option<u64>,
    },
    /// Bytes of the response's body.
    Body(&'a [u8]),
    /// The response is complete. Nothing follows.
    End,
    /// So many bytes of the request, or for the WebSocket, have not left yet.
    Queued(usize),
    /// The request failed. Nothing follows.
    Failed(Error),
    /// Something on a WebSocket. [`Event::End`] follows when both sides have closed.
    WebSocket(WebSocketEvent<'a>),
}

/// What comes of [`Client::open_websocket`], besides [`Event::Queued`], [`Event::End`] and
/// [`Event::Failed`].
#[derive(Debug)]
pub enum WebSocketEvent<'a> {
    /// The backend took the handshake (101): messages may be sent.
    Open {
        /// Reason phrase.
        reason: &'a str,
        /// In order, as sent.
        headers: &'a [http1::Header<'a>],
        /// permessage-deflate was agreed upon.
        compressed: bool,
    },
    /// The backend answered with a response of its own. Nothing follows.
    Refused {
        /// Status.
        code: u16,
        /// Reason phrase.
        reason: &'a str,
        /// In order, as sent.
        headers: &'a [http1::Header<'a>],
        /// All of it.
        body: &'a [u8],
    },
    /// Part of a message, in the order of the message.
    Piece {
        /// Type of the message, in each piece.
        kind: websocket::Type,
        /// Bytes, perhaps none. A piece of text may end inside a character.
        data: &'a [u8],
        /// The message is complete.
        last: bool,
    },
    /// A ping, which the caller is to answer.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The backend sends nothing more; the caller is to close too.
    Close {
        /// Code, unless the frame was empty.
        code: Option<u16>,
        /// Reason.
        reason: &'a str,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The name has no address.
    Name,
    /// The last address that was tried refused the connection.
    Connect,
    /// The last address that was tried could not be reached.
    Unreachable,
    /// Connecting, or waiting for bytes, took too long.
    Timeout,
    /// The handshake failed, or the certificate is not good.
    Tls,
    /// All addresses are internal ones, which are refused.
    Policy,
    /// The connection ended before the response was complete.
    Closed,
    /// What came is no HTTP response, or no answer to a WebSocket's handshake.
    BadResponse,
    /// The backend broke the WebSocket protocol.
    Protocol,
    /// The body of a WebSocket's refusal is larger than the caller allows.
    RejectionTooLarge,
    /// Too much is going on here: files or queue entries ran out.
    Overload,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name not found",
            Self::Connect => "connection refused",
            Self::Unreachable => "no way to the address",
            Self::Timeout => "timed out",
            Self::Tls => "TLS failed",
            Self::Policy => "address refused",
            Self::Closed => "connection closed before the response was complete",
            Self::BadResponse => "malformed response",
            Self::Protocol => "WebSocket protocol violated",
            Self::RejectionTooLarge => "body of the refusal too large",
            Self::Overload => "out of resources",
        })
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Whether the next target may be tried (`spec/routes.md §6.3`): nothing was received.
    pub fn try_next_target(self) -> bool {
        matches!(self, Self::Name | Self::Connect | Self::Unreachable | Self::Timeout | Self::Tls)
    }
}
