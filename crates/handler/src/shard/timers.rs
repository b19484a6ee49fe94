//! Deadlines of sessions, and what is done by walking over all of them.
//!
//! A session has one entry in the wheel, looked at lazily. Session keep-alives, minutes and
//! `conn` refreshes need no timer: the arena is walked in small steps, each place in its turn.

use std::collections::VecDeque;

use evloop::arena::Key;
use stats::{Body, ConnKind, Packet};
use zhttp::{Kind, MAX_IDS};

use super::Shard;
use super::session::{Flags, NEVER};
use crate::intern::NONE;
use crate::limiter::Limiter;
use crate::message::ToHub;

/// Times of sessions are counted in steps of this, milliseconds.
pub(super) const TICK_MS: u64 = 100;

/// Steps in which the walk for session keep-alives visits every place (spec/zhttp.md §7).
const KEEP_ALIVE_STEPS: u64 = zhttp::KEEP_ALIVE_MS / TICK_MS;

/// Most steps of the walk that are taken at once: two seconds.
const PACE_MAX: u64 = 20;

/// Tenths of a second without packets after which a session ends.
const EXPIRY: u32 = (zhttp::SESSION_EXPIRY_MS / TICK_MS) as u32;

/// Tenths of a second by which a keep-alive may come early.
const SPREAD: usize = 10;

/// Sessions of one tick that are looked at together; more of them are a crowd.
const CROWD: usize = 2 * MAX_IDS;

/// Parts of a crowd, and the milliseconds between them: it is through when the next one comes.
const PARTS: usize = 18;
const PART_MS: u64 = 5;

/// Sessions whose keep-alives came due in great numbers, by connection manager. Keep-alives have
/// time: all at once they would wake every connection manager and hold up whoever makes a request
/// for many milliseconds.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The number of a connection manager, and one of its sessions.
    entries: VecDeque<(u32, Key)>,
    part: usize,
    next: u64,
}

impl Crowd {
    fn join(&mut self, now: u64, mut entries: Vec<(u32, Key)>) {
        if self.entries.is_empty() {
            self.next = now;
        }
        // So that each connection manager gets few and full packets.
        entries.sort_unstable_by_key(|(peer, key)| (*peer, key.index));
        self.entries.extend(entries);
        self.part = self.entries.len().div_ceil(PARTS);
    }

    /// When the next part is due.
    fn next(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.next)
    }

    /// Takes a part that is due.
    fn part(&mut self, now: u64) -> Option<Vec<Key>> {
        self.next().filter(|next| *next <= now)?;
        // Parts that are late are made up for, one by one.
        self.next += PART_MS;
        let end = self.end_of_part();
        let part = self.entries.drain(..end).map(|(_, key)| key).collect();
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        Some(part)
    }

    /// How many entries go now: whole packets, so that no connection manager is woken twice.
    fn end_of_part(&self) -> usize {
        let mut end = 0;
        while let Some((peer, _)) = self.entries.get(end).filter(|_| end < self.part) {
            let packet = self.entries.range(end..).take(MAX_IDS);
            end += packet.take_while(|(other, _)| other == peer).count();
        }
        end
    }
}

/// A point in time in tenths of a second.
pub(super) fn tenths(now: u64) -> u32 {
    u32::try_from(now / TICK_MS).unwrap_or(NEVER - 1)
}

/// Where the walks are.
#[derive(Debug, Default)]
pub(super) struct Walks {
    /// When the next step is due.
    next: u64,
    /// The last step done, counted from the start of time.
    tick: u64,
    /// How many connection managers had sessions then.
    managers: usize,
}

/// The places to visit in step `tick` of a walk that visits every place once in `steps`. A
/// place keeps its step however the table grows and shrinks, so no session waits longer.
pub(super) fn places(tick: u64, steps: u64, capacity: u32) -> impl Iterator<Item = u32> {
    let steps = u32::try_from(steps.max(1)).unwrap_or(u32::MAX);
    let first = (tick % u64::from(steps)) as u32;
    (first..capacity).step_by(steps as usize)
}

impl Shard {
    /// Entries of the timers, to look at.
    pub fn timers(&self) -> usize {
        self.wheel.len() + self.socket_wheel.len()
    }

    /// When [`Shard::timeout`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.sessions.is_empty() && self.fetches.is_empty() && self.sockets.is_empty() {
            return None;
        }
        let others = [
            self.wheel.next(),
            self.crowd.next(),
            self.quiet_crowd.next(),
            self.socket_wheel.next(),
            self.updates.due(),
            self.questions.due(),
            self.limiter.as_ref().and_then(Limiter::due),
        ];
        others.into_iter().flatten().chain([self.walks.next]).min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: u64) {
        while let Some(keys) = self.wheel.expired(now) {
            if keys.len() > CROWD {
                let peer = |key: &Key| self.sessions.get(*key).map(|session| session.peer);
                let entries = keys.iter().filter_map(|key| Some((peer(key)?, *key))).collect();
                self.wheel.recycle(keys);
                self.crowd.join(now, entries);
                continue;
            }
            self.look_at_all(now, &keys);
            self.wheel.recycle(keys);
        }
        while let Some(keys) = self.crowd.part(now) {
            self.look_at_all(now, &keys);
        }
        self.socket_timeouts(now);
        self.update_due(now);
        self.ask_due(now);
        if now >= self.walks.next {
            let tick = now / TICK_MS;
            // After a long pause every place is visited once, not more.
            let last = self.walks.tick.max(tick.saturating_sub(KEEP_ALIVE_STEPS));
            let mut entries = Vec::new();
            for tick in last + 1..=tick {
                self.walk(now, tick, &mut entries);
                self.walk_sockets(now, tick);
            }
            self.write_kind(Kind::KeepAlive);
            self.quiet_crowd.join(now, entries);
            self.keep_fetches_alive(now);
            self.expire_fetches(now);
            // Every round ends on time, so nobody waits longer than 45 s and the parts of a crowd.
            let end = (tick / KEEP_ALIVE_STEPS + 1) * KEEP_ALIVE_STEPS;
            let managers = self.peers.in_use();
            let next = (tick + self.pace(managers)).min(end) * TICK_MS;
            self.walks = Walks { next, tick, managers };
        }
        while let Some(keys) = self.quiet_crowd.part(now) {
            self.keep_sessions(&keys);
        }
    }

    /// Steps of the walk to be taken at once, so that a packet for each connection manager is
    /// full, and a quiet shard sleeps.
    fn pace(&self, managers: usize) -> u64 {
        if !self.sockets.is_empty() || !self.fetches.is_empty() {
            return 1;
        }
        let fills = (MAX_IDS * managers.max(1)) as u64 * KEEP_ALIVE_STEPS;
        (fills / self.sessions.len().max(1) as u64).clamp(1, PACE_MAX)
    }

    /// Enters the session's next deadline into the wheel, unless an earlier entry is there.
    pub(super) fn schedule(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let links = session.extra.as_ref().and_then(|extra| extra.links.as_ref());
        let next = links.map_or(NEVER, |links| links.due);
        let target = session.deadline.min(next).min(session.heard.saturating_add(EXPIRY));
        if target < session.wheel {
            session.wheel = target;
            self.wheel.schedule(u64::from(target) * TICK_MS, key);
        }
    }

    fn look_at_all(&mut self, now: u64, keys: &[Key]) {
        for key in keys {
            self.look_at(now, *key);
        }
        self.write_keep_alives();
    }

    /// An entry of the wheel expired.
    fn look_at(&mut self, now: u64, key: Key) {
        let now_tenths = tenths(now);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.wheel > now_tenths {
            return;
        }
        session.wheel = NEVER;
        if session.heard.saturating_add(EXPIRY) <= now_tenths {
            self.drops.expired += 1;
            self.remove(now, key, false);
            return;
        }
        if session.deadline <= now_tenths {
            session.deadline = NEVER;
            if session.flags.has(Flags::RESPONSE) {
                return self.time_out(now, key);
            }
            self.keep_alive_due(now, key);
        }
        self.look_at_next(now, key);
        self.schedule(key);
    }

    /// Lets the keep-alive of a stream start its period anew.
    pub(super) fn restart_keep_alive(&mut self, now: u64, index: u32) {
        let Some(session) = self.sessions.at(index) else { return };
        let Some(keep_alive) = self.keep_alives.get(session.keep_alive) else { return };
        let period = keep_alive.timeout_s.saturating_mul(10);
        let latest = tenths(now).saturating_add(period).min(NEVER - 1);
        // Up to a second early. With many connection managers each has its own tenth of every
        // second, so that it gets few and full packets; with few the tenths share the load.
        let less = match self.walks.managers {
            0..SPREAD => self.random(SPREAD as u32),
            _ => latest.wrapping_sub(session.peer) % SPREAD as u32,
        };
        let deadline = latest.saturating_sub(less).max(tenths(now) + 1);
        let Some(session) = self.sessions.at_mut(index) else { return };
        session.deadline = deadline;
        if session.deadline >= session.wheel {
            return;
        }
        if let Some(key) = self.sessions.key_at(index) {
            self.schedule(key);
        }
    }

    fn keep_alive_due(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(keep_alive) = self.keep_alives.get(session.keep_alive) else { return };
        let length = keep_alive.data.len() as u32;
        // Blocked: the timer is off until the client takes data again (spec/grip.md §8.6).
        if session.queue.is_some() || session.hold.is_some() || session.flags.has(Flags::PAUSING) {
            return;
        }
        let (number, route) = (session.keep_alive, session.route);
        self.count(route, |sums| {
            sums.activity += 1;
            sums.counters.client_content_bytes_sent += u64::from(length);
        });
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.credits < length || session.is_alone() {
            let data = self.keep_alives.get(number).map(|k| k.data.clone()).unwrap_or_default();
            self.send_body(now, key, data.into());
        } else {
            session.credits -= length;
            self.gather(key.index, (number, 0));
        }
        self.restart_keep_alive(now, key.index);
    }

    fn write_keep_alives(&mut self) {
        let keep_alives = &self.keep_alives;
        self.group.write(&self.sessions, &mut self.peers, |f, (number, _)| {
            let data = keep_alives.get(number).map_or(&[][..], |keep_alive| &keep_alive.data);
            f.body(data).flag("more", true);
        });
    }

    /// Visits the places of step `tick`: adds the sessions there that need a keep-alive.
    fn walk(&mut self, now: u64, tick: u64, entries: &mut Vec<(u32, Key)>) {
        let capacity = self.sessions.capacity();
        for index in places(tick, KEEP_ALIVE_STEPS, capacity) {
            let Some(session) = self.sessions.at(index) else { continue };
            if !session.keeps_alive() {
                continue;
            }
            let peer = session.peer;
            if let Some(key) = self.sessions.key_at(index) {
                entries.push((peer, key));
                self.count_minutes(now, key);
            }
        }
        if self.listening && self.settings.stats_connection_send {
            let steps = self.settings.stats_connection_ttl_s * 750 / TICK_MS;
            for index in places(tick, steps, capacity) {
                self.refresh_conn(index);
            }
        }
    }

    /// Sends the keep-alives of sessions (spec/zhttp.md §7), as far as they are still there.
    fn keep_sessions(&mut self, keys: &[Key]) {
        for key in keys {
            let Some(session) = self.sessions.get(*key) else { continue };
            if !session.keeps_alive() {
                continue;
            }
            if session.user_data().is_some() {
                self.write_one(key.index, |f| {
                    f.kind(Kind::KeepAlive);
                });
            } else {
                self.gather(key.index, (NONE, 0));
            }
        }
        self.write_kind(Kind::KeepAlive);
    }

    fn refresh_conn(&mut self, index: u32) {
        let Some(session) = self.sessions.at(index) else { return };
        let id = self.conn_id(session.peer, &session.id);
        let address = session.address.map(|address| address.to_string());
        let route = self.routes[session.route as usize].route.clone();
        let body = Body::Conn {
            id: &id,
            kind: ConnKind::Http,
            peer_address: address.as_deref(),
            ssl: session.flags.has(Flags::SSL),
            ttl: self.settings.stats_connection_ttl_s,
        };
        let packet = Packet { from: &self.settings.instance_id, route: route.as_deref(), body };
        self.to_hub.push(ToHub::Conn(packet.encode(self.settings.stats_format)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions of so many connection managers, in turn.
    fn entries(count: u32, managers: u32) -> Vec<(u32, Key)> {
        let mut arena = evloop::arena::Arena::new();
        (0..count).map(|n| (n % managers, arena.insert(n))).collect()
    }

    #[test]
    fn a_crowd_is_through_in_small_parts_before_the_next_tick() {
        let (mut crowd, all) = (Crowd::default(), entries(3_600, 3_600));
        crowd.join(1_000, all.clone());
        let (mut seen, mut now) = (Vec::new(), 1_000);
        while let Some(next) = crowd.next() {
            // A loop that wakes a little late every time.
            now = next + 1;
            let before = seen.len();
            while let Some(part) = crowd.part(now) {
                seen.extend(part);
            }
            assert!((1..=2 * 200).contains(&(seen.len() - before)), "at {now}");
        }
        assert_eq!(seen, all.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
        assert!(now < 1_000 + TICK_MS, "{now}");
    }

    #[test]
    fn a_crowd_that_comes_before_the_last_is_through_goes_faster() {
        let (mut crowd, all) = (Crowd::default(), entries(5_000, 5_000));
        crowd.join(1_000, all[..2_000].to_vec());
        assert_eq!(crowd.part(1_000).map(|part| part.len()), Some(112));
        assert_eq!(crowd.part(1_000), None);
        crowd.join(1_000, all[2_000..].to_vec());
        let mut left = 0;
        while let Some(part) = crowd.part(1_000 + TICK_MS) {
            left += part.len();
        }
        assert_eq!(left, 5_000 - 112);
    }

    #[test]
    fn a_part_ends_where_a_connection_manager_does() {
        let (mut crowd, all) = (Crowd::default(), entries(6_600, 60));
        let of: Vec<u32> = all.iter().map(|(peer, _)| *peer).collect();
        crowd.join(1_000, all);
        let mut seen = Vec::new();
        while let Some(part) = crowd.part(1_000 + TICK_MS) {
            let mut peers: Vec<u32> = part.iter().map(|key| of[key.index as usize]).collect();
            peers.dedup();
            assert!(peers.len() <= 4, "{peers:?}");
            seen.extend(peers);
        }
        // Each of them once.
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn one_connection_manager_with_a_great_crowd_is_still_told_in_parts() {
        let (mut crowd, all) = (Crowd::default(), entries(36_000, 1));
        crowd.join(1_000, all);
        let first = crowd.part(1_000).map(|part| part.len());
        assert_eq!(first, Some(16 * MAX_IDS));
    }
}
