//! One limit of connections for the whole process and each mode, whichever workers they are with,
//! and what wakes the workers that wait for room.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mio::Waker;

/// Shared by all workers.
#[derive(Debug)]
pub(crate) struct Limit {
    max: AtomicUsize,
    used: AtomicUsize,
    paused: AtomicBool,
    full_said: AtomicBool,
    no_files_said: AtomicBool,
    wakers: Mutex<Vec<Arc<Waker>>>,
}

impl Limit {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: AtomicUsize::new(max),
            used: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            full_said: AtomicBool::new(false),
            no_files_said: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
        }
    }

    /// Adds a worker to those that are woken.
    pub(crate) fn join(&self, waker: Arc<Waker>) {
        if let Ok(mut wakers) = self.wakers.lock() {
            wakers.push(waker);
        }
    }

    /// Most connections.
    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes the limit. Who is there beyond a lower one stays.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::SeqCst);
        self.full_said.store(false, Ordering::Relaxed);
        self.wake_waiting();
    }

    /// Connections that there are.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Changes the limit, as part of a larger one that stays what it is: no news.
    pub(crate) fn set_part(&self, max: u64) {
        self.max.store(usize::try_from(max).unwrap_or(usize::MAX), Ordering::SeqCst);
        self.wake_waiting();
    }

    /// Takes room for one connection. False: there is none, and the worker will be woken.
    pub(crate) fn take(&self) -> bool {
        if self.try_take() {
            return true;
        }
        self.paused.store(true, Ordering::SeqCst);
        // Room that was given back before the mark was seen woke nobody.
        self.try_take()
    }

    fn try_take(&self) -> bool {
        let add = |used: usize| (used < self.max()).then_some(used + 1);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }

    /// A worker is stopped by the limit. True the first time, when it is worth a line.
    pub(crate) fn is_full_news(&self) -> bool {
        !self.full_said.swap(true, Ordering::Relaxed)
    }

    /// Marks that a worker waits though the limit has room, for the process is out of files.
    /// True the first time, when it is worth a line.
    pub(crate) fn out_of_files(&self) -> bool {
        self.paused.store(true, Ordering::SeqCst);
        !self.no_files_said.swap(true, Ordering::Relaxed)
    }

    /// Gives room for `count` connections back.
    pub(crate) fn give_back(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.used.fetch_sub(count, Ordering::SeqCst);
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        if self.paused.swap(false, Ordering::SeqCst)
            && let Ok(wakers) = self.wakers.lock()
        {
            for waker in wakers.iter() {
                // A worker that ended needs no waking.
                let _ = waker.wake();
            }
        }
    }
}

/// The limits of both modes.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) stream: Arc<Limit>,
    pub(crate) req: Arc<Limit>,
}

impl Limits {
    pub(crate) fn new(stream: usize, req: usize) -> Self {
        Self { stream: Arc::new(Limit::new(stream)), req: Arc::new(Limit::new(req)) }
    }

    /// Adds a worker to those that are woken.
    pub(crate) fn join(&self, waker: &Arc<Waker>) {
        self.stream.join(waker.clone());
        self.req.join(waker.clone());
    }
}

/// One worker's part of a limit.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) limit: Arc<Limit>,
    counted: usize,
    /// No room under the limit; a waker tells when there is.
    pub(crate) full: bool,
}

impl Share {
    pub(crate) fn new(limit: Arc<Limit>) -> Self {
        Self { limit, counted: 0, full: false }
    }

    /// Takes room for one connection, or notes that there is none.
    pub(crate) fn take(&mut self) -> bool {
        self.full = !self.limit.take();
        self.counted += usize::from(!self.full);
        !self.full
    }

    /// Gives back what was taken for a connection that did not come.
    pub(crate) fn put_back(&mut self) {
        self.counted -= 1;
        self.limit.give_back(1);
    }

    /// Gives back what the worker does not have any more.
    pub(crate) fn settle(&mut self, connections: usize) {
        let left = self.counted - connections;
        self.counted = connections;
        self.limit.give_back(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_limit_for_all() {
        let limit = Limit::new(2);
        assert!(limit.take() && limit.take() && !limit.take());
        limit.give_back(1);
        assert!(limit.take() && !limit.take());
        limit.set_max(3);
        assert!(limit.take() && !limit.take());
        limit.set_max(1);
        limit.give_back(1);
        assert!(!limit.take() && limit.is_full_news() && limit.used() == 2);
        limit.set_part(3);
        assert!(limit.take() && !limit.is_full_news());
    }
}
