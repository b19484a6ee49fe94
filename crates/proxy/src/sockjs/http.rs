//! Requests over HTTP: what a client asks for, and the answers.

use evloop::arena::Key;
use sockjs::{Answer, Request, Transport};
use zhttp::Packet;

use super::{as_websocket, is_poll};
use crate::Proxy;
use crate::arrival::{REQUEST_CREDITS, new_session};
use crate::peers::NOBODY;
use crate::response::Head;
use crate::session::Session;
use crate::uri::Uri;

/// What a whole request says about a session.
struct Said {
    id: String,
    transport: Transport,
    body: Vec<u8>,
    query: String,
}

fn is_too_large(session: &Session) -> bool {
    session.exchange.body_dropped || session.exchange.body.len() > sockjs::BODY_MAX
}

impl Proxy {
    /// Takes a request; it is answered once its body is there.
    pub(super) fn sockjs_request(&mut self, session: Session, more: bool) {
        let key = self.insert(session);
        if more {
            return self.send_credit(key, REQUEST_CREDITS);
        }
        self.timers.acks.push(self.now, key);
        self.sockjs_whole(key);
    }

    /// More of a request's body came.
    pub(crate) fn sockjs_body(&mut self, key: Key, size: u32, more: bool) {
        match more && !self.sessions.get(key).is_some_and(is_too_large) {
            true => self.send_credit(key, size),
            false => self.sockjs_whole(key),
        }
    }

    /// The request is there.
    fn sockjs_whole(&mut self, key: Key) {
        let entropy = self.random.below(1 << 32) as u32;
        let Some(session) = self.sessions.get(key) else { return };
        let (Some(packet), Some(ask)) = (session.packet(), &session.exchange.sockjs) else {
            return;
        };
        let Some(uri) = Uri::parse(packet.uri) else { return };
        let path = uri.path.get(ask.path_start..).unwrap_or_default();
        let request = sockjs::request(packet.method, path);
        let answer = match request {
            Request::Preflight => Answer::preflight(),
            _ if is_too_large(session) => Answer::bad_request("Request too large."),
            Request::Info => Answer::info(entropy),
            Request::Iframe => self.settings.sockjs_page.answer(packet.headers),
            Request::Unknown => Answer::not_found(),
            Request::Session { id, transport } => {
                let said = Said {
                    id: id.to_owned(),
                    transport,
                    body: session.exchange.body.clone(),
                    query: uri.query.unwrap_or_default().to_owned(),
                };
                return self.sockjs_said(key, &said);
            }
        };
        self.sockjs_answer(key, answer);
    }

    /// A request about a session.
    fn sockjs_said(&mut self, key: Key, said: &Said) {
        let calls = matches!(said.transport, Transport::Jsonp | Transport::JsonpSend);
        let found = self.polls.find(&said.id);
        let ended =
            found.and_then(|poll| self.polls.get(poll)).is_some_and(|p| p.state.closed().is_some());
        if let Some(callback) = sockjs::callback(&said.query).filter(|_| calls) {
            let Some(callback) = crossorigin::callback(callback) else {
                return self.sockjs_answer(key, Answer::bad_request("Bad Request"));
            };
            if let Some(ask) = self.sessions.get_mut(key).and_then(|s| s.exchange.sockjs.as_mut()) {
                ask.callback = Some(callback);
            }
        }
        match (found, said.transport) {
            (Some(poll), _) if ended => self.sockjs_ended(key, poll),
            (Some(poll), transport) if is_poll(transport) => self.sockjs_poll(key, poll),
            (Some(poll), Transport::XhrSend | Transport::JsonpSend) => {
                self.sockjs_send(key, poll, said);
            }
            (None, Transport::Xhr) => self.sockjs_open(key, &said.id),
            (None, Transport::Jsonp) => match self.callback_of(key).is_some() {
                true => self.sockjs_open(key, &said.id),
                false => self.sockjs_answer(key, Answer::bad_request("Bad Request")),
            },
            _ => self.sockjs_answer(key, Answer::not_found()),
        }
    }

    /// The session is over: every request gets its last frame.
    fn sockjs_ended(&mut self, key: Key, poll: Key) {
        let frame = self.polls.get(poll).and_then(|poll| poll.state.closed());
        let frame = frame.unwrap_or_default().to_vec();
        self.sockjs_frame(key, &frame);
    }

    /// A client polls.
    fn sockjs_poll(&mut self, key: Key, poll: Key) {
        let now = self.now;
        let Some(session) = self.polls.get_mut(poll) else { return };
        if let Err(frame) = session.state.poll(now) {
            return self.sockjs_frame(key, &frame);
        }
        session.request = Some(key);
        if let Some(ask) = self.sessions.get_mut(key).and_then(|s| s.exchange.sockjs.as_mut()) {
            ask.poll = Some(poll);
        }
        self.answer_poll(poll);
        self.schedule_poll(poll);
    }

    /// A client sends messages.
    fn sockjs_send(&mut self, key: Key, poll: Key, said: &Said) {
        let payload = match said.transport {
            Transport::JsonpSend if said.body.is_empty() => sockjs::query_field(&said.query, "d"),
            Transport::JsonpSend => sockjs::form_field(&said.body, "d"),
            _ => Some(said.body.clone()),
        };
        let messages = payload.and_then(|payload| sockjs::messages(&payload));
        let Some(messages) = messages else {
            return self.sockjs_answer(key, Answer::bad_request("Payload expected"));
        };
        let Some(session) = self.polls.get_mut(poll) else { return };
        if session.send.is_some() {
            return self.sockjs_answer(key, Answer::bad_request("Already sending"));
        }
        session.send = Some((key, messages));
        if let Some(ask) = self.sessions.get_mut(key).and_then(|s| s.exchange.sockjs.as_mut()) {
            ask.poll = Some(poll);
        }
        self.pass_sent(poll);
    }

    /// A new session: a WebSocket to the route's target, whose answer this request waits for.
    fn sockjs_open(&mut self, key: Key, id: &str) {
        let now_s = self.now_s();
        if self.polls.len() >= self.settings.sessions_max {
            let answer = Answer::error(503, grip::reason(503), "Service Unavailable");
            return self.sockjs_answer(key, answer);
        }
        let Some(session) = self.sessions.get(key) else { return };
        let (Some(packet), Some(entry)) = (session.packet(), session.entry.clone()) else { return };
        let Some(uri) = Uri::parse(packet.uri) else { return };
        let uri = Uri { secure: session.https, ..uri };
        let bytes = as_websocket(&packet, &uri, &entry.route, &entry.route.sockjs);
        let Ok(packet) = Packet::parse(&bytes) else { return };
        let Some(uri) = Uri::parse(packet.uri) else { return };
        let mut upstream = new_session(&bytes, &packet, NOBODY, false, self.now);
        // Its polls say whether its client lives.
        upstream.last_in_ms = u64::MAX;
        upstream.id = Box::default();
        upstream.credits = sockjs::BUFFER_MAX as u32;
        (upstream.trusted, upstream.https) = (session.trusted, session.https);
        (upstream.debug, upstream.entry) = (session.debug, Some(entry.clone()));
        let poll = self.polls.insert(id, key);
        let mut ws = self.new_ws(&upstream, &packet);
        ws.shape = super::Shape::poll(poll);
        upstream.ws = Some(Box::new(ws));
        let peer_address = packet.peer_address;
        upstream.prepare(&self.settings, now_s, packet.headers, &uri, &entry, peer_address);
        let upstream = self.insert(upstream);
        if let Some(ask) = self.sessions.get_mut(key).and_then(|s| s.exchange.sockjs.as_mut()) {
            ask.poll = Some(poll);
        }
        if let Some(poll) = self.polls.get_mut(poll) {
            poll.upstream = Some(upstream);
        }
        self.count_start(upstream, true);
        self.start_target(upstream);
    }

    fn callback_of(&self, key: Key) -> Option<&str> {
        self.sessions.get(key)?.exchange.sockjs.as_ref()?.callback.as_deref()
    }

    /// Answers with a frame.
    pub(super) fn sockjs_frame(&mut self, key: Key, frame: &[u8]) {
        let answer = Answer::frame(frame, self.callback_of(key));
        self.sockjs_answer(key, answer);
    }

    /// The messages of a request were taken.
    pub(super) fn sockjs_ok(&mut self, key: Key) {
        let answer = Answer::ok(self.callback_of(key));
        self.sockjs_answer(key, answer);
    }

    pub(super) fn sockjs_answer(&mut self, key: Key, answer: Answer) {
        let Answer { code, reason, headers, body } = answer;
        self.sockjs_reply(key, Head { code, reason: reason.to_owned(), headers }, body);
    }

    /// Answers with a whole response, to which is added what all of them have.
    pub(super) fn sockjs_reply(&mut self, key: Key, mut head: Head, body: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(ask) = &mut session.exchange.sockjs {
            ask.poll = None;
        }
        if let Some(packet) = session.packet() {
            sockjs::add_common(&mut head.headers, packet.headers);
        }
        self.answer(key, head, body);
    }
}
