//! Sums of `activity` and `counts` between two looks (spec/stats.md §3).

use std::collections::BTreeMap;

use crate::{AGGREGATE_MS, Route};

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct Activity {
    by_route: BTreeMap<Route, u64>,
    requests_received: u64,
    due: Option<u64>,
}

impl Activity {
    /// Counts `n` activities of a route.
    pub fn add(&mut self, now: u64, route: &Route, n: u64) {
        if n == 0 {
            return;
        }
        *self.by_route.entry(route.clone()).or_default() += n;
        self.due.get_or_insert(now + AGGREGATE_MS);
    }

    /// Counts `n` requests.
    pub fn add_requests(&mut self, now: u64, n: u64) {
        if n > 0 {
            self.requests_received += n;
            self.due.get_or_insert(now + AGGREGATE_MS);
        }
    }

    /// When the sums are to be taken, milliseconds.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// The sums by route and the requests, if they are due; starts over.
    pub fn take(&mut self, now: u64) -> Option<(BTreeMap<Route, u64>, u64)> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        Some((std::mem::take(&mut self.by_route), std::mem::take(&mut self.requests_received)))
    }
}
