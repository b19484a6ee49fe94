//! Calls that the handler's socket does not take yet, because the handler is starting or its
//! queue is full. Each session has one call at most, so the sessions' limit bounds this too.

use std::collections::VecDeque;

use evloop::arena::Key;
use evloop::zsock::{Sent, Socket};

use super::sockets::Watched;

/// How long a call waits for a handler that was never there: the processes start together.
const FIRST_CONTACT_MS: u64 = 5_000;

/// How long a call waits for a handler that was there.
const WAIT_MS: u64 = 1_000;

struct Call {
    key: Key,
    payload: Vec<u8>,
    give_up_ms: u64,
}

/// The calls of one method.
#[derive(Default)]
pub(crate) struct Calls {
    waiting: VecDeque<Call>,
    reached: bool,
}

impl Calls {
    /// Sends a call, or lets it wait its turn.
    pub fn send(&mut self, now: u64, watched: &mut Watched, key: Key, payload: Vec<u8>) {
        if self.waiting.is_empty() && self.send_now(watched, &payload) {
            return;
        }
        let wait = if self.reached { WAIT_MS } else { FIRST_CONTACT_MS };
        self.waiting.push_back(Call { key, payload, give_up_ms: now + wait });
    }

    fn send_now(&mut self, watched: &mut Watched, payload: &[u8]) -> bool {
        // Any call on a socket may swallow the event of one that came in.
        watched.check = true;
        let sent = watched.socket.send(&[b"", payload]) == Sent::Ok;
        self.reached |= sent;
        sent
    }

    /// Whether calls wait, so that [`Calls::retry`] is worth a turn.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tries what waits; gives the sessions whose calls waited too long.
    pub fn retry(&mut self, now: u64, watched: &mut Watched) -> Vec<Key> {
        while let Some(call) = self.waiting.pop_front() {
            if !self.send_now(watched, &call.payload) {
                self.waiting.push_front(call);
                break;
            }
        }
        let late = self.waiting.iter().take_while(|call| call.give_up_ms <= now).count();
        self.waiting.drain(..late).map(|call| call.key).collect()
    }
}

/// Packets about new WebSockets that may wait for a handler.
const FIRST_WORDS_MAX: usize = 10_000;

/// Packets about new WebSockets while no handler takes them.
#[derive(Default)]
pub(crate) struct FirstWords {
    waiting: VecDeque<Vec<u8>>,
    lost: u64,
}

impl FirstWords {
    /// Sends a packet, or lets it wait its turn.
    pub fn push(&mut self, socket: &Socket, payload: Vec<u8>) {
        if self.waiting.is_empty() && socket.send(&[&payload]) == Sent::Ok {
            return;
        }
        if self.waiting.len() < FIRST_WORDS_MAX {
            return self.waiting.push_back(payload);
        }
        self.lost += 1;
        if self.lost.is_power_of_two() {
            log::warn!("no handler takes new WebSockets, {} packets lost so far", self.lost);
        }
    }

    /// Whether packets wait, so that [`FirstWords::retry`] is worth a turn.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tries what waits.
    pub fn retry(&mut self, socket: &Socket) {
        while let Some(payload) = self.waiting.front() {
            if socket.send(&[payload]) != Sent::Ok {
                return;
            }
            self.waiting.pop_front();
        }
    }
}
