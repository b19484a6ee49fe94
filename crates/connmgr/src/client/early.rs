//! Packets that overtook the first one of their session: it comes through another socket than the
//! others (`spec/zhttp.md §8.2`), so a later one may be here before it. They wait a short while.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::names::{Name, NameRef};

/// How long packets wait for the first one, in milliseconds.
const WAIT_MS: u64 = 5_000;

/// Most packets that wait, and most bytes of them.
const PACKETS_MAX: usize = 1_000;
const BYTES_MAX: usize = 1 << 20;

/// What waits for one session.
#[derive(Debug)]
struct Held {
    name: Name,
    until: u64,
    /// In the order of their numbers, the first of which is 1.
    packets: Vec<Vec<u8>>,
}

/// All that waits, oldest first.
#[derive(Debug, Default)]
pub(super) struct Early {
    by_age: BTreeMap<u64, Held>,
    by_name: HashMap<Name, u64>,
    next_age: u64,
    packets: usize,
    bytes: usize,
}

impl Early {
    pub(super) fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Keeps a packet, unless one is missing before it: then it is late, not early. Gives how many
    /// packets are lost by that: this one, or older ones that make room.
    pub(super) fn hold(&mut self, now: u64, name: NameRef<'_>, seq: u32, packet: &[u8]) -> u64 {
        if packet.len() > BYTES_MAX {
            return 1;
        }
        let mut lost = 0;
        while self.packets >= PACKETS_MAX || self.bytes + packet.len() > BYTES_MAX {
            let Some((_, held)) = self.by_age.pop_first() else { break };
            lost += self.forget(&held);
        }
        let age = self.by_name.get(&name).copied();
        let held = age.and_then(|age| self.by_age.get_mut(&age));
        let next = held.as_ref().map_or(1, |held| held.packets.len() + 1);
        if seq as usize != next {
            return lost + 1;
        }
        self.packets += 1;
        self.bytes += packet.len();
        if let Some(held) = held {
            held.packets.push(packet.to_vec());
            return lost;
        }
        let (age, name) = (self.next_age, name.to_name());
        self.next_age += 1;
        self.by_name.insert(name.clone(), age);
        let packets = vec![packet.to_vec()];
        self.by_age.insert(age, Held { name, until: now + WAIT_MS, packets });
        lost
    }

    /// What waited for a session that begins now: packets 1, 2 and so on.
    pub(super) fn take(&mut self, name: NameRef<'_>) -> Vec<Vec<u8>> {
        let held = self.by_name.get(&name).and_then(|age| self.by_age.remove(age));
        let Some(held) = held else { return Vec::new() };
        self.forget(&held);
        held.packets
    }

    /// Drops what waited too long; gives how many packets that were.
    pub(super) fn expire(&mut self, now: u64) -> u64 {
        let mut lost = 0;
        while let Some(oldest) = self.by_age.first_entry().filter(|held| held.get().until <= now) {
            let held = oldest.remove();
            lost += self.forget(&held);
        }
        lost
    }

    /// Undoes the counts and the name of what was taken out; gives its number of packets.
    fn forget(&mut self, held: &Held) -> u64 {
        self.by_name.remove(&held.name);
        self.packets -= held.packets.len();
        self.bytes -= held.packets.iter().map(Vec::len).sum::<usize>();
        held.packets.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str) -> NameRef<'_> {
        NameRef(b"me", id.as_bytes())
    }

    #[test]
    fn keeps_what_follows_on_without_a_gap() {
        let mut early = Early::default();
        assert_eq!(early.hold(0, name("a"), 1, b"one"), 0);
        assert_eq!(early.hold(0, name("a"), 3, b"gap"), 1);
        assert_eq!(early.hold(0, name("a"), 2, b"two"), 0);
        assert_eq!(early.hold(0, name("b"), 2, b"late"), 1);
        assert_eq!(early.take(name("a")), [b"one".to_vec(), b"two".to_vec()]);
        assert!(early.take(name("a")).is_empty() && early.take(name("b")).is_empty());
        assert!(early.is_empty() && early.by_name.is_empty());
        assert_eq!((early.packets, early.bytes), (0, 0));
    }

    #[test]
    fn waits_for_a_while_only() {
        let mut early = Early::default();
        early.hold(0, name("a"), 1, b"one");
        early.hold(10, name("a"), 2, b"two");
        early.hold(10, name("b"), 1, b"one");
        assert_eq!(early.expire(WAIT_MS - 1), 0);
        assert_eq!(early.expire(WAIT_MS), 2);
        assert_eq!(early.take(name("b")).len(), 1);
        assert_eq!(early.expire(u64::MAX), 0);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut early = Early::default();
        let ids: Vec<String> = (0..PACKETS_MAX + 1).map(|n| n.to_string()).collect();
        let lost: u64 = ids.iter().map(|id| early.hold(0, name(id), 1, b"x")).sum();
        assert_eq!((lost, early.packets), (1, PACKETS_MAX));
        assert!(early.take(name("0")).is_empty());
        assert_eq!(early.take(name("1")).len(), 1);
        assert_eq!(early.hold(0, name("big"), 1, &vec![0; BYTES_MAX]), PACKETS_MAX as u64 - 1);
        assert_eq!((early.packets, early.bytes), (1, BYTES_MAX));
        // What has no room behind its own first packet is lost with it.
        assert_eq!(early.hold(0, name("big"), 2, b"x"), 2);
        assert_eq!(early.hold(0, name("huge"), 1, &vec![0; BYTES_MAX + 1]), 1);
        assert!(early.is_empty());
    }
}
