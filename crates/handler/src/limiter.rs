//! The limits on deliveries: how many a second, and how many may wait (spec/publish.md §7).
//!
//! [`Limits`] is one for the whole handler; each shard queues its own deliveries in a
//! `Limiter`. Without limits in the configuration neither exists.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stats::Route;

/// Milliseconds between batches, from this many deliveries a second on.
const BATCH_MS: u64 = 25;
const BATCHED_RATE: u64 = 40;

/// What all shards share.
#[derive(Debug, Default)]
pub struct Limits {
    /// Units in a batch; 0: as many as there are.
    batch: AtomicU64,
    interval_ms: AtomicU64,
    /// Most units that wait in one bucket; 0: no limit.
    hwm: AtomicU64,
    next_ms: AtomicU64,
    /// Number of the current batch, and units left in it.
    number: AtomicU64,
    left: AtomicU64,
    /// Shards that have something waiting.
    demand: AtomicU64,
    /// Units that wait, by route.
    waiting: Mutex<BTreeMap<Route, Arc<AtomicU64>>>,
}

impl Limits {
    /// Limits of so many units a second and so many that wait; 0 and below do not limit.
    pub fn new(rate: i64, hwm: i64) -> Option<Arc<Self>> {
        let (rate, hwm) = (rate.max(0) as u64, hwm.max(0) as u64);
        let (batch, interval_ms) = match rate {
            0 => (0, 0),
            rate if rate >= BATCHED_RATE => ((rate * BATCH_MS).div_ceil(1000), BATCH_MS),
            rate => (1, 1000 / rate),
        };
        let limits = Self {
            batch: batch.into(),
            interval_ms: interval_ms.into(),
            hwm: hwm.into(),
            ..Self::default()
        };
        (rate > 0 || hwm > 0).then(|| Arc::new(limits))
    }

    /// Takes other limits, or none; what waits goes on under these.
    pub(crate) fn change(&self, newer: Option<&Self>) {
        let of = |get: fn(&Self) -> &AtomicU64| {
            newer.map_or(0, |limits| get(limits).load(Ordering::Relaxed))
        };
        self.batch.store(of(|limits| &limits.batch), Ordering::Relaxed);
        self.interval_ms.store(of(|limits| &limits.interval_ms), Ordering::Relaxed);
        self.hwm.store(of(|limits| &limits.hwm), Ordering::Relaxed);
    }

    fn batch(&self) -> u64 {
        self.batch.load(Ordering::Relaxed)
    }

    /// The most that may wait.
    pub(crate) fn hwm(&self) -> u64 {
        self.hwm.load(Ordering::Relaxed)
    }

    fn counter(&self, route: &Route) -> Arc<AtomicU64> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(route.clone()).or_default().clone()
    }

    fn refill(&self, now: u64) {
        let next = self.next_ms.load(Ordering::Relaxed);
        let after = now + self.interval_ms.load(Ordering::Relaxed);
        let order = Ordering::Relaxed;
        if now >= next && self.next_ms.compare_exchange(next, after, order, order).is_ok() {
            self.left.store(self.batch(), Ordering::Relaxed);
            self.number.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes up to `wanted` units of the current batch.
    fn take(&self, wanted: u64) -> u64 {
        let order = Ordering::Relaxed;
        let before = self
            .left
            .fetch_update(order, order, |left| Some(left - left.min(wanted)))
            .unwrap_or_default();
        before.min(wanted)
    }
}

#[derive(Debug)]
struct Bucket<T> {
    queue: VecDeque<(u64, T)>,
    /// Units by which its last delivery went beyond a batch.
    debt: u64,
    waiting: Arc<AtomicU64>,
    /// Deliveries dropped since the bucket was empty.
    dropped: u64,
}

/// The deliveries that wait in one shard, in a bucket for each route.
#[derive(Debug)]
pub(crate) struct Limiter<T> {
    limits: Arc<Limits>,
    buckets: BTreeMap<Route, Bucket<T>>,
    last: Option<Route>,
    len: usize,
    batch: u64,
    taken: u64,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    /// Dropped, the first one since the bucket was empty.
    FirstDropped,
    Dropped,
}

impl<T> Limiter<T> {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, buckets: BTreeMap::new(), last: None, len: 0, batch: 0, taken: 0 }
    }

    /// Deliveries that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// When the next ones may go.
    pub(crate) fn due(&self) -> Option<u64> {
        let waits = self.len > 0 || self.buckets.values().any(|bucket| bucket.debt > 0);
        waits.then(|| self.limits.next_ms.load(Ordering::Relaxed))
    }

    /// Whether everything may go at once.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.limits.batch() == 0
    }

    /// Lets a delivery of so many units wait, unless too many do.
    pub(crate) fn push(&mut self, route: &Route, units: u64, delivery: T) -> Pushed {
        let limits = &self.limits;
        let bucket = self.buckets.entry(route.clone()).or_insert_with(|| Bucket {
            queue: VecDeque::new(),
            debt: 0,
            waiting: limits.counter(route),
            dropped: 0,
        });
        let hwm = limits.hwm();
        if hwm > 0 && bucket.waiting.load(Ordering::Relaxed) + units > hwm {
            bucket.dropped += 1;
            return if bucket.dropped == 1 { Pushed::FirstDropped } else { Pushed::Dropped };
        }
        bucket.waiting.fetch_add(units, Ordering::Relaxed);
        bucket.queue.push_back((units, delivery));
        if self.len == 0 {
            limits.demand.fetch_add(1, Ordering::Relaxed);
        }
        self.len += 1;
        Pushed::Queued
    }

    /// Takes what may go now, at most `most` deliveries; `lives` tells whether a delivery still
    /// has a receiver: those without one cost nothing.
    pub(crate) fn take(
        &mut self,
        now: u64,
        most: usize,
        lives: impl Fn(&T) -> bool,
        out: &mut Vec<T>,
    ) {
        let limits = self.limits.clone();
        // read once: it may change under a reload
        let batch = limits.batch();
        let mut units = self.units(now, &limits, batch);
        while units > 0 && out.len() < most {
            let Some(route) = self.next_bucket() else { break };
            let Some(bucket) = self.buckets.get_mut(&route) else { break };
            self.last = Some(route);
            if bucket.debt > 0 {
                bucket.debt -= 1;
                units -= 1;
                continue;
            }
            let Some((weight, delivery)) = bucket.queue.pop_front() else { continue };
            bucket.waiting.fetch_sub(weight, Ordering::Relaxed);
            self.len -= 1;
            if self.len == 0 {
                limits.demand.fetch_sub(1, Ordering::Relaxed);
            }
            if lives(&delivery) {
                let cost = weight.max(1);
                bucket.debt = cost.saturating_sub(units);
                units = units.saturating_sub(cost);
                out.push(delivery);
            }
        }
        if batch > 0 {
            limits.left.fetch_add(units, Ordering::Relaxed);
            self.taken = self.taken.saturating_sub(units);
        }
    }

    /// The units that this shard may use: a fair part of the batch.
    fn units(&mut self, now: u64, limits: &Limits, batch: u64) -> u64 {
        if batch == 0 {
            return u64::MAX;
        }
        limits.refill(now);
        let number = limits.number.load(Ordering::Relaxed);
        if number != self.batch {
            (self.batch, self.taken) = (number, 0);
        }
        let part = batch.div_ceil(limits.demand.load(Ordering::Relaxed).max(1));
        let units = limits.take(part.saturating_sub(self.taken));
        self.taken += units;
        units
    }

    /// The next bucket in turn that has something to do.
    fn next_bucket(&self) -> Option<Route> {
        let busy = |bucket: &Bucket<T>| bucket.debt > 0 || !bucket.queue.is_empty();
        let after = match &self.last {
            Some(last) => self.buckets.range((Excluded(last.clone()), Unbounded)),
            None => self.buckets.range::<Route, _>(..),
        };
        let mut turn = after.chain(self.buckets.iter());
        turn.find(|(_, bucket)| busy(bucket)).map(|(route, _)| route.clone())
    }

    /// Forgets empty buckets; gives those that dropped something since they were last empty, with
    /// the number.
    pub(crate) fn settle(&mut self) -> Vec<(Route, u64)> {
        let mut dropped = Vec::new();
        self.buckets.retain(|route, bucket| {
            if !bucket.queue.is_empty() {
                return true;
            }
            let count = std::mem::take(&mut bucket.dropped);
            if count > 0 {
                dropped.push((route.clone(), count));
            }
            bucket.debt > 0
        });
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limiter(rate: i64, hwm: i64) -> Limiter<u32> {
        Limiter::new(Limits::new(rate, hwm).unwrap())
    }

    fn take(limiter: &mut Limiter<u32>, now: u64) -> Vec<u32> {
        let mut out = Vec::new();
        limiter.take(now, usize::MAX, |_| true, &mut out);
        out
    }

    fn route(name: &str) -> Route {
        Some(Arc::from(name))
    }

    #[test]
    fn other_limits_count_for_what_waits() {
        let mut limiter = limiter(40, 3);
        for n in 0..5 {
            limiter.push(&None, 1, n);
        }
        assert_eq!((take(&mut limiter, 0), limiter.len()), (vec![0], 2));
        limiter.limits.change(Limits::new(0, 9).as_deref());
        assert_eq!((take(&mut limiter, 1), limiter.limits.hwm()), (vec![1, 2], 9));
        limiter.limits.change(None);
        assert!(limiter.is_unlimited() && limiter.limits.hwm() == 0);
    }

    #[test]
    fn batches_go_at_their_interval_and_at_once_after_a_pause() {
        let mut limiter = limiter(2500, 0);
        (0..200).for_each(|n| assert_eq!(limiter.push(&None, 1, n), Pushed::Queued));
        assert_eq!(take(&mut limiter, 1_000).len(), 63);
        assert!(take(&mut limiter, 1_024).is_empty());
        assert_eq!(limiter.due(), Some(1_025));
        assert_eq!(take(&mut limiter, 1_025).len(), 63);
        assert_eq!(take(&mut limiter, 1_050).len(), 63);
        assert_eq!(take(&mut limiter, 1_075), (189..200).collect::<Vec<_>>());
        assert_eq!(limiter.due(), None);
        limiter.push(&None, 1, 0);
        assert_eq!(take(&mut limiter, 1_076), [0]);
        let mut slow = self::limiter(10, 0);
        (0..3).for_each(|n| assert_eq!(slow.push(&None, 1, n), Pushed::Queued));
        assert_eq!((take(&mut slow, 0), take(&mut slow, 99)), (vec![0], vec![]));
        assert_eq!(take(&mut slow, 100), [1]);
    }

    #[test]
    fn routes_take_turns_and_heavy_deliveries_leave_a_debt() {
        let mut limiter = limiter(80, 0);
        for n in 0..3 {
            limiter.push(&route("a"), 3, n);
            limiter.push(&route("b"), 1, 10 + n);
        }
        assert_eq!(take(&mut limiter, 0), [0]);
        // The debt of one unit is worked off in turn with the other route.
        assert_eq!(take(&mut limiter, 25), [10]);
        assert_eq!(take(&mut limiter, 50), [11, 1]);
        assert_eq!(take(&mut limiter, 75), [12]);
    }

    #[test]
    fn what_exceeds_the_mark_is_dropped_and_told_by_number() {
        let mut limiter = limiter(-1, 5);
        let pushed: Vec<Pushed> = (0..8).map(|n| limiter.push(&None, 1, n)).collect();
        assert_eq!(pushed[5..], [Pushed::FirstDropped, Pushed::Dropped, Pushed::Dropped]);
        assert!(limiter.settle().is_empty());
        assert_eq!(limiter.push(&route("other"), 5, 0), Pushed::Queued);
        assert_eq!(take(&mut limiter, 0).len(), 6);
        assert_eq!(limiter.settle(), [(None, 3)]);
    }

    #[test]
    fn shards_share_rate_and_mark() {
        let limits = Limits::new(400, 12).unwrap();
        let mut shards = [Limiter::new(limits.clone()), Limiter::new(limits.clone())];
        for n in 0..7 {
            for shard in &mut shards {
                shard.push(&None, 1, n);
            }
        }
        assert_eq!(shards.each_ref().map(Limiter::len), [6, 6]);
        let sizes = shards.each_mut().map(|shard| take(shard, 0).len());
        assert_eq!(sizes, [5, 5]);
        let alone = shards.each_mut().map(|shard| take(shard, 25).len());
        assert_eq!(alone, [1, 1]);
    }

    #[test]
    fn deliveries_without_a_receiver_cost_nothing() {
        let mut limiter = limiter(40, 0);
        (0..5).for_each(|n| assert_eq!(limiter.push(&None, 1, n), Pushed::Queued));
        let mut out = Vec::new();
        limiter.take(0, usize::MAX, |n| *n > 3, &mut out);
        assert_eq!(out, [4]);
    }

    proptest! {
        /// Whatever is pushed comes out once and in the order of its route, never more than the
        /// rate allows; what is dropped is said.
        #[test]
        fn nothing_is_lost_swapped_or_too_early(
            rate in -1i64..300,
            hwm in 1i64..30,
            steps in prop::collection::vec((0u8..3, 0u64..4, 0u64..40), 1..200),
        ) {
            let mut limiter: Limiter<(u8, usize)> = Limiter::new(Limits::new(rate, hwm).unwrap());
            let mut expected: [Vec<usize>; 3] = Default::default();
            let mut got: [Vec<usize>; 3] = Default::default();
            let (mut now, mut batches, mut count) = (0, 0, 0);
            let routes = [None, route("a"), route("b")];
            let mut collect = |limiter: &mut Limiter<(u8, usize)>, now| {
                let mut out = Vec::new();
                limiter.take(now, usize::MAX, |_| true, &mut out);
                for (r, n) in &out {
                    got[usize::from(*r)].push(*n);
                }
                out.len()
            };
            for (n, (r, units, wait)) in steps.into_iter().enumerate() {
                if limiter.push(&routes[usize::from(r)], units, (r, n)) == Pushed::Queued {
                    expected[usize::from(r)].push(n);
                }
                now += wait;
                count += collect(&mut limiter, now);
                batches = batches.max(now / 25 + 1);
                if rate >= 40 {
                    prop_assert!(count as u64 <= batches * (rate as u64 * 25).div_ceil(1000));
                }
            }
            while let Some(due) = limiter.due() {
                now = now.max(due);
                collect(&mut limiter, now);
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(limiter.len(), 0);
        }
    }
}
