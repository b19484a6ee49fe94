//! The process stops: streams end with their last chunk, response holds get what the backend
//! instructed for their timeout, WebSockets a close that says that the server goes away. All of
//! it may be spread, so that not everybody comes back at once.

use evloop::arena::Key;
use zrpc::control::{Item, Kind as Control};

use super::Shard;
use super::session::Flags;

/// The server goes away (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

impl Shard {
    /// Takes no more sessions over.
    pub fn begin_stop(&mut self) {
        self.stopping = true;
    }

    /// Ends one of `parts` equal parts of the sessions; with 1, all that are left.
    pub fn end_part(&mut self, now: u64, parts: u64) {
        let part = |length: usize| length.div_ceil(usize::try_from(parts.max(1)).unwrap_or(1));
        let count = part(self.sessions.len());
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).take(count).collect();
        let (whole, others): (Vec<Key>, Vec<Key>) =
            keys.into_iter().partition(|key| self.sessions.get(*key).is_some_and(|s| s.is_clean()));
        for key in &whole {
            self.gather(key.index, (0, 0));
        }
        self.group.write(&self.sessions, &mut self.peers, |f, _| {
            f.body(b"").flag("more", false);
        });
        whole.into_iter().for_each(|key| drop(self.remove(now, key, false)));
        others.into_iter().for_each(|key| self.end_session(now, key, parts <= 1));
        let count = part(self.sockets.len());
        let keys: Vec<Key> = self.sockets.iter().map(|(key, _)| key).take(count).collect();
        keys.into_iter().for_each(|key| self.end_socket(now, key));
    }

    /// `last`: it cannot be waited for.
    fn end_session(&mut self, now: u64, key: Key, last: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let starting = session.hold.as_ref().is_some_and(|hold| hold.unconfirmed > 0);
        if session.flags.has(Flags::PAUSING) || starting {
            // The proxy has it again in a moment.
            if last {
                self.cancel(now, key);
            }
            return;
        }
        if session.flags.has(Flags::RESPONSE) && session.hold.is_some() {
            self.time_out(now, key);
        } else if session.hold.is_none() && !session.flags.has(Flags::FINISHING) {
            session.flags.set(Flags::FINISHING, true);
            self.flush(now, key);
        }
        if last && self.sessions.get(key).is_some() {
            self.cancel(now, key);
        }
    }

    fn end_socket(&mut self, now: u64, key: Key) {
        let Some(socket) = self.sockets.get(key) else { return };
        if !socket.closed {
            let close = Item { code: Some(GOING_AWAY), ..Item::new(b"", Control::Close) };
            self.tell(key, close);
        }
        self.remove_socket(now, key);
    }
}
