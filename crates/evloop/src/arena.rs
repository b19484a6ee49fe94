//! A table for up to a million states: no move on growth, 32-bit indices, keys that a later
//! occupant of the same place does not answer to, and memory given back when states leave.

use std::collections::BTreeSet;

/// States per chunk; one bit each in the chunk's free mask.
const CHUNK: usize = 64;

/// Names one state; a removed state's key finds nothing, whoever took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Place in the table.
    pub index: u32,
    /// Which of the place's occupants.
    pub generation: u32,
}

/// Generations are apart from the states: 64 states with a size that is a multiple of 64 bytes
/// fill one size of the allocator, and would leave a sixth of the next one empty with a word more.
#[derive(Debug)]
struct Chunk<T> {
    free: u64,
    generations: Box<[u32; CHUNK]>,
    states: Box<[Option<T>]>,
}

impl<T> Chunk<T> {
    fn new() -> Self {
        let states = (0..CHUNK).map(|_| None).collect();
        Self { free: u64::MAX, generations: Box::new([0; CHUNK]), states }
    }

    /// The key of a place, if it is occupied.
    fn key(&self, number: usize, place: usize) -> Option<Key> {
        self.states[place].as_ref()?;
        let index = (number * CHUNK + place) as u32;
        Some(Key { index, generation: self.generations[place] })
    }
}

/// The table. Chunks of 64 states are made on demand, lowest place first, and dropped when
/// their last state leaves.
#[derive(Debug)]
pub struct Arena<T> {
    chunks: Vec<Option<Chunk<T>>>,
    roomy: BTreeSet<u32>,
    generation: u32,
    len: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Arena<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self { chunks: Vec::new(), roomy: BTreeSet::new(), generation: 0, len: 0 }
    }

    /// States in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places to walk over, occupied or not: every state's index is below it.
    pub fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Puts a state into the lowest chunk with room.
    pub fn insert(&mut self, state: T) -> Key {
        let number = self.roomy.first().copied().unwrap_or_else(|| self.add_chunk());
        let chunk = self.chunks[number as usize].get_or_insert_with(Chunk::new);
        let place = chunk.free.trailing_zeros();
        chunk.free &= !(1 << place);
        if chunk.free == 0 {
            self.roomy.remove(&number);
        }
        self.generation = self.generation.wrapping_add(1);
        self.len += 1;
        chunk.generations[place as usize] = self.generation;
        chunk.states[place as usize] = Some(state);
        Key { index: number * CHUNK as u32 + place, generation: self.generation }
    }

    fn add_chunk(&mut self) -> u32 {
        let number = self.chunks.len() as u32;
        self.chunks.push(None);
        self.roomy.insert(number);
        number
    }

    /// Takes the state out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let number = key.index as usize / CHUNK;
        let place = key.index as usize % CHUNK;
        let chunk = self.chunks.get_mut(number)?.as_mut()?;
        if chunk.generations[place] != key.generation {
            return None;
        }
        let state = chunk.states[place].take()?;
        chunk.free |= 1 << place;
        self.len -= 1;
        self.roomy.insert(number as u32);
        if chunk.free == u64::MAX {
            self.drop_chunk(number);
        }
        Some(state)
    }

    /// Gives an empty chunk's memory back, and the table's tail if it was the last. One empty
    /// chunk is kept, so that a state that comes and goes does not make and drop one each time.
    fn drop_chunk(&mut self, number: usize) {
        if self.len == 0 && number == 0 {
            return;
        }
        self.chunks[number] = None;
        while let Some(None) = self.chunks.last() {
            self.chunks.pop();
            self.roomy.remove(&(self.chunks.len() as u32));
        }
    }

    fn chunk(&self, index: u32) -> Option<&Chunk<T>> {
        self.chunks.get(index as usize / CHUNK)?.as_ref()
    }

    fn chunk_mut(&mut self, index: u32) -> Option<&mut Chunk<T>> {
        self.chunks.get_mut(index as usize / CHUNK)?.as_mut()
    }

    /// The state of that key.
    pub fn get(&self, key: Key) -> Option<&T> {
        let (chunk, place) = (self.chunk(key.index)?, key.index as usize % CHUNK);
        if chunk.generations[place] == key.generation { chunk.states[place].as_ref() } else { None }
    }

    /// The state of that key, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (chunk, place) = (self.chunk_mut(key.index)?, key.index as usize % CHUNK);
        if chunk.generations[place] == key.generation { chunk.states[place].as_mut() } else { None }
    }

    /// The state at a place, whichever occupant it is.
    pub fn at(&self, index: u32) -> Option<&T> {
        self.chunk(index)?.states[index as usize % CHUNK].as_ref()
    }

    /// The state at a place, to be changed.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunk_mut(index)?.states[index as usize % CHUNK].as_mut()
    }

    /// The key of the present occupant of a place.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let index = index as usize;
        self.chunk(index as u32)?.key(index / CHUNK, index % CHUNK)
    }

    /// All states, to be changed, lowest place first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().flat_map(|chunk| chunk.states.iter_mut().flatten())
    }

    /// All states, lowest place first.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            chunk.iter().flat_map(move |chunk| {
                chunk
                    .states
                    .iter()
                    .enumerate()
                    .filter_map(move |(place, state)| chunk.key(number, place).zip(state.as_ref()))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_does_not_find_a_later_occupant() {
        let mut arena = Arena::new();
        let old = arena.insert("old");
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new");
        assert_eq!(new.index, old.index);
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.remove(old), None);
        assert_eq!((arena.get(new), arena.len()), (Some(&"new"), 1));
    }

    #[test]
    fn memory_goes_when_states_leave() {
        let mut arena = Arena::new();
        let keys: Vec<_> = (0..1000).map(|n| arena.insert(n)).collect();
        assert_eq!(arena.capacity(), 1024);
        for key in &keys[100..] {
            arena.remove(*key);
        }
        assert_eq!(arena.capacity(), 128);
        assert_eq!(arena.iter().count(), 100);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), any::<u8>()), 0..600)) {
            let mut arena = Arena::new();
            let mut model = std::collections::HashMap::new();
            let mut keys = Vec::new();
            for (n, (add, pick)) in steps.into_iter().enumerate() {
                if add || keys.is_empty() {
                    let key = arena.insert(n);
                    prop_assert!(model.insert(key, n).is_none());
                    keys.push(key);
                } else {
                    let key = keys.swap_remove(pick as usize % keys.len());
                    prop_assert_eq!(arena.remove(key), model.remove(&key));
                    prop_assert_eq!(arena.get(key), None);
                }
                prop_assert_eq!(arena.len(), model.len());
            }
            let found: std::collections::HashMap<_, _> =
                arena.iter().map(|(key, n)| (key, *n)).collect();
            prop_assert_eq!(&found, &model);
            for key in model.keys() {
                prop_assert_eq!(arena.key_at(key.index), Some(*key));
                prop_assert!(key.index < arena.capacity());
            }
        }
    }
}
