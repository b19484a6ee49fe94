//! The connection managers that a shard talks to, and the packets written for them.

use std::sync::Arc;

use zhttp::{Ext, Fields, Head, Id};

use super::table::{Entry, Table};
use crate::message::Output;

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
}

impl Entry for Peer {
    fn new(id: Arc<[u8]>) -> Self {
        Self { id, multi: false, batch: false, sessions: 0, open: Default::default() }
    }

    fn is_used(&self) -> bool {
        self.sessions > 0
    }
}

/// All of them, named by number.
#[derive(Debug)]
pub(crate) struct Peers {
    table: Table<Peer>,
    from: Box<[u8]>,
    shard: usize,
    out: Vec<Output>,
}

impl Peers {
    /// `from` is the shard's instance id.
    pub(crate) fn new(shard: usize, from: &str) -> Self {
        Self { table: Table::new(), from: from.as_bytes().into(), shard, out: Vec::new() }
    }

    pub(crate) fn find(&self, id: &[u8]) -> Option<u32> {
        self.table.find(id)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Peer> {
        self.table.get(number)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Peer> {
        self.table.get_mut(number)
    }

    /// How many connection managers have sessions.
    pub(crate) fn in_use(&self) -> usize {
        self.table.used().len()
    }

    /// The number of a connection manager, made known if it is new.
    pub(crate) fn intern(&mut self, id: &[u8]) -> u32 {
        self.table.intern(id)
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
        let Some(peer) = self.table.get_mut(number) else { return };
        let open = &mut peer.open[usize::from(router)];
        if !open.is_empty() && (!peer.batch || open.len() >= BATCH_BYTES) {
            let message = std::mem::take(open);
            let id = peer.id.clone();
            self.out.push(Output::ToClient { shard: self.shard, peer: id, router, message });
        }
        zhttp::write(open, &Head { from: &self.from, ids, ext: Ext::OURS }, fill);
        self.table.touch(number);
    }

    /// Moves everything written to `out`, each connection manager's packets in order.
    pub(crate) fn flush(&mut self, out: &mut impl Extend<Output>) {
        let Self { table, out: ready, shard, .. } = self;
        table.flush(|peer| {
            for router in [false, true] {
                let message = std::mem::take(&mut peer.open[usize::from(router)]);
                if !message.is_empty() {
                    let peer = peer.id.clone();
                    ready.push(Output::ToClient { shard: *shard, peer, router, message });
                }
            }
        });
        out.extend(self.out.drain(..));
        self.out.shrink_to(super::KEPT_MESSAGES);
    }

    /// Whether anything was written since the last flush.
    pub(crate) fn has_output(&self) -> bool {
        self.table.is_touched() || !self.out.is_empty()
    }
}
