//! When a shard's requests go: equal ones for next links as one, and only so many at a time to
//! one backend, so that a recovery of thousands of streams harms nobody.
//!
//! Updates that are not urgent wait a random moment and then start in batches.

use std::collections::VecDeque;

use bytes::Bytes;
use evloop::arena::{Arena, Key};
use hashbrown::HashMap;

use super::Shard;
use super::fetch::{Ask, Fetch, Purpose};
use super::links::origin;
use super::session::Flags;
use crate::room::{shrink_map, shrink_queue};

/// Requests under way to one backend.
const IN_FLIGHT_MAX: usize = 100;

/// Gone links that may wait for their turn, of all backends.
const GONE_MAX: usize = 10_000;

/// Milliseconds between two batches of updates, and up to which the first one waits more.
const UPDATE_MS: u64 = 100;

/// Response holds, and streams, in a batch of updates (spec/grip.md §7.4).
const RETRIES: usize = 100;
const STREAMS: usize = 1_000;

/// Bytes of a shared body that may wait for one client.
const SHARED_MAX: usize = 1_000_000;

/// Requests to one backend.
#[derive(Debug, Default)]
struct Target {
    in_flight: usize,
    waiting: VecDeque<Key>,
}

/// All requests of a shard.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    open: Arena<Fetch>,
    /// Those for next links that others may still join, by what they ask.
    shared: HashMap<String, Key>,
    targets: HashMap<String, Target>,
    gone_waiting: usize,
}

impl Fetches {
    pub(super) fn get(&self, key: Key) -> Option<&Fetch> {
        self.open.get(key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Fetch> {
        self.open.get_mut(key)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Fetch> {
        self.open.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Fetch)> {
        self.open.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// Sessions that are to ask their backend when there is time.
#[derive(Debug, Default)]
pub(super) struct Updates {
    queue: VecDeque<Key>,
    next: u64,
}

impl Updates {
    pub(super) fn due(&self) -> Option<u64> {
        (!self.queue.is_empty()).then_some(self.next)
    }
}

/// What requests that can be answered by one have in common.
fn share_key(ask: &Ask) -> String {
    let mut headers: Vec<&str> = ask.headers.iter().map(|(_, value)| value.as_str()).collect();
    headers.sort_unstable();
    let flags = format!("{}{}", ask.prefer_internal, ask.trusted);
    [&[&*ask.url, &*ask.route, &*flags][..], &headers].concat().join("\n")
}

fn target_of(url: &str) -> String {
    origin(url).map_or_else(String::new, |(scheme, host, port)| format!("{scheme} {host} {port}"))
}

impl Shard {
    /// Makes a request, or joins one that asks the same and did not go before `ask.since`; it goes
    /// when its turn comes.
    pub(super) fn fetch(&mut self, now: u64, purpose: Purpose, ask: Ask) -> Key {
        let share = matches!(purpose, Purpose::Next(_)).then(|| share_key(&ask));
        if let (Some(share), Purpose::Next(sessions)) = (&share, &purpose)
            && let Some(key) = self.fetches.shared.get(share).copied()
            && let Some(fetch) = self.fetches.get_mut(key)
            && fetch.sent.is_none_or(|sent| sent >= ask.since)
            && let Purpose::Next(all) = &mut fetch.purpose
        {
            all.extend(sessions);
            return key;
        }
        let target = target_of(&ask.url);
        let gone = matches!(purpose, Purpose::Gone(_));
        let key = self.fetches.open.insert(Fetch::new(now, purpose, ask));
        if let Some(share) = share {
            self.fetches.shared.insert(share.clone(), key);
            if let Some(fetch) = self.fetches.get_mut(key) {
                fetch.share = Some(share);
            }
        }
        let target = self.fetches.targets.entry(target).or_default();
        if target.in_flight < IN_FLIGHT_MAX {
            target.in_flight += 1;
            self.send_request(now, key);
        } else if gone && self.fetches.gone_waiting >= GONE_MAX {
            self.drops.gone_links += 1;
            let dropped = self.fetches.open.remove(key);
            self.out.extend(dropped.and_then(|mut fetch| fetch.next_owner()));
        } else {
            target.waiting.push_back(key);
            self.fetches.gone_waiting += usize::from(gone);
        }
        key
    }

    /// An answer has begun: nobody may join the request any more.
    pub(super) fn close_to_others(&mut self, key: Key) {
        let share = self.fetches.get_mut(key).and_then(|fetch| fetch.share.take());
        // A later request may have its name.
        if let Some(share) = share.filter(|share| self.fetches.shared.get(share) == Some(&key)) {
            self.fetches.shared.remove(&share);
            shrink_map(&mut self.fetches.shared);
        }
    }

    /// Takes a request out, and lets the next one of its backend go.
    pub(super) fn remove_fetch(&mut self, now: u64, key: Key) -> Option<Fetch> {
        self.close_to_others(key);
        let mut fetch = self.fetches.open.remove(key)?;
        self.out.extend(fetch.next_owner());
        let name = target_of(&fetch.ask.url);
        let Some(target) = self.fetches.targets.get_mut(&name) else { return Some(fetch) };
        if fetch.sent.is_none() {
            // Its place in the queue is passed over when its turn comes.
            let gone = matches!(fetch.purpose, Purpose::Gone(_));
            self.fetches.gone_waiting -= usize::from(gone);
            return Some(fetch);
        }
        target.in_flight -= 1;
        while target.in_flight < IN_FLIGHT_MAX
            && let Some(next) = target.waiting.pop_front()
        {
            let Some(waiting) = self.fetches.open.get(next) else { continue };
            let gone = matches!(waiting.purpose, Purpose::Gone(_));
            self.fetches.gone_waiting -= usize::from(gone);
            target.in_flight += 1;
            self.send_request(now, next);
            return Some(fetch);
        }
        if target.in_flight == 0 && target.waiting.is_empty() {
            self.fetches.targets.remove(&name);
            shrink_map(&mut self.fetches.targets);
        }
        Some(fetch)
    }

    /// A session does not wait for the request any more; without anybody it is given up.
    pub(super) fn leave_fetch(&mut self, now: u64, key: Key, session: Key) {
        let fetch = self.fetches.get_mut(key);
        let Some(Purpose::Next(sessions)) = fetch.map(|fetch| &mut fetch.purpose) else { return };
        sessions.retain(|waits| *waits != session);
        if sessions.is_empty() {
            self.drop_fetch(now, key);
        }
    }

    /// A part of a next link's body goes to the clients. True: the only client does not take it,
    /// and no more is to be fetched until it does.
    pub(super) fn relay(&mut self, now: u64, key: Key, body: &Bytes) -> bool {
        let Some(fetch) = self.fetches.get_mut(key).filter(|_| !body.is_empty()) else {
            return false;
        };
        fetch.relayed = true;
        let Purpose::Next(sessions) = &fetch.purpose else { return false };
        let sessions = sessions.clone();
        let shared = sessions.len() > 1;
        let mut blocked = false;
        let mut slow = Vec::new();
        for session in &sessions {
            if self.relay_gathered(*session, body.len()) {
                continue;
            }
            slow.push(*session);
        }
        self.group.write(&self.sessions, &mut self.peers, |f, _| {
            f.body(body).flag("more", true);
        });
        for session in slow {
            let waits = self.relay_alone(now, session, body.clone());
            blocked |= waits > 0;
            if shared && waits > SHARED_MAX {
                self.drops.slow_closed += 1;
                log::debug!("httpsession: too slow for a shared body, ending it");
                self.cancel(now, session);
            }
        }
        blocked && !shared
    }

    /// The same bytes for many clients go as one packet.
    fn relay_gathered(&mut self, key: Key, length: usize) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return true };
        session.deadline = super::session::NEVER;
        let free = session.queue.is_none()
            && session.hold.is_none()
            && !session.flags.has(Flags::PAUSING)
            && !session.is_alone();
        if !free || (session.credits as usize) < length {
            return false;
        }
        session.credits -= length as u32;
        let route = session.route;
        self.gather(key.index, (0, 0));
        self.count(route, |sums| sums.counters.client_content_bytes_sent += length as u64);
        true
    }

    /// Gives how many bytes wait for the client now.
    fn relay_alone(&mut self, now: u64, key: Key, body: Bytes) -> usize {
        let Some(session) = self.sessions.get_mut(key) else { return 0 };
        let body = session.dressed(body);
        // Not bounded by items: the proxy sends no more than it was granted.
        if !body.is_empty() {
            session.queue.get_or_insert_default().items.push_back(body);
        }
        self.flush(now, key);
        let queue = self.sessions.get(key).and_then(|session| session.queue.as_ref());
        queue.map_or(0, |queue| queue.items.iter().map(Bytes::len).sum())
    }

    /// The session asks its backend when there is time: a response hold by a retry, a stream by
    /// its next link.
    pub(super) fn update_later(&mut self, now: u64, key: Key) {
        self.note_missed(now, key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.flags.has(Flags::UPDATE) {
            return;
        }
        session.flags.set(Flags::UPDATE, true);
        if self.updates.queue.is_empty() {
            let jitter = u64::from(self.random(UPDATE_MS as u32));
            self.updates.next = self.updates.next.max(now + UPDATE_MS / 2 + jitter);
        }
        self.updates.queue.push_back(key);
    }

    /// Starts a batch of updates, if it is time.
    pub(super) fn update_due(&mut self, now: u64) {
        if self.updates.due().is_none_or(|due| due > now) {
            return;
        }
        let (mut retries, mut streams) = (0, 0);
        while retries < RETRIES
            && streams < STREAMS
            && let Some(key) = self.updates.queue.pop_front()
        {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            session.flags.set(Flags::UPDATE, false);
            if session.flags.has(Flags::RESPONSE) {
                retries += 1;
                self.retry(now, key);
            } else {
                streams += 1;
                self.start_when_ready(now, key);
            }
        }
        shrink_queue(&mut self.updates.queue);
        self.updates.next = now + UPDATE_MS;
    }
}
