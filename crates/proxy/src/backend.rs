//! Asking backends, and what they answer (spec/proxy.md §5, §6; spec/routes.md §6.3).

use std::sync::Arc;

use evloop::arena::Key;
use http1::BodyKind;
use origin::{Endpoint, Error, Event, Request};
use routes::Destination;

use crate::inspecting::INSPECT_BODY_MAX;
use crate::response::{self, Head};
use crate::session::{Held, Session, Stage};
use crate::timers::COMPANY_MS;
use crate::ws::Back;
use crate::zmq_target::{Ask, OUTSIDE};
use crate::{Output, Proxy, forward, routing, test_target, uri};

/// Largest request body that is kept for `accept` and for the next target, bytes.
pub(crate) const BODY_KEPT_MAX: usize = 100_000;

/// Largest response with instructions that is collected, bytes.
const HELD_BODY_MAX: usize = 100_000;

/// Bytes of a response that may wait for a client before its backend is told to wait.
pub(crate) const WAITING_MAX: usize = 64 * 1024;

/// Credits for a request's body go back in steps of this size, bytes.
const CREDIT_STEP: u32 = 32 * 1024;

pub(crate) const ORIGIN_ERROR: &str = "Error while proxying to origin.";

impl Proxy {
    /// Asks the session's present target.
    pub(crate) fn start_target(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Asked;
        let Some(entry) = session.entry.clone() else { return };
        let Some(target) = entry.route.targets.get(session.target) else {
            return self.all_failed(key);
        };
        session.exchange.tried = true;
        let number = session.target;
        let looked_at = target.over_http && session.ws.is_none() && !session.trusted;
        if looked_at && says_events(session) {
            let text = "Client not allowed to send WebSocket events directly.";
            return self.answer_plain(key, 403, text);
        }
        if session.ws.is_some() {
            return self.start_ws_target(key);
        }
        self.note_target(key, number);
        let Some(session) = self.sessions.get(key) else { return };
        match &target.destination {
            Destination::Host(..) if self.settings.outside_client => {
                self.start_worker(key, OUTSIDE, false);
            }
            Destination::Test if session.exchange.request_more => {}
            Destination::Test => self.answer_test(key),
            Destination::Host(..) => self.start_host(key, &entry),
            Destination::ZhttpReq(_) if session.exchange.request_more => {}
            Destination::Zhttp(_) if lacks_start(session) => {}
            Destination::Zhttp(spec) => self.start_worker(key, spec, false),
            Destination::ZhttpReq(spec) => self.start_worker(key, spec, true),
        }
    }

    fn start_host(&mut self, key: Key, entry: &routing::Entry) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (Some(place), Some(target)) =
            (session.exchange.place.as_ref(), entry.route.targets.get(session.target))
        else {
            return;
        };
        let endpoint = endpoint(entry, session.target, place);
        let framing = framing(session);
        let headers = session.exchange.headers.as_headers();
        let encoded = forward::encode(session.method(), place, target, headers, framing);
        let (Some(endpoint), Ok(head)) = (endpoint, encoded) else {
            return self.answer_plain(key, 400, "Request cannot be sent on.");
        };
        let complete = !session.exchange.request_more;
        let request =
            Request::new(session.method(), head, framing, &session.exchange.body, complete);
        let line = session.method().len() + place.target.len();
        let host = "host".len() + forward::host(place, target).len();
        session.counters.server_header_bytes_sent += (line + host) as u64 + fields_size(headers);
        session.counters.server_content_bytes_sent += session.exchange.body.len() as u64;
        session.backend = true;
        self.outputs.push_back(Output::Start { key, endpoint, request });
    }

    fn start_worker(&mut self, key: Key, spec: &str, req: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(place) = session.exchange.place.clone() else { return };
        // Taken out for a moment, because the session changes while it is read.
        let headers = std::mem::take(&mut session.exchange.headers);
        let method = session.method().to_owned();
        let body = session.exchange.body.clone();
        let more = session.exchange.request_more;
        session.counters.server_content_bytes_sent += body.len() as u64;
        let line = method.len() + place.target.len();
        session.counters.server_header_bytes_sent +=
            line as u64 + fields_size(headers.as_headers());
        let (method, place, list) = (&*method, &place, headers.as_headers());
        let ask = Ask { method, place, headers: list, body: &body, more, hold: false };
        self.start_zmq(key, spec, req, &ask);
        if let Some(session) = self.sessions.get_mut(key) {
            session.exchange.headers = headers;
        }
    }

    /// The body for the test target, or its answer, is there.
    pub(crate) fn answer_test(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (Some(entry), Some(place)) = (&session.entry, &session.exchange.place) else { return };
        let size =
            if session.exchange.body_dropped { usize::MAX } else { session.exchange.body.len() };
        let target = shorten(&place.target, &entry.route.path_beg);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let (head, body) = test_target::answer(path, query, size);
        let headers: Vec<_> = head
            .headers
            .as_headers()
            .iter()
            .map(|(name, value)| http1::Header { name, value })
            .collect();
        self.on_head(key, head.code, &head.reason, &headers, Some(body.len() as u64));
        self.on_body(key, body.as_bytes());
        self.on_end(key);
    }

    /// Every target was tried.
    fn all_failed(&mut self, key: Key) {
        let tried: Vec<String> = self
            .sessions
            .get(key)
            .and_then(|session| session.entry.as_ref())
            .map(|entry| entry.route.targets.iter().map(|t| t.destination.to_string()).collect())
            .unwrap_or_default();
        let debug = format!("Unable to connect to any targets. Tried: {}", tried.join(", "));
        self.answer_error(key, 502, ORIGIN_ERROR, &debug);
    }

    /// An event of a backend's request.
    pub fn origin_event(&mut self, now: u64, key: Key, event: Event<'_>) {
        self.now = now;
        let Some(session) = self.sessions.get(key).filter(|session| session.backend) else {
            return;
        };
        if let Event::Failed(error) = &event {
            self.totals.backend_failed(*error);
        }
        if let Some(ws) = &session.ws {
            return match ws.back {
                Back::Socket => self.socket_event(key, event),
                _ => self.over_http_event(key, event),
            };
        }
        match event {
            Event::Head { code, reason, headers, length } => {
                self.on_head(key, code, reason, headers, length);
            }
            Event::Body(data) => self.on_body(key, data),
            Event::End => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.backend = false;
                }
                self.on_end(key);
            }
            Event::Queued(left) => self.return_credits(key, left),
            // Those are not for requests.
            Event::WebSocket(_) => {}
            Event::Failed(error) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.backend = false;
                }
                self.on_failed(key, error);
            }
        }
    }

    fn on_head(
        &mut self,
        key: Key,
        code: u16,
        reason: &str,
        headers: &[http1::Header<'_>],
        length: Option<u64>,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let names: usize = headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        session.counters.server_header_bytes_received += (3 + reason.len() + names) as u64;
        // The rest of the request's body is not wanted any more.
        session.exchange.request_more = false;
        let grip = session.entry.as_ref().is_some_and(|entry| entry.route.grip);
        let looks = grip && !session.trusted && !session.internal;
        if looks && response::is_grip(headers) {
            session.stage = Stage::Collecting;
            session.exchange.held = Some(Box::new(Held {
                code,
                reason: reason.to_owned(),
                headers: response::keep_all(headers),
                body: Vec::new(),
                sent_code: None,
            }));
            return;
        }
        let head = Head { code, reason: reason.to_owned(), headers: response::ordinary(headers) };
        self.relay_head(key, head, length);
    }

    /// The head of a response goes to the client.
    pub(crate) fn relay_head(&mut self, key: Key, head: Head, length: Option<u64>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Relaying;
        if let Some(clients) = self.asked_for(key) {
            self.keep_head(key, &head, length);
            let each = |key| self.relay_head(key, head.clone(), length);
            return clients.into_iter().for_each(each);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.exchange.out.code = head.code;
        session.exchange.out.head = Some(session.dress(head));
        session.exchange.out.not_before_ms = now + COMPANY_MS;
        if length != Some(0) {
            self.timers.heads.push(now, key);
        }
        self.dirty.push(key);
    }

    fn on_body(&mut self, key: Key, data: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.counters.server_content_bytes_received += data.len() as u64;
        if session.stage == Stage::Collecting {
            let Some(held) = &mut session.exchange.held else { return };
            held.body.extend_from_slice(data);
            if held.body.len() > HELD_BODY_MAX {
                self.too_large_to_hold(key);
            }
            return;
        }
        self.relay_body(key, data);
    }

    /// A part of a response's body goes to the client.
    pub(crate) fn relay_body(&mut self, key: Key, data: &[u8]) {
        if let Some(clients) = self.asked_for(key) {
            self.keep_for_late(key, data);
            return clients.into_iter().for_each(|key| self.relay_body(key, data));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.dress_piece(data);
        if session.exchange.out.waiting() > WAITING_MAX && !session.exchange.out.paused {
            self.wait_for(key);
        }
        self.dirty.push(key);
    }

    fn on_end(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.stage {
            Stage::Collecting => self.hold(key),
            _ => self.relay_end(key),
        }
    }

    /// The response is complete.
    fn relay_end(&mut self, key: Key) {
        if let Some(clients) = self.asked_for(key) {
            self.close_share(key);
            return clients.into_iter().for_each(|key| self.relay_end(key));
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.dress_end();
            self.dirty.push(key);
        }
    }

    /// A response with instructions that does not fit (spec/proxy.md §6.3).
    fn too_large_to_hold(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(held) = &mut session.exchange.held else { return };
        let headers = held.headers.as_headers();
        if !response::may_send_first(headers) {
            let debug = format!("GRIP instruct response too large from {}", target_name(session));
            return self.answer_error(key, 502, ORIGIN_ERROR, &debug);
        }
        let Some(head) = response::sent_first(held.code, &held.reason, headers) else {
            return self.answer_plain(key, 500, "Accept service unavailable.");
        };
        held.sent_code = Some(head.code);
        let body = std::mem::take(&mut held.body);
        for client in self.asked_for(key).unwrap_or_default() {
            if let Some(session) = self.sessions.get_mut(client) {
                session.exchange.held = Some(Box::new(Held::sent(head.code)));
            }
        }
        self.relay_head(key, head, None);
        self.relay_body(key, &body);
    }

    pub(crate) fn on_failed(&mut self, key: Key, error: Error) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        log::debug!("{}: {error}", target_name(session));
        if session.stage == Stage::Relaying {
            self.close_share(key);
            let clients = self.clients_of(key);
            return clients.iter().for_each(|key| self.end_uncleanly(*key));
        }
        let replayable = !session.exchange.body_dropped;
        if session.stage == Stage::Asked && error.try_next_target() && replayable {
            session.target += 1;
            return self.start_target(key);
        }
        let debug = match error {
            Error::Policy => "Error: Origin host/IP blocked.",
            _ => ORIGIN_ERROR,
        };
        self.answer_error(key, 502, ORIGIN_ERROR, debug);
    }

    /// Returns credits for body bytes that the backend took; `left` of them did not leave yet.
    pub(crate) fn return_credits(&mut self, key: Key, left: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let gone = session.owed_credits.saturating_sub(left.try_into().unwrap_or(u32::MAX));
        if session.exchange.request_more && gone >= CREDIT_STEP && session.stage.may_send() {
            session.owed_credits -= gone;
            self.send_credit(key, gone);
        }
    }
}

/// Where a request to a target that is a host goes.
pub(crate) fn endpoint(
    entry: &routing::Entry,
    target: usize,
    place: &forward::Place,
) -> Option<Arc<Endpoint>> {
    if let Some(endpoint) = entry.endpoints.get(target).cloned().flatten() {
        return Some(endpoint);
    }
    let target = entry.route.targets.get(target)?;
    let authority = if target.host.is_empty() { &place.authority } else { &target.host };
    routing::tls_endpoint(target, uri::split_port(authority).0).map(Arc::new)
}

/// Whether more of a request's body is awaited before a ZHTTP worker gets the first packet: many a
/// worker looks no further, and those of 1.36 had that much in it (spec/proxy.md §7.1).
pub(crate) fn lacks_start(session: &Session) -> bool {
    session.exchange.request_more && session.exchange.body.len() < INSPECT_BODY_MAX
}

/// How the body of a request is announced to the backend.
fn framing(session: &Session) -> BodyKind {
    if !session.exchange.request_more {
        return BodyKind::Length(session.exchange.body.len() as u64);
    }
    let packet = session.packet();
    let length = packet.and_then(|packet| packet.headers.get("content-length"));
    let length = length.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse().ok());
    length.map_or(BodyKind::Chunked, BodyKind::Length)
}

pub(crate) fn fields_size(headers: zhttp::Headers<'_>) -> u64 {
    headers.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// Content that only a GRIP proxy may send to a target that takes WebSocket events.
fn says_events(session: &Session) -> bool {
    let packet = session.packet();
    let kind = packet.and_then(|packet| packet.headers.get("content-type"));
    kind.is_some_and(|kind| {
        kind.split(|&b| b == b';').next() == Some(b"application/websocket-events")
    })
}

/// The test target does not see the route's path (spec/routes.md §4.2); what is left of it may be
/// nothing.
pub(crate) fn shorten<'t>(target: &'t str, path_beg: &str) -> &'t str {
    let path = target.split('?').next().unwrap_or(target);
    let cut = path_beg.len() - usize::from(path_beg.ends_with('/'));
    target.get(cut.min(path.len())..).unwrap_or_default()
}

/// The target that is tried, or the last one that was.
pub(crate) fn target_name(session: &Session) -> String {
    let targets = session.entry.as_ref().map_or(&[][..], |entry| &entry.route.targets);
    let target = targets.get(session.target).or(targets.last());
    target.map(|target| target.destination.to_string()).unwrap_or_default()
}
