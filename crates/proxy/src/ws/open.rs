//! The handshake: the targets are asked in turn, and the client is answered only after a backend
//! has (spec/proxy.md §11.1).

use evloop::arena::Key;
use routes::Destination;
use zhttp::{HeaderBuf, Headers, Kind as PacketKind};

use super::control::Control;
use super::filter::{Filter, grip_prefix};
use super::{Back, test_target};
use crate::backend::ORIGIN_ERROR;
use crate::backend::fields_size;
use crate::response::is_removed;
use crate::session::{Session, Stage};
use crate::zmq_target::OUTSIDE;
use crate::{Proxy, forward, log_line};

/// Credits for the client's messages at the start, bytes (spec/zhttp.md §6).
pub(crate) const CLIENT_CREDITS: u32 = 200_000;

const EXTENSIONS: &str = "sec-websocket-extensions";

impl Proxy {
    /// Asks the present target of a WebSocket.
    pub(crate) fn start_ws_target(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(entry) = session.entry.clone() else { return };
        let Some(target) = entry.route.targets.get(session.target) else { return };
        match &target.destination {
            Destination::Test => self.open_test(key),
            Destination::Host(..) | Destination::Zhttp(_) | Destination::ZhttpReq(_)
                if target.over_http =>
            {
                self.open_over_http(key, target.one_event);
            }
            Destination::Host(..) if self.settings.outside_client => {
                self.open_zmq_socket(key, OUTSIDE);
            }
            Destination::Host(..) => self.open_socket(key),
            Destination::ZhttpReq(_) => {
                let debug = "WebSockets cannot be used with zhttpreq target";
                self.answer_error(key, 502, ORIGIN_ERROR, debug);
            }
            Destination::Zhttp(spec) => self.open_zmq_socket(key, spec),
        }
    }

    fn open_test(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (Some(ws), Some(place)) = (&mut session.ws, &session.exchange.place) else { return };
        let Some(entry) = &session.entry else { return };
        let target = crate::backend::shorten(&place.target, &entry.route.path_beg);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if crate::test_target::resource(path) != "/ws" {
            let text = "no such test resource\n";
            let mut headers = HeaderBuf::new();
            headers.push("Content-Type", b"text/plain");
            let headers = headers.as_headers();
            return self.refuse_websocket(key, 404, "Not Found", headers, text.as_bytes());
        }
        ws.back = Back::Test;
        let offered = session.exchange.headers.as_headers();
        let grip = offered.get(EXTENSIONS).is_some_and(|value| grip_prefix(value).is_some());
        let messages = if grip { test_target::subscriptions(query) } else { Vec::new() };
        let mut headers = HeaderBuf::new();
        if grip {
            headers.push("Sec-WebSocket-Extensions", b"grip");
        }
        self.ws_accepted(key, "Switching Protocols", headers.as_headers());
        for message in messages {
            self.back_sent(key, super::Kind::Text, message.as_bytes(), false);
        }
    }

    /// The backend accepted with these headers.
    pub(crate) fn ws_accepted(&mut self, key: Key, reason: &str, headers: Headers<'_>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (Some(ws), Some(entry)) = (&mut session.ws, &session.entry) else { return };
        let passing = session.trusted || !entry.route.grip;
        let extension = headers.get(EXTENSIONS);
        let prefix = extension.and_then(grip_prefix);
        let subscribes = entry.route.targets.get(session.target);
        let subscribes = subscribes.is_some_and(|target| !target.subscribe.is_empty());
        if let Some(prefix) = prefix.as_ref().filter(|_| !passing) {
            ws.filter = Some(Filter::new(prefix));
        }
        if prefix.is_some() || subscribes {
            ws.control = Some(Control::default());
        }
        ws.open = true;
        ws.active_ms = now;
        session.stage = Stage::WebSocket;
        session.exchange.out.code = 101;
        let controlled = ws.control.is_some();
        let mut passed = HeaderBuf::new();
        let kept = headers.iter().filter(|(name, _)| {
            !(is_removed(name)
                || name.eq_ignore_ascii_case(EXTENSIONS)
                || name.eq_ignore_ascii_case("content-length"))
        });
        kept.for_each(|(name, value)| passed.push(name, value));
        if let Some(extension) = extension.filter(|_| passing && prefix.is_some()) {
            passed.push("Sec-WebSocket-Extensions", extension);
        }
        let size = (3 + reason.len()) as u64 + fields_size(passed.as_headers());
        session.counters.client_header_bytes_sent += size;
        if controlled {
            self.say_here(key);
        }
        self.send(key, |fields| {
            fields.status(101, reason).header_list(passed.as_headers()).credits(CLIENT_CREDITS);
        });
        if let Some(session) = self.sessions.get(key) {
            self.totals.ended(session, log_line::Outcome::Code(101, 0));
            log_line::write(&self.settings, session, log_line::Outcome::Code(101, 0));
        }
        self.forget_handshake(key);
        self.sockjs_opened(key);
        self.dirty.push(key);
    }

    /// An open WebSocket needs its handshake no more.
    fn forget_handshake(&mut self, key: Key) {
        self.report_so_far(key);
        if let Some(session) = self.sessions.get_mut(key) {
            session.exchange.clear();
        }
    }

    /// Refuses a WebSocket's handshake with a whole response.
    pub(crate) fn refuse_websocket(
        &mut self,
        key: Key,
        code: u16,
        reason: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) {
        if let Some(poll) = self.poll_of(key) {
            self.poll_refused(poll, code, reason, headers, body);
        }
        self.send(key, |fields| {
            fields.kind(PacketKind::Error).condition("rejected").status(code, reason);
            fields.header_list(headers).body(body);
        });
        if let Some(session) = self.sessions.get_mut(key) {
            session.exchange.out.code = code;
            session.exchange.out.sent_bytes = body.len() as u64;
            let size = (3 + reason.len()) as u64 + fields_size(headers);
            session.counters.client_header_bytes_sent += size;
        }
        self.finish(key);
    }
}

impl Session {
    /// A backend is asked to open the WebSocket (spec/stats.md §5). Where it is asked by requests only
    /// the first one has a head that counts, as with Pushpin 1.36: what follows are messages.
    pub(super) fn count_opening(&mut self) {
        let target = self.entry.as_ref().and_then(|entry| entry.route.targets.get(self.target));
        let (Some(place), Some(target)) = (&self.exchange.place, target) else { return };
        let line = "GET".len() + place.target.len();
        let host = "host".len() + forward::host(place, target).len();
        let size = (line + host) as u64 + fields_size(self.exchange.headers.as_headers());
        self.counters.server_header_bytes_sent += size;
    }

    /// The backend has opened it, with these headers.
    pub(super) fn count_opened(&mut self, reason: &str, headers: Headers<'_>) {
        let size = (3 + reason.len()) as u64 + fields_size(headers);
        self.counters.server_header_bytes_received += size;
    }
}
