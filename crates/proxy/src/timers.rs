//! What happens by time alone: late acknowledgements, keep-alives, expiry, calls without reply.
//!
//! Deadlines of one kind all have the same delay, so each kind is a queue; an entry whose session
//! went on or away is skipped when its turn comes.

use std::collections::VecDeque;

use evloop::arena::Key;
use evloop::timer::Wheel;
use zhttp::{KEEP_ALIVE_MS, Kind, MAX_IDS, SESSION_EXPIRY_MS};

use crate::Proxy;
use crate::session::Stage;

/// A request is acknowledged after this time if nothing else could be sent (design, rule 1).
const ACK_MS: u64 = 50;

/// How long a head waits for the rest of its response, so that both leave as one packet.
pub(crate) const COMPANY_MS: u64 = 3;

/// How long the handler may take for a call (spec/internal-rpc.md §2.2).
pub(crate) const CALL_MS: u64 = 8_000;

/// How late a deadline of a WebSocket may be noticed.
const WHEEL_MS: u64 = 50;

/// The session table is walked in steps of this time.
const TICK_MS: u64 = 100;

/// Steps in which every session is looked at once for expiry.
const EXPIRY_TICKS: u32 = 50;

/// Deadlines with the same delay, first due first.
#[derive(Debug)]
pub(crate) struct Queue {
    delay_ms: u64,
    entries: VecDeque<(u64, Key)>,
}

impl Queue {
    fn new(delay_ms: u64) -> Self {
        Self { delay_ms, entries: VecDeque::new() }
    }

    pub fn push(&mut self, now: u64, key: Key) {
        self.entries.push_back((now + self.delay_ms, key));
    }

    /// Lets nothing be due later than that.
    pub fn shorten(&mut self, deadline_ms: u64) {
        for (due, _) in &mut self.entries {
            *due = (*due).min(deadline_ms);
        }
    }

    fn pop_due(&mut self, now: u64) -> Option<Key> {
        self.entries.front().filter(|(due, _)| *due <= now)?;
        self.entries.pop_front().map(|(_, key)| key)
    }

    /// When the first entry that still matters is due.
    fn next(&mut self, matters: impl Fn(Key) -> bool) -> Option<u64> {
        while let Some((due, key)) = self.entries.front() {
            if matters(*key) {
                return Some(*due);
            }
            self.entries.pop_front();
        }
        None
    }
}

/// All queues, and the walk over the table.
#[derive(Debug)]
pub(crate) struct Timers {
    pub acks: Queue,
    pub heads: Queue,
    pub calls: Queue,
    pub ws: Wheel<Key>,
    pub polls: Wheel<Key>,
    next_tick_ms: Option<u64>,
    keep_alive_step: u32,
    expiry_step: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            acks: Queue::new(ACK_MS),
            heads: Queue::new(COMPANY_MS),
            calls: Queue::new(CALL_MS),
            ws: Wheel::new(WHEEL_MS),
            polls: Wheel::new(WHEEL_MS),
            next_tick_ms: None,
            keep_alive_step: 0,
            expiry_step: 0,
        }
    }
}

impl Timers {
    /// There is a session: the walk goes on.
    pub fn wake(&mut self, now: u64) {
        self.next_tick_ms.get_or_insert(now + TICK_MS);
    }
}

impl Proxy {
    /// Does what is due.
    pub fn timeout(&mut self, now: u64) {
        self.now = now;
        while let Some(key) = self.timers.heads.pop_due(now) {
            self.dirty.push(key);
        }
        while let Some(key) = self.timers.acks.pop_due(now) {
            self.acknowledge(key);
        }
        while let Some(key) = self.timers.calls.pop_due(now) {
            self.call_timed_out(key);
        }
        self.ws_timeout();
        self.polls_timeout();
        if self.timers.next_tick_ms.is_some_and(|due| due <= now) {
            self.tick();
        }
        self.publish_sums();
    }

    /// When [`Proxy::timeout`] has something to do.
    pub fn next_deadline(&mut self) -> Option<u64> {
        let sessions = &self.sessions;
        let unacknowledged =
            |key| sessions.get(key).is_some_and(|s| !s.acknowledged() && s.stage.may_send());
        let with_head = |key| sessions.get(key).is_some_and(|s| s.exchange.out.head.is_some());
        let calling = |key| {
            let waits = |stage| matches!(stage, Stage::Accepting | Stage::Inspecting);
            sessions.get(key).is_some_and(|s| waits(s.stage))
        };
        [
            self.timers.acks.next(unacknowledged),
            self.timers.heads.next(with_head),
            self.timers.calls.next(calling),
            self.timers.ws.next(),
            self.timers.polls.next(),
            self.timers.next_tick_ms,
            self.sums.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The backend is slow: tells the client's side that somebody has the request.
    fn acknowledge(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        if !session.acknowledged() && session.stage.may_send() {
            self.send_kind(key, Kind::KeepAlive);
        }
    }

    fn call_timed_out(&mut self, key: Key) {
        match self.sessions.get(key).map(|session| session.stage) {
            Some(Stage::Accepting) => self.accept_failed(self.now, key),
            Some(Stage::Inspecting) => self.inspect_failed(self.now, key),
            _ => {}
        }
    }

    /// One step of the walk: some sessions get a keep-alive, some are looked at for expiry.
    fn tick(&mut self) {
        let now = self.now;
        let capacity = self.sessions.capacity();
        let late = self.timers.next_tick_ms.is_some_and(|due| due + TICK_MS < now);
        let next = self.timers.next_tick_ms.map(|due| due + TICK_MS).filter(|_| !late);
        self.timers.next_tick_ms =
            (!self.sessions.is_empty()).then_some(next.unwrap_or(now + TICK_MS));
        self.tidy();
        let ticks = (KEEP_ALIVE_MS / TICK_MS) as u32;
        let range = walk(&mut self.timers.keep_alive_step, capacity, ticks);
        self.keep_alive(range);
        self.announce_again(TICK_MS);
        for index in walk(&mut self.timers.expiry_step, capacity, EXPIRY_TICKS) {
            let Some(session) = self.sessions.at(index) else { continue };
            let silent = now.saturating_sub(session.last_in_ms);
            let worker_silent = session.zmq.as_ref().is_some_and(|back| back.is_silent(now));
            if worker_silent && let Some(key) = self.sessions.key_at(index) {
                self.worker_unreachable(now, key);
                continue;
            }
            let expired = silent >= SESSION_EXPIRY_MS && session.acknowledged();
            let Some(key) = self.sessions.key_at(index) else { continue };
            self.report_so_far(key);
            if expired {
                log::debug!("a client session was silent for too long, ending it");
                self.drop_session(key);
            }
        }
    }

    /// Sends keep-alives for the sessions at these places, as few packets as possible.
    fn keep_alive(&mut self, places: std::ops::Range<u32>) {
        let mut due: Vec<(u32, bool, Key)> = Vec::new();
        // What they are to say is not the same.
        let mut alone: Vec<Key> = Vec::new();
        for index in places {
            let (Some(session), Some(key)) = (self.sessions.at(index), self.sessions.key_at(index))
            else {
                continue;
            };
            if !(session.acknowledged() && session.stage.may_send()) {
                continue;
            }
            match session.user_data {
                None => due.push((session.peer, session.router, key)),
                Some(_) => alone.push(key),
            }
        }
        due.sort_unstable_by_key(|(peer, router, _)| (*peer, *router));
        for group in due.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let multi = self.peers.get(group[0].0).is_some_and(|peer| peer.multi);
            for some in group.chunks(if multi { MAX_IDS } else { 1 }) {
                self.keep_alive_packet(some);
            }
        }
        alone.iter().for_each(|key| self.send_kind(*key, Kind::KeepAlive));
        for key in due.into_iter().map(|(_, _, key)| key).chain(alone) {
            self.keep_worker_alive(key);
            self.say_keep_alive(key);
        }
    }

    fn keep_alive_packet(&mut self, group: &[(u32, bool, Key)]) {
        let (peer, router, _) = group[0];
        let keys: Vec<Key> = group.iter().map(|(_, _, key)| *key).collect();
        self.send_shared(peer, router, &keys, |fields| {
            fields.kind(Kind::KeepAlive);
        });
    }

    /// Somebody on the client side left: every peer with sessions gets a keep-alive, and those
    /// that it cannot reach are gone (design, rule 9).
    pub fn probe_peers(&mut self, now: u64) {
        self.now = now;
        self.keep_alive(0..self.sessions.capacity());
    }
}

/// The next part of a walk that sees `capacity` places once in `ticks` steps.
fn walk(step: &mut u32, capacity: u32, ticks: u32) -> std::ops::Range<u32> {
    let place = |step: u32| (u64::from(capacity) * u64::from(step) / u64::from(ticks)) as u32;
    let part = place(*step)..place(*step + 1);
    *step = (*step + 1) % ticks;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_sees_every_place_once() {
        for capacity in [0, 1, 64, 449, 450, 451, 10_000] {
            let mut step = 0;
            let mut seen = vec![0; capacity as usize];
            for _ in 0..450 {
                walk(&mut step, capacity, 450).for_each(|index| seen[index as usize] += 1);
            }
            assert!(seen.iter().all(|count| *count == 1), "{capacity}");
        }
    }

    #[test]
    fn queues_skip_what_does_not_matter() {
        let mut queue = Queue::new(50);
        let key = |index| Key { index, generation: 1 };
        queue.push(0, key(1));
        queue.push(10, key(2));
        assert_eq!(queue.next(|k| k == key(2)), Some(60));
        assert_eq!((queue.pop_due(59), queue.pop_due(60)), (None, Some(key(2))));
        queue.push(100, key(3));
        queue.shorten(120);
        assert_eq!(queue.pop_due(120), Some(key(3)));
    }
}
