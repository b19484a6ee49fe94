//! From item to shards: duplicates, order, receivers (spec/publish.md §6).

use std::sync::Arc;

use evloop::arena::Key;
use grip::Item;
use hashbrown::HashMap;
use stats::{Body, Mode, Packet};

use super::{Hub, SECOND_MS};
use crate::message::{Output, ToShard};
use crate::room::shrink_queue;

/// Items that may wait in one channel.
const WAITING_MAX: usize = 100;

/// Items of a channel by the id that they wait for.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<String, Arc<Item>>);

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The sequencing in figures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequencer {
    /// Items that wait for the one before them.
    pub(super) items: u64,
    /// Items since the start that waited too long, and went though there was a gap before them.
    pub(super) gaps: u64,
}

/// When an item began to wait.
#[derive(Debug)]
pub(super) struct Arrival {
    at: u64,
    record: Key,
    item: Arc<Item>,
}

impl Hub {
    /// Publishes items in order; gives how many sessions they go to now, all together. Duplicates
    /// and items that wait for the one before them go to none.
    pub fn publish(&mut self, now: u64, items: Vec<Item>) -> u64 {
        let mut receivers = 0;
        for item in items {
            let duplicate =
                item.id.as_ref().is_some_and(|id| self.seen.is_duplicate(now, &item.channel, id));
            if duplicate {
                self.drops.duplicates += 1;
                continue;
            }
            receivers += self.sequence(now, Arc::new(item));
        }
        receivers
    }

    /// Lets an item through, or lets it wait for the one before it.
    fn sequence(&mut self, now: u64, item: Arc<Item>) -> u64 {
        let Some(key) = self.find_record(&item.channel) else {
            return self.deliver(now, None, &item);
        };
        if item.no_seq {
            return self.deliver(now, Some(key), &item);
        }
        let Some(record) = self.records.get_mut(key) else { return 0 };
        let expected = record.last_id.as_deref().zip(item.prev_id.as_deref());
        match expected {
            Some((last, prev)) if last != prev => {
                self.wait(now, key, &item);
                0
            }
            _ => self.release_chain(now, key, item),
        }
    }

    fn wait(&mut self, now: u64, key: Key, item: &Arc<Item>) {
        let Some(record) = self.records.get_mut(key) else { return };
        let Some(prev) = &item.prev_id else { return };
        let waiting = &mut record.waiting.get_or_insert_default().0;
        let channel = &item.channel;
        if waiting.contains_key(prev) {
            log::debug!(
                "sequencer: already have item for channel [{channel}] depending on prev-id \
                 [{prev}], dropping"
            );
            self.drops.unsequenced += 1;
        } else if waiting.len() >= WAITING_MAX {
            log::debug!("sequencer: too many pending items for channel [{channel}], dropping");
            self.drops.unsequenced += 1;
        } else {
            waiting.insert(prev.clone(), item.clone());
            self.sequencer.items += 1;
            self.waiting.push_back(Arrival { at: now, record: key, item: item.clone() });
            self.next_check.get_or_insert(now + SECOND_MS);
        }
    }

    /// Delivers an item and those that waited for it, one after the other; gives the receivers of
    /// the first.
    fn release_chain(&mut self, now: u64, key: Key, item: Arc<Item>) -> u64 {
        let mut next = Some(item);
        let mut receivers = None;
        while let Some(item) = next {
            let Some(record) = self.records.get_mut(key) else { break };
            record.last_id = item.id.as_deref().map(Arc::from);
            let waiting = record.waiting.as_mut().zip(item.id.as_ref());
            next = waiting.and_then(|(waiting, id)| waiting.0.remove(id));
            self.sequencer.items -= u64::from(next.is_some());
            if record.waiting.as_ref().is_some_and(|waiting| waiting.0.is_empty()) {
                record.waiting = None;
            }
            let reached = self.deliver(now, Some(key), &item);
            receivers.get_or_insert(reached);
        }
        receivers.unwrap_or_default()
    }

    /// Items that waited too long go, in order of arrival, though a gap remains.
    pub(super) fn release_overdue(&mut self, now: u64) {
        if self.next_check.is_none_or(|check| check > now) {
            return;
        }
        while let Some(arrival) = self.waiting.front() {
            if arrival.at + self.settings.message_wait_ms > now {
                break;
            }
            let Some(Arrival { record: key, item, .. }) = self.waiting.pop_front() else { break };
            let still = self.records.get_mut(key).and_then(|record| {
                let waiting = &mut record.waiting.as_mut()?.0;
                let prev = item.prev_id.as_ref()?;
                // Another item may wait for the same id by now.
                waiting.get(prev).filter(|waits| Arc::ptr_eq(waits, &item))?;
                waiting.remove(prev)
            });
            if let Some(item) = still {
                self.sequencer.items -= 1;
                self.sequencer.gaps += 1;
                let id = item.id.as_deref().unwrap_or_default();
                log::debug!("timing out item channel=[{}] id=[{id}]", item.channel);
                self.release_chain(now, key, item);
            }
        }
        shrink_queue(&mut self.waiting);
        self.next_check = (!self.waiting.is_empty()).then_some(now + SECOND_MS);
    }

    /// An item goes to everybody on its channel; gives how many that are.
    fn deliver(&mut self, now: u64, key: Option<Key>, item: &Arc<Item>) -> u64 {
        let record = key.and_then(|key| self.records.get(key));
        let count = |wanted: bool, mode| match record {
            Some(record) if wanted => record.count(mode),
            _ => 0,
        };
        let receivers = [
            (Mode::Response, count(item.response.is_some(), Mode::Response)),
            (Mode::Stream, count(item.stream.is_some(), Mode::Stream)),
            (Mode::Ws, count(item.ws.is_some(), Mode::Ws)),
        ];
        let wanted = receivers.iter().any(|(_, count)| *count > 0) || !item.no_seq;
        for link in record.filter(|_| wanted).iter().flat_map(|record| &record.links) {
            let message = ToShard::Publish { channel: link.channel, item: item.clone(), at: now };
            self.to_shards.push((link.shard, message));
        }
        let total: u32 = receivers.iter().map(|(_, count)| count).sum();
        log::info!("publish channel={} receivers={total}", item.channel);
        for (mode, count) in receivers {
            if count > 0 {
                log::debug!("relaying to {count} {} subscribers", mode.transport().name());
                self.announce_message(item, mode, count);
            }
        }
        self.sums.received(now, self.blocks(item, None));
        total.into()
    }

    fn announce_message(&mut self, item: &Item, mode: Mode, count: u32) {
        if !self.sums.listens_to("message ") {
            return;
        }
        let blocks = self.settings.message_block_size;
        let blocks = (blocks > 0).then(|| self.blocks(item, Some(mode)) * u64::from(count));
        let body = Body::Message {
            channel: &item.channel,
            item_id: item.id.as_deref(),
            count: count.into(),
            blocks,
            transport: mode.transport(),
        };
        let packet = Packet { from: &self.settings.instance_id, route: None, body };
        self.out.push(Output::Stats(packet.encode(self.settings.stats_format)));
    }

    /// Blocks of an item in the format of `mode`, or the most of any (spec/stats.md §5).
    fn blocks(&self, item: &Item, mode: Option<Mode>) -> u64 {
        let block = self.settings.message_block_size;
        if block == 0 {
            return 0;
        }
        let response = item.response.as_ref().map(|format| match &format.body {
            grip::Body::Whole(body) => body.len(),
            grip::Body::Patch(_) => 0,
        });
        let sizes = [
            (Mode::Response, response),
            (Mode::Stream, item.stream.as_ref().map(|format| format.content.len())),
            (Mode::Ws, item.ws.as_ref().map(|format| format.content.len())),
        ];
        let wanted = sizes.into_iter().filter(|(m, _)| mode.is_none_or(|mode| mode == *m));
        let largest = wanted.filter_map(|(_, size)| size).max().unwrap_or(0) as u64;
        item.size.unwrap_or(largest).div_ceil(block)
    }
}
