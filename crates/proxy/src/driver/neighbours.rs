//! How workers give each other requests that belong to a SockJS session of another one.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use mio::Waker;

/// Requests that may wait for a worker.
const WAITING_MAX: usize = 1_000;

struct Neighbour {
    requests: SyncSender<Vec<u8>>,
    waker: OnceLock<Arc<Waker>>,
}

/// All workers of the process.
pub(crate) struct Neighbours {
    list: Vec<Neighbour>,
}

impl Neighbours {
    /// So many workers, and what each of them takes requests from.
    pub fn new(count: usize) -> (Self, Vec<Receiver<Vec<u8>>>) {
        let (mut list, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (requests, end) = sync_channel(WAITING_MAX);
            list.push(Neighbour { requests, waker: OnceLock::new() });
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

    /// Gives a request to a worker; gives it back if that one has too many waiting.
    pub fn give(&self, number: usize, request: Vec<u8>) -> Result<(), Vec<u8>> {
        let Some(neighbour) = self.list.get(number) else { return Err(request) };
        neighbour.requests.try_send(request).map_err(|cause| match cause {
            std::sync::mpsc::TrySendError::Full(request)
            | std::sync::mpsc::TrySendError::Disconnected(request) => request,
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
    fn requests_reach_their_worker_or_come_back() {
        let (neighbours, ends) = Neighbours::new(2);
        assert!((0..WAITING_MAX).all(|_| neighbours.give(1, b"x".to_vec()).is_ok()));
        assert_eq!(neighbours.give(1, b"y".to_vec()), Err(b"y".to_vec()));
        assert_eq!(neighbours.give(2, b"z".to_vec()), Err(b"z".to_vec()));
        assert!(ends[0].try_recv().is_err() && ends[1].try_recv() == Ok(b"x".to_vec()));
    }
}
