//! The subscription records: one per full channel, as long as anybody is on it or a response
//! hold lingers (spec/publish.md §10).

use std::hash::BuildHasher;
use std::sync::Arc;

use evloop::arena::Key;
use stats::{Body, Mode, Packet};

use super::Hub;
use crate::message::{Output, ToShard};
use crate::room::{shrink_queue, shrink_table};

/// After this the sessions of a fresh channel ask the backend (spec/grip.md §12).
const FIRST_UPDATE_MS: u64 = 1_000;

/// What a shard has on a channel.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shard: usize,
    /// The shard's key.
    pub(super) channel: Key,
    counts: [u32; 3],
}

/// The sessions of one mode on a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ModeState {
    pub(super) count: u32,
    /// Until when the mode lingers without sessions.
    linger: Option<u64>,
    /// The number changed since it was announced.
    changed: bool,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: Arc<str>,
    pub(super) links: Vec<Link>,
    pub(super) modes: [ModeState; 3],
    pub(super) last_id: Option<Arc<str>>,
    /// Items that wait for the one before them.
    pub(super) waiting: Option<Box<super::publish::Waiting>>,
}

/// The place of a mode in [`Record::modes`].
fn place(mode: Mode) -> usize {
    match mode {
        Mode::Response => 0,
        Mode::Stream => 1,
        Mode::Ws => 2,
    }
}

impl Record {
    pub(super) fn count(&self, mode: Mode) -> u32 {
        self.modes[place(mode)].count
    }
}

impl Hub {
    /// Subscriptions of a mode on all channels.
    pub(super) fn subscriptions(&self, mode: Mode) -> u64 {
        self.subscriptions[place(mode)]
    }

    pub(super) fn find_record(&self, name: &str) -> Option<Key> {
        let records = &self.records;
        let same = |index: &u32| records.at(*index).is_some_and(|r| &*r.name == name);
        let index = self.by_name.find(self.hasher.hash_one(name), same)?;
        self.records.key_at(*index)
    }

    /// A shard has its first session on a channel.
    pub(super) fn subscribe(&mut self, now: u64, shard: usize, channel: Key, name: Arc<str>) {
        let key = match self.find_record(&name) {
            Some(key) => key,
            None => self.new_record(now, &name),
        };
        let Some(record) = self.records.get_mut(key) else { return };
        record.links.retain(|link| link.shard != shard);
        record.links.push(Link { shard, channel, counts: [0; 3] });
        let last_id = record.last_id.clone();
        let message = ToShard::Subscribed { channel, hub: key.index, last_id };
        self.to_shards.push((shard, message));
    }

    fn new_record(&mut self, now: u64, name: &Arc<str>) -> Key {
        let record = Record {
            name: name.clone(),
            links: Vec::with_capacity(1),
            modes: Default::default(),
            last_id: None,
            waiting: None,
        };
        let key = self.records.insert(record);
        let hash = self.hasher.hash_one(&**name);
        let (records, hasher) = (&self.records, &self.hasher);
        self.by_name.insert_unique(hash, key.index, |index| {
            records.at(*index).map_or(0, |record| hasher.hash_one(&*record.name))
        });
        self.out.push(Output::Subscribe(name.clone()));
        if self.settings.update_on_first_subscription {
            self.updates.push_back((now + FIRST_UPDATE_MS, key));
        }
        key
    }

    /// A shard says how many sessions it has on a channel.
    pub(super) fn set_count(&mut self, now: u64, shard: usize, hub: u32, mode: Mode, count: u32) {
        let Some(record) = self.records.at_mut(hub) else { return };
        let Some(link) = record.links.iter_mut().find(|link| link.shard == shard) else { return };
        let old = std::mem::replace(&mut link.counts[place(mode)], count);
        let state = &mut record.modes[place(mode)];
        let before = state.count;
        state.count = state.count + count - old;
        let sum = &mut self.subscriptions[place(mode)];
        *sum = *sum + u64::from(count) - u64::from(old);
        let after = state.count;
        if before == after {
            return;
        }
        if before == 0 {
            let returned = state.linger.take().is_some();
            log::trace!("channel {} has subscribers (returned: {returned})", record.name);
            self.announce(hub, mode);
        } else if after > 0 {
            if !std::mem::replace(&mut state.changed, true) {
                self.changed.push(hub);
            }
        } else if mode == Mode::Response && self.settings.linger_ms > 0 {
            let until = now + self.settings.linger_ms;
            state.linger = Some(until);
            if let Some(key) = self.records.key_at(hub) {
                self.lingering.push_back((until, key));
            }
        } else {
            self.announce_gone(hub, mode);
        }
    }

    /// A shard met a conflict with the channel's id: nobody remembers it any more.
    pub(super) fn forget(&mut self, shard: usize, hub: u32) {
        let Some(record) = self.records.at_mut(hub) else { return };
        record.last_id = None;
        for link in record.links.iter().filter(|link| link.shard != shard) {
            self.to_shards.push((link.shard, ToShard::Forget { channel: link.channel }));
        }
    }

    /// A shard has nobody on a channel any more.
    pub(super) fn release(&mut self, shard: usize, hub: u32) {
        let Some(record) = self.records.at_mut(hub) else { return };
        record.links.retain(|link| link.shard != shard);
        self.end_if_unused(hub);
    }

    fn end_if_unused(&mut self, hub: u32) {
        let Some(record) = self.records.at(hub) else { return };
        if !record.links.is_empty() || record.modes.iter().any(|mode| mode.linger.is_some()) {
            return;
        }
        let hash = self.hasher.hash_one(&*record.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |index| *index == hub) {
            entry.remove();
        }
        let (records, hasher) = (&self.records, &self.hasher);
        shrink_table(&mut self.by_name, |index| {
            records.at(*index).map_or(0, |record| hasher.hash_one(&*record.name))
        });
        let removed = self.records.key_at(hub).and_then(|key| self.records.remove(key));
        let waiting = removed.as_ref().and_then(|record| record.waiting.as_ref());
        self.sequencer.items -= waiting.map_or(0, |waiting| waiting.len() as u64);
        self.out.extend(removed.map(|record| Output::Unsubscribe(record.name)));
    }

    /// Lingering modes whose time is over go.
    pub(super) fn end_lingering(&mut self, now: u64) {
        while self.lingering.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, key)) = self.lingering.pop_front() else { return };
            let Some(record) = self.records.get_mut(key) else { continue };
            let state = &mut record.modes[place(Mode::Response)];
            // A later end means that the channel was used in between.
            if state.linger != Some(until) {
                continue;
            }
            state.linger = None;
            self.announce_gone(key.index, Mode::Response);
            self.end_if_unused(key.index);
        }
        shrink_queue(&mut self.lingering);
    }

    /// Sessions of fresh channels ask the backend for what may have been missed.
    pub(super) fn update_fresh(&mut self, now: u64) {
        while self.updates.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.updates.pop_front() else { return };
            let Some(record) = self.records.get(key) else { continue };
            for link in &record.links {
                let message = ToShard::Update { channel: Some(link.channel) };
                self.to_shards.push((link.shard, message));
            }
        }
        shrink_queue(&mut self.updates);
    }

    /// Forgets all ids and lets every session ask the backend (spec/grip.md §12).
    pub fn recover(&mut self) {
        for index in 0..self.records.capacity() {
            if let Some(record) = self.records.at_mut(index) {
                record.last_id = None;
            }
        }
        for shard in 0..self.settings.workers.max(1) {
            self.to_shards.push((shard, ToShard::Update { channel: None }));
        }
    }

    fn announce(&mut self, hub: u32, mode: Mode) {
        if !self.sums.listens_to("sub ") {
            return;
        }
        let Some(record) = self.records.at(hub) else { return };
        let body = Body::Sub {
            mode,
            channel: &record.name,
            ttl: self.settings.stats_subscription_ttl_s,
            subscribers: record.count(mode).into(),
        };
        let packet = Packet { from: &self.settings.instance_id, route: None, body };
        self.out.push(Output::Stats(packet.encode(self.settings.stats_format)));
    }

    fn announce_gone(&mut self, hub: u32, mode: Mode) {
        if !self.sums.listens_to("sub ") {
            return;
        }
        let Some(record) = self.records.at(hub) else { return };
        let body = Body::SubGone { mode, channel: &record.name };
        let packet = Packet { from: &self.settings.instance_id, route: None, body };
        self.out.push(Output::Stats(packet.encode(self.settings.stats_format)));
    }

    /// Once a second: numbers that changed, and a part of all, so that each is announced in
    /// three quarters of its life.
    pub(super) fn announce_subscriptions(&mut self) {
        for hub in std::mem::take(&mut self.changed) {
            for mode in Mode::ALL {
                let Some(record) = self.records.at_mut(hub) else { continue };
                let state = &mut record.modes[place(mode)];
                if std::mem::take(&mut state.changed) && state.count > 0 {
                    self.announce(hub, mode);
                }
            }
        }
        let seconds = (self.settings.stats_subscription_ttl_s * 3 / 4).max(1);
        self.second += 1;
        let first = (self.second % seconds) as u32;
        for hub in (first..self.records.capacity()).step_by(seconds as usize) {
            for mode in Mode::ALL {
                if self.records.at(hub).is_some_and(|record| record.count(mode) > 0) {
                    self.announce(hub, mode);
                }
            }
        }
    }
}
