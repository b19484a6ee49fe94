//! From a request head to the first ZHTTP packet (`spec/connmgr.md §4.1`, `spec/zhttp.md §3.1`).

use arrayvec::ArrayString;
use http1::{Decoder, HeaderSlots, RequestHead, Version, parse_request};
use std::fmt::Write as _;
use zhttp::{Ext, Head, Id};

use crate::answer::Answer;
use crate::conn::{BODY, EXPECT, HEAD, PERSIST, REQ, SECURE, State, UNTAKEN, V10, WS};
use crate::session::Session;
use crate::target;
use crate::worker::{Output, Worker};
use crate::ws::{self, Ws};

/// Longest URI that is passed on.
const URI_MAX: usize = 4096;

/// First byte of a TLS client's hello (RFC 8446 §5.1); no method starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

impl Worker {
    /// Reads a head from the start of `bytes` and sends the request on. Gives the bytes dealt
    /// with: 0 while the head is incomplete.
    pub(crate) fn head(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let blank = blank_lines(bytes);
        let capacity = self.head_capacity(slot);
        if self.too_many_blanks(slot, blank) {
            return self.refuse(slot, &Answer::too_large(capacity), bytes.len());
        }
        let (bytes, full) = (&bytes[blank..], bytes.len() >= capacity);
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return self.refuse_tls(slot, blank + bytes.len());
        }
        let mut slots = HeaderSlots::new();
        match parse_request(bytes, &mut slots) {
            Ok(Some(head)) => {
                self.request(slot, &head);
                blank + head.size
            }
            Ok(None) if blank > 0 || !full => blank,
            Ok(None) if self.grow(slot) => 0,
            Ok(None) => self.refuse(slot, &Answer::too_large(capacity), bytes.len()),
            Err(reason) => self.refuse(slot, &Answer::unreadable(reason), blank + bytes.len()),
        }
    }

    /// Counts the bytes of blank lines before a head: as many as a head may have are skipped, for
    /// a client could send them for ever.
    fn too_many_blanks(&mut self, slot: u32, blank: usize) -> bool {
        let Some(conn) = self.conns.at_mut(slot).filter(|_| blank > 0) else { return false };
        conn.left += blank as u64;
        conn.left > u64::from(self.config.buffer_size)
    }

    /// Answers something that is no request; as HTTP/1.0, for its version is not known.
    pub(crate) fn refuse(&mut self, slot: u32, answer: &Answer, used: usize) -> usize {
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.set(V10, true);
        }
        self.answer(slot, answer);
        used
    }

    /// The client speaks TLS. The answer is for who looks at the bytes; the log line, once, for
    /// the operator.
    fn refuse_tls(&mut self, slot: u32, used: usize) -> usize {
        if self.counters.tls_on_plain == 0 {
            log::info!(
                "a client spoke TLS on a plain HTTP port: is a port missing in https_ports, or is \
                 an https URL wrong?"
            );
        }
        self.counters.tls_on_plain += 1;
        self.refuse(slot, &Answer::TLS_ON_PLAIN, used)
    }

    fn request(&mut self, slot: u32, head: &RequestHead<'_, '_>) {
        self.counters.requests += 1;
        self.shrink(slot);
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.set(V10, head.version == Version::V10);
        conn.set(PERSIST, head.persistent);
        conn.set(HEAD, head.method == "HEAD");
        let (req, wants_ws) = (conn.has(REQ), ws::is_wanted(head));
        let ws = if wants_ws { Ws::open(&self.config, head) } else { None };
        let scheme = match (wants_ws, conn.has(SECURE)) {
            (false, false) => "http",
            (false, true) => "https",
            (true, false) => "ws",
            (true, true) => "wss",
        };
        let answer = match target::uri(head, scheme) {
            _ if wants_ws && req => Answer::REQ_WEBSOCKET,
            _ if wants_ws && ws.is_none() => Answer::BAD_WEBSOCKET,
            Ok(uri) if uri.len() <= URI_MAX && req => return self.start_req(slot, head, uri),
            Ok(uri) if uri.len() <= URI_MAX => return self.start(slot, head, &uri, ws),
            Ok(_) => Answer::FAILED,
            Err(reason) => Answer::unreadable(reason),
        };
        self.answer(slot, &answer);
    }

    /// Opens the session and sends its first packet.
    fn start(&mut self, slot: u32, head: &RequestHead<'_, '_>, uri: &str, ws: Option<Box<Ws>>) {
        let counter = self.new_counter();
        let buffer_size = self.config.buffer_size;
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.state = State::Request;
        conn.left = 0;
        conn.set(UNTAKEN, true);
        conn.set(WS, ws.is_some());
        // Nothing follows a WebSocket, nor its refusal.
        conn.set(PERSIST, head.persistent && ws.is_none());
        conn.ws = ws;
        conn.set(BODY, !head.body.is_empty());
        conn.set(EXPECT, head.expects_continue);
        conn.decoder = Decoder::new(head.body);
        (conn.counter, conn.in_seq, conn.out_seq) = (counter, 0, 1);
        (conn.out_credits, conn.window, conn.due) = (0, buffer_size, 0);
        let address = conn.address.get();
        let session = Session { worker: self.config.worker, slot, counter };
        let packet = first_packet(&self.config.instance, session, head, uri, buffer_size, address);
        self.counters.packets_out += 1;
        self.outputs.push_back(Output::First { session, packet });
        self.request_waits(slot);
        self.log_request(session, head.method, uri);
    }

    pub(crate) fn log_request(&self, session: Session, method: &str, uri: &str) {
        log::debug!("server-conn {session}: assigning id");
        log::debug!("server-conn {session}: request: {method} {uri}");
    }

    /// Bytes of a head that this connection may keep now.
    pub(crate) fn head_capacity(&self, slot: u32) -> usize {
        let blocks = self.conns.at(slot).map_or(0, |conn| usize::from(conn.blocks));
        self.config.buffer_size as usize * (1 + blocks)
    }
}

/// The bytes of blank lines before a head, which are skipped (RFC 9112 §2.2).
fn blank_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(after) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
        rest = after;
    }
    bytes.len() - rest.len()
}

fn first_packet(
    instance: &[u8],
    session: Session,
    head: &RequestHead<'_, '_>,
    uri: &str,
    credits: u32,
    address: Option<(std::net::IpAddr, u16)>,
) -> Vec<u8> {
    let ids = [Id { id: &session.text(), seq: Some(0) }];
    let packet = Head { from: instance, ids: &ids, ext: Ext::OURS };
    let mut out = Vec::with_capacity(256 + uri.len() + head.size);
    zhttp::write(&mut out, &packet, |f| {
        f.method(head.method).uri(uri);
        f.headers(head.headers.iter().map(|h| (h.name, h.value)));
        f.credits(credits).flag("more", !head.body.is_empty());
        f.flag("stream", !ws::is_wanted(head)).flag("router-resp", true);
        let mut text = ArrayString::<46>::new();
        if let Some((ip, port)) = address
            && write!(text, "{ip}").is_ok()
        {
            f.peer(&text, port);
        }
    });
    out
}
