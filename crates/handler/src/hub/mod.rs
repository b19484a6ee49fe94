//! The hub: inputs, channels of all shards, order and duplicates of items, stats, commands.
//! Pure: items, commands and messages of the shards go in with the time, messages and outputs
//! come out.

mod command;
mod figures;
mod publish;
mod records;
mod seen;
mod state;
mod sums;

use std::collections::VecDeque;
use std::sync::Arc;

use evloop::arena::Arena;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use metrics::Histogram;

use crate::message::{Output, ToHub, ToShard};
use crate::settings::Settings;
use crate::shard::{KEPT_MESSAGES, LATENCY_BOUNDS_US};

/// What was thrown away since the start, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubDrops {
    /// Items seen before.
    pub duplicates: u64,
    /// Items that could not wait for the one before them.
    pub unsequenced: u64,
    /// Stats packets of proxies that could not be read.
    pub bad_stats: u64,
    /// Commands that could not be read.
    pub bad_commands: u64,
}

/// The hub.
#[derive(Debug)]
pub struct Hub {
    settings: Arc<Settings>,
    records: Arena<records::Record>,
    by_name: HashTable<u32>,
    hasher: RandomState,
    seen: seen::Seen,
    waiting: VecDeque<publish::Arrival>,
    sequencer: publish::Sequencer,
    next_check: Option<u64>,
    updates: VecDeque<(u64, evloop::arena::Key)>,
    lingering: VecDeque<(u64, evloop::arena::Key)>,
    changed: Vec<u32>,
    sums: sums::Sums,
    next_second: u64,
    /// Seconds looked at so far, which spread the refreshes.
    second: u64,
    calls: command::Calls,
    state: state::State,
    to_shards: Vec<(usize, ToShard)>,
    out: Vec<Output>,
    drops: HubDrops,
    told_drops: figures::ToldDrops,
    /// What the shards told of themselves last.
    figures: Vec<crate::shard::Figures>,
    /// Subscriptions by mode, as in records.
    subscriptions: [u64; 3],
    /// Times from publishing to handing over.
    latency: Histogram,
}

/// Milliseconds between looks at what is not urgent.
const SECOND_MS: u64 = 1_000;

impl Hub {
    /// A hub without channels; reports are counted from `now`.
    pub fn new(now: u64, settings: Arc<Settings>) -> Self {
        Self {
            records: Arena::new(),
            by_name: HashTable::new(),
            hasher: RandomState::default(),
            seen: seen::Seen::new(settings.id_cache_ttl_ms),
            waiting: VecDeque::new(),
            sequencer: publish::Sequencer::default(),
            next_check: None,
            updates: VecDeque::new(),
            lingering: VecDeque::new(),
            changed: Vec::new(),
            sums: sums::Sums::new(now, &settings),
            next_second: now + SECOND_MS,
            second: 0,
            calls: command::Calls::default(),
            state: state::State::default(),
            to_shards: Vec::new(),
            out: Vec::new(),
            drops: HubDrops::default(),
            told_drops: figures::ToldDrops::default(),
            figures: Vec::new(),
            subscriptions: [0; 3],
            latency: Histogram::new(LATENCY_BOUNDS_US),
            settings,
        }
    }

    /// Goes on with other settings, and passes them on to the shards. What is structural stays.
    pub fn set_settings(&mut self, now: u64, newer: Settings) {
        let settings = Arc::new(newer.after(&self.settings));
        self.seen.set_ttl(settings.id_cache_ttl_ms);
        self.sums.set_settings(now, &settings);
        self.out.push(Output::ListenConn(self.sums.needs_conn()));
        for shard in 0..settings.workers.max(1) {
            self.to_shards.push((shard, ToShard::Settings(settings.clone())));
        }
        self.settings = settings;
    }

    /// What it works with.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// What was thrown away.
    pub fn drops(&self) -> HubDrops {
        self.drops
    }

    /// Takes a message of a shard.
    pub fn from_shard(&mut self, now: u64, shard: usize, message: ToHub) {
        match message {
            ToHub::Subscribe { channel, name } => self.subscribe(now, shard, channel, name),
            ToHub::Count { hub, mode, count } => self.set_count(now, shard, hub, mode, count),
            ToHub::Release { hub } => self.release(shard, hub),
            ToHub::Forget { hub } => self.forget(shard, hub),
            ToHub::Took(took) => {
                let packet = self.sums.took(now, &took);
                self.out.extend(packet.map(Output::Stats));
            }
            ToHub::Left { id, route, retry } => {
                let packet = self.sums.left(&id, &route, retry);
                self.out.extend(packet.map(Output::Stats));
            }
            ToHub::Conn(packet) => self.out.push(Output::Stats(packet)),
            ToHub::Sums(route, sums) => self.sums.add(now, &route, &sums),
            ToHub::ConnMax { from, route, max, ttl_s } => {
                self.sums.conn_max(now, &from, &route, max, ttl_s);
            }
            ToHub::ConnFound { call, ids } => self.conn_found(call, ids),
            ToHub::FindSession(question) => self.find_session(now, shard, question),
            ToHub::StoreSession(stored) => self.store_session(now, &stored),
            ToHub::SessionIds(ids) => self.session_ids(now, &ids),
            ToHub::HandedOver(times) => self.latency.add(&times),
            ToHub::Figures(figures) => self.keep_figures(shard, *figures),
            ToHub::Refreshed { call, found } => self.refreshed(call, found),
        }
    }

    /// A stats message of a proxy.
    pub fn proxy_stats(&mut self, now: u64, message: &[u8]) {
        let before = self.sums.needs_conn();
        match self.sums.proxy_packet(now, message) {
            Ok(packet) => {
                self.out.extend(packet.map(Output::Stats));
                if !before && self.sums.needs_conn() {
                    self.out.push(Output::ListenConn(true));
                }
            }
            Err(error) => {
                self.drops.bad_stats += 1;
                log::warn!("proxy stats: received message with invalid format ({error}), skipping");
            }
        }
    }

    /// A subscription message of the stats socket: 1 or 0, and a topic.
    pub fn stats_subscription(&mut self, message: &[u8]) {
        let before = self.sums.listens_to("conn ");
        self.sums.subscription(message);
        let after = self.sums.listens_to("conn ");
        if before != after {
            for shard in 0..self.settings.workers.max(1) {
                self.to_shards.push((shard, ToShard::Listening(after)));
            }
            self.out.push(Output::ListenConn(self.sums.needs_conn()));
        }
    }

    /// When [`Hub::timeout`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let busy = !self.records.is_empty() || self.sums.has_externals() || !self.seen.is_empty();
        [
            busy.then_some(self.next_second),
            self.next_check,
            self.sums.next_deadline(),
            self.updates.front().map(|(at, _)| *at),
            self.calls.next_deadline(),
            self.state.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Milliseconds between looks at what is not urgent: a subscription is announced again after three
    /// quarters of its life at the latest.
    fn step_ms(&self) -> u64 {
        SECOND_MS.min(self.settings.stats_subscription_ttl_s * 750)
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: u64) {
        self.release_overdue(now);
        self.update_fresh(now);
        self.expire_calls(now);
        self.expire_state(now);
        let packets = self.sums.timeout(now);
        self.out.extend(packets.into_iter().map(Output::Stats));
        if now >= self.next_second {
            self.next_second = now + self.step_ms();
            self.seen.expire(now);
            self.end_lingering(now);
            self.announce_subscriptions();
            if let Some(line) = self.drops_to_tell(now) {
                log::warn!("{line}");
            }
        }
    }

    /// Moves messages to the shards, each with the shard's number, to `messages`.
    pub fn take_to_shards(&mut self, messages: &mut impl Extend<(usize, ToShard)>) {
        messages.extend(self.to_shards.drain(..));
        self.to_shards.shrink_to(KEPT_MESSAGES);
    }

    /// Moves what is to be done to `outputs`.
    pub fn take_output(&mut self, outputs: &mut impl Extend<Output>) {
        outputs.extend(self.out.drain(..));
        self.out.shrink_to(KEPT_MESSAGES);
    }
}
