//! A mandatory ROUTER with a bounded queue per peer (design, rule 8): a peer that is full or
//! has not shaken hands yet holds up nobody else, and one that left is told about.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::zsock::{Sent, Socket};

/// Packets and bytes that may wait for one peer.
const QUEUE_PACKETS_MAX: usize = 200_000;
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Peers that are remembered. Those of anonymous sockets get a new name with each connection.
const PEERS_MAX: usize = 10_000;

/// How long packets wait for a peer that was never heard of.
const FIRST_CONTACT_MS: u64 = 2_000;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// It left.
    Sent,
    /// It waits for the peer.
    Parked,
    /// The peer's queue is full: the packet is lost, and with it the sequence of its sessions.
    Overflow,
    /// The peer left, or never came: the packet is lost.
    Gone,
}

/// Packets lost since the start, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// The peer's queue was full.
    pub overflow: u64,
    /// The peer was gone.
    pub gone: u64,
}

impl Drops {
    /// Adds those of another router.
    pub fn add(&mut self, other: Self) {
        self.overflow += other.overflow;
        self.gone += other.gone;
    }
}

#[derive(Debug, Default)]
struct Peer {
    reached: bool,
    parked: VecDeque<Vec<u8>>,
    parked_bytes: usize,
    give_up_ms: u64,
}

/// The router and its peers.
#[derive(Debug)]
pub struct PeerRouter {
    socket: Socket,
    peers: HashMap<Vec<u8>, Peer>,
    parked_peers: usize,
    drops: Drops,
}

impl PeerRouter {
    /// Takes over a mandatory ROUTER socket.
    pub fn new(socket: Socket) -> Self {
        Self { socket, peers: HashMap::new(), parked_peers: 0, drops: Drops::default() }
    }

    /// The socket, to bind, connect, register and receive.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Packets lost so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Whether packets wait, so that [`PeerRouter::retry`] is worth a call.
    pub fn has_parked(&self) -> bool {
        self.parked_peers > 0
    }

    /// Peers for which packets wait.
    pub fn parked_peers(&self) -> usize {
        self.parked_peers
    }

    /// Whether packets wait for this peer.
    pub fn is_parked(&self, peer: &[u8]) -> bool {
        self.has_parked() && self.peers.get(peer).is_some_and(|entry| !entry.parked.is_empty())
    }

    /// Sends `[peer][empty][packet]`, or lets it wait.
    pub fn send(&mut self, now_ms: u64, peer: &[u8], packet: Vec<u8>) -> Routed {
        self.make_room();
        let entry = match self.peers.get_mut(peer) {
            Some(entry) => entry,
            None => self.peers.entry(peer.to_vec()).or_default(),
        };
        if entry.parked.is_empty() {
            match self.socket.send(&[peer, b"", &packet]) {
                Sent::Ok => {
                    entry.reached = true;
                    return Routed::Sent;
                }
                Sent::Unreachable if entry.reached => return self.lose(peer),
                Sent::Failed => return self.lose(peer),
                Sent::Full | Sent::Unreachable => entry.give_up_ms = now_ms + FIRST_CONTACT_MS,
            }
            self.parked_peers += 1;
        } else if entry.parked.len() >= QUEUE_PACKETS_MAX
            || entry.parked_bytes + packet.len() > QUEUE_BYTES_MAX
        {
            self.drops.overflow += 1;
            return Routed::Overflow;
        }
        entry.parked_bytes += packet.len();
        entry.parked.push_back(packet);
        Routed::Parked
    }

    /// Forgets peers for which nothing waits; they are known again when they are next heard of.
    fn make_room(&mut self) {
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, entry| !entry.parked.is_empty());
        }
    }

    /// Forgets a peer that left.
    fn lose(&mut self, peer: &[u8]) -> Routed {
        let parked = self.peers.remove(peer).map_or(0, |entry| entry.parked.len());
        self.parked_peers -= usize::from(parked > 0);
        self.drops.gone += 1 + parked as u64;
        Routed::Gone
    }

    /// Notes that something came from `peer`: it has been reached.
    pub fn heard_of(&mut self, peer: &[u8]) {
        if !self.peers.get(peer).is_some_and(|entry| entry.reached) {
            self.make_room();
            self.peers.entry(peer.to_vec()).or_default().reached = true;
        }
    }

    /// Tries the waiting packets again; call it once per turn while [`PeerRouter::has_parked`].
    /// Gives the peers that turned out to be gone; their packets are lost.
    pub fn retry(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        let socket = &self.socket;
        let mut gone = Vec::new();
        for (peer, entry) in self.peers.iter_mut().filter(|(_, entry)| !entry.parked.is_empty()) {
            match entry.drain(socket, peer) {
                Sent::Ok => self.parked_peers -= 1,
                Sent::Full => {}
                Sent::Unreachable if !entry.reached && now_ms < entry.give_up_ms => {}
                Sent::Unreachable | Sent::Failed => gone.push(peer.clone()),
            }
        }
        for peer in &gone {
            self.lose(peer);
            self.drops.gone -= 1;
        }
        gone
    }
}

impl Peer {
    /// Sends what waits until something stops it.
    fn drain(&mut self, socket: &Socket, peer: &[u8]) -> Sent {
        while let Some(packet) = self.parked.front() {
            let sent = socket.send(&[peer, b"", packet]);
            if sent != Sent::Ok {
                return sent;
            }
            self.reached = true;
            self.parked_bytes -= packet.len();
            self.parked.pop_front();
        }
        self.parked.shrink_to(64);
        Sent::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zsock::Options;

    #[test]
    fn names_without_packets_are_forgotten_in_time() {
        let options = Options { mandatory: true, ..Options::default() };
        let socket = Socket::new(&zmq::Context::new(), zmq::ROUTER, &options).unwrap();
        let mut router = PeerRouter::new(socket);
        assert_eq!(router.send(0, b"waits", b"one".to_vec()), Routed::Parked);
        for n in 0..3 * PEERS_MAX {
            router.heard_of(format!("peer-{n}").as_bytes());
            assert!(router.peers.len() <= PEERS_MAX);
        }
        assert!(router.has_parked() && router.peers.contains_key(&b"waits"[..]));
    }
}
