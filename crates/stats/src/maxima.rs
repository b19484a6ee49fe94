//! Connection maxima that proxies report instead of single connections (spec/stats.md §6).

use std::collections::BTreeMap;

use crate::Route;

/// Most senders and routes that are remembered.
const ENTRIES_MAX: usize = 100_000;

/// The unexpired maxima by sender and route.
#[derive(Debug, Default)]
pub struct Maxima {
    entries: BTreeMap<(String, Route), Entry>,
}

#[derive(Debug)]
struct Entry {
    max: u64,
    expires: u64,
}

impl Maxima {
    /// Takes a `conn-max` over; gives by how much the route's sum of connections changed.
    pub fn set(&mut self, now: u64, from: &str, route: &Route, max: u64, ttl_s: u64) -> i64 {
        let key = (from.to_owned(), route.clone());
        if !self.entries.contains_key(&key) && self.entries.len() >= ENTRIES_MAX {
            return 0;
        }
        let expires = now.saturating_add(ttl_s.saturating_mul(1000));
        let before = self.entries.insert(key, Entry { max, expires }).map_or(0, |e| e.max);
        signed(max) - signed(before)
    }

    /// One connection of a sender is somebody else's from now on; false if its figure has none
    /// to give.
    pub fn give_one(&mut self, from: &str, route: &Route) -> bool {
        let entry = self.entries.get_mut(&(from.to_owned(), route.clone()));
        match entry.filter(|entry| entry.max > 0) {
            Some(entry) => {
                entry.max -= 1;
                true
            }
            None => false,
        }
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

    /// Whether no maxima are known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a sender reports maxima, and so no single connections that count.
    pub fn knows(&self, from: &str) -> bool {
        let start = (from.to_owned(), None);
        self.entries.range(start..).next().is_some_and(|((sender, _), _)| sender == from)
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
