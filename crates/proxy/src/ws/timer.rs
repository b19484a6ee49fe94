//! Deadlines of WebSockets. Each has one entry in the wheel at most, but for deadlines that came
//! nearer.

use std::num::NonZeroU64;

use evloop::arena::Key;

use super::session::{Control, End, KEEP_ALIVE_JITTER_MS, Ws};
use crate::Proxy;
use crate::session::Stage;

impl Ws {
    /// The next time at which something is due.
    fn deadline(&self) -> Option<u64> {
        let link = match &self.back {
            super::Back::OverHttp(over_http) => over_http.link.next_deadline(),
            _ => None,
        };
        [
            link,
            self.control.as_ref().and_then(Control::due_ms),
            self.keep_alive.as_ref().map(|keep_alive| keep_alive.due_ms),
            self.close_by_ms.map(NonZeroU64::get),
            self.shape.heartbeat_ms(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Proxy {
    /// Sees that the session is looked at when something is due.
    pub(crate) fn schedule_ws(&mut self, key: Key) {
        let ws = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut());
        let Some(ws) = ws else { return };
        let Some(due) = ws.deadline() else { return };
        if ws.timer_ms.is_none_or(|earlier| due < earlier.get()) {
            ws.timer_ms = NonZeroU64::new(due);
            self.timers.ws.schedule(due, key);
        }
    }

    /// Does what is due for all WebSockets.
    pub(crate) fn ws_timeout(&mut self) {
        while let Some(keys) = self.timers.ws.expired(self.now) {
            keys.iter().for_each(|&key| self.one_ws_timeout(key));
            self.timers.ws.recycle(keys);
        }
    }

    fn one_ws_timeout(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let parting = session.stage == Stage::Parting;
        let Some(ws) = &mut session.ws else { return };
        ws.timer_ms = None;
        let cid = ws.cid;
        if ws.close_by_ms.is_some_and(|due| due.get() <= now) {
            ws.close_by_ms = None;
            return self.close_is_late(key, parting);
        }
        let due = ws.control.as_ref().and_then(Control::due_ms);
        if due.is_some_and(|due| due <= now) {
            log::warn!("{cid}: the handler does not answer, ending the connection");
            self.drops.unanswered += 1;
            return self.ws_abandon(key, true);
        }
        if ws.keep_alive.as_ref().is_some_and(|keep_alive| keep_alive.due_ms <= now) {
            self.keep_alive_due(key);
        }
        self.sockjs_heartbeat(key);
        self.ask(key);
        self.schedule_ws(key);
    }

    fn keep_alive_due(&mut self, key: Key) {
        let jitter_ms = self.random.below(KEEP_ALIVE_JITTER_MS);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(keep_alive) = session.ws.as_mut().and_then(|ws| ws.keep_alive.as_mut()) {
            keep_alive.draw(jitter_ms);
            keep_alive.due_ms = self.now + keep_alive.interval_ms;
        }
        self.say_need_keep_alive(key);
    }

    /// A close was not answered in time.
    fn close_is_late(&mut self, key: Key, parting: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        if parting {
            log::debug!("{}: the backend does not come to an end", ws.cid);
            return drop(self.remove(key));
        }
        match ws.client_closed && ws.close_out == End::No {
            // The backend does not answer the client's close: the proxy does.
            true => self.close_client(key, None, b""),
            false => self.ws_abandon(key, true),
        }
    }
}
