//! Targets that are ZHTTP workers behind ZeroMQ sockets (spec/routes.md §4.1): the proxy is the
//! requester (spec/zhttp.md §9.2, §9.4). What a worker says becomes the same events as those of
//! an HTTP backend.

use std::sync::Arc;

use evloop::arena::Key;
use origin::{Error, Event};
use routes::{Destination, Target};
use zhttp::{Ext, Fields, Head, HeaderBuf, Headers, Id, Kind, Packet};

use crate::backend::ORIGIN_ERROR;
use crate::forward::Place;
use crate::session::{Session, Stage};
use crate::ws::Back;
use crate::zmq_socket::{Socket, headers_of};
use crate::{Output, Proxy, Settings};

/// Credits for a response's body at its start, bytes (spec/zhttp.md §6).
const RESPONSE_CREDITS: u32 = 200_000;

/// Most bytes of body in one packet of a stream.
pub(crate) const PACKET_BODY_MAX: usize = 100_000;

/// Most bytes of body either way in request mode (spec/routes.md §4.1).
const REQ_BODY_MAX: usize = 1_000_000;

/// Names the outside client where workers have their address.
pub(crate) const OUTSIDE: &str = "";

const UNREACHABLE: &str = "Error: zhttp service for route is unreachable.";

/// One request to a worker.
#[derive(Debug)]
pub(crate) struct ZmqBack {
    spec: Arc<str>,
    /// One packet each way.
    req: bool,
    /// Which of the proxy's workers asks.
    asker: usize,
    /// Tells this request from earlier ones of the session.
    number: u32,
    /// The worker, once it has spoken.
    peer: Option<Arc<[u8]>>,
    in_seq: u32,
    out_seq: u32,
    pub credits: usize,
    body: Vec<u8>,
    /// More body comes from the client.
    more: bool,
    sent_all: bool,
    pub headed: bool,
    paused: bool,
    owed: u32,
    /// The worker gives the request to another: nothing is sent until that one has spoken.
    pub handing_over: bool,
    last_in_ms: u64,
    /// It is a WebSocket.
    pub socket: Option<Box<Socket>>,
}

/// A request as it goes to a worker.
pub(crate) struct Ask<'a> {
    pub method: &'a str,
    pub place: &'a Place,
    pub headers: Headers<'a>,
    pub body: &'a [u8],
    /// More body comes.
    pub more: bool,
    /// The worker gets none of the body until it has said how much it takes.
    pub hold: bool,
}

impl ZmqBack {
    fn id(&self, key: Key) -> String {
        format!("{:x}-{:x}-{:x}-{:x}", self.asker, key.index, key.generation, self.number)
    }

    /// Whether nothing was heard for too long.
    pub fn is_silent(&self, now: u64) -> bool {
        !self.req && now.saturating_sub(self.last_in_ms) >= zhttp::SESSION_EXPIRY_MS
    }
}

/// The worker of the proxy that a request is from, its session there, and its number.
fn parse_id(id: &[u8]) -> Option<(usize, Key, u32)> {
    let mut parts = std::str::from_utf8(id).ok()?.splitn(4, '-');
    let mut number = || u32::from_str_radix(parts.next()?, 16).ok();
    let asker = number()? as usize;
    Some((asker, Key { index: number()?, generation: number()? }, number()?))
}

/// Which of the proxy's workers a message of a ZHTTP worker is for, each once.
pub(crate) fn askers(message: &[u8]) -> Vec<usize> {
    let packets = zhttp::split(message).filter_map(|bytes| Packet::parse(bytes).ok());
    let mut found: Vec<usize> = packets
        .flat_map(|packet| packet.ids.iter().filter_map(|id| parse_id(id.id)).collect::<Vec<_>>())
        .map(|(asker, _, _)| asker)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

pub(crate) fn error_of(condition: &str) -> Error {
    match condition {
        "policy-violation" => Error::Policy,
        "remote-connection-failed" => Error::Connect,
        "connection-timeout" => Error::Timeout,
        "tls-error" => Error::Tls,
        _ => Error::BadResponse,
    }
}

impl Proxy {
    /// Sends a request to a worker. `spec` as in the route.
    pub(crate) fn start_zmq(&mut self, key: Key, spec: &str, req: bool, ask: &Ask<'_>) {
        let now = self.now;
        self.zmq_requests = self.zmq_requests.wrapping_add(1);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(entry) = session.entry.clone() else { return };
        let Some(target) = entry.route.targets.get(session.target) else { return };
        if req && ask.more {
            // The whole body is awaited; see `zmq_body`.
            return;
        }
        if req && ask.body.len() > REQ_BODY_MAX {
            return self.answer_error(
                key,
                502,
                ORIGIN_ERROR,
                "The request is too large for the target.",
            );
        }
        let is_socket = session.ws.as_ref().is_some_and(|ws| matches!(ws.back, Back::Socket));
        let held = if ask.hold && !req { ask.body } else { b"" };
        let body = if held.is_empty() { ask.body } else { b"" };
        let more = ask.more || !held.is_empty();
        let back = ZmqBack {
            spec: spec.into(),
            req,
            asker: self.settings.worker,
            number: self.zmq_requests,
            peer: None,
            in_seq: 0,
            out_seq: 1,
            credits: 0,
            body: held.to_vec(),
            more: ask.more,
            sent_all: !more,
            headed: false,
            paused: false,
            owed: 0,
            handing_over: false,
            last_in_ms: now,
            socket: is_socket.then(Box::default),
        };
        let id = back.id(key);
        let ids = [Id { id: id.as_bytes(), seq: (!req).then_some(0) }];
        let from = if req { &b""[..] } else { self.settings.target_id.as_bytes() };
        let head = Head { from, ids: &ids, ext: Ext { multi: !req, batch: false, quiet: false } };
        let host = crate::forward::host(ask.place, target);
        let uri = uri(is_socket, target, host, &ask.place.target);
        let headers = with_host(ask.headers, host);
        let mut message = Vec::with_capacity(512 + body.len());
        zhttp::write(&mut message, &head, |fields| {
            if !is_socket {
                fields.method(ask.method);
            }
            fields.uri(&uri).header_list(headers.as_headers()).body(body);
            if req {
                fields.int("max-size", REQ_BODY_MAX as i64);
            } else {
                fields.credits(RESPONSE_CREDITS).flag("stream", !is_socket);
                fields.flag("router-resp", true).flag("more", more);
            }
            fields.flag("ignore-policies", target.trusted);
            say_host(fields, target);
        });
        let spec = Arc::clone(&back.spec);
        session.backend = true;
        session.zmq = Some(Box::new(back));
        self.outputs.push_back(Output::Worker { spec, req, key, to: None, message });
    }

    /// Sends a packet of a running request.
    pub(crate) fn send_zmq(&mut self, key: Key, fill: impl FnOnce(&mut Fields<'_>)) {
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        let may_send = !(back.req || back.handing_over);
        let Some(peer) = back.peer.clone().filter(|_| may_send) else { return };
        let id = back.id(key);
        let ids = [Id { id: id.as_bytes(), seq: Some(back.out_seq) }];
        back.out_seq = back.out_seq.wrapping_add(1);
        let (spec, req) = (Arc::clone(&back.spec), back.req);
        let from = self.settings.target_id.as_bytes();
        let mut message = Vec::new();
        let ext = Ext { multi: true, batch: false, quiet: false };
        zhttp::write(&mut message, &Head { from, ids: &ids, ext }, fill);
        self.outputs.push_back(Output::Worker { spec, req, key, to: Some(peer), message });
    }

    /// More body of the request.
    pub(crate) fn zmq_body(&mut self, key: Key, data: &[u8], last: bool) {
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        back.body.extend_from_slice(data);
        back.more = !last;
        self.flush_zmq(key);
    }

    fn flush_zmq(&mut self, key: Key) {
        loop {
            let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else {
                return;
            };
            let size = back.body.len().min(back.credits).min(PACKET_BODY_MAX);
            let whole = !back.more && size == back.body.len();
            let waits = back.peer.is_none() || back.handing_over;
            if waits || back.sent_all || (size == 0 && !whole) {
                return;
            }
            let rest = back.body.split_off(size);
            let piece = std::mem::replace(&mut back.body, rest);
            back.credits -= size;
            back.sent_all = whole;
            let left = back.body.len();
            self.send_zmq(key, |fields| {
                fields.body(&piece).flag("more", !whole);
            });
            self.return_credits(key, left);
        }
    }

    /// A message of a worker, without its envelope.
    pub fn worker_packet(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for bytes in zhttp::split(message) {
            let packet = match Packet::parse(bytes) {
                Ok(packet) => packet,
                Err(cause) => {
                    self.drops.malformed += 1;
                    log::warn!("zhttp response parse error: {cause}, skipping");
                    continue;
                }
            };
            for id in packet.ids.iter() {
                let known = parse_id(id.id).filter(|(asker, ..)| *asker == self.settings.worker);
                if let Some((_, key, number)) = known {
                    self.worker_said(key, number, id.seq, &packet);
                }
            }
        }
    }

    fn worker_said(&mut self, key: Key, number: u32, seq: Option<u32>, packet: &Packet<'_>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(back) = session.zmq.as_mut().filter(|back| back.number == number) else { return };
        if !back.req && !matches!(packet.kind, Kind::Error | Kind::Cancel) {
            if seq != Some(back.in_seq) {
                self.drops.bad_seq += 1;
                self.cancel_zmq(key);
                return self.worker_ended(key, Some(Error::BadResponse));
            }
            back.in_seq = back.in_seq.wrapping_add(1);
        }
        back.last_in_ms = now;
        if !packet.from.is_empty() {
            back.peer = Some(packet.from.into());
        }
        back.credits = back.credits.saturating_add(packet.credits as usize);
        if packet.kind == Kind::HandoffStart {
            return self.let_zmq_go(key);
        }
        if std::mem::take(&mut back.handing_over) {
            self.owe_worker(key, 0);
        }
        let Some(back) = self.sessions.get(key).and_then(|s| s.zmq.as_ref()) else { return };
        if back.socket.is_some() {
            return self.zmq_socket_said(key, packet);
        }
        match packet.kind {
            Kind::Data => self.worker_data(key, packet),
            Kind::Error if packet.condition == "length-required" => self.lacks_length(key),
            Kind::Error => self.worker_ended(key, Some(error_of(packet.condition))),
            Kind::Cancel => self.worker_ended(key, Some(Error::Closed)),
            _ => {}
        }
        self.flush_zmq(key);
    }

    /// The worker gives the request to another (spec/zhttp.md §10): who sends the next packet has it.
    fn let_zmq_go(&mut self, key: Key) {
        self.send_zmq(key, |fields| {
            fields.kind(Kind::HandoffProceed);
        });
        if let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) {
            back.handing_over = true;
        }
    }

    /// A backend that takes no body without its length (spec/proxy.md §13).
    fn lacks_length(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.stage != Stage::Asked || session.ws.is_some() {
            // The same request again would be of no use.
            session.zmq.iter_mut().for_each(|back| back.sent_all = true);
            return self.worker_ended(key, Some(Error::BadResponse));
        }
        (session.zmq, session.backend) = (None, false);
        self.answer_plain(key, 411, "Must provide Content-Length header.");
    }

    fn worker_data(&mut self, key: Key, packet: &Packet<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(back) = &mut session.zmq else { return };
        if !std::mem::replace(&mut back.headed, true) {
            let Some(code) = packet.code.filter(|_| !(back.req && packet.more)) else {
                self.cancel_zmq(key);
                return self.worker_ended(key, Some(Error::BadResponse));
            };
            let headers = headers_of(packet);
            let length = (!packet.more).then_some(packet.body.len() as u64);
            let head = Event::Head { code, reason: packet.reason, headers: &headers, length };
            self.origin_event(self.now, key, head);
        }
        if !packet.body.is_empty() {
            self.origin_event(self.now, key, Event::Body(packet.body));
        }
        match packet.more {
            true => self.owe_worker(key, packet.body.len() as u32),
            false => self.worker_ended(key, None),
        }
    }

    /// So much was taken: the worker may send as much again, unless it is to wait.
    pub(crate) fn owe_worker(&mut self, key: Key, size: u32) {
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        back.owed = back.owed.saturating_add(size);
        // What a WebSocket's client has read was gathered already.
        let step = if back.socket.is_some() { 1 } else { RESPONSE_CREDITS / 4 };
        if back.paused || back.handing_over || back.owed < step {
            return;
        }
        let credits = std::mem::take(&mut back.owed);
        self.send_zmq(key, |fields| {
            fields.kind(Kind::Credit).credits(credits);
        });
    }

    pub(crate) fn worker_ended(&mut self, key: Key, error: Option<Error>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let unsent = session.zmq.take().is_some_and(|back| !back.sent_all);
        note_unsent(session, unsent);
        self.origin_event(self.now, key, error.map_or(Event::End, Event::Failed));
    }

    /// A request could not be given to any worker, or a worker left.
    pub fn worker_unreachable(&mut self, now: u64, key: Key) {
        self.now = now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(back) = session.zmq.take() else { return };
        let nobody = back.peer.is_none() && !back.is_silent(now);
        note_unsent(session, nobody || !back.sent_all);
        let over_http = session.ws.as_mut().is_some_and(|ws| ws.over_http().is_some());
        if session.stage == Stage::Asked && !over_http {
            session.backend = false;
            return self.answer_error(key, 502, ORIGIN_ERROR, UNREACHABLE);
        }
        self.origin_event(now, key, Event::Failed(Error::Closed));
    }

    /// A running stream lives.
    pub(crate) fn keep_worker_alive(&mut self, key: Key) {
        self.send_zmq(key, |fields| {
            fields.kind(Kind::KeepAlive);
        });
    }

    pub(crate) fn cancel_zmq(&mut self, key: Key) {
        self.send_zmq(key, |fields| {
            fields.kind(Kind::Cancel);
        });
    }

    /// Ends the backend's request without a further event.
    pub(crate) fn cancel_backend(&mut self, key: Key) {
        let zmq = self.sessions.get(key).is_some_and(|session| session.zmq.is_some());
        if !zmq {
            return self.outputs.push_back(Output::Cancel(key));
        }
        self.cancel_zmq(key);
        if let Some(session) = self.sessions.get_mut(key) {
            session.zmq = None;
        }
    }

    /// Lets the backend wait, or go on.
    pub(crate) fn pause_backend(&mut self, key: Key, pause: bool) {
        match self.sessions.get_mut(key).and_then(|session| session.zmq.as_mut()) {
            Some(back) => {
                back.paused = pause;
                self.owe_worker(key, 0);
            }
            None if pause => self.outputs.push_back(Output::Pause(key)),
            None => self.outputs.push_back(Output::Resume(key)),
        }
    }
}

/// Notes whether something of a failed request's body never left: the worker cannot have acted on
/// its events.
fn note_unsent(session: &mut Session, unsent: bool) {
    if let Some(over_http) = session.ws.as_mut().and_then(|ws| ws.over_http()) {
        over_http.unsent = unsent;
    }
}

/// The URI for a target (spec/proxy.md §3, 11).
fn uri(is_socket: bool, target: &Target, host: &str, path: &str) -> String {
    let scheme = match (is_socket, target.ssl) {
        (false, false) => "http",
        (false, true) => "https",
        (true, false) => "ws",
        (true, true) => "wss",
    };
    format!("{scheme}://{host}{path}")
}

fn with_host(headers: Headers<'_>, host: &str) -> HeaderBuf {
    let mut out = HeaderBuf::new();
    let mut seen = false;
    for (name, value) in headers.iter() {
        let is_host = name.eq_ignore_ascii_case("host");
        if !is_host || (value == host.as_bytes() && !std::mem::replace(&mut seen, true)) {
            out.push(name, value);
        }
    }
    if !seen {
        out.push("Host", host.as_bytes());
    }
    out
}

impl Settings {
    /// Address and mode of a target that is reached over ZHTTP.
    pub(crate) fn over_zhttp<'t>(&self, target: &'t Target) -> Option<(&'t str, bool)> {
        match &target.destination {
            Destination::Host(..) if self.outside_client => Some((OUTSIDE, false)),
            _ => worker_of(target),
        }
    }
}

/// What an outside client is told about the host that it is to ask (spec/zhttp.md §3).
fn say_host(fields: &mut Fields<'_>, target: &Target) {
    let Destination::Host(host, port) = &target.destination else { return };
    fields.str("connect-host", host).int("connect-port", (*port).into());
    fields.flag("trust-connect-host", target.trust_connect_host);
    fields.flag("ignore-tls-errors", target.insecure);
    if !target.client_cert.is_empty() {
        fields.str("client-cert", &target.client_cert).str("client-key", &target.client_key);
    }
}

/// Address and mode of a target that is a worker.
pub(crate) fn worker_of(target: &Target) -> Option<(&str, bool)> {
    match &target.destination {
        Destination::Zhttp(spec) => Some((spec, false)),
        Destination::ZhttpReq(spec) => Some((spec, true)),
        _ => None,
    }
}
