//! Tables and queues give their room back when the crowd that filled them has left. They shrink
//! to twice of what is in them at a quarter, so that who comes and goes moves nothing.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use hashbrown::{HashMap, HashSet, HashTable};

/// Entries for which room is kept in any case.
const KEPT: usize = 1_024;

fn is_wasteful(entries: usize, capacity: usize) -> bool {
    capacity > KEPT && entries < capacity / 4
}

/// Shrinks a table of places in another one; `hash` tells the hash of a place.
pub(crate) fn shrink_table(table: &mut HashTable<u32>, hash: impl Fn(&u32) -> u64) {
    if is_wasteful(table.len(), table.capacity()) {
        table.shrink_to(table.len() * 2, hash);
    }
}

/// Shrinks a map.
pub(crate) fn shrink_map<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if is_wasteful(map.len(), map.capacity()) {
        map.shrink_to(map.len() * 2);
    }
}

/// Shrinks a set.
pub(crate) fn shrink_set<K: Eq + Hash, S: BuildHasher>(set: &mut HashSet<K, S>) {
    if is_wasteful(set.len(), set.capacity()) {
        set.shrink_to(set.len() * 2);
    }
}

/// Shrinks a queue.
pub(crate) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if is_wasteful(queue.len(), queue.capacity()) {
        queue.shrink_to(queue.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_goes_back_and_entries_stay() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        let mut set: HashSet<u32> = (0..100_000).collect();
        let mut queue: VecDeque<u32> = (0..100_000).collect();
        let mut table = HashTable::new();
        for n in 0..100_000 {
            table.insert_unique(u64::from(n), n, |n| u64::from(*n));
        }
        for n in 10..100_000 {
            map.remove(&n);
            set.remove(&n);
            queue.pop_back();
            table.find_entry(u64::from(n), |other| *other == n).unwrap().remove();
            shrink_map(&mut map);
            shrink_set(&mut set);
            shrink_queue(&mut queue);
            shrink_table(&mut table, |n| u64::from(*n));
        }
        let room = [map.capacity(), set.capacity(), queue.capacity(), table.capacity()];
        assert!(room.iter().all(|room| *room <= KEPT), "{room:?}");
        assert!((0..10).all(|n| map[&n] == n && set.contains(&n) && queue.contains(&n)));
        assert!((0..10).all(|n| table.find(u64::from(n), |other| *other == n).is_some()));
    }
}
