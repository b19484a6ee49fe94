//! Session keep-alives without timers (`spec/zhttp.md §7`): a 450th of the places belongs to each
//! 100 ms of a round of 45 s. With few sessions several such steps are taken at once, up to two
//! seconds of them, so that a packet names up to 128 and a quiet process sleeps.

use zhttp::{Ext, Head, Id, Kind};

use crate::conn::State;
use crate::peers::PeerId;
use crate::session::Session;
use crate::worker::{Cancel, Grant, Worker};

/// What one step of the walk stands for.
const STEP_MS: u64 = 100;

/// Most steps taken at once, and so the most by which a round can shift against the one before.
const PACE_MAX: u64 = 20;

/// Steps of a round.
const STEPS: u64 = zhttp::KEEP_ALIVE_MS / STEP_MS;

/// Room for grants, cancels and messages that is kept from turn to turn; a crowd that leaves needs
/// far more, and it goes back.
pub(crate) const KEPT: usize = 4096;

/// Where the walk is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cycle {
    next_ms: u64,
    /// Steps that are taken at once then, less one.
    wait: u64,
    step: u64,
    slot: u32,
}

impl Cycle {
    /// When the next steps are due.
    pub(crate) fn next(&self) -> u64 {
        self.next_ms
    }

    /// Goes on after a time without sessions, in which no steps were taken.
    pub(crate) fn resume(&mut self, now: u64) {
        self.next_ms = self.next_ms.max(now + STEP_MS);
    }

    /// Takes the steps that are due; gives the places to visit now.
    fn advance(&mut self, now: u64, capacity: u32, sessions: u32) -> std::ops::Range<u32> {
        let late = (now - self.next_ms) / STEP_MS;
        self.step += self.wait + 1 + late;
        let end = (u64::from(capacity) * self.step.min(STEPS)).div_ceil(STEPS) as u32;
        let range = self.slot..end.max(self.slot);
        self.slot = range.end;
        if self.step >= STEPS {
            // What is late beyond the end of the round counts for the next one.
            (self.step, self.slot) = ((self.step - STEPS).min(STEPS - 1), 0);
        }
        self.wait = pace(sessions).min(STEPS - self.step) - 1;
        self.next_ms += (late + 1 + self.wait) * STEP_MS;
        range
    }
}

/// Steps to be taken at once so that they fill a packet.
fn pace(sessions: u32) -> u64 {
    let fills = zhttp::MAX_IDS as u64 * STEPS / u64::from(sessions.max(1));
    fills.clamp(1, PACE_MAX)
}

impl Worker {
    /// The steps of the walk that are due. A session that has credits to return gets these
    /// instead: any packet keeps it alive.
    pub(crate) fn walk(&mut self) {
        if self.now < self.cycle.next_ms {
            return;
        }
        let range = self.cycle.advance(self.now, self.conns.capacity(), self.peers.held());
        for slot in range {
            let Some(conn) = self.conns.at_mut(slot) else { continue };
            if conn.state == State::Request && conn.peer != PeerId::NONE {
                let credits = std::mem::take(&mut conn.due);
                conn.window += credits;
                let counter = conn.counter;
                self.grants.push(Grant { peer: conn.peer, credits, slot, counter });
            }
        }
    }

    /// Sends the credits and keep-alives of this turn, equal ones together.
    pub(crate) fn send_grants(&mut self) {
        let mut grants = std::mem::take(&mut self.grants);
        grants.sort_unstable();
        let mut sent = 0;
        while let Some(first) = grants.get(sent) {
            let (peer, credits) = (first.peer, first.credits);
            let max = self.peers.ids_max(peer);
            let same = |grant: &&Grant| grant.peer == peer && grant.credits == credits;
            let count = grants[sent..].iter().take(max).take_while(same).count();
            self.send_grant(peer, credits, &grants[sent..sent + count]);
            sent += count;
        }
        grants.clear();
        grants.shrink_to(KEPT);
        self.grants = grants;
    }

    fn send_grant(&mut self, peer: PeerId, credits: u32, grants: &[Grant]) {
        let mut named: Vec<(Session, u32)> = Vec::with_capacity(grants.len());
        for grant in grants {
            let Some(conn) = self.conns.at_mut(grant.slot) else { continue };
            if conn.counter != grant.counter || !conn.in_session() {
                continue;
            }
            if conn.peer != peer {
                // Handed off meanwhile: the next owner gets the credits.
                conn.due += credits;
                conn.window -= credits;
                continue;
            }
            let worker = self.config.worker;
            named
                .push((Session { worker, slot: grant.slot, counter: grant.counter }, conn.out_seq));
            conn.out_seq = conn.out_seq.wrapping_add(1);
        }
        if credits == 0 {
            let (number, count) = (self.config.worker, named.len());
            log::debug!("server-worker {number}: sending keep alives for {count} sessions");
        }
        self.send_named(peer, &named, |f| {
            if credits > 0 {
                f.kind(Kind::Credit).credits(credits);
            } else {
                f.kind(Kind::KeepAlive);
            }
        });
    }

    /// Sends the cancels of this turn, as few packets as the peers understand.
    pub(crate) fn send_cancels(&mut self) {
        let mut cancels = std::mem::take(&mut self.cancels);
        cancels.sort_unstable();
        if !cancels.is_empty() {
            let (number, count) = (self.config.worker, cancels.len());
            log::debug!("server-worker {number}: sending cancels for {count} sessions");
        }
        for group in cancels.chunk_by(|a, b| a.peer == b.peer) {
            let peer = group[0].peer;
            for part in group.chunks(self.peers.ids_max(peer)) {
                let worker = self.config.worker;
                let name =
                    |c: &Cancel| (Session { worker, slot: c.slot, counter: c.counter }, c.seq);
                let named: Vec<(Session, u32)> = part.iter().map(name).collect();
                self.send_named(peer, &named, |f| {
                    f.kind(Kind::Cancel);
                });
            }
        }
        cancels.clear();
        cancels.shrink_to(KEPT);
        self.cancels = cancels;
    }

    /// Writes one packet that names these sessions with these sequence numbers.
    fn send_named(
        &mut self,
        peer: PeerId,
        named: &[(Session, u32)],
        fill: impl FnOnce(&mut zhttp::Fields<'_>),
    ) {
        if named.is_empty() {
            return;
        }
        let texts: Vec<_> = named.iter().map(|(session, _)| session.text()).collect();
        let entries = texts.iter().zip(named);
        let ids: Vec<Id<'_>> =
            entries.map(|(text, (_, seq))| Id { id: text, seq: Some(*seq) }).collect();
        let head = Head { from: &self.config.instance, ids: &ids, ext: Ext::OURS };
        self.counters.packets_out += 1;
        self.peers.write(peer, |out| zhttp::write(out, &head, fill));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times at which each place was visited, with looks at these intervals.
    fn visits(capacity: u32, interval_ms: u64, end_ms: u64) -> Vec<Vec<u64>> {
        let mut cycle = Cycle::default();
        let mut visits = vec![Vec::new(); capacity as usize];
        let mut now = 0;
        while now < end_ms {
            if now >= cycle.next() {
                for slot in cycle.advance(now, capacity, capacity) {
                    visits[slot as usize].push(now);
                }
            }
            now += interval_ms;
        }
        visits
    }

    #[test]
    fn every_place_once_in_45_seconds() {
        for capacity in [1, 64, 449, 450, 451, 5_000, 100_000] {
            for times in visits(capacity, 50, 45_000) {
                assert_eq!(times.len(), 1, "{capacity}");
            }
        }
    }

    #[test]
    fn few_sessions_are_named_together() {
        let looks = |sessions: u32| {
            let mut cycle = Cycle::default();
            let mut looks = 0;
            for now in (0..450_000).step_by(50).filter(|now| *now >= 1_000) {
                if now >= cycle.next() {
                    cycle.advance(now, sessions, sessions);
                    looks += 1;
                }
            }
            looks
        };
        // Ten rounds: by twos of seconds, by packets of 128, by tenths of a second.
        assert!((200..=230).contains(&looks(1_000)), "{}", looks(1_000));
        assert!((1_450..=1_550).contains(&looks(15_000)), "{}", looks(15_000));
        assert!((4_400..=4_500).contains(&looks(100_000)), "{}", looks(100_000));
    }

    #[test]
    fn a_late_loop_still_keeps_everything_alive() {
        for interval_ms in [130, 1_000, 7_000] {
            for times in visits(5_000, interval_ms, 450_000) {
                let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max();
                let most = 45_000 + 2 * interval_ms + pace(5_000) * STEP_MS;
                assert!(gap.is_some_and(|gap| gap <= most), "{interval_ms}: {gap:?}");
            }
        }
    }
}
