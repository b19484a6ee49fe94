//! The connection managers that a shard talks to, and the packets written for them.

use std::sync::Arc;

use hashbrown::HashMap;
use zhttp::{Ext, Fields, Head, Id};

use crate::message::Output;

/// Connection managers that are remembered without having sessions.
const IDLE_MAX: usize = 64;

/// Bytes after which a batch message is closed.
const BATCH_BYTES: usize = 64 * 1024;

/// One connection manager.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: Arc<[u8]>,
    /// Understands packets with several ids.
    pub(crate) multi: bool,
    /// Understands several packets in one message.
    pub(crate) batch: bool,
    pub(crate) sessions: u32,
    /// Packets not given out yet, by way: PUB, ROUTER.
    open: [Vec<u8>; 2],
    touched: bool,
}

/// All of them, named by number.
#[derive(Debug)]
pub(crate) struct Peers {
    by_id: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Option<Peer>>,
    touched: Vec<u32>,
    from: Box<[u8]>,
    shard: usize,
    out: Vec<Output>,
}

impl Peers {
    /// `from` is the shard's instance id.
    pub(crate) fn new(shard: usize, from: &str) -> Self {
        Self {
            by_id: HashMap::new(),
            slots: Vec::new(),
            touched: Vec::new(),
            from: from.as_bytes().into(),
            shard,
            out: Vec::new(),
        }
    }

    pub(crate) fn find(&self, id: &[u8]) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Peer> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Peer> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The number of a connection manager, made known if it is new.
    pub(crate) fn intern(&mut self, id: &[u8]) -> u32 {
        if let Some(number) = self.find(id) {
            return number;
        }
        if self.by_id.len() >= IDLE_MAX {
            self.forget_idle();
        }
        let number = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let id: Arc<[u8]> = id.into();
        let peer = Peer {
            id: id.clone(),
            multi: false,
            batch: false,
            sessions: 0,
            open: Default::default(),
            touched: false,
        };
        if number == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[number] = Some(peer);
        self.by_id.insert(id, number as u32);
        number as u32
    }

    fn forget_idle(&mut self) {
        let slots = &mut self.slots;
        self.by_id.retain(|_, number| {
            let slot = &mut slots[*number as usize];
            let keep = slot.as_ref().is_some_and(|peer| peer.sessions > 0 || peer.touched);
            if !keep {
                *slot = None;
            }
            keep
        });
    }

    /// Notes what a connection manager announces.
    pub(crate) fn announced(&mut self, number: u32, multi: bool, batch: bool) {
        if let Some(peer) = self.get_mut(number) {
            peer.multi |= multi;
            peer.batch |= batch;
        }
    }

    /// Appends a packet for the sessions `ids` of a connection manager.
    pub(crate) fn write(
        &mut self,
        number: u32,
        router: bool,
        ids: &[Id<'_>],
        fill: impl FnOnce(&mut Fields<'_>),
    ) {
        let Some(Some(peer)) = self.slots.get_mut(number as usize) else { return };
        let open = &mut peer.open[usize::from(router)];
        if !open.is_empty() && (!peer.batch || open.len() >= BATCH_BYTES) {
            let message = std::mem::take(open);
            let id = peer.id.clone();
            self.out.push(Output::ToClient { shard: self.shard, peer: id, router, message });
        }
        zhttp::write(open, &Head { from: &self.from, ids, ext: Ext::OURS }, fill);
        if !peer.touched {
            peer.touched = true;
            self.touched.push(number);
        }
    }

    /// Moves everything written to `out`, each connection manager's packets in order.
    pub(crate) fn flush(&mut self, out: &mut impl Extend<Output>) {
        for number in std::mem::take(&mut self.touched) {
            let Some(Some(peer)) = self.slots.get_mut(number as usize) else { continue };
            peer.touched = false;
            for router in [false, true] {
                let message = std::mem::take(&mut peer.open[usize::from(router)]);
                if !message.is_empty() {
                    let id = peer.id.clone();
                    let shard = self.shard;
                    self.out.push(Output::ToClient { shard, peer: id, router, message });
                }
            }
        }
        out.extend(self.out.drain(..));
    }

    /// Whether anything was written since the last flush.
    pub(crate) fn has_output(&self) -> bool {
        !self.touched.is_empty() || !self.out.is_empty()
    }
}
