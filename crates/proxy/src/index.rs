//! Finds sessions by something that they have: nine bytes for each, however long that is.

use std::hash::{BuildHasher, Hash};

use evloop::arena::Key;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Room above which a table that is mostly empty is made smaller.
const SPARSE: usize = 1_024;

/// The table. `of` gives what a session has, for each key that is in the table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    table: HashTable<Key>,
    hasher: RandomState,
}

impl Index {
    /// Sessions in it.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// The session that has it.
    pub fn get<T: Hash + Eq>(&self, wanted: T, of: impl Fn(Key) -> Option<T>) -> Option<Key> {
        let wanted = Some(wanted);
        self.table.find(self.hasher.hash_one(&wanted), |key| of(*key) == wanted).copied()
    }

    /// Adds a session, in the place of another one that has the same.
    pub fn insert<T: Hash + Eq>(&mut self, key: Key, of: impl Fn(Key) -> Option<T>) {
        let Self { table, hasher } = self;
        let own = of(key);
        let hash = hasher.hash_one(&own);
        let hash_of = |key: &Key| hasher.hash_one(of(*key));
        match table.entry(hash, |key| of(*key) == own, hash_of) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => *entry.get_mut() = key,
            hashbrown::hash_table::Entry::Vacant(entry) => drop(entry.insert(key)),
        }
    }

    /// Takes a session out, which still has it.
    pub fn remove<T: Hash>(&mut self, key: Key, of: impl Fn(Key) -> Option<T>) {
        let hash = self.hasher.hash_one(of(key));
        if let Ok(entry) = self.table.find_entry(hash, |k| *k == key) {
            entry.remove();
        }
    }

    /// After a crowd has left, its room is given back.
    pub fn tidy<T: Hash>(&mut self, of: impl Fn(Key) -> Option<T>) {
        let Self { table, hasher } = self;
        if table.capacity() > SPARSE && table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |key| hasher.hash_one(of(*key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn sessions_are_found_by_what_they_have() {
        let mut index = Index::default();
        let of = |key: Key| Some(format!("name-{}", key.index % 10_000));
        (0..10_000).for_each(|n| index.insert(key(n), of));
        assert_eq!(index.len(), 10_000);
        assert_eq!(index.get("name-77".to_owned(), of), Some(key(77)));
        index.insert(key(10_077), of);
        assert_eq!((index.len(), index.get("name-77".to_owned(), of)), (10_000, Some(key(10_077))));
        index.remove(key(77), of);
        assert_eq!(index.len(), 10_000, "another session has the name");
        (0..10_000).filter(|n| *n != 77).for_each(|n| index.remove(key(n), of));
        assert_eq!((index.len(), index.get("name-5".to_owned(), of)), (1, None));
        index.tidy(of);
        assert!(index.table.capacity() <= SPARSE);
        assert_eq!(index.get("name-77".to_owned(), of), Some(key(10_077)));
    }
}
