//! The state of one request that is made for somebody.

use std::sync::Arc;

use origin::Target;
use zhttp::HeaderBuf;

use super::names::Name;

/// Whose it is, and what is gathered for it.
#[derive(Debug)]
pub(super) enum Mode {
    /// Packets both ways.
    Stream {
        /// The requester's instance id and session id.
        name: Name,
        /// Responses go through the ROUTER socket.
        router: bool,
        /// The requester understands packets with several ids.
        multi: bool,
    },
    /// One packet each way.
    Req {
        /// The parts before the request's packet.
        envelope: Vec<Vec<u8>>,
        /// The request's id, if it had one.
        id: Option<Vec<u8>>,
        /// The response, as far as it has come.
        response: Gathered,
        /// When the time for it is over.
        end_at: u64,
    },
}

/// A response of req mode.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) headers: HeaderBuf,
    pub(super) body: Vec<u8>,
}

/// What the request is, as far as it is needed to ask once more.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) target: Target,
    pub(super) method: String,
    pub(super) headers: HeaderBuf,
    /// The whole body, if redirects are followed.
    pub(super) body: Vec<u8>,
    pub(super) connect_host: String,
    pub(super) connect_port: u16,
    pub(super) trust_connect_host: bool,
    pub(super) insecure: bool,
    pub(super) deny_internal: bool,
    pub(super) client_cert: Arc<str>,
    pub(super) client_key: Arc<str>,
    /// More body follows in other packets.
    pub(super) more: bool,
}

/// Where redirects are followed.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    pub(super) followed: usize,
    /// The response that comes is one; its end begins the next request.
    pub(super) next: Option<Target>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) mode: Mode,
    /// There while redirects are followed and no other response has come.
    pub(super) ask: Option<Box<Ask>>,
    pub(super) redirects: Option<Redirects>,
    /// Next sequence number expected.
    pub(super) in_seq: u32,
    /// Next sequence number to send.
    pub(super) out_seq: u32,
    /// Bytes of body or messages that the requester may send.
    pub(super) window: usize,
    /// Bytes of the response that the requester granted with its first packet, and since then
    /// while redirects were followed.
    pub(super) response_window: usize,
    pub(super) websocket: bool,
    /// More of the request's body follows.
    pub(super) more: bool,
    /// The response has begun, or the WebSocket is open.
    pub(super) answered: bool,
    /// The requester passes its role on: nothing is sent until it is heard of again.
    pub(super) adrift: bool,
    /// What is to be sent then; no more than the credits allow.
    pub(super) held: Vec<Vec<u8>>,
    /// The request has ended, and what is held says so.
    pub(super) over: bool,
    /// When silence of the requester ends the session.
    pub(super) expires_at: u64,
    pub(super) keep_alive_at: u64,
}

impl Session {
    pub(super) fn is_req(&self) -> bool {
        matches!(self.mode, Mode::Req { .. })
    }
}
