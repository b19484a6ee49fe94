//! The sending end of a bounded queue between threads. What does not fit waits at its sender, who
//! goes on with other work. Both sides of the process send this way between their workers and the
//! thread that owns the ZeroMQ sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use mio::Waker;

/// Messages in the queue of one worker, each direction.
pub(crate) const QUEUE_MAX: usize = 4096;

/// Messages that may wait for one worker beyond its queue before the sockets are not read.
pub(crate) const WAITING_MAX: usize = 16 * 1024;

/// Messages that are dealt with in one turn.
pub(crate) const BUDGET: usize = 500;

/// Longest time for the last cancels (`spec/connmgr.md §2`).
pub(crate) const STOP_MS: u64 = 10_000;

/// How soon a full queue is tried again, in milliseconds.
pub(crate) const RETRY_MS: u64 = 5;

/// The sending end.
pub(super) struct Outlet<T> {
    queue: SyncSender<T>,
    waiting: VecDeque<T>,
    reader: Arc<Waker>,
    passed: bool,
}

impl<T> Outlet<T> {
    /// An end of `queue`; `reader` wakes the thread at the other one.
    pub(super) fn new(queue: SyncSender<T>, reader: Arc<Waker>) -> Self {
        Self { queue, waiting: VecDeque::new(), reader, passed: false }
    }

    /// Things that wait here.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends, in the order of the calls; the reader sleeps on until [`Outlet::wake`].
    pub(super) fn send(&mut self, thing: T) {
        self.waiting.push_back(thing);
        self.pass();
    }

    /// Tries again what waits.
    pub(super) fn pass(&mut self) {
        while let Some(thing) = self.waiting.pop_front() {
            match self.queue.try_send(thing) {
                Ok(()) => self.passed = true,
                Err(TrySendError::Full(thing)) => return self.waiting.push_front(thing),
                // Nobody is there to miss it.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Wakes the reader if something was sent since the last call.
    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.passed) {
            self.wake_anyway();
        }
    }

    /// Wakes the reader.
    pub(super) fn wake_anyway(&self) {
        // A thread that has ended needs no waking.
        let _ = self.reader.wake();
    }

    /// Sends what waits, however long the reader takes.
    pub(super) fn finish(&mut self) {
        for thing in std::mem::take(&mut self.waiting) {
            if self.queue.send(thing).is_err() {
                return;
            }
            self.wake_anyway();
        }
        self.wake_anyway();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    /// Whether the poll was woken.
    fn woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn what_does_not_fit_waits_in_order_and_wakes_when_it_passes() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (sender, queue) = sync_channel(2);
        let mut outlet = Outlet::new(sender, waker);
        outlet.wake();
        assert!(!woken(&mut poll));
        (0..4).for_each(|n| outlet.send(n));
        outlet.wake();
        assert!(woken(&mut poll) && outlet.waiting() == 2);
        assert_eq!((queue.recv(), queue.recv()), (Ok(0), Ok(1)));
        // The reader may sleep by now.
        outlet.pass();
        outlet.wake();
        assert!(woken(&mut poll) && outlet.waiting() == 0);
        assert_eq!((queue.recv(), queue.recv()), (Ok(2), Ok(3)));
        drop(queue);
        outlet.send(4);
        outlet.wake();
        assert!(!woken(&mut poll) && outlet.waiting() == 0);
    }
}
