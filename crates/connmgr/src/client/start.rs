//! From a first packet to a request at the backend (`spec/connmgr.md §10.1`, §10.2).

use std::sync::Arc;

use evloop::arena::Key;
use http1::{BodyKind, write};
use origin::{Endpoint, Opening, Request, Target, TlsOptions};
use zhttp::{Kind, Packet};

use super::names::NameRef;
use super::session::{Ask, Gathered, Mode, Redirects, Session};
use super::{Order, Outgoing};

/// Why a request cannot be made: `bad-request`.
struct BadRequest;

impl Outgoing {
    /// A first packet of stream mode, from the PULL socket.
    pub fn first(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        let Some(packet) = self.parse(message) else { return };
        if let Err(why) = self.first_packet(&packet) {
            self.counters.bad_first += 1;
            log::warn!("client-worker {}: {why}", self.config.worker.0);
        }
    }

    fn first_packet(&mut self, packet: &Packet<'_>) -> Result<(), &'static str> {
        let id = packet.ids.only().ok_or("packet did not contain exactly one id, skipping")?;
        if packet.from.is_empty() {
            return Err("unable to determine packet address");
        }
        if id.seq != Some(0) {
            return Err("received message with seq != 0 as first message, skipping");
        }
        if packet.kind != Kind::Data {
            return Err("received non-data message as first message, skipping");
        }
        let name = NameRef(packet.from, id.id);
        if self.names.get(name).is_some() {
            return Err("stream send_any: session id in use");
        }
        let name = name.to_name();
        let (router, multi) = (packet.router_resp, packet.ext.multi);
        let key = self.insert(Mode::Stream { name: name.clone(), router, multi }, packet);
        self.names.insert(name, key);
        // Whoever asks knows from it where the session is.
        self.send(key, |f| {
            f.kind(Kind::KeepAlive);
        });
        self.begin(key, packet);
        self.catch_up(packet.from, id.id);
        Ok(())
    }

    /// A request of req mode. `envelope`: the parts before the packet, the empty one included.
    pub fn request(&mut self, now: u64, envelope: Vec<Vec<u8>>, message: &[u8]) {
        self.now = now;
        let Some(packet) = self.parse(message) else { return };
        if packet.ids.len() > 1 {
            self.counters.bad_first += 1;
            let worker = self.config.worker.0;
            return log::warn!(
                "client-worker {worker}: request contained more than one id, skipping"
            );
        }
        let id = packet.ids.only().map(|id| id.id.to_vec());
        let end_at = now + self.config.req_timeout_ms;
        let mode = Mode::Req { envelope, id, response: Gathered::default(), end_at };
        let key = self.insert(mode, &packet);
        self.req_count += 1;
        if packet.kind != Kind::Data || packet.more {
            return self.fail(key, "bad-request");
        }
        if packet.body.len() > self.config.body_buffer_size {
            return self.fail(key, "undefined-condition");
        }
        self.begin(key, &packet);
    }

    fn insert(&mut self, mode: Mode, packet: &Packet<'_>) -> Key {
        self.counters.requests += 1;
        self.sessions.insert(Session {
            mode,
            ask: None,
            redirects: (packet.follow_redirects && !packet.more).then(Redirects::default),
            in_seq: 1,
            out_seq: 0,
            window: 0,
            response_window: 0,
            websocket: false,
            more: packet.more,
            answered: false,
            adrift: false,
            held: Vec::new(),
            over: false,
            expires_at: self.now + zhttp::SESSION_EXPIRY_MS,
            keep_alive_at: self.now + zhttp::KEEP_ALIVE_MS,
        })
    }

    /// Makes the request that the packet describes.
    fn begin(&mut self, key: Key, packet: &Packet<'_>) {
        let Ok(ask) = self.ask(packet) else { return self.fail(key, "bad-request") };
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.websocket = ask.target.is_websocket();
        if session.websocket && session.is_req() {
            return self.fail(key, "bad-request");
        }
        let window = match session.mode {
            Mode::Stream { .. } => packet.credits as usize,
            // One more than allowed shows that there is too much.
            Mode::Req { .. } => self.config.body_buffer_size + 1,
        };
        session.response_window = window;
        log::debug!("client-conn {}: request: {} {}", self.name(key), ask.method, ask.target);
        self.start(key, ask, packet.body, window);
    }

    fn ask(&self, packet: &Packet<'_>) -> Result<Ask, BadRequest> {
        let target = Target::parse(packet.uri).ok_or(BadRequest)?;
        if packet.method.is_empty() && !target.is_websocket() {
            return Err(BadRequest);
        }
        Ok(Ask {
            target,
            method: packet.method.to_owned(),
            headers: packet.headers.into(),
            body: Vec::new(),
            connect_host: packet.connect_host.to_owned(),
            connect_port: packet.connect_port,
            trust_connect_host: packet.trust_connect_host,
            insecure: packet.ignore_tls_errors,
            deny_internal: self.config.deny_internal && !packet.ignore_policies,
            client_cert: packet.client_cert.into(),
            client_key: packet.client_key.into(),
            more: packet.more,
        })
    }

    /// Starts the request; keeps what a redirect needs.
    pub(super) fn start(&mut self, key: Key, mut ask: Ask, body: &[u8], window: usize) {
        let endpoint = Arc::new(endpoint(&ask));
        let order = if ask.target.is_websocket() {
            let (compression, rejection_max) = (self.config.compression, self.config.buffer_size);
            opening(&ask, compression, rejection_max)
                .map(|opening| Order::Open(endpoint, opening, window))
        } else {
            encode(&ask, body).map(|request| Order::Start(endpoint, request, window))
        };
        let Ok(order) = order else { return self.fail(key, "bad-request") };
        self.order(key, order);
        if let Some(session) = self.sessions.get_mut(key).filter(|s| s.redirects.is_some()) {
            ask.body = body.to_vec();
            session.ask = Some(Box::new(ask));
        }
    }
}

/// Where the request goes: the URI's host, or the one to connect to instead.
fn endpoint(ask: &Ask) -> Endpoint {
    let elsewhere = !ask.connect_host.is_empty();
    let uri_host = ask.target.host();
    let tls = ask.target.is_secure().then(|| TlsOptions {
        server_name: if elsewhere && ask.trust_connect_host {
            ask.connect_host.clone()
        } else {
            uri_host.to_owned()
        },
        insecure: ask.insecure,
        client_cert: ask.client_cert.clone(),
        client_key: ask.client_key.clone(),
    });
    Endpoint {
        host: if elsewhere { ask.connect_host.clone() } else { uri_host.to_owned() },
        port: if elsewhere { ask.connect_port } else { ask.target.port() },
        tls,
        deny_internal: ask.deny_internal,
    }
}

fn opening(ask: &Ask, compression: bool, rejection_max: usize) -> Result<Opening, BadRequest> {
    let headers = ask.headers.as_headers();
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value));
    let (path, host) = (ask.target.path_and_query(), ask.target.authority());
    Opening::new(&path, &host, headers, compression, rejection_max).map_err(|_| BadRequest)
}

fn encode(ask: &Ask, body: &[u8]) -> Result<Request, BadRequest> {
    let headers = ask.headers.as_headers();
    // Host, which is made from the URI, counts as one of them; what is left out does not.
    let passed_on =
        |name: &str| !name.eq_ignore_ascii_case("host") && !write::is_framing(name.as_bytes());
    if headers.iter().filter(|(name, _)| passed_on(name)).count() >= http1::MAX_HEADERS {
        return Err(BadRequest);
    }
    let framing = framing(ask, body)?;
    let (target, host) = (ask.target.path_and_query(), ask.target.authority());
    let parts = write::Request {
        method: ask.method.as_bytes(),
        target: target.as_bytes(),
        host: host.as_bytes(),
        body: framing,
    };
    let mut head = Vec::with_capacity(512);
    write::request(&mut head, &parts, headers.iter().map(|(n, v)| (n.as_bytes(), v)))
        .map_err(|_| BadRequest)?;
    Ok(Request::new(&ask.method, head, framing, body, !ask.more))
}

/// How the request's body is framed.
fn framing(ask: &Ask, body: &[u8]) -> Result<BodyKind, BadRequest> {
    if !ask.more {
        return Ok(BodyKind::Length(body.len() as u64));
    }
    match ask.headers.as_headers().get("content-length") {
        None => Ok(BodyKind::Chunked),
        Some(length) => http1::decimal(http1::trim(length)).map(BodyKind::Length).ok_or(BadRequest),
    }
}
