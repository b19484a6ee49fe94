//! Scenarios of client mode on virtual time: packets of requesters, events of backends, and what
//! the engine makes of them.

mod early;
mod flow;
mod handoff;
mod redirects;
mod req_mode;
mod requesters;
mod sessions;
mod websockets;

use std::sync::Arc;

use connmgr::{ClientConfig, ClientCounters, Message, Order, Outgo, Outgoing};
use evloop::arena::Key;
use http1::Header;
use origin::{Endpoint, Event, WebSocketEvent};
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

/// `--buffer-size` of the tests.
const BUFFER: usize = 100;
/// `--body-buffer-size`.
const BODY_BUFFER: usize = 200;
/// `--req-timeout`.
const REQ_MS: u64 = 5_000;

fn config() -> ClientConfig {
    ClientConfig {
        instance: b"us".to_vec(),
        worker: (0, 1),
        buffer_size: BUFFER,
        body_buffer_size: BODY_BUFFER,
        req_timeout_ms: REQ_MS,
        deny_internal: false,
        compression: false,
    }
}

/// A packet of `from`.
fn packet(from: &str, ids: &[(&str, u32)], fill: impl FnOnce(&mut Fields<'_>)) -> Vec<u8> {
    let ids: Vec<Id<'_>> =
        ids.iter().map(|(id, seq)| Id { id: id.as_bytes(), seq: Some(*seq) }).collect();
    let mut out = Vec::new();
    let ext = Ext { multi: true, ..Ext::default() };
    zhttp::write(&mut out, &Head { from: from.as_bytes(), ids: &ids, ext }, fill);
    out
}

/// The engine with what it ordered last.
struct Rig {
    e: Outgoing,
    now: u64,
    /// The key of the last order.
    key: Option<Key>,
    endpoint: Option<Arc<Endpoint>>,
    /// The last request, as text.
    request: String,
    /// The window of the last request or WebSocket.
    window: usize,
}

impl Rig {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: ClientConfig) -> Self {
        let (endpoint, request) = (None, String::new());
        Self { e: Outgoing::new(config), now: 0, key: None, endpoint, request, window: 0 }
    }

    fn counters(&self) -> ClientCounters {
        *self.e.counters()
    }

    /// A first packet of `me`, with responses by the ROUTER and 50 credits.
    fn first(&mut self, id: &str, fill: impl FnOnce(&mut Fields<'_>)) {
        let first = packet("me", &[(id, 0)], |f| {
            f.flag("router-resp", true).credits(50);
            fill(f);
        });
        self.e.first(self.now, &first);
    }

    /// A GET, begun; its key.
    fn get(&mut self, id: &str) -> Key {
        self.begun(id, |f| {
            f.method("GET").uri("http://h/a");
        })
    }

    /// A request, begun; its key.
    fn begun(&mut self, id: &str, fill: impl FnOnce(&mut Fields<'_>)) -> Key {
        self.first(id, fill);
        let out = self.out();
        assert_eq!(out.len(), 2, "{out:?}");
        self.key.expect("an order")
    }

    /// A WebSocket that the backend took; its key.
    fn socket(&mut self, id: &str) -> Key {
        let key = self.begun(id, |f| {
            f.uri("ws://h/a");
        });
        self.opened(key);
        assert_eq!(self.out(), [format!("data {id}/1 101 Yes +100")]);
        key
    }

    fn opened(&mut self, key: Key) {
        let open = WebSocketEvent::Open { reason: "Yes", headers: &[], compressed: false };
        self.event(key, Event::WebSocket(open));
    }

    /// A further packet of `me`.
    fn packet(&mut self, id: &str, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        self.packet_of("me", id, seq, fill);
    }

    fn packet_of(&mut self, from: &str, id: &str, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        self.e.packet(self.now, &packet(from, &[(id, seq)], fill));
    }

    /// A packet of `me` that only has a type.
    fn bare(&mut self, id: &str, seq: u32, kind: Kind) {
        self.packet(id, seq, |f| {
            f.kind(kind);
        });
    }

    fn event(&mut self, key: Key, event: Event<'_>) {
        self.e.origin_event(self.now, key, event);
    }

    /// The head of a response without headers.
    fn head(&mut self, key: Key, code: u16) {
        self.head_with(key, code, &[]);
    }

    fn head_with(&mut self, key: Key, code: u16, headers: &[(&'static str, &'static str)]) {
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        self.event(key, Event::Head { code, reason: "Why", headers: &headers, length: None });
    }

    fn at(&mut self, now: u64) {
        self.now = now;
        self.e.timeout(now);
    }

    /// All that came out since the last call, in short.
    fn out(&mut self) -> Vec<String> {
        let all: Vec<Outgo> = std::iter::from_fn(|| self.e.poll_output()).collect();
        all.into_iter().map(|output| self.describe(output)).collect()
    }

    fn describe(&mut self, output: Outgo) -> String {
        match output {
            Outgo::Message(Message::Packet { peer, router, packet }) => {
                let way = if router { "" } else { "pub " };
                let peer =
                    if *peer == *b"me" { String::new() } else { format!("{} ", text(&peer)) };
                format!("{way}{peer}{}", described(&packet))
            }
            Outgo::Message(Message::Reply { envelope, packet }) => {
                format!("reply {} {}", text(&envelope[0]), described(&packet))
            }
            Outgo::Origin(key, order) => {
                self.key = Some(key);
                self.order(order)
            }
        }
    }

    fn order(&mut self, order: Order) -> String {
        match order {
            Order::Start(endpoint, request, window) => {
                self.request = text(&request.bytes);
                self.window = window;
                let line = self.request.lines().next().unwrap_or_default().to_owned();
                let place = format!("{}:{}", endpoint.host, endpoint.port);
                self.endpoint = Some(endpoint);
                format!("start {place} {}", line.trim_end_matches(" HTTP/1.1"))
            }
            Order::Open(endpoint, _, window) => {
                self.window = window;
                let place = format!("{}:{}", endpoint.host, endpoint.port);
                self.endpoint = Some(endpoint);
                format!("open {place}")
            }
            Order::Body(data, last) => format!("body {} {}", text(&data), more(!last)),
            Order::Grant(bytes) => format!("grant {bytes}"),
            Order::Message(kind, data, last) => {
                format!("message {kind:?} {} {}", text(&data), more(!last))
            }
            Order::Ping(data) => format!("ping {}", text(&data)),
            Order::Pong(data) => format!("pong {}", text(&data)),
            Order::Close(code, reason) => format!("close {code:?} {reason}"),
            Order::Cancel => "cancel".into(),
        }
        .trim_end()
        .to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn more(more: bool) -> &'static str {
    if more { "more" } else { "" }
}

/// A packet of ours: type, sessions with their numbers, and the fields that are there. Many
/// sessions are only counted.
fn described(bytes: &[u8]) -> String {
    let p = Packet::parse(bytes).expect("a packet");
    let mut parts = vec![p.kind.name().unwrap_or("data").to_owned()];
    if p.ids.len() > 3 {
        parts.push(format!("{} sessions", p.ids.len()));
    } else {
        let seq = |id: &Id<'_>| id.seq.map(|seq| format!("/{seq}")).unwrap_or_default();
        parts.extend(p.ids.iter().map(|id| format!("{}{}", text(id.id), seq(&id))));
    }
    parts.extend(p.code.map(|code| code.to_string()));
    parts.extend([p.reason, p.condition].map(str::to_owned));
    parts.extend(p.headers.iter().map(|(name, value)| format!("{name}={}", text(value))));
    parts.extend([text(p.content_type), text(p.body), more(p.more).to_owned()]);
    parts.extend((p.credits > 0).then(|| format!("+{}", p.credits)));
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}
