//! Responses by PUB, for connection managers that did not ask for the ROUTER. The socket is an
//! XPUB, which tells who has subscribed: a packet for somebody who has not yet waits a little
//! instead of getting lost.

use std::collections::VecDeque;

use evloop::zsock::{Error, Options, Sent, Socket};
use hashbrown::HashMap;

/// How long packets wait for a subscription.
const FIRST_CONTACT_MS: u64 = 2_000;

/// Packets that may wait for one connection manager.
const PARKED_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct Peer {
    subscribed: bool,
    parked: VecDeque<Vec<u8>>,
    give_up_ms: u64,
}

/// The socket and what is known of its subscribers.
#[derive(Debug)]
pub(super) struct PubSide {
    socket: Socket,
    peers: HashMap<Vec<u8>, Peer>,
    waiting: usize,
    lost: u64,
    frames: Vec<zmq::Message>,
}

impl PubSide {
    pub(super) fn new(context: &zmq::Context, specs: &[String]) -> Result<Self, Error> {
        let options = Options { hwm: 101_000, linger_ms: 500, ..Options::default() };
        let socket = Socket::new(context, zmq::XPUB, &options)?;
        for spec in specs {
            socket.connect(spec)?;
        }
        let peers = HashMap::new();
        Ok(Self { socket, peers, waiting: 0, lost: 0, frames: Vec::new() })
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether packets wait, so that [`PubSide::turn`] is due soon.
    pub(super) fn waits(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn send(&mut self, now: u64, peer: &[u8], packet: &[u8]) {
        let message = zhttp::route::publish(peer, packet);
        let entry = match self.peers.get_mut(peer) {
            Some(entry) => entry,
            None => self.peers.entry(peer.to_vec()).or_default(),
        };
        if entry.subscribed && entry.parked.is_empty() && self.socket.send(&[&message]) == Sent::Ok
        {
            return;
        }
        if entry.parked.len() >= PARKED_MAX {
            self.lost += 1;
            return;
        }
        if entry.parked.is_empty() {
            entry.give_up_ms = now + FIRST_CONTACT_MS;
            self.waiting += 1;
        }
        entry.parked.push_back(message);
    }

    /// Takes subscriptions in and sends what waited for them; gives those who left.
    pub(super) fn turn(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        while self.socket.recv(&mut self.frames) {
            let Some(frame) = self.frames.first() else { continue };
            // A connection manager subscribes to its id and a space.
            match &frame[..] {
                [1, id @ .., b' '] => self.peers.entry(id.to_vec()).or_default().subscribed = true,
                [0, id @ .., b' '] => {
                    if let Some(peer) = self.peers.remove(id) {
                        self.waiting -= usize::from(!peer.parked.is_empty());
                        gone.push(id.to_vec());
                    }
                }
                _ => {}
            }
        }
        if self.waiting > 0 {
            self.drain(now);
        }
        gone
    }

    fn drain(&mut self, now: u64) {
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.parked.is_empty()) {
            while peer.subscribed
                && peer.parked.front().is_some_and(|p| self.socket.send(&[p]) == Sent::Ok)
            {
                peer.parked.pop_front();
            }
            let given_up = !peer.subscribed && now >= peer.give_up_ms;
            if given_up {
                let id = String::from_utf8_lossy(id);
                log::warn!("nobody subscribed for {id}, dropping {} packets", peer.parked.len());
                self.lost += peer.parked.len() as u64;
                peer.parked.clear();
            }
            if peer.parked.is_empty() {
                self.waiting -= 1;
            }
        }
    }
}
