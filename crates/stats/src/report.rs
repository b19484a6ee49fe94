//! The sums behind `report` (spec/stats.md §5).

use std::collections::BTreeMap;

use crate::{Report, Route};

/// The reports under way, by route.
#[derive(Debug)]
pub struct Reports {
    interval_ms: u64,
    next: u64,
    by_route: BTreeMap<Route, Open>,
}

/// A report that is being filled.
#[derive(Debug)]
struct Open {
    /// Connections at this time.
    current: i64,
    since: u64,
    sums: Report,
}

impl Reports {
    /// Reports every `interval_ms`, counted from `now`; 0 switches them off.
    pub fn new(now: u64, interval_ms: u64) -> Self {
        Self { interval_ms, next: now + interval_ms, by_route: BTreeMap::new() }
    }

    /// Whether reports are made at all.
    pub fn enabled(&self) -> bool {
        self.interval_ms > 0
    }

    /// Connections of a route came (positive) or went.
    ///
    /// The maximum covers the whole interval, a peak before the first change included. Connections
    /// are followed without reports too, so that reports may begin at any time.
    pub fn connections(&mut self, now: u64, route: &Route, change: i64) {
        if change == 0 {
            return;
        }
        let enabled = self.enabled();
        let open = self.open(now, route);
        open.current += change;
        let current = u64::try_from(open.current).unwrap_or_default();
        open.sums.connections = open.sums.connections.max(current);
        if !enabled && open.current == 0 {
            self.by_route.remove(route);
        }
    }

    /// Goes on with another interval, counted from `now`; what is counted so far stays.
    pub fn set_interval(&mut self, now: u64, interval_ms: u64) {
        if interval_ms == self.interval_ms {
            return;
        }
        if !self.enabled() {
            self.by_route.values_mut().for_each(|open| open.start_over(now));
        }
        self.interval_ms = interval_ms;
        self.next = now + interval_ms;
        if !self.enabled() {
            self.by_route.retain(|_, open| open.current != 0);
        }
    }

    /// Lets `count` add to the sums of a route.
    pub fn count(&mut self, now: u64, route: &Route, count: impl FnOnce(&mut Report)) {
        if self.enabled() {
            count(&mut self.open(now, route).sums);
        }
    }

    /// A connection that began at `start`, and counted its first minute then, is somebody else's now
    /// who counts it too: takes the minute out again. False if it was reported already.
    pub fn take_back_minute(&mut self, route: &Route, start: u64) -> bool {
        if !self.enabled() {
            return true;
        }
        let open = self.by_route.get_mut(route).filter(|open| open.since <= start);
        let Some(open) = open else { return false };
        open.sums.minutes = open.sums.minutes.saturating_sub(1);
        true
    }

    fn open(&mut self, now: u64, route: &Route) -> &mut Open {
        if self.by_route.is_empty() {
            self.skip_to(now);
        }
        self.by_route.entry(route.clone()).or_insert_with(|| Open {
            current: 0,
            since: now,
            sums: Report::default(),
        })
    }

    /// The next reports are those of the interval in which `now` is.
    fn skip_to(&mut self, now: u64) {
        if self.enabled() && self.next <= now {
            let missed = (now - self.next) / self.interval_ms + 1;
            self.next += missed * self.interval_ms;
        }
    }

    /// When the next reports are due, milliseconds; never while nothing is counted.
    pub fn due(&self) -> Option<u64> {
        (self.enabled() && !self.by_route.is_empty()).then_some(self.next)
    }

    /// The connections of all routes together.
    pub fn current(&self) -> u64 {
        self.by_route.values().map(|open| u64::try_from(open.current).unwrap_or_default()).sum()
    }

    /// The reports to send, if they are due. A report that is empty afterwards ends, so that
    /// silence follows one report of zeros.
    pub fn take(&mut self, now: u64) -> Vec<(Route, Report)> {
        if !self.enabled() || now < self.next {
            return Vec::new();
        }
        self.skip_to(now);
        let mut reports = Vec::new();
        self.by_route.retain(|route, open| {
            let had = open.sums;
            let report = Report { duration_ms: now - open.since, ..had };
            reports.push((route.clone(), report));
            open.start_over(now);
            open.current > 0 || had != Report::default()
        });
        reports
    }
}

impl Open {
    fn start_over(&mut self, now: u64) {
        let current = u64::try_from(self.current).unwrap_or_default();
        self.sums = Report { connections: current, ..Report::default() };
        self.since = now;
    }
}
