//! The proxies that hold WebSockets, and the control packets written for them.

use std::sync::Arc;

use hashbrown::HashMap;
use zrpc::control::{Item, MAX_ITEMS, write_item, write_packet};

use crate::message::Output;

/// Proxies that are remembered without having sessions.
const IDLE_MAX: usize = 64;

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
    touched: bool,
}

/// All of them, named by number.
#[derive(Debug)]
pub(crate) struct Proxies {
    by_id: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Option<Proxy>>,
    touched: Vec<u32>,
    from: Box<[u8]>,
    shard: usize,
    out: Vec<Output>,
}

impl Proxies {
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

    pub(crate) fn get(&self, number: u32) -> Option<&Proxy> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Proxy> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The number of a proxy, made known if it is new.
    pub(crate) fn intern(&mut self, id: &[u8]) -> u32 {
        if let Some(number) = self.find(id) {
            return number;
        }
        if self.by_id.len() >= IDLE_MAX {
            self.forget_idle();
        }
        let number = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if number == self.slots.len() {
            self.slots.push(None);
        }
        let id: Arc<[u8]> = id.into();
        self.slots[number] = Some(Proxy {
            id: id.clone(),
            multi: false,
            sockets: 0,
            frames: Vec::new(),
            items: 0,
            touched: false,
        });
        self.by_id.insert(id, number as u32);
        number as u32
    }

    fn forget_idle(&mut self) {
        let slots = &mut self.slots;
        self.by_id.retain(|_, number| {
            let slot = &mut slots[*number as usize];
            let keep = slot.as_ref().is_some_and(|proxy| proxy.sockets > 0 || proxy.touched);
            if !keep {
                *slot = None;
            }
            keep
        });
    }

    /// Appends an item.
    pub(crate) fn write(&mut self, number: u32, item: &Item<'_>) {
        let Some(Some(proxy)) = self.slots.get_mut(number as usize) else { return };
        if proxy.items >= MAX_ITEMS || proxy.frames.len() >= PACKET_BYTES {
            self.out.push(proxy.packet(&self.from, self.shard));
        }
        write_item(&mut proxy.frames, item);
        proxy.items += 1;
        self.touch(number);
    }

    fn touch(&mut self, number: u32) {
        let Some(Some(proxy)) = self.slots.get_mut(number as usize) else { return };
        if !std::mem::replace(&mut proxy.touched, true) {
            self.touched.push(number);
        }
    }

    /// Lets every proxy with sessions get a packet, be it empty: sending it shows who is gone.
    pub(crate) fn probe(&mut self) {
        for number in 0..self.slots.len() as u32 {
            if self.get(number).is_some_and(|proxy| proxy.sockets > 0) {
                self.touch(number);
            }
        }
    }

    /// Moves everything written to `out`, each proxy's packets in order.
    pub(crate) fn flush(&mut self, out: &mut Vec<Output>) {
        for number in std::mem::take(&mut self.touched) {
            let Some(Some(proxy)) = self.slots.get_mut(number as usize) else { continue };
            proxy.touched = false;
            self.out.push(proxy.packet(&self.from, self.shard));
        }
        out.append(&mut self.out);
    }

    /// Whether anything was written since the last flush.
    pub(crate) fn has_output(&self) -> bool {
        !self.touched.is_empty() || !self.out.is_empty()
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
