//! Timers of next links, shared by the streams that would ask the same (spec/grip.md §8.3): they
//! follow the link in one moment, so that one request serves all of them ([`super::queue`]).
//!
//! The spec leaves the query out of the comparison. Here it counts: streams whose links differ in
//! it cannot share a request, and following them in one moment would only be a burst.

use std::hash::BuildHasher;

use evloop::arena::Key;
use foldhash::fast::RandomState;
use grip::NextLink;
use hashbrown::HashMap;

use super::Shard;
use super::session::{Links, NEVER};
use super::timers::tenths;
use crate::room::shrink_map;

/// Streams that follow their link together.
#[derive(Debug)]
struct Round {
    due: u32,
    streams: u32,
}

/// All rounds, by a hash of what their streams ask: a collision only lets two links be followed
/// in the same moment.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    open: HashMap<u64, Round>,
    hasher: RandomState,
}

impl Rounds {
    /// What makes streams ask the same, as far as it is known before they do.
    fn key(&self, links: &Links, next: &NextLink) -> u64 {
        self.hasher.hash_one((next.timeout_s, &next.url, &links.route, links.trusted))
    }

    /// A stream begins to wait; gives when it is due, in tenths of a second.
    fn join(&mut self, key: u64, now: u32, timeout_s: u32) -> u32 {
        let due = now.saturating_add(timeout_s.saturating_mul(10)).min(NEVER - 1);
        let round = self.open.entry(key).or_insert(Round { due, streams: 0 });
        if round.due <= now {
            // Its streams are being looked at just now: this one waits for the next time.
            *round = Round { due, streams: 0 };
        }
        round.streams += 1;
        round.due
    }

    /// A stream that was due at `due` does not wait any more.
    fn leave(&mut self, key: u64, due: u32) {
        let Some(round) = self.open.get_mut(&key).filter(|round| round.due == due) else { return };
        round.streams -= 1;
        if round.streams == 0 {
            self.open.remove(&key);
            shrink_map(&mut self.open);
        }
    }
}

impl Shard {
    /// Lets a stream wait for the time of its next link.
    pub(super) fn arm_next(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let links = session.extra.as_mut().and_then(|extra| extra.links.as_deref_mut());
        let Some(links) = links else { return };
        leave_round(&mut self.rounds, links);
        let Some(next) = &links.next else { return };
        let round = self.rounds.key(links, next);
        links.due = self.rounds.join(round, tenths(now), next.timeout_s);
        links.round = Some(round);
        self.schedule(key);
    }

    /// The time of the stream's next link has come, or is put off.
    pub(super) fn disarm_next(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let links = session.extra.as_mut().and_then(|extra| extra.links.as_deref_mut());
        if let Some(links) = links {
            leave_round(&mut self.rounds, links);
        }
    }
}

/// The stream of these links does not wait for their time any more.
pub(super) fn leave_round(rounds: &mut Rounds, links: &mut Links) {
    if let Some(round) = links.round.take() {
        rounds.leave(round, links.due);
    }
    links.due = NEVER;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_is_due_with_the_others() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.join(1, 100, 10), 200);
        assert_eq!(rounds.join(1, 150, 10), 200);
        assert_eq!(rounds.join(2, 150, 10), 250);
        // The first of the round is put off; it does not wait for a time that has come.
        rounds.leave(1, 200);
        assert_eq!(rounds.join(1, 200, 10), 300);
        // The second one leaves the old round, not the new one.
        rounds.leave(1, 200);
        assert_eq!(rounds.join(1, 201, 10), 300);
        rounds.leave(1, 300);
        rounds.leave(1, 300);
        rounds.leave(2, 250);
        assert!(rounds.open.is_empty());
    }

    #[test]
    fn a_link_without_a_wait_is_followed_at_once() {
        let mut rounds = Rounds::default();
        for _ in 0..2 {
            assert_eq!(rounds.join(1, 100, 0), 100);
        }
        assert_eq!(rounds.join(2, NEVER - 2, u32::MAX), NEVER - 1);
    }
}
