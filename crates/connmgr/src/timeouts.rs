//! Deadlines. A connection stores two; the wheel has one entry per place in the arena, which
//! outlives the connection, so that neither packets nor short connections cost a timer.

use evloop::timer::Wheel;

use crate::Net;
use crate::answer::Answer;
use crate::conn::{CLOSE_TIMED, Conn, LOST, REQ, State, UNTAKEN, is_before};
use crate::worker::Worker;

/// How late a deadline may be noticed.
const TICK_MS: u64 = 100;

/// Deadlines further away than this, which nearly always move on before they come, are noticed up
/// to [`FAR_TICK_MS`] late: thousands of held streams would wake the loop in every tick otherwise.
const FAR_MS: u64 = 45_000;
const FAR_TICK_MS: u64 = 500;

/// Places without connections for which timers may be kept.
const SPARE_PLACES: usize = 64;

/// How long a request waits for somebody to take it once those who could have left
/// (design, section 5 rule 9).
const LOST_MS: u32 = 1_000;

/// How long to read on after an error answer.
const LINGER_MS: u32 = 2_000;

/// The wheel, and when each place's entry is due.
#[derive(Debug)]
pub(crate) struct Timers {
    wheel: Wheel<u32>,
    /// 0: no entry.
    due: Vec<u64>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { wheel: Wheel::new(TICK_MS), due: Vec::new() }
    }

    /// Makes sure that the place is looked at no later than `at`.
    fn arm(&mut self, slot: u32, at: u64) {
        let slot_index = slot as usize;
        if self.due.len() <= slot_index {
            self.due.resize(slot_index + 1, 0);
        }
        let due = &mut self.due[slot_index];
        if *due == 0 || at < *due {
            *due = at.max(1);
            self.wheel.schedule(at, slot);
        }
    }

    /// The last connection left: forgets its deadlines, and those of a crowd before it, which would
    /// stay for up to a minute. Those of a few are kept: the next few need the room.
    pub(crate) fn all_left(&mut self) {
        if self.due.len() > SPARE_PLACES {
            *self = Self::new();
        }
    }

    /// Takes the entry of a place off, unless an earlier look has put it off.
    fn fired(&mut self, slot: u32, now: u64) -> bool {
        let Some(due) = self.due.get_mut(slot as usize) else { return false };
        if *due == 0 || *due > now {
            return false;
        }
        *due = 0;
        true
    }
}

impl Worker {
    /// When [`Worker::timeout`] is to be called next, in milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.unfinished.is_empty() {
            return Some(self.now);
        }
        let walk = (self.peers.held() > 0).then(|| self.cycle.next());
        match (self.timers.wheel.next(), walk) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Ends what is over time and sends the keep-alives that are due.
    pub fn timeout(&mut self, now: u64, net: &mut impl Net) {
        self.now = now;
        for slot in std::mem::take(&mut self.unfinished) {
            self.pump_ws(net, slot);
        }
        while let Some(slots) = self.timers.wheel.expired(now) {
            for slot in &slots {
                if self.timers.fired(*slot, now) {
                    self.look(net, *slot);
                }
            }
            self.timers.wheel.recycle(slots);
        }
        if self.timers.due.len() > 2 * self.conns.capacity() as usize + SPARE_PLACES {
            self.timers.due.truncate(self.conns.capacity() as usize);
            self.timers.due.shrink_to_fit();
        }
        self.walk();
    }

    /// Wrapping 32-bit time, as connections store it.
    pub(crate) fn clock(&self) -> u32 {
        self.now as u32
    }

    /// Puts the place's entry where the connection's deadline is.
    pub(crate) fn arm(&mut self, slot: u32) {
        if let Some(conn) = self.conns.at(slot) {
            let wait = conn.deadline().wrapping_sub(self.now as u32).min(i32::MAX as u32);
            let at = self.now + u64::from(wait);
            let is_far = u64::from(wait) > FAR_MS;
            self.timers.arm(slot, if is_far { at.next_multiple_of(FAR_TICK_MS) } else { at });
        }
    }

    /// Both deadlines as for a connection that may send a request. In req mode they are one,
    /// which nothing puts off (`spec/connmgr.md §4.7`).
    pub(crate) fn ready_for_request(&mut self, slot: u32) {
        let now = self.clock();
        let (stream, req) = (self.config.stream_timeout_ms, self.config.req_timeout_ms);
        if let Some(conn) = self.conns.at_mut(slot) {
            let whole = conn.has(REQ);
            let session = if whole { req } else { zhttp::SESSION_EXPIRY_MS as u32 };
            conn.session_at = now.wrapping_add(session);
            conn.stream_at = now.wrapping_add(if whole { req } else { stream });
        }
        self.arm(slot);
    }

    /// The client moved. With the session over, that is all that keeps the connection.
    pub(crate) fn client_active(&mut self, slot: u32) {
        let now = self.clock();
        let stream = self.config.stream_timeout_ms;
        let moves = |conn: &&mut Conn| !conn.has(REQ) && !conn.has(CLOSE_TIMED);
        if let Some(conn) = self.conns.at_mut(slot).filter(moves) {
            conn.stream_at = now.wrapping_add(stream);
            if conn.state == State::Ending {
                conn.session_at = now.wrapping_add(zhttp::SESSION_EXPIRY_MS as u32);
            }
        }
    }

    /// A request was sent on; how long it may wait for an answer.
    pub(crate) fn request_waits(&mut self, slot: u32) {
        self.client_active(slot);
        let lost = self.push_lost && self.peers.batch_seen();
        let wait = if lost { LOST_MS } else { zhttp::SESSION_EXPIRY_MS as u32 };
        self.wait_for_answer(slot, wait, lost);
    }

    fn wait_for_answer(&mut self, slot: u32, wait: u32, lost: bool) {
        let at = self.clock().wrapping_add(wait);
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.session_at = at;
            conn.set(LOST, lost);
        }
        self.arm(slot);
    }

    /// Reading on after an answer, until the client has seen it.
    pub(crate) fn linger_deadline(&mut self, slot: u32) {
        let at = self.clock().wrapping_add(LINGER_MS);
        if let Some(conn) = self.conns.at_mut(slot) {
            (conn.session_at, conn.stream_at) = (at, at);
        }
        self.arm(slot);
    }

    /// A process that takes first packets left. Requests that it may have had with it get a
    /// second for somebody else to take them, if the responders are ours and so answer fast.
    pub fn push_disconnected(&mut self, now: u64) {
        self.now = now;
        self.push_lost = true;
        if !self.peers.batch_seen() {
            return;
        }
        for slot in 0..self.conns.capacity() {
            let waits = |conn: &Conn| conn.state == State::Request && conn.has(UNTAKEN);
            if self.conns.at(slot).is_some_and(waits) {
                self.wait_for_answer(slot, LOST_MS, true);
            }
        }
    }

    /// Looks whether a deadline of the connection has passed.
    fn look(&mut self, net: &mut impl Net, slot: u32) {
        let now = self.clock();
        let Some(conn) = self.conns.at(slot) else { return };
        if is_before(now, conn.deadline()) {
            return self.arm(slot);
        }
        let session_over = !is_before(now, conn.session_at);
        let (lost, waiting) = (conn.has(LOST), conn.state == State::Request);
        if session_over && waiting && lost && conn.has(UNTAKEN) {
            self.counters.unanswered += 1;
            self.answer(slot, &Answer::NOBODY);
            // Flushed and closed at the end of the turn.
            return self.linger_deadline(slot);
        }
        if conn.is_open_ws() {
            return self.ws_overdue(slot, session_over);
        }
        if conn.has(REQ) {
            self.counters.req_timeouts += u64::from(conn.state != State::Linger);
        } else if session_over {
            self.counters.session_timeouts += u64::from(waiting);
        } else {
            self.counters.stream_timeouts += 1;
            self.cancel(slot);
        }
        self.close(net, slot);
    }
}
