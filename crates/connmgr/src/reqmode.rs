//! Req mode: a whole request in one packet, the whole response in one (`spec/connmgr.md §5`,
//! `spec/zhttp.md §9.4`). There is no session with a peer: no sequence, no credits, no
//! keep-alives, nobody to cancel. The body is collected here as it comes.

use std::fmt::Write as _;

use arrayvec::ArrayString;
use http1::{BodyKind, Decoder, RequestHead};
use zhttp::{Ext, Head, HeaderBuf, Id, Kind, Packet};

use crate::Net;
use crate::answer::Answer;
use crate::conn::{BODY, Conn, EXPECT, REQ, State};
use crate::packets::TURN_BYTES_MAX;
use crate::response::SharedBody;
use crate::session::Session;
use crate::worker::{Output, Worker};

/// What a packet of req mode says about us: nothing that only running sessions have.
const EXT: Ext = Ext { multi: true, batch: false, quiet: false };

/// A request whose body is being collected.
#[derive(Debug)]
pub(crate) struct Gather {
    method: Box<str>,
    uri: String,
    headers: HeaderBuf,
    body: Vec<u8>,
}

impl Gather {
    fn new(head: &RequestHead<'_, '_>, uri: String) -> Self {
        let mut headers = HeaderBuf::new();
        for header in head.headers {
            headers.push(header.name, header.value);
        }
        Self { method: head.method.into(), uri, headers, body: Vec::new() }
    }

    /// Bytes of the body so far.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }
}

impl Worker {
    /// Opens the session. The request leaves once its body is complete.
    pub(crate) fn start_req(&mut self, slot: u32, head: &RequestHead<'_, '_>, uri: String) {
        let limit = self.config.body_buffer_size;
        let counter = self.new_counter();
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.set(BODY, !head.body.is_empty());
        if matches!(head.body, BodyKind::Length(size) if size > u64::from(limit)) {
            return self.answer(slot, &Answer::FAILED);
        }
        conn.state = State::Request;
        conn.set(EXPECT, head.expects_continue);
        conn.decoder = Decoder::new(head.body);
        (conn.counter, conn.window, conn.due) = (counter, limit, 0);
        // One byte more than fits, so that a body that is too long shows itself.
        conn.out_credits = limit.saturating_add(1);
        self.log_request(self.session(slot, counter), head.method, &uri);
        let gather = Gather::new(head, uri);
        if head.body.is_empty() {
            self.send_req(slot, &gather);
        } else if let Some(conn) = self.conns.at_mut(slot) {
            conn.gather = Some(Box::new(gather));
        }
    }

    /// Adds the bytes in `self.body` to the request's body, and sends it if that is the `end`.
    pub(crate) fn collect(&mut self, slot: u32, end: bool) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let Some(gather) = &mut conn.gather else { return };
        gather.body.extend_from_slice(&self.body);
        if gather.body.len() > self.config.body_buffer_size as usize {
            return self.answer(slot, &Answer::FAILED);
        }
        if end && let Some(gather) = conn.gather.take() {
            self.send_req(slot, &gather);
        }
    }

    fn send_req(&mut self, slot: u32, request: &Gather) {
        let Some(conn) = self.conns.at(slot) else { return };
        let session = self.session(slot, conn.counter);
        let ids = [Id { id: &session.text(), seq: None }];
        let head = Head { from: b"", ids: &ids, ext: EXT };
        let mut packet = Vec::with_capacity(256 + request.headers.len() + request.body.len());
        zhttp::write(&mut packet, &head, |f| {
            f.method(&request.method).uri(&request.uri);
            f.header_list(request.headers.as_headers()).body(&request.body);
            let mut text = ArrayString::<46>::new();
            if let Some((ip, port)) = conn.address.get()
                && write!(text, "{ip}").is_ok()
            {
                f.peer(&text, port);
            }
        });
        self.counters.packets_out += 1;
        self.outputs.push_back(Output::Req { session, packet });
    }

    /// Applies one message of the req socket: the response to one request. What it writes leaves
    /// with [`Worker::end_turn`].
    pub fn req_packet(&mut self, now: u64, net: &mut impl Net, message: &[u8]) {
        self.now = now;
        match Packet::parse(message) {
            Ok(packet) => self.apply_req(&packet),
            Err(error) => {
                self.counters.malformed += 1;
                log::warn!("server-worker {}: zhttp parse error: {error}", self.config.worker);
            }
        }
        if self.turn.len() > TURN_BYTES_MAX {
            self.flush_all(net);
        }
    }

    fn apply_req(&mut self, packet: &Packet<'_>) {
        self.counters.packets_in += 1;
        let session = packet.ids.only().and_then(|id| Session::parse(id.id));
        let has = |session: &Session| {
            let conn = self.conns.at(session.slot);
            session.worker == self.config.worker
                && conn.is_some_and(|conn| waits_for(conn, session.counter))
        };
        let Some(session) = session.filter(has) else {
            self.counters.unknown += 1;
            return;
        };
        if packet.kind != Kind::Data {
            self.counters.req_ignored += 1;
            let kind = packet.kind.name().unwrap_or("unknown");
            return log::debug!("server-conn {session}: ignoring packet: {kind}");
        }
        self.counters.deliveries += 1;
        self.data(session.slot, packet, &mut SharedBody::default());
    }
}

/// Whether the request of that counter has been sent and waits for its response.
fn waits_for(conn: &Conn, counter: u32) -> bool {
    conn.has(REQ) && conn.is_session(counter) && conn.gather.is_none()
}
