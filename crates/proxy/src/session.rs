//! One client session while the proxy has it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use stats::Counters;
use zhttp::{HeaderBuf, Headers, Packet};

use crate::cross::Cross;
use crate::forward::{self, Context, Place};
use crate::rare::{Rare, blank};
use crate::response::Head;
use crate::routing::Entry;
use crate::settings::Settings;
use crate::share::Share;
use crate::sockjs::Ask;
use crate::uri::Uri;
use crate::ws::Ws;
use crate::zmq_target::ZmqBack;

/// A session id of a connection manager.
pub(crate) type SessionId = Box<[u8]>;

/// Where a session is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for what the handler knows about the request.
    Inspecting,
    /// Waits for its whole body, for it may be answered together with others.
    Gathering,
    /// The backend was asked, or the body is awaited for the test target.
    Asked,
    /// A response with instructions is collected.
    Collecting,
    /// A response passes through.
    Relaying,
    /// `handoff-start` was sent; nothing may be sent until the client's side proceeds.
    Pausing,
    /// The handler was asked to take over; it may already have.
    Accepting,
    /// An answer that is complete here goes out.
    Answering,
    /// An open WebSocket.
    WebSocket,
    /// A WebSocket whose client is gone; its backend is told.
    Parting,
}

impl Stage {
    /// Whether packets may be sent to the client's side.
    pub fn may_send(self) -> bool {
        !matches!(self, Self::Pausing | Self::Accepting | Self::Parting)
    }
}

/// A response for the handler.
#[derive(Debug)]
pub(crate) struct Held {
    pub code: u16,
    pub reason: String,
    pub headers: HeaderBuf,
    pub body: Vec<u8>,
    /// The status that the client got before the handler is asked.
    pub sent_code: Option<u16>,
}

impl Held {
    /// What a session has of it that waits for another one's request.
    pub fn sent(code: u16) -> Self {
        let (headers, body) = (HeaderBuf::new(), Vec::new());
        Self { code, reason: String::new(), headers, body, sent_code: Some(code) }
    }
}

/// The response on its way to the client.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub head: Option<Head>,
    pub body: Vec<u8>,
    /// Bytes of `body` that were sent.
    pub start: usize,
    pub ended: bool,
    /// A head without its whole body waits until then for company.
    pub not_before_ms: u64,
    /// The backend was told to wait.
    pub paused: bool,
    /// The status sent; 0 before.
    pub code: u16,
    pub sent_bytes: u64,
}

impl Out {
    /// Bytes of body that wait.
    pub fn waiting(&self) -> usize {
        self.body.len() - self.start
    }

    /// Says that `size` bytes of body left.
    pub fn advance(&mut self, size: usize) {
        self.start += size;
        self.sent_bytes += size as u64;
        if self.start == self.body.len() {
            self.body.clear();
            self.start = 0;
        } else if self.start >= 64 * 1024 {
            self.body.drain(..self.start);
            self.start = 0;
        }
    }
}

/// What the handler said about the request before it was sent on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspected {
    /// Requests of the same key may be answered from one.
    pub sharing_key: Option<Box<[u8]>>,
    pub session_id: Option<Vec<u8>>,
    pub last_ids: Vec<(String, Vec<u8>)>,
    pub user_data: Option<Vec<u8>>,
}

/// The request and its answer; an open WebSocket has none of it.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The first packet as it came; method and URI lie in it.
    pub packet: Box<[u8]>,
    pub method: Range<u32>,
    pub uri: Range<u32>,
    pub first_credits: u32,
    /// Headers for the backend.
    pub headers: HeaderBuf,
    pub place: Option<Place>,
    pub tried: bool,
    /// The client's side has more body to send.
    pub request_more: bool,
    /// The request's body as far as it is kept.
    pub body: Vec<u8>,
    /// The body grew too large to be kept.
    pub body_dropped: bool,
    pub out: Out,
    pub held: Option<Box<Held>>,
    pub inspected: Option<Box<Inspected>>,
    /// Whether others are answered with it.
    pub share: Share,
    /// Automatic cross-origin.
    pub cross: Cross,
    /// It is a request to the SockJS server, which is neither counted nor logged.
    pub sockjs: Option<Box<Ask>>,
}

blank!(Exchange, Counters);

/// The session.
#[derive(Debug)]
pub(crate) struct Session {
    pub peer: u32,
    pub id: SessionId,
    /// Responses go through the ROUTER socket.
    pub router: bool,
    /// A request of the handler.
    pub internal: bool,
    pub in_seq: u32,
    pub out_seq: u32,
    pub credits: u32,
    /// Bytes of body taken whose credits were not returned.
    pub owed_credits: u32,
    pub last_in_ms: u64,
    pub stage: Stage,
    /// Goes back in every packet, as it came (spec/zhttp.md §3).
    pub user_data: Option<Box<[u8]>>,
    pub entry: Option<Arc<Entry>>,
    /// Which target is tried.
    pub target: usize,
    pub trusted: bool,
    pub debug: bool,
    pub https: bool,
    pub is_retry: bool,
    /// A request to the backend is under way.
    pub backend: bool,
    pub exchange: Rare<Exchange>,
    /// The request to the backend goes to a ZHTTP worker.
    pub zmq: Option<Box<ZmqBack>>,
    /// It is a WebSocket.
    pub ws: Option<Box<Ws>>,
    /// What was not reported yet.
    pub counters: Rare<Counters>,
    /// It is counted in the connections.
    pub counted: bool,
    /// Up to when its minutes are counted.
    pub minute_ms: u64,
    /// The handler has been asked to take it: it counts there.
    pub away: Option<Away>,
}

/// Who counts the first minute of a session that is on its way to the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// The handler, anew.
    MinuteTakenBack,
    /// It is reported, or no longer the first.
    MinuteKept,
}

impl Session {
    /// The first packet, which was parsed when it came.
    pub fn packet(&self) -> Option<Packet<'_>> {
        Packet::parse(&self.exchange.packet).ok()
    }

    /// The request of another session, which was made of this one's, takes the place of its own.
    pub fn replace_request(&mut self, mut other: Self) {
        let other = other.exchange.take();
        let own = &mut *self.exchange;
        (own.packet, own.method, own.uri) = (other.packet, other.method, other.uri);
        (own.body, own.request_more) = (other.body, other.request_more);
    }

    /// The request's method.
    pub fn method(&self) -> &str {
        self.text(&self.exchange.method)
    }

    /// The absolute URI as received; its scheme is a secure one if the client's side is, as far as
    /// is believed (spec/proxy.md §2.1, 1).
    pub fn uri(&self) -> Cow<'_, str> {
        let uri = self.text(&self.exchange.uri);
        let plain = uri.strip_prefix("http://").map(|rest| ("https", rest));
        let plain = plain.or_else(|| uri.strip_prefix("ws://").map(|rest| ("wss", rest)));
        match plain.filter(|_| self.https) {
            Some((scheme, rest)) => format!("{scheme}://{rest}").into(),
            None => uri.into(),
        }
    }

    fn text(&self, range: &Range<u32>) -> &str {
        let bytes = self.exchange.packet.get(range.start as usize..range.end as usize);
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Everything about the request to the backend that does not depend on the target.
    pub fn prepare(
        &mut self,
        settings: &Settings,
        now_s: u64,
        headers: Headers<'_>,
        uri: &Uri<'_>,
        entry: &Entry,
        peer_address: &str,
    ) {
        let none = Inspected::default();
        let inspected = self.exchange.inspected.as_deref().unwrap_or(&none);
        let context = Context {
            settings,
            entry,
            uri: *uri,
            peer_address,
            trusted: self.trusted,
            internal: self.internal,
            last_ids: &inspected.last_ids,
            session_id: inspected.session_id.as_deref(),
            now_s,
        };
        self.exchange.headers = forward::headers(headers, &context);
        self.exchange.place = Some(forward::place(uri, entry));
    }

    /// Whether the client got the response's head before the handler is asked.
    pub fn was_sent_first(&self) -> bool {
        self.exchange.held.as_ref().is_some_and(|held| held.sent_code.is_some())
    }

    /// Whether the client's side knows who has the session.
    pub fn acknowledged(&self) -> bool {
        self.out_seq > 0
    }
}

/// Where `part`, which lies in `whole`, begins and ends.
pub(crate) fn range_of(whole: &[u8], part: &str) -> Range<u32> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    if part.is_empty() || start.checked_add(part.len()).is_none_or(|end| end > whole.len()) {
        return 0..0;
    }
    start as u32..(start + part.len()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_find_their_text() {
        let whole = b"abcdef";
        let part = std::str::from_utf8(&whole[2..4]).unwrap();
        assert_eq!(range_of(whole, part), 2..4);
        assert_eq!((range_of(whole, ""), range_of(whole, "elsewhere")), (0..0, 0..0));
    }

    #[test]
    fn what_was_sent_leaves_the_buffer() {
        let mut out = Out { body: vec![0; 100_000], ..Out::default() };
        out.advance(10);
        assert_eq!((out.waiting(), out.body.len()), (99_990, 100_000));
        out.advance(70_000);
        assert_eq!((out.waiting(), out.body.len()), (29_990, 29_990));
        out.advance(29_990);
        assert_eq!((out.waiting(), out.sent_bytes), (0, 100_000));
    }
}
