//! The processes that a shard writes to, named by number: connection managers ([`super::peers`])
//! and proxies ([`super::socket`]).

use std::sync::Arc;

use hashbrown::HashMap;

/// Processes that are remembered without having sessions.
const IDLE_MAX: usize = 64;

/// What is kept of one process.
pub(crate) trait Entry {
    /// One that was not heard of before.
    fn new(id: Arc<[u8]>) -> Self;

    /// Whether it has sessions.
    fn is_used(&self) -> bool;
}

/// One process, and whether something was written for it since the last flush.
#[derive(Debug)]
struct Slot<T> {
    entry: T,
    touched: bool,
}

/// All processes of a kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    by_id: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Option<Slot<T>>>,
    touched: Vec<u32>,
}

impl<T: Entry> Table<T> {
    pub(crate) fn new() -> Self {
        Self { by_id: HashMap::new(), slots: Vec::new(), touched: Vec::new() }
    }

    pub(crate) fn find(&self, id: &[u8]) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        Some(&self.slots.get(number as usize)?.as_ref()?.entry)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        Some(&mut self.slots.get_mut(number as usize)?.as_mut()?.entry)
    }

    /// The numbers of those that have sessions.
    pub(crate) fn used(&self) -> Vec<u32> {
        let numbers = 0..self.slots.len() as u32;
        numbers.filter(|number| self.get(*number).is_some_and(T::is_used)).collect()
    }

    /// The number of a process, made known if it is new.
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
        self.slots[number] = Some(Slot { entry: T::new(id.clone()), touched: false });
        self.by_id.insert(id, number as u32);
        number as u32
    }

    fn forget_idle(&mut self) {
        let slots = &mut self.slots;
        self.by_id.retain(|_, number| {
            let slot = &mut slots[*number as usize];
            let keep = slot.as_ref().is_some_and(|slot| slot.entry.is_used() || slot.touched);
            if !keep {
                *slot = None;
            }
            keep
        });
    }

    /// Something was written for a process: it is given out at the next flush.
    pub(crate) fn touch(&mut self, number: u32) {
        let Some(Some(slot)) = self.slots.get_mut(number as usize) else { return };
        if !std::mem::replace(&mut slot.touched, true) {
            self.touched.push(number);
        }
    }

    /// Whether something was written since the last flush.
    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Gives those for which something was written to `flush`, in the order of writing.
    pub(crate) fn flush(&mut self, mut flush: impl FnMut(&mut T)) {
        for number in std::mem::take(&mut self.touched) {
            let Some(Some(slot)) = self.slots.get_mut(number as usize) else { continue };
            slot.touched = false;
            flush(&mut slot.entry);
        }
    }
}
