//! Responses on their way to the client: as few packets as the credits allow.

use evloop::arena::Key;
use zhttp::{Headers, Kind};

use crate::backend::WAITING_MAX;
use crate::response::{self, Head};
use crate::session::Stage;
use crate::{Proxy, log_line};

/// Largest body of one packet, bytes (spec/proxy.md §5, stream chunk).
pub(crate) const PACKET_BODY_MAX: usize = 100_000;

/// Below this many waiting bytes a backend that was told to wait goes on.
const RESUME_BELOW: usize = 32 * 1024;

/// What to do with a session that has output.
enum Step {
    /// Nothing now.
    Wait,
    /// Send so many bytes of body; the flag says that nothing follows.
    Send(usize, bool),
    /// All is sent; the handler comes next.
    HandOver,
}

impl Proxy {
    /// Answers with an error text, or with `debug` where debugging is on.
    pub(crate) fn answer_error(&mut self, key: Key, code: u16, text: &str, debug: &str) {
        if let Some(clients) = self.stop_asking(key) {
            return clients.into_iter().for_each(|key| self.answer_error(key, code, text, debug));
        }
        let debugging = self.sessions.get(key).is_some_and(|session| session.debug);
        self.answer_plain(key, code, if debugging { debug } else { text });
    }

    /// Answers with a `text/plain` response of the proxy.
    pub(crate) fn answer_plain(&mut self, key: Key, code: u16, text: &str) {
        let (head, body) = response::plain(code, text);
        self.answer(key, head, body);
    }

    /// Answers with a complete response.
    pub(crate) fn answer(&mut self, key: Key, head: Head, body: Vec<u8>) {
        if let Some(clients) = self.stop_asking(key) {
            let each = |key| self.answer(key, head.clone(), body.clone());
            return clients.into_iter().for_each(each);
        }
        if self.sessions.get(key).is_some_and(|session| session.backend) {
            self.cancel_backend(key);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.backend = false;
        if session.ws.is_some() {
            // Such an answer has no headers (spec/proxy.md §13).
            return self.refuse_websocket(key, head.code, &head.reason, Headers::EMPTY, &body);
        }
        session.stage = Stage::Answering;
        session.exchange.held = None;
        session.exchange.request_more = false;
        let (head, body) = session.dress_whole(head, body);
        session.exchange.out.code = head.code;
        session.exchange.out.head = Some(head);
        session.exchange.out.body = body;
        session.exchange.out.start = 0;
        session.exchange.out.ended = true;
        self.dirty.push(key);
    }

    /// Sends what may be sent.
    pub(crate) fn flush(&mut self, key: Key) {
        if self.sessions.get(key).is_some_and(|session| session.ws.is_some()) {
            return self.flush_ws(key);
        }
        loop {
            match self.next_step(key) {
                Step::Wait => break,
                Step::HandOver => return self.pause_client(key),
                Step::Send(size, last) => {
                    self.send_piece(key, size, last);
                    if last {
                        return self.finish(key);
                    }
                }
            }
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.exchange.out.paused && session.exchange.out.waiting() < RESUME_BELOW {
            session.exchange.out.paused = false;
            let asker = session.asker(key);
            self.go_on_if_read(asker);
        }
    }

    fn next_step(&self, key: Key) -> Step {
        let Some(session) = self.sessions.get(key) else { return Step::Wait };
        if !matches!(session.stage, Stage::Relaying | Stage::Answering) {
            return Step::Wait;
        }
        let out = &session.exchange.out;
        let credits = session.credits as usize;
        let size = out.waiting().min(credits).min(PACKET_BODY_MAX);
        let whole = out.ended && size == out.waiting();
        let hand_over = session.exchange.held.is_some();
        if out.head.is_some() {
            // Alone, a head waits a moment for the body or for more of it.
            let full = out.waiting() >= credits.min(WAITING_MAX);
            let company = out.ended || full || self.now >= out.not_before_ms;
            return if company { Step::Send(size, whole && !hand_over) } else { Step::Wait };
        }
        match (size, whole) {
            (0, true) if hand_over => self.hand_over_when_read(key),
            (_, true) if !hand_over => Step::Send(size, true),
            (0, _) => Step::Wait,
            _ => Step::Send(size, false),
        }
    }

    /// Old connection managers do not proceed while bytes wait for the client: with these all
    /// credits must have come back (spec/zhttp.md §10, 3).
    fn hand_over_when_read(&self, key: Key) -> Step {
        let Some(session) = self.sessions.get(key) else { return Step::Wait };
        let new = self.peers.get(session.peer).is_some_and(|peer| peer.batch);
        if new || session.credits >= session.exchange.first_credits {
            Step::HandOver
        } else {
            Step::Wait
        }
    }

    fn send_piece(&mut self, key: Key, size: usize, last: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut out = std::mem::take(&mut session.exchange.out);
        session.credits -= size as u32;
        let head = out.head.take();
        if let Some(head) = &head {
            let headers = head.headers.as_headers().iter();
            let bytes: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
            session.counters.client_header_bytes_sent += (3 + head.reason.len() + bytes) as u64;
        }
        session.counters.client_content_bytes_sent += size as u64;
        let body = &out.body[out.start..out.start + size];
        self.send(key, |fields| {
            if let Some(head) = &head {
                fields.status(head.code, &head.reason);
                fields.headers(head.headers.as_headers().iter());
            }
            fields.body(body).flag("more", !last);
        });
        out.advance(size);
        if let Some(session) = self.sessions.get_mut(key) {
            session.exchange.out = out;
        }
    }

    /// The response began and cannot be completed: what is there goes out, then the end that is
    /// none.
    pub(crate) fn end_uncleanly(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.exchange.held = None;
        if session.exchange.out.head.is_some() {
            session.exchange.out.not_before_ms = 0;
            self.flush(key);
        }
        self.send_kind(key, Kind::Cancel);
        if let Some(session) = self.sessions.get_mut(key) {
            session.exchange.out.code = 0;
        }
        self.finish(key);
    }

    /// The session is over.
    pub(crate) fn finish(&mut self, key: Key) {
        let Some(mut session) = self.remove(key) else { return };
        self.count_end(&mut session, false);
        if session.exchange.sockjs.is_some() || session.ws.as_ref().is_some_and(|ws| ws.open) {
            // Its line was written at the handshake, or is that of the WebSocket inside.
            return;
        }
        let result = match session.exchange.out.code {
            0 => log_line::Outcome::Error,
            code => log_line::Outcome::Code(code, session.exchange.out.sent_bytes),
        };
        self.totals.ended(&session, result);
        log_line::write(&self.settings, &session, result);
    }

    /// The session ended by the other side, or by the other side's fault.
    pub(crate) fn drop_session(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match (session.stage, &session.ws) {
            (Stage::Parting, _) => drop(self.remove(key)),
            (_, Some(_)) => self.ws_abandon(key, false),
            (_, None) => {
                session.exchange.out.code = 0;
                self.finish(key);
            }
        }
    }
}
