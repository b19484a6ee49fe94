//! The processes that answer: instance ids interned, what they announced, and this turn's packets
//! for each, so that several can leave as one ZeroMQ message.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use zhttp::Ext;

use crate::worker::Output;

/// Peers known at a time. Those without sessions are forgotten first.
const PEERS_MAX: usize = 4096;

/// A message of several packets is closed at this size.
const BATCH_BYTES: usize = 64 * 1024;

/// Number of a known peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(u16);

impl PeerId {
    pub(crate) const NONE: Self = Self(u16::MAX);
}

#[derive(Debug)]
struct Peer {
    id: Arc<[u8]>,
    multi: bool,
    batch: bool,
    sessions: u32,
    /// Messages wait for it: what clients would add waits with them.
    full: bool,
    out: Vec<u8>,
    ends: Vec<usize>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    list: Vec<Peer>,
    by_id: HashMap<Arc<[u8]>, u16>,
    last: u16,
    talking: Vec<PeerId>,
    held: u32,
    batch_seen: bool,
}

impl Peers {
    /// The number of the peer that calls itself `id`, known or new. `None`: no room for more.
    pub(crate) fn intern(&mut self, id: &[u8], ext: Ext) -> Option<PeerId> {
        let known = self.list.get(self.last as usize).is_some_and(|peer| &*peer.id == id);
        if !known {
            self.last = match self.by_id.get(id) {
                Some(number) => *number,
                None => self.add(id)?,
            };
        }
        let peer = &mut self.list[self.last as usize];
        peer.multi |= ext.multi;
        peer.batch |= ext.batch;
        self.batch_seen |= ext.batch;
        Some(PeerId(self.last))
    }

    fn add(&mut self, id: &[u8]) -> Option<u16> {
        let id: Arc<[u8]> = id.into();
        let peer = Peer {
            id: id.clone(),
            multi: false,
            batch: false,
            sessions: 0,
            full: false,
            out: Vec::new(),
            ends: Vec::new(),
        };
        let number = if self.list.len() < PEERS_MAX {
            self.list.push(peer);
            self.list.len() - 1
        } else {
            let free = |peer: &Peer| peer.sessions == 0 && peer.ends.is_empty();
            let number = self.list.iter().position(free)?;
            self.by_id.remove(&self.list[number].id);
            self.list[number] = peer;
            number
        };
        self.by_id.insert(id, number as u16);
        Some(number as u16)
    }

    /// The number of a known peer.
    pub(crate) fn find(&self, id: &[u8]) -> Option<PeerId> {
        self.by_id.get(id).copied().map(PeerId)
    }

    /// Whether the peer announced `batch`; no for [`PeerId::NONE`].
    pub(crate) fn is_batch(&self, peer: PeerId) -> bool {
        self.list.get(peer.0 as usize).is_some_and(|peer| peer.batch)
    }

    /// One more session of this peer.
    pub(crate) fn hold(&mut self, peer: PeerId) {
        self.list[peer.0 as usize].sessions += 1;
        self.held += 1;
    }

    /// One session less; nothing for [`PeerId::NONE`].
    pub(crate) fn release(&mut self, peer: PeerId) {
        if let Some(peer) = self.list.get_mut(peer.0 as usize) {
            peer.sessions -= 1;
            self.held -= 1;
        }
    }

    /// Whether messages wait for the peer.
    pub(crate) fn is_full(&self, peer: PeerId) -> bool {
        self.list.get(peer.0 as usize).is_some_and(|peer| peer.full)
    }

    /// Notes whether messages wait for the peer.
    pub(crate) fn set_full(&mut self, peer: PeerId, full: bool) {
        self.list[peer.0 as usize].full = full;
    }

    /// Sessions that have a peer.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Whether any peer ever announced `batch`: then the responders are ours.
    pub(crate) fn batch_seen(&self) -> bool {
        self.batch_seen
    }

    /// Another worker of the process has seen such a peer.
    pub(crate) fn note_batch(&mut self) {
        self.batch_seen = true;
    }

    /// Peers that have sessions.
    pub(crate) fn with_sessions(&self) -> Vec<PeerId> {
        let numbers = (0..self.list.len()).filter(|n| self.list[*n].sessions > 0);
        numbers.map(|n| PeerId(n as u16)).collect()
    }

    /// The instance id of a peer; nothing for [`PeerId::NONE`].
    pub(crate) fn name(&self, peer: PeerId) -> Option<&[u8]> {
        self.list.get(peer.0 as usize).map(|peer| &*peer.id)
    }

    /// Each known peer and its sessions.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.list.iter().map(|peer| (&*peer.id, peer.sessions))
    }

    /// How many ids one packet to this peer may list.
    pub(crate) fn ids_max(&self, peer: PeerId) -> usize {
        if self.list[peer.0 as usize].multi { zhttp::MAX_IDS } else { 1 }
    }

    /// Writes one packet for the peer.
    pub(crate) fn write(&mut self, peer: PeerId, fill: impl FnOnce(&mut Vec<u8>)) {
        let to = &mut self.list[peer.0 as usize];
        if to.ends.is_empty() {
            self.talking.push(peer);
        }
        fill(&mut to.out);
        to.ends.push(to.out.len());
    }

    /// Forgets what was written for a peer that left.
    pub(crate) fn discard(&mut self, peer: PeerId) {
        let to = &mut self.list[peer.0 as usize];
        to.out.clear();
        to.ends.clear();
        self.talking.retain(|talking| *talking != peer);
    }

    /// Moves the turn's packets to `outputs`, as few messages as the peers understand.
    pub(crate) fn drain(&mut self, outputs: &mut VecDeque<Output>) {
        for peer in std::mem::take(&mut self.talking) {
            self.list[peer.0 as usize].drain(outputs);
        }
    }
}

impl Peer {
    fn drain(&mut self, outputs: &mut VecDeque<Output>) {
        let whole = self.ends.len() == 1 || (self.batch && self.out.len() <= BATCH_BYTES);
        if whole {
            let packet = std::mem::take(&mut self.out);
            outputs.push_back(Output::To { peer: self.id.clone(), packet });
        } else {
            for range in messages(&self.ends, self.batch) {
                let packet = self.out[range].to_vec();
                outputs.push_back(Output::To { peer: self.id.clone(), packet });
            }
            self.out.clear();
            self.out.shrink_to(BATCH_BYTES);
        }
        self.ends.clear();
    }
}

/// The ranges of the messages that packets with these ends make.
fn messages(ends: &[usize], batch: bool) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    let mut start = 0;
    for &end in ends {
        match ranges.last_mut() {
            Some(last) if batch && end - last.start <= BATCH_BYTES => last.end = end,
            _ => ranges.push(start..end),
        }
        start = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(peers: &mut Peers) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut outputs = VecDeque::new();
        peers.drain(&mut outputs);
        outputs
            .into_iter()
            .map(|output| match output {
                Output::To { peer, packet } => (peer.to_vec(), packet),
                Output::First { .. } | Output::Req { .. } => unreachable!("not by name"),
            })
            .collect()
    }

    #[test]
    fn batches_only_for_those_who_announced_it() {
        let mut peers = Peers::default();
        let ours = peers.intern(b"ours", Ext::OURS).unwrap();
        let old = peers.intern(b"old", Ext::default()).unwrap();
        for (peer, text) in [(ours, "a"), (old, "b"), (ours, "c"), (old, "d")] {
            peers.write(peer, |out| out.extend_from_slice(text.as_bytes()));
        }
        let pair =
            |peer: &str, packet: &str| (peer.as_bytes().to_vec(), packet.as_bytes().to_vec());
        assert_eq!(sent(&mut peers), [pair("ours", "ac"), pair("old", "b"), pair("old", "d")]);
        assert!(sent(&mut peers).is_empty());
        assert_eq!((peers.ids_max(ours), peers.ids_max(old)), (128, 1));
    }

    #[test]
    fn messages_have_a_size_limit() {
        let ends = [30_000, 60_000, 90_000, 200_000, 200_001];
        assert_eq!(
            messages(&ends, true),
            [0..60_000, 60_000..90_000, 90_000..200_000, 200_000..200_001]
        );
        assert_eq!(messages(&ends, false).len(), 5);
    }

    #[test]
    fn forgets_peers_without_sessions_first() {
        let mut peers = Peers::default();
        let first = peers.intern(b"first", Ext::default()).unwrap();
        for n in 1..PEERS_MAX {
            let peer = peers.intern(n.to_string().as_bytes(), Ext::default()).unwrap();
            peers.hold(peer);
        }
        assert_eq!(peers.intern(b"new", Ext::default()), Some(first));
        peers.hold(first);
        assert_eq!(peers.find(b"first"), None);
        assert_eq!(peers.intern(b"one more", Ext::default()), None);
        assert_eq!(peers.find(b"new"), Some(first));
    }
}
