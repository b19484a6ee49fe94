//! Deliveries under limits (spec/publish.md §7): every item for every session waits in the
//! limiter by itself, and those that may go at the same time go together.

use std::collections::VecDeque;
use std::sync::Arc;

use evloop::arena::Key;
use grip::{Body, Item};
use stats::Mode;

use super::Shard;
use super::channel::{Pending, Subscriber};
use crate::limiter::Pushed;

/// Deliveries in one slice of work.
const SLICE: usize = 4_096;

/// One item for one session.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Number of the receiver's route.
    route: u32,
    mode: Mode,
    receiver: Key,
    channel: Key,
    item: Arc<Item>,
    /// When it was published.
    at: u64,
}

impl Shard {
    /// Lets an item wait for every session of a mode on a channel.
    pub(super) fn publish_limited(&mut self, key: Key, mode: Mode, item: &Arc<Item>, at: u64) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let subscribers = std::mem::take(&mut channel.list(mode).subscribers);
        for subscriber in &subscribers {
            self.push_limited((key, mode), subscriber.session, item, at);
        }
        if let Some(channel) = self.channels.get_mut(key) {
            channel.list(mode).subscribers = subscribers;
        }
    }

    fn push_limited(
        &mut self,
        (channel, mode): (Key, Mode),
        index: u32,
        item: &Arc<Item>,
        at: u64,
    ) {
        let (receiver, number) = match mode {
            Mode::Ws => {
                (self.sockets.key_at(index), self.sockets.at(index).map(|socket| socket.route))
            }
            _ => (self.sessions.key_at(index), self.sessions.at(index).map(|s| s.route)),
        };
        let (Some(receiver), Some(number)) = (receiver, number) else { return };
        let units = match self.settings.message_block_size {
            0 => 1,
            _ => self.item_blocks(item, length(item, mode)),
        };
        let route = self.routes[number as usize].route.clone();
        let Some(limiter) = &mut self.limiter else { return };
        let item = item.clone();
        let delivery = Delivery { route: number, mode, receiver, channel, item, at };
        let pushed = limiter.push(&route, units, delivery);
        if pushed == Pushed::Queued {
            return;
        }
        self.drops.over_hwm += 1;
        let blocks = if self.settings.message_block_size > 0 { units } else { 0 };
        // It counts as sent all the same (spec/stats.md §5).
        self.count(number, |sums| {
            sums.sent += 1;
            sums.http_response_sent += u64::from(mode == Mode::Response);
            sums.blocks_sent += blocks;
        });
        if pushed == Pushed::FirstDropped {
            let hwm = self.settings.limits.as_ref().map_or(0, |limits| limits.hwm());
            let of = route.map(|route| format!(" for route {route}")).unwrap_or_default();
            log::warn!("exceeded publish hwm ({hwm}){of}, dropping message");
        }
    }

    /// Whether deliveries wait that may go at once.
    pub(super) fn has_unlimited_work(&self) -> bool {
        self.limiter.as_ref().is_some_and(|l| l.is_unlimited() && l.len() > 0)
    }

    /// Delivers what may go now.
    pub(super) fn work_limited(&mut self, now: u64) {
        let Some(limiter) = &mut self.limiter else { return };
        if limiter.due().is_none() {
            return;
        }
        let (sessions, sockets, channels) = (&self.sessions, &self.sockets, &self.channels);
        let lives = |d: &Delivery| {
            let on = |subs: &super::session::Subs| {
                subs.as_slice().iter().any(|sub| sub.channel == d.channel.index)
            };
            channels.get(d.channel).is_some()
                && match d.mode {
                    Mode::Ws => sockets.get(d.receiver).is_some_and(|socket| on(&socket.subs)),
                    _ => sessions.get(d.receiver).is_some_and(|session| on(&session.subs)),
                }
        };
        let mut deliveries = Vec::new();
        limiter.take(now, SLICE, lives, &mut deliveries);
        for (route, count) in limiter.settle() {
            let of = route.map(|route| format!(" for route {route}")).unwrap_or_default();
            log::warn!("{count} deliveries{of} were dropped above the publish hwm");
        }
        let same = |a: &Delivery, b: &Delivery| {
            (a.route, a.mode) == (b.route, b.mode)
                && a.channel == b.channel
                && Arc::ptr_eq(&a.item, &b.item)
        };
        // Routes took turns, and each has its own order: together they would lose it.
        deliveries.sort_by_key(|delivery| delivery.route);
        let mut runs: Vec<Vec<Delivery>> = Vec::new();
        for delivery in deliveries {
            match runs.last_mut() {
                Some(run) if same(&run[0], &delivery) => run.push(delivery),
                _ => runs.push(vec![delivery]),
            }
        }
        runs.iter().for_each(|run| self.deliver_run(now, run));
    }

    /// One item for several sessions.
    fn deliver_run(&mut self, now: u64, run: &[Delivery]) {
        let Delivery { mode, channel, item, at, .. } = run[0].clone();
        // An earlier run of the slice may have ended some.
        let lives = |key: Key| match mode {
            Mode::Ws => self.sockets.get(key).is_some(),
            _ => self.sessions.get(key).is_some(),
        };
        let subscribers: Vec<Subscriber> = run
            .iter()
            .filter(|delivery| lives(delivery.receiver))
            .map(|delivery| Subscriber { session: delivery.receiver.index, join: 0 })
            .collect();
        let items = VecDeque::from([Pending::alone(item, at)]);
        self.serve(now, channel.index, mode, &items, &subscribers);
        self.handed_over(now, at);
    }
}

pub(super) fn length(item: &Item, mode: Mode) -> usize {
    match mode {
        Mode::Response => match item.response.as_ref().map(|format| &format.body) {
            Some(Body::Whole(body)) => body.len(),
            _ => 0,
        },
        Mode::Stream => item.stream.as_ref().map_or(0, |format| format.content.len()),
        Mode::Ws => item.ws.as_ref().map_or(0, |format| format.content.len()),
    }
}
