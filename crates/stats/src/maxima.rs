//! Connection maxima that proxies report instead of single connections (spec/stats.md §6).

use std::collections::{BTreeMap, BTreeSet};

use crate::Route;

/// Most senders and routes that are remembered.
const ENTRIES_MAX: usize = 100_000;

/// Most senders that are known to tell maxima.
const SENDERS_MAX: usize = 10_000;

/// The unexpired maxima by sender and route.
#[derive(Debug, Default)]
pub struct Maxima {
    entries: BTreeMap<(String, Route), Entry>,
    /// Who ever told one: it always does, even while nothing of it is unexpired.
    senders: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    max: u64,
    expires: u64,
}

impl Maxima {
    /// Takes a `conn-max` over; gives by how much the route's sum of connections changed.
    pub fn set(&mut self, now: u64, from: &str, route: &Route, max: u64, ttl_s: u64) -> i64 {
        if !self.senders.contains(from) && self.senders.len() < SENDERS_MAX {
            self.senders.insert(from.to_owned());
        }
        let key = (from.to_owned(), route.clone());
        if !self.entries.contains_key(&key) && self.entries.len() >= ENTRIES_MAX {
            return 0;
        }
        let expires = now.saturating_add(ttl_s.saturating_mul(1000));
        let before = self.entries.insert(key, Entry { max, expires }).map_or(0, |e| e.max);
        signed(max) - signed(before)
    }

    /// Drops what expired; gives the changes by route.
    pub fn expire(&mut self, now: u64) -> Vec<(Route, i64)> {
        let mut changes = Vec::new();
        self.entries.retain(|(_, route), entry| {
            let live = entry.expires > now;
            if !live && entry.max > 0 {
                changes.push((route.clone(), -signed(entry.max)));
            }
            live
        });
        changes
    }

    /// Whether nobody ever told a maximum.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Whether a sender reports maxima, and so no single connections that count.
    pub fn knows(&self, from: &str) -> bool {
        self.senders.contains(from)
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
