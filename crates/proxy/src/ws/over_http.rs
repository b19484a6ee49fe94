//! A WebSocket whose backend is asked by requests (spec/proxy.md §12).

use evloop::arena::Key;
use http1::BodyKind;
use origin::{Error, Event, Request};
use wsoverhttp::{Failure, Link, Outcome, Reply, Trouble};
use zhttp::{HeaderBuf, Headers};

use super::outgoing::WAITING_MAX;
use super::session::{OverHttp, Response, frame_kind};
use super::{Back, Kind};
use crate::backend::ORIGIN_ERROR;
use crate::forward::{Place, has_prefix};
use crate::response::is_removed;
use crate::session::{Session, Stage};
use crate::zmq_target::Ask;
use crate::{Output, Proxy, forward, response};

/// Most bytes of a refusal's body that the client gets.
const REFUSAL_MAX: usize = 100_000;

/// Most bytes of a message in one frame to the client.
const FRAME_MAX: usize = 16_384;

/// Headers of the client that the requests do not have.
const NOT_SENT: [&str; 5] =
    ["upgrade", "accept", "connection-id", "content-length", "content-type"];

/// Headers of the first response that are between backend and proxy.
const NOT_PASSED: [&str; 3] = ["content-length", "content-type", "keep-alive-interval"];

/// What the client's handshake is answered with.
const REASON: &str = "Switching Protocols";

impl Proxy {
    /// Begins a conversation with the present target.
    pub(crate) fn open_over_http(&mut self, key: Key, one_event: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.count_opening();
        let exchange = &*session.exchange;
        let (Some(ws), Some(place)) = (&mut session.ws, &exchange.place) else { return };
        let kept = self.keeper.keep(place, exchange.headers.as_headers(), is_sent);
        ws.back = Back::OverHttp(Box::new(OverHttp {
            link: Link::new(one_event),
            kept,
            response: None,
            disconnecting: false,
            unsent: false,
        }));
        self.ask(key);
    }

    /// Sends a request if one is due.
    pub(crate) fn ask(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let running = session.backend;
        let Some(ws) = &mut session.ws else { return };
        let may_read = ws.out.waiting() < WAITING_MAX;
        let Some(over_http) = ws.over_http().filter(|o| !o.disconnecting) else { return };
        if running || !over_http.link.is_due(now, may_read) {
            return;
        }
        let request = over_http.link.request();
        self.ask_with(key, request.body, request.replayed);
    }

    /// Sends a request with that body.
    pub(crate) fn ask_with(&mut self, key: Key, body: Vec<u8>, replayed: usize) {
        let now_s = self.now_s();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(entry) = session.entry.clone() else { return };
        let request = request_place(session, now_s, replayed);
        let target = entry.route.targets.get(session.target);
        let (Some((place, headers)), Some(target)) = (request, target) else { return };
        if let Some((spec, req)) = self.settings.over_zhttp(target) {
            let (spec, mut headers) = (spec.to_owned(), headers);
            headers.push("Content-Length", body.len().to_string().as_bytes());
            let headers = headers.as_headers();
            let (method, place) = ("POST", &place);
            let ask = Ask { method, place, headers, body: &body, more: false, hold: true };
            return self.start_zmq(key, &spec, req, &ask);
        }
        let framing = BodyKind::Length(body.len() as u64);
        let encoded = forward::encode("POST", &place, target, headers.as_headers(), framing);
        let endpoint = crate::backend::endpoint(&entry, session.target, &place);
        let (Some(endpoint), Ok(head)) = (endpoint, encoded) else {
            log::warn!("a request with WebSocket events cannot be made, ending the connection");
            return self.ws_fail_or_refuse(key);
        };
        let request = Request::new("POST", head, framing, &body, true);
        session.backend = true;
        self.outputs.push_back(Output::Start { key, endpoint, request });
    }

    /// An event of a request.
    pub(crate) fn over_http_event(&mut self, key: Key, event: Event<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        let Some(over_http) = ws.over_http() else { return };
        match event {
            Event::Head { code, reason, headers, .. } => {
                over_http.response = Some(Box::new(Response {
                    code,
                    reason: reason.to_owned(),
                    headers: response::keep_all(headers),
                    body: Vec::new(),
                }));
            }
            Event::Body(data) => {
                let Some(response) = &mut over_http.response else { return };
                response.body.extend_from_slice(data);
                if response.body.len() > wsoverhttp::RESPONSE_MAX {
                    log::warn!("{}: a response with events is too large", ws.cid);
                    self.cancel_backend(key);
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.backend = false;
                    }
                    self.ws_fail_or_refuse(key);
                }
            }
            Event::End => {
                let response = over_http.response.take();
                session.backend = false;
                if let Some(response) = response {
                    self.over_http_response(key, *response);
                }
            }
            Event::Failed(error) => {
                over_http.response = None;
                session.backend = false;
                self.over_http_failed(key, error);
            }
            Event::Queued(_) | Event::WebSocket(_) => {}
        }
    }

    fn over_http_response(&mut self, key: Key, response: Response) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        let cid = ws.cid;
        let Some(over_http) = ws.over_http() else { return };
        let Response { code, reason, headers, body } = response;
        if over_http.disconnecting {
            return self.part(key);
        }
        let list: Vec<(&str, &[u8])> = headers.as_headers().iter().collect();
        match over_http.link.response(now, code, &list, &body) {
            Ok(reply) => self.over_http_reply(key, &headers, &reply),
            Err(Failure::Refused) => {
                let kept = without(headers.as_headers(), is_removed);
                let body = &body[..body.len().min(REFUSAL_MAX)];
                self.refuse_websocket(key, code, &reason, kept.as_headers(), body);
            }
            Err(Failure::Broken(why)) => {
                log::debug!("{cid}: {why}");
                self.ws_fail_or_refuse(key);
            }
        }
    }

    fn over_http_reply(&mut self, key: Key, headers: &HeaderBuf, reply: &Reply<'_>) {
        if reply.opened {
            let hidden = |name: &str| {
                has_prefix(name, "set-meta-")
                    || NOT_PASSED.iter().any(|hidden| name.eq_ignore_ascii_case(hidden))
            };
            let kept = without(headers.as_headers(), hidden);
            if let Some(session) = self.sessions.get_mut(key) {
                session.count_opened(REASON, kept.as_headers());
            }
            self.ws_accepted(key, REASON, kept.as_headers());
        }
        self.return_accepted(key, reply.accepted);
        let parting = self.sessions.get(key).is_some_and(|s| s.stage == Stage::Parting);
        for event in reply.events.iter().filter(|_| !parting) {
            match frame_kind(event.kind) {
                Some(kind) => self.over_http_message(key, kind, event.content),
                None => {
                    let (code, reason) = event.close();
                    self.back_closed(key, code, reason);
                }
            }
        }
        if reply.finished && parting {
            return drop(self.remove(key));
        }
        self.part(key);
        self.ask(key);
        self.schedule_ws(key);
    }

    /// A message of the backend, in frames of the size that clients are used to (spec §12.2).
    fn over_http_message(&mut self, key: Key, kind: Kind, content: &[u8]) {
        let mut rest = content;
        while kind.is_message() && rest.len() > FRAME_MAX {
            let (frame, behind) = rest.split_at(FRAME_MAX);
            self.back_sent(key, kind, frame, true);
            rest = behind;
        }
        self.back_sent(key, kind, rest, false);
    }

    /// What the backend has taken may be sent anew by the client at once: a message may need all
    /// the room there is.
    fn return_accepted(&mut self, key: Key, accepted: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &session.ws else { return };
        let size = (accepted.min(u32::MAX as usize) as u32).min(session.owed_credits);
        if size > 0 && !ws.client_closed && session.stage == Stage::WebSocket {
            session.owed_credits -= size;
            self.send_credit(key, size);
        }
    }

    fn over_http_failed(&mut self, key: Key, error: Error) {
        let now = self.now;
        let jitter = self.random.below(1_000);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (parting, opened) = (session.stage == Stage::Parting, session.stage != Stage::Asked);
        let Some(ws) = &mut session.ws else { return };
        log::debug!("{}: {error}", ws.cid);
        let Some(over_http) = ws.over_http() else { return };
        if parting && over_http.disconnecting {
            return drop(self.remove(key));
        }
        if !opened {
            ws.back = Back::None;
            return self.on_failed(key, error);
        }
        let unsent = std::mem::take(&mut over_http.unsent) && error != Error::Policy;
        let not_sent = error.try_next_target() || unsent;
        let trouble = if not_sent { Trouble::NotSent } else { Trouble::Unclear };
        match over_http.link.failed(now, trouble, jitter) {
            Outcome::Repeat => self.schedule_ws(key),
            Outcome::GiveUp => self.ws_fail(key),
        }
    }

    /// The conversation failed: an open connection ends, one that is opening is refused.
    fn ws_fail_or_refuse(&mut self, key: Key) {
        match self.sessions.get(key).map(|session| session.stage) {
            Some(Stage::Asked) => self.answer_error(key, 502, ORIGIN_ERROR, ORIGIN_ERROR),
            Some(_) => self.ws_fail(key),
            None => {}
        }
    }
}

/// The headers but those that `hidden` names.
fn without(headers: Headers<'_>, hidden: impl Fn(&str) -> bool) -> HeaderBuf {
    let mut kept = HeaderBuf::new();
    headers
        .iter()
        .filter(|(name, _)| !hidden(name))
        .for_each(|(name, value)| kept.push(name, value));
    kept
}

/// Whether the requests have a header of the client.
fn is_sent(name: &str) -> bool {
    let hidden = NOT_SENT.iter().any(|hidden| name.eq_ignore_ascii_case(hidden));
    !hidden && !has_prefix(name, "meta-")
}

/// Where a request goes and its headers (spec §12.1).
fn request_place(session: &Session, now_s: u64, replayed: usize) -> Option<(Place, HeaderBuf)> {
    let ws = session.ws.as_ref()?;
    let Back::OverHttp(over_http) = &ws.back else { return None };
    let signer = session.entry.as_ref().filter(|entry| !session.trusted && entry.route.grip);
    let signer = signer.and_then(|entry| entry.signer.as_ref());
    let mut out = HeaderBuf::new();
    for (name, value) in over_http.kept.headers() {
        match signer.filter(|_| name.eq_ignore_ascii_case("grip-sig")) {
            // The connection may outlive a token.
            Some(signer) => out.push(name, signer.token(now_s).as_bytes()),
            None => out.push(name, value),
        }
    }
    out.push("Accept", wsoverhttp::CONTENT_TYPE.as_bytes());
    out.push("Connection-Id", &ws.cid.text());
    out.push("Content-Type", wsoverhttp::CONTENT_TYPE.as_bytes());
    if replayed > 0 {
        out.push("Content-Bytes-Replayed", replayed.to_string().as_bytes());
    }
    for (name, value) in over_http.link.meta() {
        out.push(&format!("Meta-{name}"), value);
    }
    Some((over_http.kept.place(), out))
}
