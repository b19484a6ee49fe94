//! Values that many sessions share, stored once and counted.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// Number of a value that a session does not have.
pub(crate) const NONE: u32 = u32::MAX;

/// The table; values are found by content and named by number.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    by_content: HashTable<u32>,
    slots: Vec<Option<(T, u32)>>,
    free: Vec<u32>,
    hasher: RandomState,
}

impl<T: Hash + Eq> Interner<T> {
    pub(crate) fn new() -> Self {
        Self {
            by_content: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hasher: RandomState::default(),
        }
    }

    /// The number of an equal value, which counts one user more.
    pub(crate) fn acquire(&mut self, value: T) -> u32 {
        let hash = self.hasher.hash_one(&value);
        let slots = &self.slots;
        let same = |number: &u32| slots[*number as usize].as_ref().is_some_and(|s| s.0 == value);
        if let Some(&number) = self.by_content.find(hash, same) {
            if let Some(slot) = &mut self.slots[number as usize] {
                slot.1 += 1;
            }
            return number;
        }
        let number = self.free.pop().unwrap_or(self.slots.len() as u32);
        if number as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[number as usize] = Some((value, 1));
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_content.insert_unique(hash, number, |number| rehash(slots, hasher, *number));
        number
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref().map(|(value, _)| value)
    }

    /// One user less; the last one takes the value along.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(Some(slot)) = self.slots.get_mut(number as usize) else { return };
        slot.1 -= 1;
        if slot.1 > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&slot.0);
        if let Ok(entry) = self.by_content.find_entry(hash, |n| *n == number) {
            entry.remove();
        }
        self.slots[number as usize] = None;
        self.free.push(number);
        if self.by_content.is_empty() {
            // Nobody has a number any more.
            (self.by_content, self.slots, self.free) = Default::default();
        }
    }

    /// Values stored.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_content.len()
    }
}

fn rehash<T: Hash>(slots: &[Option<(T, u32)>], hasher: &RandomState, number: u32) -> u64 {
    slots[number as usize].as_ref().map_or(0, |(value, _)| hasher.hash_one(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_stored_once_and_go_with_their_last_user() {
        let mut interner = Interner::new();
        let a = interner.acquire("a".to_owned());
        let b = interner.acquire("b".to_owned());
        assert_eq!(interner.acquire("a".to_owned()), a);
        assert_ne!(a, b);
        interner.release(a);
        assert_eq!(interner.get(a).map(String::as_str), Some("a"));
        interner.release(a);
        assert_eq!((interner.get(a), interner.len()), (None, 1));
        assert_eq!(interner.acquire("c".to_owned()), a);
        interner.release(NONE);
    }
}
