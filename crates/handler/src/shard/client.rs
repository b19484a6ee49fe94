//! Packets from the connection managers.

use bytes::Bytes;
use evloop::arena::Key;
use zhttp::{Id, Kind, Packet};

use super::Shard;
use super::session::{Flags, NEVER};
use super::timers::tenths;

impl Shard {
    /// Takes a message of a connection manager: one packet, or several.
    pub fn client_message(&mut self, now: u64, message: &[u8]) {
        for packet in zhttp::split(message) {
            match Packet::parse(packet) {
                Ok(packet) => self.client_packet(now, &packet),
                Err(error) => {
                    self.drops.bad_packets += 1;
                    log::warn!("zhttp parse error: {error}");
                }
            }
        }
    }

    /// A message whose parts are not those of a packet came.
    pub fn bad_envelope(&mut self, reason: &str) {
        self.drops.bad_packets += 1;
        log::warn!("{reason}");
    }

    fn client_packet(&mut self, now: u64, packet: &Packet<'_>) {
        if packet.from.is_empty() || packet.ids.is_empty() {
            return self.bad_envelope("unable to determine packet address or id");
        }
        let Some(peer) = self.peers.find(packet.from) else {
            self.drops.unknown += packet.ids.len() as u64;
            return;
        };
        self.peers.announced(peer, packet.ext.multi, packet.ext.batch);
        for id in packet.ids.iter() {
            match self.find(peer, id.id) {
                Some(key) => self.session_packet(now, key, packet, id),
                None => self.drops.unknown += 1,
            }
        }
    }

    fn session_packet(&mut self, now: u64, key: Key, packet: &Packet<'_>, id: Id<'_>) {
        // These two end the session whatever their number is (spec/zhttp.md §4.3).
        if matches!(packet.kind, Kind::Cancel | Kind::Error) {
            self.remove(now, key, false);
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(seq) = id.seq {
            if seq != session.in_seq {
                let expected = session.in_seq;
                log::warn!("session: bad seq (expected {expected}, got {seq}), ending it");
                self.drops.bad_seq += 1;
                return self.cancel(now, key);
            }
            session.in_seq = session.in_seq.wrapping_add(1);
        }
        session.heard = tenths(now);
        session.credits = session.credits.saturating_add(packet.credits);
        match packet.kind {
            Kind::HandoffProceed => self.handoff_proceed(now, key),
            Kind::Unknown => {
                self.drops.unexpected += 1;
                self.cancel(now, key);
            }
            _ if packet.credits > 0 => self.flush(now, key),
            _ => {}
        }
    }

    /// Ends a session and tells its connection manager.
    pub(super) fn cancel(&mut self, now: u64, key: Key) {
        let pausing = self.sessions.get(key).is_some_and(|s| s.flags.has(Flags::PAUSING));
        if !pausing {
            self.write_one(key.index, |f| {
                f.kind(Kind::Cancel);
            });
        }
        self.remove(now, key, false);
    }

    /// Writes a keep-alive to one session of each connection manager that is reached by the
    /// ROUTER, so that sending it shows who is gone.
    pub fn probe(&mut self) {
        let mut seen = Vec::new();
        for index in 0..self.sessions.capacity() {
            let Some(session) = self.sessions.at(index) else { continue };
            let asked = session.keeps_alive() && session.flags.has(Flags::ROUTER);
            if !asked || seen.contains(&session.peer) {
                continue;
            }
            seen.push(session.peer);
            self.write_one(index, |f| {
                f.kind(Kind::KeepAlive);
            });
        }
    }

    /// Sends body bytes of a stream as far as credits allow; the rest waits.
    pub(super) fn send_body(&mut self, now: u64, key: Key, body: Bytes) {
        if body.is_empty() {
            return;
        }
        self.enqueue(now, key, body);
        self.flush(now, key);
    }

    /// Lets body bytes wait; beyond the most that may, they are dropped or the session ends. False:
    /// they were dropped.
    pub(super) fn enqueue(&mut self, now: u64, key: Key, body: Bytes) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let body = session.dressed(body);
        if body.is_empty() || session.enqueue(body) {
            return true;
        }
        self.drops.queue_full += 1;
        log::debug!("httpsession: publish queue at max, dropping");
        if self.settings.close_slow {
            self.drops.slow_closed += 1;
            self.cancel(now, key);
        }
        false
    }

    /// The client does not take everything: until it has, the timers are off (spec/grip.md §8.6).
    fn blocked(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.deadline = NEVER;
        let links = session.extra.as_ref().and_then(|extra| extra.links.as_ref());
        if links.is_some_and(|links| !links.updating) {
            self.disarm_next(key);
        }
    }

    /// The client took everything: the keep-alive timer runs again, or anew in idle mode, unless
    /// the part that a next link gave is not whole yet.
    fn unblocked(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let off = session.deadline == NEVER;
        let idle = session.flags.has(Flags::IDLE_MODE);
        let links = session.extra.as_ref().and_then(|extra| extra.links.as_ref());
        let fetch = links.and_then(|links| links.fetch);
        if (off && fetch.is_none()) || (!off && idle) {
            self.restart_keep_alive(now, key.index);
        }
        if let Some(fetch) = fetch {
            self.give_credits(fetch);
        }
        self.restart_next(now, key);
    }

    /// Sends what waits as far as credits allow.
    pub(super) fn flush(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.flags.has(Flags::PAUSING) {
            return;
        }
        let starting = session.hold.as_ref().map(|hold| hold.unconfirmed > 0);
        match starting {
            Some(true) => return,
            Some(false) if !session.flags.has(Flags::RESPONSE) => return self.send_start(now, key),
            // A response hold has nothing to send before its answer.
            Some(false) => return,
            None => {}
        }
        let finishing = session.flags.has(Flags::FINISHING);
        if finishing {
            session.close_call();
        }
        if session.queue.is_none() && !finishing {
            return;
        }
        let body = session.take_queued();
        session.credits -= body.len() as u32;
        let empty = session.queue.is_none();
        if !empty {
            self.blocked(key);
        }
        if body.is_empty() && !(finishing && empty) {
            return;
        }
        let Some(route) = self.sessions.get(key).map(|session| session.route) else { return };
        self.count(route, |s| s.counters.client_content_bytes_sent += body.len() as u64);
        let more = !(finishing && empty);
        self.write_one(key.index, |f| {
            f.body(&body).flag("more", more);
        });
        if !more {
            self.remove(now, key, false);
        } else if empty {
            self.unblocked(now, key);
        }
    }
}
