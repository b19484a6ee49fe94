//! The instances on the other side of client sessions, and the packets of this turn for each.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use zhttp::Ext;

use crate::Output;

/// Several packets leave as one message up to this size, bytes.
const BATCH_BYTES: usize = 48 * 1024;

/// Peers that are remembered.
const PEERS_MAX: usize = 100_000;

/// The peer of a session whose client is gone.
pub(crate) const NOBODY: u32 = u32::MAX;

/// One instance: a connection manager, or the handler for requests of its own.
#[derive(Debug)]
pub(crate) struct Peer {
    pub id: Arc<[u8]>,
    /// It talks through the sockets for internal requests.
    pub internal: bool,
    /// It understands packets with several ids.
    pub multi: bool,
    /// It understands several packets in one message.
    pub batch: bool,
    /// Packets for the PUB and for the ROUTER socket.
    waiting: [Vec<u8>; 2],
}

/// All peers by index.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    list: Vec<Peer>,
    by_id: HashMap<(Arc<[u8]>, bool), u32>,
    dirty: Vec<u32>,
}

impl Peers {
    /// The index of a peer, made if need be; nothing if there are too many.
    pub fn intern(&mut self, id: &[u8], internal: bool, ext: Ext) -> Option<u32> {
        if let Some(index) = self.find(id, internal) {
            self.announced(index, ext);
            return Some(index);
        }
        if self.list.len() >= PEERS_MAX {
            return None;
        }
        let id: Arc<[u8]> = id.into();
        let index = self.list.len() as u32;
        self.by_id.insert((Arc::clone(&id), internal), index);
        let (multi, batch) = (ext.multi, ext.batch);
        self.list.push(Peer { id, internal, multi, batch, waiting: [Vec::new(), Vec::new()] });
        Some(index)
    }

    /// The index of a known peer.
    pub fn find(&self, id: &[u8], internal: bool) -> Option<u32> {
        // Few peers: a walk beats hashing an owned key.
        if self.list.len() <= 8 {
            let found = self.list.iter().position(|p| p.internal == internal && *p.id == *id);
            return found.map(|index| index as u32);
        }
        self.by_id.get(&(Arc::from(id), internal)).copied()
    }

    /// Notes what a packet of the peer announced. What was announced once stays.
    pub fn announced(&mut self, index: u32, ext: Ext) {
        if let Some(peer) = self.list.get_mut(index as usize) {
            peer.multi |= ext.multi;
            peer.batch |= ext.batch;
        }
    }

    /// A peer by its index.
    pub fn get(&self, index: u32) -> Option<&Peer> {
        self.list.get(index as usize)
    }

    /// Lets `write` append a packet for a peer; it leaves at once or with others of this turn.
    pub fn packet(
        &mut self,
        index: u32,
        router: bool,
        outputs: &mut VecDeque<Output>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(peer) = self.list.get_mut(index as usize) else { return };
        let side = usize::from(router);
        if peer.waiting.iter().all(Vec::is_empty) {
            self.dirty.push(index);
        }
        let start = peer.waiting[side].len();
        if start == 0 {
            peer.waiting[side].reserve(512);
        }
        write(&mut peer.waiting[side]);
        if log::log_enabled!(log::Level::Trace) {
            let text = dump(&peer.waiting[side][start..]);
            log::trace!("OUT stream to={} {text}", String::from_utf8_lossy(&peer.id));
        }
        if !peer.batch || peer.waiting[side].len() >= BATCH_BYTES {
            peer.flush(side, outputs);
        }
    }

    /// Gives out what waits.
    pub fn flush(&mut self, outputs: &mut VecDeque<Output>) {
        for index in self.dirty.drain(..) {
            if let Some(peer) = self.list.get_mut(index as usize) {
                peer.flush(0, outputs);
                peer.flush(1, outputs);
            }
        }
    }
}

impl Peer {
    fn flush(&mut self, side: usize, outputs: &mut VecDeque<Output>) {
        if self.waiting[side].is_empty() {
            return;
        }
        outputs.push_back(Output::Client {
            peer: Arc::clone(&self.id),
            internal: self.internal,
            router: side == 1,
            message: std::mem::take(&mut self.waiting[side]),
        });
    }
}

/// A packet for trace lines, cut off at 1,000 bytes.
pub(crate) fn dump(packet: &[u8]) -> String {
    String::from_utf8_lossy(&packet[..packet.len().min(1_000)]).escape_default().to_string()
}
