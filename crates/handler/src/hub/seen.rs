//! Ids seen lately, so that an item published twice is delivered once (spec/publish.md §6).

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::room::{shrink_queue, shrink_set};

/// Most ids that are remembered; beyond it the oldest go early.
const IDS_MAX: usize = 4_000_000;

/// Channel and id, as one text with a separator that neither can forge.
type Name = Arc<[u8]>;

/// The ids.
#[derive(Debug)]
pub(super) struct Seen {
    ttl_ms: u64,
    names: HashSet<Name>,
    order: VecDeque<(u64, Name)>,
}

impl Seen {
    pub(super) fn new(ttl_ms: u64) -> Self {
        Self { ttl_ms, names: HashSet::new(), order: VecDeque::new() }
    }

    /// Ids that come from now on are remembered so long.
    pub(super) fn set_ttl(&mut self, ttl_ms: u64) {
        self.ttl_ms = ttl_ms;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether the id was seen within its time; notes it otherwise.
    pub(super) fn is_duplicate(&mut self, now: u64, channel: &str, id: &str) -> bool {
        if self.ttl_ms == 0 {
            return false;
        }
        self.expire(now);
        let length = channel.len().to_string();
        let name: Name =
            [length.as_bytes(), b":", channel.as_bytes(), id.as_bytes()].concat().into();
        if !self.names.insert(name.clone()) {
            return true;
        }
        self.order.push_back((now + self.ttl_ms, name));
        if self.order.len() > IDS_MAX {
            self.forget_first();
        }
        false
    }

    pub(super) fn expire(&mut self, now: u64) {
        while self.order.front().is_some_and(|(at, _)| *at <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, name)) = self.order.pop_front() {
            self.names.remove(&name);
            shrink_set(&mut self.names);
            shrink_queue(&mut self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_duplicates_for_their_time_only() {
        let mut seen = Seen::new(1000);
        assert!(!seen.is_duplicate(0, "c", "1"));
        assert!(!seen.is_duplicate(0, "c1", ""));
        assert!(!seen.is_duplicate(0, "d", "1"));
        // The time counts from the first sighting.
        assert!(seen.is_duplicate(999, "c", "1"));
        assert!(!seen.is_duplicate(1000, "c", "1"));
        assert!(!Seen::new(0).is_duplicate(0, "c", "1"));
    }
}
