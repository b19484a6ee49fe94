//! Hub and shards in one thread: what the simulation drives, and the program with one worker.

use std::collections::VecDeque;
use std::sync::Arc;

use grip::Item;

use crate::hub::Hub;
use crate::message::{Envelope, Output, ToHub};
use crate::settings::Settings;
use crate::shard::{KEPT_MESSAGES, Shard};

/// The handler without its sockets.
///
/// Whatever goes in, [`Handler::poll_output`] then gives what is to be done, in order;
/// [`Handler::work`] is to be called, a slice at a time, until it says that nothing is left.
#[derive(Debug)]
pub struct Handler {
    hub: Hub,
    shards: Vec<Shard>,
    outputs: VecDeque<Output>,
    news: Vec<ToHub>,
}

impl Handler {
    /// A handler without sessions.
    pub fn new(now: u64, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let shards = (0..settings.workers.max(1)).map(|n| Shard::new(settings.clone(), n));
        Self {
            shards: shards.collect(),
            hub: Hub::new(now, settings.clone()),
            outputs: VecDeque::new(),
            news: Vec::new(),
        }
    }

    /// What it works with.
    pub fn settings(&self) -> &Settings {
        self.hub.settings()
    }

    /// Goes on with other settings; what is structural stays.
    pub fn set_settings(&mut self, now: u64, settings: Settings) {
        self.hub.set_settings(now, settings);
        self.exchange(now);
    }

    /// The hub, to look at.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The shards, to look at.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// WebSockets known.
    pub fn sockets(&self) -> usize {
        self.shards.iter().map(Shard::sockets).sum()
    }

    /// Sessions held.
    pub fn sessions(&self) -> usize {
        self.shards.iter().map(Shard::sessions).sum()
    }

    /// A call of a proxy on the accept or inspect socket of a shard.
    pub fn call(&mut self, now: u64, shard: usize, envelope: Envelope, payload: &[u8]) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.call(now, envelope, payload);
        }
        self.exchange(now);
    }

    /// A message for a shard whose parts are not those of a packet; says why.
    pub fn bad_envelope(&mut self, shard: usize, reason: &str) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.bad_envelope(reason);
        }
    }

    /// A message of a connection manager for a shard.
    pub fn client_message(&mut self, now: u64, shard: usize, message: &[u8]) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.client_message(now, message);
        }
        self.exchange(now);
    }

    /// A packet of a proxy that answers a request of a shard.
    pub fn internal_message(&mut self, now: u64, shard: usize, message: &[u8]) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.internal_message(now, message);
        }
        self.exchange(now);
    }

    /// A WebSocket control packet of a proxy for a shard.
    pub fn control(&mut self, now: u64, shard: usize, packet: &[u8]) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.control(now, packet);
        }
        self.exchange(now);
    }

    /// A proxy is gone.
    pub fn proxy_gone(&mut self, now: u64, proxy: &[u8]) {
        for shard in &mut self.shards {
            shard.proxy_gone(now, proxy);
        }
        self.exchange(now);
    }

    /// No proxy takes the request that this packet begins.
    pub fn internal_refused(&mut self, now: u64, shard: usize, packet: &[u8]) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.internal_refused(now, packet);
        }
        self.exchange(now);
    }

    /// A connection manager is gone.
    pub fn peer_gone(&mut self, now: u64, peer: &[u8]) {
        for shard in &mut self.shards {
            shard.peer_gone(now, peer);
        }
        self.exchange(now);
    }

    /// A connection to some connection manager broke: writes what shows who is gone.
    pub fn probe(&mut self) {
        self.shards.iter_mut().for_each(Shard::probe);
    }

    /// A connection to some proxy broke: writes what shows who is gone.
    pub fn probe_proxies(&mut self) {
        self.shards.iter_mut().for_each(Shard::probe_proxies);
    }

    /// Whether so many items are on their way that no more should be taken in.
    pub fn congested(&self) -> bool {
        self.shards.iter().any(Shard::congested)
    }

    /// Publishes items in order; gives how many sessions they go to now.
    pub fn publish(&mut self, now: u64, items: Vec<Item>) -> u64 {
        let receivers = self.hub.publish(now, items);
        self.exchange(now);
        receivers
    }

    /// A stats message of a proxy.
    pub fn proxy_stats(&mut self, now: u64, message: &[u8]) {
        self.hub.proxy_stats(now, message);
        self.exchange(now);
    }

    /// A subscription message of the stats socket.
    pub fn stats_subscription(&mut self, now: u64, message: &[u8]) {
        self.hub.stats_subscription(message);
        self.exchange(now);
    }

    /// A command.
    pub fn command(&mut self, now: u64, envelope: Envelope, payload: &[u8]) {
        self.hub.command(now, envelope, payload);
        self.exchange(now);
    }

    /// The proxy answers a call of the hub.
    pub fn proxy_reply(&mut self, now: u64, payload: &[u8]) {
        self.hub.proxy_reply(payload);
        self.exchange(now);
    }

    /// A call of the hub could not be sent to the proxy.
    pub fn proxy_failed(&mut self, now: u64, call: u64) {
        self.hub.proxy_failed(call);
        self.exchange(now);
    }

    /// The service that keeps GRIP sessions answers.
    pub fn state_reply(&mut self, now: u64, payload: &[u8]) {
        self.hub.state_reply(now, payload);
        self.exchange(now);
    }

    /// A call of the service that keeps GRIP sessions could not be sent.
    pub fn state_failed(&mut self, now: u64, call: u64) {
        self.hub.state_failed(call);
        self.exchange(now);
    }

    /// The recover action of the control API.
    pub fn recover(&mut self, now: u64) {
        self.hub.recover();
        self.exchange(now);
    }

    /// The process stops: no more sessions are taken over.
    pub fn begin_stop(&mut self) {
        self.shards.iter_mut().for_each(Shard::begin_stop);
    }

    /// Ends one of `parts` equal parts of the sessions; with 1, all that are left.
    pub fn end_part(&mut self, now: u64, parts: u64) {
        self.shards.iter_mut().for_each(|shard| shard.end_part(now, parts));
        self.exchange(now);
    }

    /// When [`Handler::timeout`] is due, milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let shards = self.shards.iter().filter_map(Shard::next_deadline);
        shards.chain(self.hub.next_deadline()).min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: u64) {
        for shard in &mut self.shards {
            if shard.next_deadline().is_some_and(|at| at <= now) {
                shard.timeout(now);
            }
        }
        if self.hub.next_deadline().is_some_and(|at| at <= now) {
            self.hub.timeout(now);
        }
        self.exchange(now);
    }

    /// Delivers for a slice of time; gives whether more is to do.
    pub fn work(&mut self, now: u64) -> bool {
        let mut more = false;
        for shard in &mut self.shards {
            more |= shard.work(now);
        }
        self.exchange(now);
        more
    }

    /// Whether items are on their way to sessions.
    pub fn has_work(&self) -> bool {
        self.shards.iter().any(Shard::has_work)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            for shard in &mut self.shards {
                shard.take_output(&mut self.outputs);
            }
        }
        let output = self.outputs.pop_front();
        if output.is_none() {
            self.outputs.shrink_to(KEPT_MESSAGES);
        }
        output
    }

    /// Lets hub and shards talk until nobody has anything to say.
    fn exchange(&mut self, now: u64) {
        loop {
            let mut quiet = true;
            for (number, shard) in self.shards.iter_mut().enumerate() {
                shard.take_to_hub(&mut self.news);
                for message in self.news.drain(..) {
                    quiet = false;
                    self.hub.from_shard(now, number, message);
                }
            }
            let mut messages = Vec::new();
            self.hub.take_to_shards(&mut messages);
            for (number, message) in messages {
                quiet = false;
                if let Some(shard) = self.shards.get_mut(number) {
                    shard.from_hub(now, message);
                }
            }
            if quiet {
                break;
            }
        }
        self.news.shrink_to(KEPT_MESSAGES);
        self.hub.take_output(&mut self.outputs);
    }
}
