//! Which session a packet is for: by the requester's instance id and its session id, or by the
//! session id alone while a requester passes its role on. For the engine's packets.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use evloop::arena::Key;
use hashbrown::{Equivalent, HashMap};

/// A requester's instance id, and its session id.
pub(super) type Name = (Arc<[u8]>, Vec<u8>);

/// The same, to look up with. It hashes like a [`Name`].
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct NameRef<'a>(pub(super) &'a [u8], pub(super) &'a [u8]);

impl NameRef<'_> {
    pub(super) fn to_name(self) -> Name {
        (self.0.into(), self.1.to_vec())
    }
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        *self.0 == *name.0 && *self.1 == *name.1
    }
}

/// Which of `workers` has the sessions of this id. Whoever asks for them does not count, so that
/// a session stays where it is when its requester passes it on.
pub(crate) fn worker_of(id: &[u8], workers: u16) -> u16 {
    if workers < 2 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(id);
    (hasher.finish() % u64::from(workers)) as u16
}

/// The names of all sessions of stream mode.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Name, Key>,
    /// Sessions whose requester passes its role on, by session id.
    adrift: HashMap<Vec<u8>, Vec<Key>>,
}

impl Names {
    pub(super) fn get(&self, name: NameRef<'_>) -> Option<Key> {
        self.known.get(&name).copied()
    }

    pub(super) fn insert(&mut self, name: Name, key: Key) {
        self.known.insert(name, key);
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, name: &Name, key: Key) {
        self.known.remove(name);
        self.set_fast(&name.1, key);
    }

    /// The next packet of this session may have another sender.
    pub(super) fn set_adrift(&mut self, id: &[u8], key: Key) {
        let keys = self.adrift.entry(id.to_vec()).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// The session has a known requester again.
    pub(super) fn set_fast(&mut self, id: &[u8], key: Key) {
        let Some(keys) = self.adrift.get_mut(id) else { return };
        keys.retain(|k| *k != key);
        if keys.is_empty() {
            self.adrift.remove(id);
        }
    }

    /// Sessions of this id that wait for their next requester.
    pub(super) fn adrift(&self, id: &[u8]) -> &[Key] {
        self.adrift.get(id).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn sessions_are_found_by_both_names_and_adrift_by_one() {
        let mut names = Names::default();
        let (one, two) = (NameRef(b"a", b"x"), NameRef(b"b", b"x"));
        names.insert(one.to_name(), key(1));
        names.insert(two.to_name(), key(2));
        assert_eq!((names.get(one), names.get(two)), (Some(key(1)), Some(key(2))));
        // The same bytes, split elsewhere.
        assert_eq!(names.get(NameRef(b"ax", b"")), None);
        names.set_adrift(b"x", key(1));
        names.set_adrift(b"x", key(1));
        names.set_adrift(b"x", key(2));
        assert_eq!(names.adrift(b"x"), [key(1), key(2)]);
        names.remove(&one.to_name(), key(1));
        names.set_fast(b"x", key(2));
        assert!(names.adrift(b"x").is_empty() && names.adrift.is_empty());
        assert_eq!(names.get(one), None);
    }

    #[test]
    fn ids_spread_over_the_workers() {
        let mut counts = [0; 4];
        for n in 0..1_000 {
            counts[usize::from(worker_of(format!("r{n}").as_bytes(), 4))] += 1;
        }
        assert!(counts.iter().all(|count| *count > 150), "{counts:?}");
        assert_eq!(worker_of(b"x", 1), 0);
    }
}
