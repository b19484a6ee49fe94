//! Deadlines of many states, looked at lazily.
//!
//! A state has at most one entry here. When its deadline moves on, the entry stays where it is;
//! on expiry the owner compares with the true deadline and schedules again. So the usual case,
//! a deadline that is pushed back by every packet, costs nothing.

use std::collections::BTreeMap;

/// Spare slot vectors that are kept for reuse, and entries that they may have room for.
const SPARES_MAX: usize = 16;
const SPARE_ENTRIES: usize = 512;

/// Slots of one tick each; a slot exists only while something is due in it.
#[derive(Debug)]
pub struct Wheel<K> {
    tick_ms: u64,
    slots: BTreeMap<u64, Vec<K>>,
    spares: Vec<Vec<K>>,
    len: usize,
}

impl<K: Copy> Wheel<K> {
    /// A wheel in which entries expire up to `tick_ms` milliseconds late, never early.
    pub fn new(tick_ms: u64) -> Self {
        Self { tick_ms: tick_ms.max(1), slots: BTreeMap::new(), spares: Vec::new(), len: 0 }
    }

    /// Entries that have not expired.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `key` expire at `deadline_ms`, rounded up to the tick.
    pub fn schedule(&mut self, deadline_ms: u64, key: K) {
        let spares = &mut self.spares;
        let slot = self
            .slots
            .entry(deadline_ms.div_ceil(self.tick_ms))
            .or_insert_with(|| spares.pop().unwrap_or_default());
        slot.push(key);
        self.len += 1;
    }

    /// When the next slot is due, in milliseconds.
    pub fn next(&self) -> Option<u64> {
        self.slots.first_key_value().map(|(tick, _)| tick * self.tick_ms)
    }

    /// Takes the keys of one due slot, in the order in which they were scheduled; the caller
    /// goes on until there is none. [`Wheel::recycle`] takes the vector back.
    pub fn expired(&mut self, now_ms: u64) -> Option<Vec<K>> {
        let slot = self.slots.first_entry()?;
        if slot.key() * self.tick_ms > now_ms {
            return None;
        }
        let keys = slot.remove();
        self.len -= keys.len();
        Some(keys)
    }

    /// Forgets everything, and the room for it: for an owner whose states have all left.
    pub fn clear(&mut self) {
        *self = Self::new(self.tick_ms);
    }

    /// Takes a vector of [`Wheel::expired`] back for reuse.
    pub fn recycle(&mut self, mut keys: Vec<K>) {
        if self.spares.len() < SPARES_MAX && keys.capacity() <= SPARE_ENTRIES {
            keys.clear();
            self.spares.push(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
        let mut out = Vec::new();
        while let Some(keys) = wheel.expired(now) {
            out.extend(&keys);
            wheel.recycle(keys);
        }
        out
    }

    #[test]
    fn keys_expire_in_order_and_never_early() {
        let mut wheel = Wheel::new(10);
        for (deadline, key) in [(95, 3), (20, 1), (91, 2), (0, 0), (100, 4), (101, 5)] {
            wheel.schedule(deadline, key);
        }
        assert_eq!((wheel.len(), wheel.next()), (6, Some(0)));
        assert_eq!(drain(&mut wheel, 19), [0]);
        assert_eq!(drain(&mut wheel, 20), [1]);
        assert_eq!(wheel.next(), Some(100));
        assert_eq!(drain(&mut wheel, 99), []);
        assert_eq!(drain(&mut wheel, 100), [3, 2, 4]);
        assert_eq!(drain(&mut wheel, 1000), [5]);
        assert!(wheel.is_empty() && wheel.next().is_none());
    }
}
