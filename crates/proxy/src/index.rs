//! Finds sessions by something that they have: five bytes for each, however long that is.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Room above which a table that is mostly empty is made smaller.
const SPARSE: usize = 1_024;

/// The table. `of` gives what the session at a place of the session table has; a place is here no
/// longer than its session is there.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: HashTable<u32>,
    hasher: RandomState,
}

impl Index {
    /// Sessions in it.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The place of the session that has it.
    pub fn get<T: Hash + Eq>(&self, wanted: T, of: impl Fn(u32) -> Option<T>) -> Option<u32> {
        let wanted = Some(wanted);
        self.places.find(self.hasher.hash_one(&wanted), |place| of(*place) == wanted).copied()
    }

    /// Adds a session, instead of another one that has the same.
    pub fn insert<T: Hash + Eq>(&mut self, place: u32, of: impl Fn(u32) -> Option<T>) {
        let Self { places, hasher } = self;
        let own = of(place);
        let hash_of = |place: &u32| hasher.hash_one(of(*place));
        match places.entry(hasher.hash_one(&own), |place| of(*place) == own, hash_of) {
            Entry::Occupied(mut entry) => *entry.get_mut() = place,
            Entry::Vacant(entry) => drop(entry.insert(place)),
        }
    }

    /// Takes a session out, which still has it.
    pub fn remove<T: Hash>(&mut self, place: u32, of: impl Fn(u32) -> Option<T>) {
        let hash = self.hasher.hash_one(of(place));
        if let Ok(entry) = self.places.find_entry(hash, |found| *found == place) {
            entry.remove();
        }
    }

    /// After a crowd has left, its room is given back.
    pub fn tidy<T: Hash>(&mut self, of: impl Fn(u32) -> Option<T>) {
        let Self { places, hasher } = self;
        if places.capacity() > SPARSE && places.len() < places.capacity() / 8 {
            places.shrink_to(places.len() * 2, |place| hasher.hash_one(of(*place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_by_what_they_have() {
        let mut index = Index::default();
        let of = |place: u32| Some(format!("name-{}", place % 10_000));
        (0..10_000).for_each(|n| index.insert(n, of));
        assert_eq!(index.len(), 10_000);
        assert_eq!(index.get("name-77".to_owned(), of), Some(77));
        index.insert(10_077, of);
        assert_eq!((index.len(), index.get("name-77".to_owned(), of)), (10_000, Some(10_077)));
        index.remove(77, of);
        assert_eq!(index.len(), 10_000, "another session has the name");
        (0..10_000).filter(|n| *n != 77).for_each(|n| index.remove(n, of));
        assert_eq!((index.len(), index.get("name-5".to_owned(), of)), (1, None));
        index.tidy(of);
        assert!(index.places.capacity() <= SPARSE);
        assert_eq!(index.get("name-77".to_owned(), of), Some(10_077));
    }
}
