//! A worker on virtual sockets and virtual time, with a peer that writes packets by hand.

#![allow(dead_code, reason = "each test file uses a part of the kit")]

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};

use connmgr::{Client, Config, Net, Output, Worker};
use zhttp::{Ext, Fields, Head, Id, Packet};

/// A WebSocket handshake, the last line open.
pub const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A client's frame: opcode and payload, with the bits of the first byte as they are given.
pub fn masked(bits: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![bits];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// One virtual socket.
#[derive(Debug)]
pub struct Sock {
    pub input: VecDeque<u8>,
    pub eof: bool,
    /// The connection was reset: nothing more can be read or written.
    pub reset: bool,
    /// Bytes that the worker has read.
    pub taken: usize,
    pub output: Vec<u8>,
    /// Bytes that the client's side still takes.
    pub room: usize,
    pub writes: usize,
    pub shut: bool,
    /// Most of one read: a record of TLS.
    pub record: usize,
    /// Plain text came where TLS is spoken: the next read says so.
    pub is_plain: bool,
}

/// All virtual sockets.
#[derive(Debug, Default)]
pub struct FakeNet {
    pub socks: HashMap<u32, Sock>,
    pub closed: Vec<(u32, Vec<u8>)>,
    /// Those of the closed that ended regularly.
    pub ended: Vec<u32>,
    /// Ciphertext that waits below.
    pub unsent: usize,
}

impl Net for FakeNet {
    fn read(&mut self, conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        let sock = self.socks.get_mut(&conn).ok_or(ErrorKind::NotConnected)?;
        if std::mem::take(&mut sock.is_plain) {
            return Err(ErrorKind::InvalidData.into());
        }
        if sock.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let n = buf.len().min(sock.input.len()).min(sock.record);
        sock.taken += n;
        if n == 0 {
            return if sock.eof { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        for (to, byte) in buf.iter_mut().zip(sock.input.drain(..n)) {
            *to = byte;
        }
        Ok(n)
    }

    fn write(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let sock = self.socks.get_mut(&conn).ok_or(ErrorKind::NotConnected)?;
        sock.writes += 1;
        if sock.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let before = sock.room;
        for buf in bufs {
            let n = buf.len().min(sock.room);
            sock.output.extend_from_slice(&buf[..n]);
            sock.room -= n;
        }
        if before == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(before - sock.room) }
    }

    fn want_write(&mut self, _conn: u32, _on: bool) {}

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn shutdown(&mut self, conn: u32) {
        if let Some(sock) = self.socks.get_mut(&conn) {
            sock.shut = true;
        }
    }

    fn close(&mut self, conn: u32) {
        let sock = self.socks.remove(&conn).expect("closed once");
        self.closed.push((conn, sock.output));
    }

    fn end(&mut self, conn: u32) {
        self.ended.push(conn);
        self.close(conn);
    }
}

/// A packet that the worker sent, without borrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Empty for a first packet.
    pub to: String,
    pub kind: String,
    pub ids: Vec<(String, u32)>,
    pub method: String,
    pub uri: String,
    pub body: Vec<u8>,
    pub credits: u32,
    pub more: bool,
    pub peer: String,
    pub code: Option<u16>,
    pub content_type: String,
    pub stream: bool,
}

/// The worker, its sockets and the time.
pub struct Bench {
    pub worker: Worker,
    pub net: FakeNet,
    pub now: u64,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Config { first_counter: 0x2a, ..Config::default() })
    }

    pub fn with(config: Config) -> Self {
        Self { worker: Worker::new(config), net: FakeNet::default(), now: 1_000 }
    }

    /// A client connects.
    pub fn connect(&mut self) -> u32 {
        self.connect_with(Client::default())
    }

    /// A client connects to a listener, of req mode or not.
    pub fn connect_to(&mut self, req: bool) -> u32 {
        self.connect_with(Client { req, ..Client::default() })
    }

    /// A client connects, with TLS if `secure`.
    pub fn connect_as(&mut self, secure: bool) -> u32 {
        self.connect_with(Client { secure, ..Client::default() })
    }

    fn connect_with(&mut self, client: Client) -> u32 {
        let address = "192.0.2.9:40312".parse().ok();
        let conn = self.worker.accept(self.now, Client { address, ..client });
        let sock = Sock {
            input: VecDeque::new(),
            eof: false,
            reset: false,
            taken: 0,
            output: Vec::new(),
            room: usize::MAX,
            writes: 0,
            shut: false,
            record: usize::MAX,
            is_plain: false,
        };
        assert!(self.net.socks.insert(conn, sock).is_none());
        conn
    }

    /// The client sends bytes; the worker reads them and ends its turn.
    pub fn client(&mut self, conn: u32, bytes: &[u8]) {
        if let Some(sock) = self.net.socks.get_mut(&conn) {
            sock.input.extend(bytes);
            self.worker.readable(self.now, &mut self.net, conn, false);
        }
        self.end();
    }

    /// The client closes, or half closes.
    pub fn leave(&mut self, conn: u32) {
        if let Some(sock) = self.net.socks.get_mut(&conn) {
            sock.eof = true;
            self.worker.readable(self.now, &mut self.net, conn, true);
        }
        self.end();
    }

    /// The connection is reset by the client or on the way.
    pub fn reset(&mut self, conn: u32) {
        if let Some(sock) = self.net.socks.get_mut(&conn) {
            sock.reset = true;
            self.worker.readable(self.now, &mut self.net, conn, true);
        }
        self.end();
    }

    /// Bytes that the worker has read from the client.
    pub fn taken(&self, conn: u32) -> usize {
        self.net.socks[&conn].taken
    }

    /// The client takes nothing from now on.
    pub fn block(&mut self, conn: u32) {
        if let Some(sock) = self.net.socks.get_mut(&conn) {
            sock.room = 0;
        }
    }

    /// Nothing is left of any connection or session.
    pub fn nothing_left(&self) {
        assert!(self.net.socks.is_empty(), "open: {:?}", self.net.socks.keys());
        assert!(self.worker.is_empty(), "{} sessions left", self.worker.len());
        assert_eq!(self.worker.pinned(), 0);
    }

    /// The client's side takes `room` more bytes.
    pub fn room(&mut self, conn: u32, room: usize) {
        if let Some(sock) = self.net.socks.get_mut(&conn) {
            sock.room = room;
            self.worker.writable(self.now, &mut self.net, conn);
        }
        self.end();
    }

    /// A peer's packet; the turn goes on.
    pub fn apply(&mut self, from: &str, ids: &[(&str, u32)], fill: impl FnOnce(&mut Fields<'_>)) {
        let packet = packet(from, ids, Ext::OURS, fill);
        self.worker.packet(self.now, &mut self.net, &packet);
    }

    /// A peer's packet and the end of the turn.
    pub fn peer(&mut self, from: &str, ids: &[(&str, u32)], fill: impl FnOnce(&mut Fields<'_>)) {
        self.apply(from, ids, fill);
        self.end();
    }

    pub fn end(&mut self) {
        self.worker.end_turn(self.now, &mut self.net);
    }

    /// Lets time pass; the worker is called at each of its deadlines.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(next) = self.worker.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.worker.timeout(self.now, &mut self.net);
            self.end();
        }
        self.now = end;
    }

    /// What the worker sent since the last call.
    pub fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(output) = self.worker.poll_output() {
            let (to, message) = match output {
                Output::First { packet, .. } => (String::new(), packet),
                Output::Req { .. } => panic!("a request of req mode"),
                Output::To { peer, packet } => {
                    (String::from_utf8(peer.to_vec()).expect("text"), packet)
                }
            };
            sent.extend(zhttp::split(&message).map(|bytes| read(&to, bytes)));
        }
        sent
    }

    /// Bytes that the client got since the last call.
    pub fn got(&mut self, conn: u32) -> String {
        String::from_utf8_lossy(&self.got_bytes(conn)).into_owned()
    }

    /// The same, where they need not be text.
    pub fn got_bytes(&mut self, conn: u32) -> Vec<u8> {
        match self.net.socks.get_mut(&conn) {
            Some(sock) => std::mem::take(&mut sock.output),
            None => {
                let place = self.net.closed.iter().rposition(|(c, _)| *c == conn).expect("known");
                std::mem::take(&mut self.net.closed[place].1)
            }
        }
    }

    pub fn is_open(&self, conn: u32) -> bool {
        self.net.socks.contains_key(&conn)
    }

    /// A request that was sent on; gives its session id.
    pub fn request(&mut self, conn: u32, text: &str) -> String {
        self.client(conn, text.as_bytes());
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent[0].ids[0].0.clone()
    }

    /// A client's WebSocket handshake with more headers; gives its session id.
    pub fn handshake(&mut self, conn: u32, headers: &str) -> String {
        self.request(conn, &format!("{HANDSHAKE}{headers}\r\n"))
    }

    /// A WebSocket that `from` has accepted with so many credits; its next sequence number is 1.
    pub fn websocket(&mut self, from: &str, credits: u32) -> (u32, String) {
        let conn = self.connect();
        let id = self.handshake(conn, "");
        self.peer(from, &[(&id, 0)], |f| {
            f.status(101, "Switching Protocols").credits(credits);
        });
        assert!(self.got(conn).starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        (conn, id)
    }

    /// A stream that is held by `from`; its next sequence number is 1.
    pub fn held(&mut self, from: &str) -> (u32, String) {
        let conn = self.connect();
        let id = self.request(conn, "GET /s HTTP/1.1\r\nHost: h\r\n\r\n");
        self.peer(from, &[(&id, 0)], |f| {
            f.status(200, "OK").flag("more", true);
        });
        assert!(self.got(conn).ends_with("chunked\r\n\r\n"));
        (conn, id)
    }
}

pub fn packet(
    from: &str,
    ids: &[(&str, u32)],
    ext: Ext,
    fill: impl FnOnce(&mut Fields<'_>),
) -> Vec<u8> {
    let ids: Vec<Id<'_>> =
        ids.iter().map(|(id, seq)| Id { id: id.as_bytes(), seq: Some(*seq) }).collect();
    let mut out = Vec::new();
    zhttp::write(&mut out, &Head { from: from.as_bytes(), ids: &ids, ext }, fill);
    out
}

fn read(to: &str, bytes: &[u8]) -> Sent {
    let packet = Packet::parse(bytes).expect("packet");
    assert_eq!(packet.from, b"connmgr");
    assert!(packet.ext.multi && packet.ext.batch);
    let id = |id: Id<'_>| (String::from_utf8(id.id.to_vec()).expect("text"), id.seq.expect("seq"));
    Sent {
        to: to.into(),
        kind: packet.kind.name().unwrap_or("data").into(),
        ids: packet.ids.iter().map(id).collect(),
        method: packet.method.into(),
        uri: packet.uri.into(),
        body: packet.body.to_vec(),
        credits: packet.credits,
        more: packet.more,
        peer: packet.peer_address.into(),
        code: packet.code,
        content_type: String::from_utf8(packet.content_type.to_vec()).expect("text"),
        stream: packet.stream,
    }
}
