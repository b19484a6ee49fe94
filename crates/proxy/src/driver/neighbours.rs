//! What workers of the proxy give each other: requests for SockJS sessions, and packets from and
//! to the sockets of ZHTTP targets, which the first one has.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use evloop::arena::Key;
use mio::Waker;

use super::targets::Ask;

/// Things that may wait for a worker.
const WAITING_MAX: usize = 10_000;

/// One of them.
pub(crate) enum Handed {
    /// A request for a SockJS session.
    Request(Vec<u8>),
    /// A packet for a ZHTTP worker.
    ToTarget(Ask),
    /// A message of a ZHTTP worker.
    FromTarget(Vec<u8>),
    /// No ZHTTP worker takes what this session asks.
    NoTarget(Key),
}

struct Neighbour {
    things: SyncSender<Handed>,
    waker: OnceLock<Arc<Waker>>,
}

/// All workers of the process.
pub(crate) struct Neighbours {
    list: Vec<Neighbour>,
}

impl Neighbours {
    /// So many workers, and what each of them takes things from.
    pub fn new(count: usize) -> (Self, Vec<Receiver<Handed>>) {
        let (mut list, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (things, end) = sync_channel(WAITING_MAX);
            list.push(Neighbour { things, waker: OnceLock::new() });
            ends.push(end);
        }
        (Self { list }, ends)
    }

    /// A worker says how it is woken.
    pub fn arrived(&self, number: usize, waker: Arc<Waker>) {
        if let Some(neighbour) = self.list.get(number) {
            neighbour.waker.get_or_init(|| waker);
        }
    }

    /// Gives a worker something; gives it back if too much waits there.
    pub fn give(&self, number: usize, thing: Handed) -> Result<(), Handed> {
        let Some(neighbour) = self.list.get(number) else { return Err(thing) };
        neighbour.things.try_send(thing).map_err(|cause| match cause {
            TrySendError::Full(thing) | TrySendError::Disconnected(thing) => thing,
        })?;
        if let Some(Err(cause)) = neighbour.waker.get().map(|waker| waker.wake()) {
            log::debug!("waking a worker: {cause}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_reach_their_worker_or_come_back() {
        let (neighbours, ends) = Neighbours::new(2);
        let give = |number| neighbours.give(number, Handed::Request(b"x".to_vec())).is_ok();
        assert!((0..WAITING_MAX).all(|_| give(1)) && !give(1) && !give(2));
        assert!(ends[0].try_recv().is_err());
        assert!(matches!(ends[1].try_recv(), Ok(Handed::Request(request)) if request == b"x"));
    }
}
