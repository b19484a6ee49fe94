//! What the client side holds and dropped, for the metrics page and the debug view: each worker
//! puts its figures up at the end of a turn, so whoever looks asks nobody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use origin::Counts;

use crate::client::{ClientCounters, Outgoing};

/// One worker's figures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientReport {
    /// Sessions of stream mode.
    pub(crate) stream: usize,
    /// Requests of req mode.
    pub(crate) req: usize,
    pub(crate) counters: ClientCounters,
    /// Connections to backends.
    pub(crate) backends: Counts,
}

/// Messages that were dropped at the ZeroMQ sockets, where no session was known yet or any more.
#[derive(Debug, Default)]
pub(super) struct SocketDrops {
    malformed: AtomicU64,
    unsent: AtomicU64,
}

impl SocketDrops {
    /// One that does not tell whose it is.
    pub(super) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// One that its socket did not take.
    pub(super) fn unsent(&self) {
        self.unsent.fetch_add(1, Relaxed);
    }
}

/// The figures of all workers and of the sockets.
#[derive(Debug)]
pub(crate) struct Reports {
    workers: Vec<Mutex<ClientReport>>,
    pub(super) drops: SocketDrops,
}

/// What they are at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ClientOverview {
    pub(crate) workers: Vec<ClientReport>,
    pub(crate) malformed: u64,
    pub(crate) unsent: u64,
}

impl Reports {
    /// For so many workers.
    pub(super) fn new(workers: u16) -> Arc<Self> {
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Arc::new(Self { workers, drops: SocketDrops::default() })
    }

    /// Replaces what a worker said before.
    pub(super) fn put(&self, worker: u16, engine: &Outgoing, backends: Counts) {
        if let Some(place) = self.workers.get(usize::from(worker)) {
            *lock(place) = ClientReport {
                stream: engine.stream_len(),
                req: engine.req_len(),
                counters: *engine.counters(),
                backends,
            };
        }
    }

    /// The newest figures.
    pub(crate) fn overview(&self) -> ClientOverview {
        ClientOverview {
            workers: self.workers.iter().map(|place| *lock(place)).collect(),
            malformed: self.drops.malformed.load(Relaxed),
            unsent: self.drops.unsent.load(Relaxed),
        }
    }
}

/// A panic elsewhere must not end the view that would show it.
fn lock(place: &Mutex<ClientReport>) -> MutexGuard<'_, ClientReport> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
