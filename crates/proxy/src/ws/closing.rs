//! How a WebSocket ends: by a close of either side, or abnormally (spec/proxy.md §11.2, §12.3).

use std::num::NonZeroU64;

use evloop::arena::Key;
use zhttp::Kind as PacketKind;

use super::Back;
use super::session::End;
use crate::peers::NOBODY;
use crate::session::{SessionId, Stage};
use crate::{Output, Proxy};

/// How long the client may take to answer a close, milliseconds.
const CLIENT_CLOSE_MS: u64 = 30_000;

/// How long the backend may take to answer a close, or to be told of an end, milliseconds.
const BACK_CLOSE_MS: u64 = 60_000;

impl Proxy {
    /// The client closes.
    pub(crate) fn client_closed(&mut self, key: Key, code: Option<u16>, reason: &[u8]) {
        let now = self.now;
        let Some(ws) = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut()) else {
            return;
        };
        ws.client_closed = true;
        if ws.close_out == End::Done {
            self.tell_back_of_close(key, code, reason);
            return self.ws_finished(key);
        }
        let alone = ws.detached || matches!(ws.back, Back::None | Back::Test);
        if alone {
            if ws.close_out == End::No {
                ws.close_out = End::Waiting(Box::new((code, reason.to_vec())));
            }
            return self.dirty.push(key);
        }
        ws.close_by_ms = NonZeroU64::new(now + BACK_CLOSE_MS);
        self.tell_back_of_close(key, code, reason);
        self.schedule_ws(key);
    }

    /// Passes a close on to the backend, once.
    pub(crate) fn tell_back_of_close(&mut self, key: Key, code: Option<u16>, reason: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        if std::mem::replace(&mut ws.back_told, true) {
            return;
        }
        match &mut ws.back {
            Back::OverHttp(over_http) => {
                over_http.link.push_close(&close_content(code, reason));
                self.ask(key);
            }
            Back::Socket if session.zmq.is_some() => self.close_zmq(key, code, reason),
            Back::Socket => {
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.outputs.push_back(Output::Close { key, code, reason });
            }
            Back::None | Back::Test => {}
        }
    }

    /// The backend closes, or the handler wants a close.
    pub(crate) fn close_client(&mut self, key: Key, code: Option<u16>, reason: &[u8]) {
        let Some(ws) = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut()) else {
            return;
        };
        ws.out.end_message();
        if ws.close_out == End::No {
            ws.close_out = End::Waiting(Box::new((code, reason.to_vec())));
        }
        self.dirty.push(key);
    }

    /// The backend's close came.
    pub(crate) fn back_closed(&mut self, key: Key, code: Option<u16>, reason: &[u8]) {
        let Some(ws) = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut()) else {
            return;
        };
        ws.back_closed = true;
        if !ws.detached {
            self.close_client(key, code, reason);
        }
    }

    /// Sends the close that waits, once everything before it has left.
    pub(crate) fn flush_close(&mut self, key: Key) {
        let now = self.now;
        let Some(ws) = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut()) else {
            return;
        };
        if !ws.out.is_empty() || !matches!(ws.close_out, End::Waiting(..)) {
            return;
        }
        let End::Waiting(close) = std::mem::replace(&mut ws.close_out, End::Done) else { return };
        let (code, reason) = *close;
        ws.close_by_ms = NonZeroU64::new(now + CLIENT_CLOSE_MS);
        let finished = ws.client_closed;
        self.send(key, |fields| {
            fields.kind(PacketKind::Close);
            if let Some(code) = code {
                fields.code(code).body(&reason);
            }
        });
        match (finished, self.poll_of(key)) {
            (true, _) => self.ws_finished(key),
            (false, Some(poll)) => self.poll_closed(key, poll, code, &reason),
            (false, None) => self.schedule_ws(key),
        }
    }

    /// Both closes passed between client and proxy: the session is over, and the backend is left
    /// to come to its end.
    fn ws_finished(&mut self, key: Key) {
        let Some(ws) = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut()) else {
            return;
        };
        let rest = match &mut ws.back {
            Back::OverHttp(over_http) => over_http.link.is_closing(),
            Back::Socket => true,
            Back::None | Back::Test => false,
        };
        self.end_ws(key, true, rest);
    }

    /// The connection ended for another reason than its backend: the client vanished, or the
    /// handler wants it gone. `tell_client`: it is still there.
    pub(crate) fn ws_abandon(&mut self, key: Key, tell_client: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        let tell_back = ws.over_http().is_some_and(|over_http| over_http.link.is_open());
        if tell_client {
            self.send_kind(key, PacketKind::Cancel);
        }
        self.end_ws(key, true, tell_back);
    }

    /// The backend failed: the client's connection ends abnormally.
    pub(crate) fn ws_fail(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        if session.stage == Stage::Parting {
            drop(self.remove(key));
        } else if ws.detached || ws.close_out != End::No {
            // The client stays: for messages of the handler, or for its answer to a close that
            // a cancel right behind it could overtake.
            ws.back = Back::None;
        } else {
            self.send_kind(key, PacketKind::Cancel);
            self.end_ws(key, true, false);
        }
    }

    /// Takes the session from its client. `rest`: the backend is to hear something yet.
    pub(crate) fn end_ws(&mut self, key: Key, tell_handler: bool, rest: bool) {
        if tell_handler {
            self.say_gone(key);
        }
        if !rest {
            return self.finish(key);
        }
        let now = self.now;
        self.forget_names(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.peer = NOBODY;
        session.id = SessionId::default();
        session.stage = Stage::Parting;
        let mut poll = None;
        if let Some(ws) = &mut session.ws {
            (ws.control, ws.filter, ws.keep_alive) = (None, None, None);
            ws.close_by_ms = NonZeroU64::new(now + BACK_CLOSE_MS);
            poll = std::mem::take(&mut ws.shape).poll_key();
        }
        self.count_ws_end(key);
        if let Some(poll) = poll {
            self.upstream_gone(poll);
        }
        self.part(key);
        self.schedule_ws(key);
    }

    /// The next step with a backend whose client is gone.
    pub(crate) fn part(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.stage != Stage::Parting || session.backend {
            return;
        }
        let Some(ws) = &mut session.ws else { return };
        let Some(over_http) = ws.over_http() else { return drop(self.remove(key)) };
        if over_http.disconnecting {
            return drop(self.remove(key));
        }
        if over_http.link.is_closing() {
            return self.ask(key);
        }
        match over_http.link.disconnect() {
            Some(body) => {
                over_http.disconnecting = true;
                self.ask_with(key, body, 0);
            }
            None => drop(self.remove(key)),
        }
    }

    /// The handler lets the backend go and keeps the client.
    pub(crate) fn detach(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = session.ws.as_mut().filter(|ws| !ws.detached) else { return };
        ws.detached = true;
        ws.filter = None;
        ws.out.end_message();
        if matches!(ws.back, Back::Test) {
            ws.back = Back::None;
        }
        self.tell_back_of_close(key, None, b"");
        self.return_ws_credits(key, 0);
        self.extend_window(key);
    }
}

/// Code and reason as a close frame has them.
pub(crate) fn close_content(code: Option<u16>, reason: &[u8]) -> Vec<u8> {
    let Some(code) = code else { return Vec::new() };
    let mut content = code.to_be_bytes().to_vec();
    content.extend_from_slice(reason);
    content
}
