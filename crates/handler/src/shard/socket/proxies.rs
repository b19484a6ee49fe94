//! The proxies that hold WebSockets, and the control packets written for them.

use std::sync::Arc;

use zrpc::control::{Item, MAX_ITEMS, write_item, write_packet};

use crate::message::Output;
use crate::shard::table::{Entry, Table};

/// Bytes of items after which a packet is closed.
const PACKET_BYTES: usize = 64 * 1024;

/// One proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    id: Arc<[u8]>,
    /// Takes `send` items with several connections.
    pub(crate) multi: bool,
    pub(crate) sockets: u32,
    /// Encoded items not given out yet.
    frames: Vec<u8>,
    items: usize,
}

impl Entry for Proxy {
    fn new(id: Arc<[u8]>) -> Self {
        Self { id, multi: false, sockets: 0, frames: Vec::new(), items: 0 }
    }

    fn is_used(&self) -> bool {
        self.sockets > 0
    }
}

/// All of them, named by number.
#[derive(Debug)]
pub(crate) struct Proxies {
    table: Table<Proxy>,
    from: Box<[u8]>,
    shard: usize,
    out: Vec<Output>,
}

impl Proxies {
    /// `from` is the shard's instance id.
    pub(crate) fn new(shard: usize, from: &str) -> Self {
        Self { table: Table::new(), from: from.as_bytes().into(), shard, out: Vec::new() }
    }

    pub(crate) fn find(&self, id: &[u8]) -> Option<u32> {
        self.table.find(id)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Proxy> {
        self.table.get(number)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Proxy> {
        self.table.get_mut(number)
    }

    /// The number of a proxy, made known if it is new.
    pub(crate) fn intern(&mut self, id: &[u8]) -> u32 {
        self.table.intern(id)
    }

    /// Appends an item.
    pub(crate) fn write(&mut self, number: u32, item: &Item<'_>) {
        let Some(proxy) = self.table.get_mut(number) else { return };
        if proxy.items >= MAX_ITEMS || proxy.frames.len() >= PACKET_BYTES {
            self.out.push(proxy.packet(&self.from, self.shard));
        }
        write_item(&mut proxy.frames, item);
        proxy.items += 1;
        self.table.touch(number);
    }

    /// Lets every proxy with sessions get a packet, be it empty: sending it shows who is gone.
    pub(crate) fn probe(&mut self) {
        self.table.used().into_iter().for_each(|number| self.table.touch(number));
    }

    /// Moves everything written to `out`, each proxy's packets in order.
    pub(crate) fn flush(&mut self, out: &mut Vec<Output>) {
        let Self { table, out: ready, from, shard } = self;
        table.flush(|proxy| ready.push(proxy.packet(from, *shard)));
        out.append(&mut self.out);
    }

    /// Whether anything was written since the last flush.
    pub(crate) fn has_output(&self) -> bool {
        self.table.is_touched() || !self.out.is_empty()
    }
}

impl Proxy {
    fn packet(&mut self, from: &[u8], shard: usize) -> Output {
        let packet = write_packet(from, &self.frames);
        self.frames.clear();
        self.frames.shrink_to(PACKET_BYTES);
        self.items = 0;
        Output::ToProxy { shard, proxy: self.id.clone(), packet }
    }
}
