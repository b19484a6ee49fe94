//! Requests that no process could take yet, in order. Each connection has at most one, so more
//! than connections means that some of them are over: the oldest are dropped then.

use std::collections::VecDeque;

use crate::Session;

/// Nobody waits longer for the answer to a request that was not taken.
const AGE_MAX_MS: u64 = zhttp::SESSION_EXPIRY_MS;

#[derive(Debug)]
struct Waiting {
    session: Session,
    packet: Vec<u8>,
    since: u64,
}

/// The list.
#[derive(Debug)]
pub(crate) struct WaitList {
    list: VecDeque<Waiting>,
    max: usize,
    dropped: u64,
}

impl WaitList {
    /// For so many connections.
    pub(crate) fn new(max: usize) -> Self {
        Self { list: VecDeque::new(), max, dropped: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Requests that were dropped because too many waited.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends a request by `send`, which says whether it could, or lets it wait its turn.
    pub(crate) fn send(
        &mut self,
        now: u64,
        session: Session,
        packet: Vec<u8>,
        send: impl Fn(&[u8]) -> bool,
    ) {
        if self.list.is_empty() && send(&packet) {
            return;
        }
        if self.list.len() >= self.max {
            self.dropped += 1;
            self.list.pop_front();
        }
        self.list.push_back(Waiting { session, packet, since: now });
    }

    /// Sends what can be sent now. What `wanted` denies, or nobody waits for any more, is dropped.
    pub(crate) fn retry(
        &mut self,
        now: u64,
        wanted: impl Fn(Session) -> bool,
        send: impl Fn(&[u8]) -> bool,
    ) {
        while let Some(first) = self.list.front() {
            let over = now.saturating_sub(first.since) > AGE_MAX_MS || !wanted(first.session);
            if !over && !send(&first.packet) {
                return;
            }
            self.list.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn requests_wait_in_order_and_not_for_ever() {
        let session = |slot| Session { worker: 0, slot, counter: 0 };
        let mut list = WaitList::new(3);
        for slot in 0..5u8 {
            list.send(u64::from(slot), session(slot.into()), vec![slot], |_| false);
        }
        assert_eq!((list.len(), list.dropped()), (3, 2));
        let sent = RefCell::new(Vec::new());
        let send = |packet: &[u8]| {
            sent.borrow_mut().push(packet[0]);
            true
        };
        list.send(6, session(5), vec![5], send);
        assert!(sent.borrow().is_empty(), "behind the others");
        list.retry(4 + AGE_MAX_MS, |session| session.slot != 4, send);
        assert_eq!((sent.take(), list.len()), (vec![5], 0));
    }
}
