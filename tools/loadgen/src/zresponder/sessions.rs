//! What the responder does with requests: answers, holds, uploads, downloads and WebSockets.
//! Packets in, packets out; no sockets.
//!
//! | Target | What it gets |
//! |---|---|
//! | any with a body | the body is taken as fast as it comes; the answer says how long it was |
//! | `/stream` | an event stream that is held |
//! | `/download?bytes=N` | N bytes, as credits come |
//! | a WebSocket at `/echo` | its messages back |
//! | a WebSocket elsewhere | is held; pings are answered |
//! | anything else | `hello world` at once |

use crate::http;
use evloop::arena::{Arena, Key};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

/// A packet that is to leave.
pub struct Out {
    /// Which connection manager it is for.
    pub link: usize,
    /// Its instance id.
    pub peer: Rc<[u8]>,
    /// By ROUTER; else by PUB.
    pub by_router: bool,
    pub packet: Vec<u8>,
}

/// Bytes that a requester may send unasked; a third of it used up is granted again.
const CREDITS: u32 = 200_000;
const GRANT: u32 = CREDITS / 3;

/// Most bytes of a download in one packet.
const PIECE: usize = 64 * 1024;

/// The table is walked once in this many ticks of 100 ms, so every session has its keep-alive
/// every 45 s.
const ROUND_TICKS: u32 = 450;
const TICK_MS: u64 = 100;

enum Work {
    Hold,
    Upload { bytes: u64 },
    Download { left: u64 },
    Socket { echo: bool, waiting: VecDeque<Piece> },
}

/// A part of a WebSocket message that waits for credits.
struct Piece {
    kind: Kind,
    binary: bool,
    more: bool,
    body: Vec<u8>,
}

/// Where the packets of a session go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    link: usize,
    peer: Rc<[u8]>,
    by_router: bool,
}

struct Session {
    way: Way,
    id: Box<[u8]>,
    in_seq: u32,
    out_seq: u32,
    /// Bytes that may be sent, and bytes received that are not granted again.
    credits: u32,
    used: u32,
    work: Work,
}

type SessionId = Box<[u8]>;

/// A requester and its session.
type Name = (Rc<[u8]>, SessionId);

/// All sessions of the responder.
pub struct Sessions {
    me: Vec<u8>,
    table: Arena<Session>,
    keys: HashMap<Name, Key>,
    peers: HashMap<Vec<u8>, Rc<[u8]>>,
    next_tick_ms: u64,
    next_place: u32,
    zeros: Vec<u8>,
}

impl Sessions {
    pub fn new(me: Vec<u8>) -> Sessions {
        Sessions {
            me,
            table: Arena::new(),
            keys: HashMap::new(),
            peers: HashMap::new(),
            next_tick_ms: 0,
            next_place: 0,
            zeros: vec![b'.'; PIECE],
        }
    }

    /// Takes one packet of a requester.
    pub fn handle(&mut self, link: usize, packet: &Packet<'_>, out: &mut Vec<Out>) {
        let peer = match self.peers.get(packet.from) {
            Some(peer) => peer.clone(),
            None => self.peers.entry(packet.from.to_vec()).or_insert(packet.from.into()).clone(),
        };
        for id in packet.ids.iter() {
            let name = (peer.clone(), Box::from(id.id));
            match self.keys.get(&name) {
                Some(&key) => self.proceed(key, id.seq, packet, out),
                None if id.seq == Some(0) && packet.kind == Kind::Data => {
                    let way = Way { link, peer: peer.clone(), by_router: packet.router_resp };
                    self.begin(way, name, packet, out);
                }
                None => {} // of a session that is over
            }
        }
    }

    fn begin(&mut self, way: Way, name: Name, packet: &Packet<'_>, out: &mut Vec<Out>) {
        let mut session = Session {
            way,
            id: name.1.clone(),
            in_seq: 1,
            out_seq: 0,
            credits: packet.credits,
            used: 0,
            work: Work::Hold,
        };
        if session.first_answer(&self.me, packet, &self.zeros, out) {
            let key = self.table.insert(session);
            self.keys.insert(name, key);
        }
    }

    fn proceed(&mut self, key: Key, seq: Option<u32>, packet: &Packet<'_>, out: &mut Vec<Out>) {
        let Some(session) = self.table.get_mut(key) else { return };
        let in_order = seq == Some(session.in_seq);
        if !in_order {
            eprintln!("loadgen: expected seq {}, got {seq:?}", session.in_seq);
        }
        session.in_seq += 1;
        if !in_order || !session.step(&self.me, packet, &self.zeros, out) {
            self.end(key);
        }
    }

    fn end(&mut self, key: Key) {
        if let Some(session) = self.table.remove(key) {
            self.keys.remove(&(session.way.peer, session.id));
        }
    }

    /// Sends the keep-alives that are due, up to 128 sessions in a packet.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Out>) {
        if now_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = now_ms + TICK_MS;
        let places = self.table.capacity().div_ceil(ROUND_TICKS);
        let mut due: BTreeMap<Way, Vec<(SessionId, u32)>> = BTreeMap::new();
        for _ in 0..places {
            if let Some(session) = self.table.at_mut(self.next_place) {
                let seq = session.out_seq;
                session.out_seq += 1;
                due.entry(session.way.clone()).or_default().push((session.id.clone(), seq));
            }
            self.next_place = (self.next_place + 1) % self.table.capacity().max(1);
        }
        for (way, ids) in &due {
            for some in ids.chunks(zhttp::MAX_IDS) {
                let ids: Vec<Id<'_>> =
                    some.iter().map(|(id, seq)| Id { id, seq: Some(*seq) }).collect();
                out.push(packet_of(&self.me, way, &ids, |f| {
                    f.kind(Kind::KeepAlive);
                }));
            }
        }
    }
}

fn packet_of(me: &[u8], way: &Way, ids: &[Id<'_>], fill: impl FnOnce(&mut Fields<'_>)) -> Out {
    let mut packet = Vec::with_capacity(256);
    zhttp::write(&mut packet, &Head { from: me, ids, ext: Ext::OURS }, fill);
    Out { link: way.link, peer: way.peer.clone(), by_router: way.by_router, packet }
}

/// Path and query of an absolute URI.
fn target(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}

impl Session {
    fn send(&mut self, me: &[u8], out: &mut Vec<Out>, fill: impl FnOnce(&mut Fields<'_>)) {
        let id = Id { id: &self.id, seq: Some(self.out_seq) };
        out.push(packet_of(me, &self.way, &[id], fill));
        self.out_seq += 1;
    }

    /// Answers the request; whether the session goes on.
    fn first_answer(
        &mut self,
        me: &[u8],
        packet: &Packet<'_>,
        zeros: &[u8],
        out: &mut Vec<Out>,
    ) -> bool {
        let target = target(packet.uri);
        let path = target.split('?').next().unwrap_or(target);
        if packet.uri.starts_with("ws") {
            self.work = Work::Socket { echo: path == "/echo", waiting: VecDeque::new() };
            self.send(me, out, |f| {
                let none: [(&str, &str); 0] = [];
                f.status(101, "Switching Protocols").headers(none.into_iter()).credits(CREDITS);
            });
            return true;
        }
        if packet.more {
            self.work = Work::Upload { bytes: 0 };
            self.send(me, out, |f| {
                f.kind(Kind::Credit).credits(CREDITS);
            });
            return true;
        }
        match path {
            "/stream" => self.send(me, out, |f| {
                let headers = [("Content-Type", "text/event-stream")];
                f.status(200, "OK").headers(headers.into_iter());
                f.body(b"event: message\ndata: stream open\n\n").flag("more", true);
            }),
            "/download" => {
                let left = http::query(target, "bytes").and_then(|n| n.parse().ok()).unwrap_or(0);
                self.work = Work::Download { left };
                self.send(me, out, |f| {
                    let headers = [("Content-Length", left.to_string())];
                    f.status(200, "OK").headers(headers.into_iter()).flag("more", true);
                });
                return self.pour(me, zeros, out);
            }
            _ => {
                self.answer(me, out, b"hello world\n");
                return false;
            }
        }
        true
    }

    fn answer(&mut self, me: &[u8], out: &mut Vec<Out>, body: &[u8]) {
        self.send(me, out, |f| {
            let length = body.len().to_string();
            let headers = [("Content-Type", "text/plain"), ("Content-Length", &length)];
            f.status(200, "OK").headers(headers.into_iter()).body(body);
        });
    }

    /// Takes a later packet; whether the session goes on.
    fn step(&mut self, me: &[u8], packet: &Packet<'_>, zeros: &[u8], out: &mut Vec<Out>) -> bool {
        self.credits = self.credits.saturating_add(packet.credits);
        match packet.kind {
            Kind::Cancel | Kind::Error => return false,
            Kind::Close => {
                let code = packet.code;
                self.send(me, out, |f| {
                    f.kind(Kind::Close);
                    if let Some(code) = code {
                        f.code(code);
                    }
                });
                return false;
            }
            _ => {}
        }
        match &self.work {
            Work::Hold => true,
            Work::Download { .. } => self.pour(me, zeros, out),
            Work::Upload { bytes } => self.take(me, packet, *bytes, out),
            Work::Socket { .. } => {
                self.message(packet);
                self.flush(me, out);
                true
            }
        }
    }

    /// Sends as much of a download as credits allow.
    fn pour(&mut self, me: &[u8], zeros: &[u8], out: &mut Vec<Out>) -> bool {
        while let Work::Download { left } = &mut self.work {
            let size = (*left).min(self.credits.into()).min(PIECE as u64);
            if size == 0 && *left > 0 {
                return true;
            }
            *left -= size;
            let more = *left > 0;
            self.credits -= size as u32;
            self.send(me, out, |f| {
                f.body(&zeros[..size as usize]).flag("more", more);
            });
            if !more {
                return false;
            }
        }
        true
    }

    /// Takes body bytes of an upload, and answers when it is complete.
    fn take(&mut self, me: &[u8], packet: &Packet<'_>, had: u64, out: &mut Vec<Out>) -> bool {
        if packet.kind != Kind::Data {
            return true;
        }
        let bytes = had + packet.body.len() as u64;
        self.work = Work::Upload { bytes };
        if packet.more {
            self.grant(me, packet.body.len() as u32, out);
        } else {
            self.answer(me, out, format!("received {bytes}\n").as_bytes());
        }
        packet.more
    }

    /// Grants received bytes again, a third of the window at a time.
    fn grant(&mut self, me: &[u8], received: u32, out: &mut Vec<Out>) {
        self.used += received;
        if self.used >= GRANT {
            let used = std::mem::take(&mut self.used);
            self.send(me, out, |f| {
                f.kind(Kind::Credit).credits(used);
            });
        }
    }

    /// Notes what a WebSocket's packet asks to be sent back.
    fn message(&mut self, packet: &Packet<'_>) {
        let Work::Socket { echo, waiting } = &mut self.work else { return };
        let kind = match packet.kind {
            Kind::Ping => Kind::Pong,
            Kind::Data if *echo => Kind::Data,
            Kind::Data => {
                self.used += packet.body.len() as u32;
                return;
            }
            _ => return,
        };
        let binary = packet.content_type == b"binary";
        waiting.push_back(Piece { kind, binary, more: packet.more, body: packet.body.to_vec() });
    }

    /// Sends what waits for a WebSocket, as credits allow; only what left is granted again, so
    /// no more than the window ever waits.
    fn flush(&mut self, me: &[u8], out: &mut Vec<Out>) {
        while let Work::Socket { waiting, .. } = &mut self.work
            && let Some(mut piece) = waiting.pop_front()
        {
            let size = piece.body.len().min(self.credits as usize);
            let rest = piece.body.split_off(size);
            let cut = !rest.is_empty();
            if cut && (size == 0 || piece.kind != Kind::Data) {
                piece.body.extend(rest);
                waiting.push_front(piece);
                break;
            }
            if cut {
                let more = std::mem::replace(&mut piece.more, true);
                waiting.push_front(Piece { more, body: rest, ..piece });
            }
            self.credits -= size as u32;
            self.used += size as u32;
            let (kind, more) = (piece.kind, piece.more);
            let content_type = if piece.binary { "binary" } else { "text" };
            self.send(me, out, |f| {
                f.kind(kind);
                if kind == Kind::Data {
                    f.content_type(content_type);
                }
                f.body(&piece.body).flag("more", more);
            });
        }
        self.grant(me, 0, out);
    }
}
