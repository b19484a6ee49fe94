//! The connection manager's engine with any clients, peers and times. What must hold: packets of
//! a session are numbered without a gap, nothing follows a cancel, memory for blocked clients has
//! a bound, and nothing is left when all is over.

use std::collections::HashMap;

use connmgr::{Config, Output, Worker};
use zhttp::{Ext, Head, Id, Kind, Packet};

use crate::input::Input;
use crate::net::{Sock, Sockets};

/// Clients at a time.
const CLIENTS_MAX: usize = 8;

/// What a blocked client may keep: its credits in the smallest chunks, a head, an answer.
const PINNED_MAX: usize = 100_000;

/// After this no deadline is left, whatever came before.
const ALL_OVER_MS: u64 = 4_000_000;

const TEXTS: [&[u8]; 12] = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\nExpect: 100-continue\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"hello",
    b"GET /half HTTP/1.1\r\nHo",
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
];

const KINDS: [Kind; 10] = [
    Kind::Data,
    Kind::Error,
    Kind::Credit,
    Kind::KeepAlive,
    Kind::Cancel,
    Kind::HandoffStart,
    Kind::HandoffProceed,
    Kind::Close,
    Kind::Ping,
    Kind::Pong,
];

const CODES: [u16; 8] = [200, 200, 100, 101, 204, 304, 500, 1000];

/// What the peers know of a session.
#[derive(Default)]
struct Known {
    /// Next number expected from the engine.
    from_engine: u32,
    /// Next number that a peer sends.
    to_engine: u32,
    cancelled: bool,
}

struct World {
    worker: Worker,
    sockets: Sockets,
    now: u64,
    conns: Vec<u32>,
    ids: Vec<Vec<u8>>,
    known: HashMap<Vec<u8>, Known>,
}

/// Plays the bytes as a list of events.
pub fn engine(data: &[u8]) {
    let mut world = World {
        worker: Worker::new(Config { buffer_size: 1024, ..Config::default() }),
        sockets: Sockets::default(),
        now: 1_000,
        conns: Vec::new(),
        ids: Vec::new(),
        known: HashMap::new(),
    };
    let mut input = Input(data);
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.end();
    world.pass(ALL_OVER_MS);
    assert!(world.sockets.0.is_empty(), "a connection outlived its deadlines");
    assert!(world.worker.is_empty(), "a session was left");
    assert_eq!(world.worker.pinned(), 0);
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 12 {
            0 => self.connect(),
            1..=3 => {
                let conn = self.conn(input);
                self.client(conn, TEXTS[usize::from(input.byte()) % TEXTS.len()]);
            }
            4 => {
                let conn = self.conn(input);
                self.client(conn, input.piece());
            }
            5 => self.leave(input),
            6 => self.room(input),
            7..=9 => self.packet(input),
            10 => {
                self.worker.packet(self.now, &mut self.sockets, input.piece());
                self.end();
            }
            _ => self.other(input),
        }
        self.end();
        assert!(self.worker.pinned() <= CLIENTS_MAX * PINNED_MAX);
    }

    fn connect(&mut self) {
        if self.sockets.0.len() < CLIENTS_MAX {
            let address = "192.0.2.9:40312".parse().ok();
            let conn = self.worker.accept(self.now, address);
            let sock = Sock { room: usize::MAX, ..Sock::default() };
            assert!(self.sockets.0.insert(conn, sock).is_none());
            self.conns.push(conn);
        }
    }

    /// A connection that was made; it may be closed by now.
    fn conn(&mut self, input: &mut Input<'_>) -> u32 {
        if self.conns.is_empty() {
            self.connect();
        }
        let pick = usize::from(input.byte()) % self.conns.len();
        self.conns[pick]
    }

    fn client(&mut self, conn: u32, bytes: &[u8]) {
        if let Some(sock) = self.sockets.0.get_mut(&conn).filter(|sock| !sock.eof) {
            sock.input.extend(bytes);
            self.worker.readable(self.now, &mut self.sockets, conn, false);
        }
    }

    fn leave(&mut self, input: &mut Input<'_>) {
        let conn = self.conn(input);
        if let Some(sock) = self.sockets.0.get_mut(&conn) {
            sock.eof = true;
            self.worker.readable(self.now, &mut self.sockets, conn, true);
        }
    }

    fn room(&mut self, input: &mut Input<'_>) {
        let conn = self.conn(input);
        let room = input.size();
        if let Some(sock) = self.sockets.0.get_mut(&conn) {
            sock.room = if room == 0 { usize::MAX } else { room - 1 };
            self.worker.writable(self.now, &mut self.sockets, conn);
        }
    }

    /// A packet that a peer could send, rarely out of order.
    fn packet(&mut self, input: &mut Input<'_>) {
        if self.ids.is_empty() {
            return;
        }
        let id = self.ids[usize::from(input.byte()) % self.ids.len()].clone();
        let choice = input.byte();
        let known = self.known.get_mut(&id).expect("listed");
        let seq = known.to_engine + u32::from(choice == 255);
        known.to_engine = seq + 1;
        let from: &[u8] = if choice & 64 == 0 { b"px" } else { b"hd" };
        let kind = KINDS[usize::from(choice & 63) % KINDS.len()];
        let (code, size, more) = (input.byte(), input.size(), input.byte());
        let ids = [Id { id: &id, seq: Some(seq) }];
        let mut out = Vec::new();
        zhttp::write(&mut out, &Head { from, ids: &ids, ext: Ext::OURS }, |f| {
            f.kind(kind).body(&vec![b'b'; size]).flag("more", more & 1 != 0);
            if more & 2 != 0 {
                f.status(CODES[usize::from(code) % CODES.len()], "Any");
            }
            if more & 4 != 0 {
                f.headers([("Content-Length", code.to_string())].into_iter());
            }
            f.credits(u32::from(more >> 3) * 100);
        });
        self.worker.packet(self.now, &mut self.sockets, &out);
    }

    fn other(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 => self.worker.peer_gone(self.now, b"px"),
            1 => self.worker.peer_gone(self.now, b"hd"),
            2 => self.worker.push_disconnected(self.now),
            3 => self.worker.probe(self.now),
            _ => {
                let ms = u64::from(input.byte()) * 300;
                self.pass(ms);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        let mut calls = 0;
        while let Some(next) = self.worker.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.worker.timeout(self.now, &mut self.sockets);
            self.end();
            calls += 1;
            assert!(calls < 1_000_000, "the time does not pass");
        }
        self.now = end;
    }

    /// Ends the turn and checks what was sent.
    fn end(&mut self) {
        self.worker.end_turn(self.now, &mut self.sockets);
        while let Some(output) = self.worker.poll_output() {
            let packet = match output {
                Output::First { packet, .. } | Output::To { packet, .. } => packet,
                // No connection of this target is of req mode.
                Output::Req { .. } => unreachable!("req mode without a req listener"),
            };
            for bytes in zhttp::split(&packet) {
                let packet = Packet::parse(bytes).expect("what is sent can be read");
                for id in packet.ids.iter() {
                    self.sent(id, packet.kind);
                }
            }
        }
    }

    fn sent(&mut self, id: Id<'_>, kind: Kind) {
        let known = self.known.entry(id.id.to_vec()).or_insert_with(|| {
            self.ids.push(id.id.to_vec());
            Known::default()
        });
        assert!(!known.cancelled, "{kind:?} after a cancel");
        assert_eq!(id.seq, Some(known.from_engine), "{kind:?}");
        known.from_engine += 1;
        known.cancelled = kind == Kind::Cancel;
    }
}
