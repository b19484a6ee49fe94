//! The state of one WebSocket beside its client session.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use zhttp::HeaderBuf;

use super::filter::Filter;
use super::kept::Kept;
use super::outgoing::Outgoing;
use super::{Cid, Kind};
use crate::rare::{Rare, blank};
use crate::session::Session;
use crate::sockjs::Shape;

/// The backend's side.
#[derive(Debug)]
pub(crate) enum Back {
    /// None yet, or none any more.
    None,
    /// The built-in test backend.
    Test,
    /// A WebSocket of the outgoing client.
    Socket,
    /// A conversation of requests.
    OverHttp(Box<OverHttp>),
}

/// A conversation, and the response that is coming in.
#[derive(Debug)]
pub(crate) struct OverHttp {
    pub link: wsoverhttp::Link,
    /// What every request begins with.
    pub kept: Kept,
    pub response: Option<Box<Response>>,
    /// The request under way tells the backend of an abnormal end; nothing is done afterwards.
    pub disconnecting: bool,
    /// A ZHTTP worker did not get all of the request that failed, so that it may be sent again.
    pub unsent: bool,
}

/// A response as far as it is there.
#[derive(Debug)]
pub(crate) struct Response {
    pub code: u16,
    pub reason: String,
    pub headers: HeaderBuf,
    pub body: Vec<u8>,
}

/// How far one direction is with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// Open.
    #[default]
    No,
    /// A close waits behind messages: code and reason.
    Waiting(Box<(Option<u16>, Vec<u8>)>),
    /// The close is through.
    Done,
}

/// The handler's side (spec/internal-rpc.md §6).
#[derive(Debug)]
pub(crate) struct Control {
    /// The handler's instance id, once it has spoken.
    pub peer: Option<Arc<[u8]>>,
    /// 0 is that of the announcement.
    next_request: NonZeroU32,
    pub asked: Rare<Asked>,
}

impl Default for Control {
    fn default() -> Self {
        Self { peer: None, next_request: NonZeroU32::MIN, asked: Rare::default() }
    }
}

/// What the handler has to answer.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// What waits until the handler has spoken.
    pub waiting: Vec<Say>,
    /// Requests that are not acknowledged, and until when they must be.
    pub pending: VecDeque<(u32, u64)>,
}

blank!(Asked, Outgoing);

impl Control {
    /// The number of the next request.
    pub fn number_request(&mut self) -> u32 {
        let number = self.next_request;
        self.next_request = number.checked_add(1).unwrap_or(NonZeroU32::MIN);
        number.get()
    }

    /// When the oldest request must be acknowledged.
    pub fn due_ms(&self) -> Option<u64> {
        self.asked.pending.front().map(|(_, due)| *due)
    }

    /// A request is acknowledged.
    pub fn settle(&mut self, id: u32) {
        if self.asked.pending.iter().any(|(pending, _)| *pending == id) {
            self.asked.pending.retain(|(pending, _)| *pending != id);
            self.tidy();
        }
    }

    /// Takes what waited for the handler to speak.
    pub fn take_waiting(&mut self) -> Vec<Say> {
        if self.asked.waiting.is_empty() {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.asked.waiting);
        self.tidy();
        waiting
    }

    fn tidy(&mut self) {
        if self.asked.waiting.is_empty() && self.asked.pending.is_empty() {
            self.asked.clear();
        }
    }
}

/// An item for the handler.
#[derive(Debug)]
pub(crate) enum Say {
    Grip(u32, Vec<u8>),
    Subscribe(u32, String),
    NeedKeepAlive,
    Ack(Box<[u8]>),
}

/// The keep-alive timer that the handler has set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    /// As the handler has set it.
    pub timeout_ms: u64,
    /// As drawn for this time.
    pub interval_ms: u64,
    pub due_ms: u64,
    /// Every frame to the client starts it anew.
    pub idle: bool,
}

/// Milliseconds by which a keep-alive comes early at most, and one (spec/proxy.md §11.2).
pub(crate) const KEEP_ALIVE_JITTER_MS: u64 = 1_000;

impl KeepAlive {
    /// Draws the next interval. One draw for good would let some of those with a short timeout
    /// fire without a pause.
    pub fn draw(&mut self, jitter_ms: u64) {
        self.interval_ms = self.timeout_ms.saturating_sub(jitter_ms).max(1);
    }
}

/// The WebSocket.
#[derive(Debug)]
pub(crate) struct Ws {
    pub cid: Cid,
    /// The client was answered with 101.
    pub open: bool,
    pub back: Back,
    pub out: Rare<Outgoing>,
    pub filter: Option<Filter>,
    /// How messages look to the client.
    pub shape: Shape,
    pub control: Option<Control>,
    /// The client's close came.
    pub client_closed: bool,
    /// Our close to the client.
    pub close_out: End,
    /// The backend's close came.
    pub back_closed: bool,
    /// The backend was told of a close.
    pub back_told: bool,
    /// The handler let the backend go: what the client sends is read and thrown away.
    pub detached: bool,
    /// Bytes of the backend's messages for which its window was not extended yet.
    pub owed_window: u32,
    pub keep_alive: Option<Box<KeepAlive>>,
    /// By when the other side must have answered a close.
    pub close_by_ms: Option<NonZeroU64>,
    /// The earliest entry in the wheel.
    pub timer_ms: Option<NonZeroU64>,
    /// When data was last counted as activity.
    pub active_ms: u64,
    /// The client's address, for stats.
    pub address: Box<str>,
}

// What an open WebSocket over HTTP has at least; docs/benchmarks.md has the whole of it.
const _: () = assert!(size_of::<Session>() <= 128);
const _: () = assert!(size_of::<Ws>() <= 192);
const _: () = assert!(size_of::<OverHttp>() <= 112);

impl Ws {
    /// A WebSocket whose handshake has come.
    pub fn new(cid: Cid, address: &str) -> Self {
        Self {
            cid,
            open: false,
            back: Back::None,
            out: Rare::default(),
            filter: None,
            shape: Shape::Plain,
            control: None,
            client_closed: false,
            close_out: End::No,
            back_closed: false,
            back_told: false,
            detached: false,
            owed_window: 0,
            keep_alive: None,
            close_by_ms: None,
            timer_ms: None,
            active_ms: 0,
            address: address.into(),
        }
    }

    /// The conversation, if the backend is asked by requests.
    pub fn over_http(&mut self) -> Option<&mut OverHttp> {
        match &mut self.back {
            Back::OverHttp(over_http) => Some(over_http),
            _ => None,
        }
    }

    /// Whether a message of the handler can leave now, past nothing that waits.
    pub fn is_clear(&self) -> bool {
        self.open && self.out.is_idle() && self.close_out == End::No
    }

    /// Notes that a frame leaves for the client.
    pub fn sent(&mut self, now: u64) {
        if let Some(keep_alive) = self.keep_alive.as_mut().filter(|keep_alive| keep_alive.idle) {
            keep_alive.due_ms = now + keep_alive.interval_ms;
        }
    }
}

/// The kind of a WebSocket-over-HTTP event.
pub(crate) fn event_kind(kind: Kind) -> wsoverhttp::Kind {
    match kind {
        Kind::Text => wsoverhttp::Kind::Text,
        Kind::Binary => wsoverhttp::Kind::Binary,
        Kind::Ping => wsoverhttp::Kind::Ping,
        Kind::Pong => wsoverhttp::Kind::Pong,
    }
}

/// The kind of a frame; nothing for events that are no frames.
pub(crate) fn frame_kind(kind: wsoverhttp::Kind) -> Option<Kind> {
    match kind {
        wsoverhttp::Kind::Text => Some(Kind::Text),
        wsoverhttp::Kind::Binary => Some(Kind::Binary),
        wsoverhttp::Kind::Ping => Some(Kind::Ping),
        wsoverhttp::Kind::Pong => Some(Kind::Pong),
        _ => None,
    }
}
