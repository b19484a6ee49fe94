//! A second place for log records: all of them, at all levels, for whoever listens now. While
//! nobody does, a record that the level leaves out costs what it always costs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use log::LevelFilter;

#[derive(Default)]
struct Lines {
    queue: VecDeque<Vec<u8>>,
    dropped: u64,
}

struct Shared {
    on: AtomicBool,
    lines: Mutex<Lines>,
    lines_max: usize,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The listener's end; clones share the lines.
#[derive(Clone)]
pub struct Tap(Arc<Shared>);

impl Tap {
    pub(crate) fn new(lines_max: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (on, lines) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Shared { on, lines, lines_max, wake: Box::new(wake) }))
    }

    /// Whether somebody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// Starts or stops the flow of records.
    pub fn listen(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
        log::set_max_level(if on { LevelFilter::Trace } else { crate::usual_level() });
        if !on {
            self.take();
        }
    }

    /// Takes one line; it is counted and dropped if too many wait.
    pub(crate) fn push(&self, line: Vec<u8>) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.queue.len() >= self.0.lines_max {
            lines.dropped += 1;
            return;
        }
        let first = lines.queue.is_empty();
        lines.queue.push_back(line);
        drop(lines);
        if first {
            (self.0.wake)();
        }
    }

    /// The lines that wait, and how many were dropped behind them.
    pub fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut lines.queue), std::mem::take(&mut lines.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_counted() {
        let woken = Arc::new(AtomicBool::new(false));
        let flag = woken.clone();
        let wake = move || flag.store(true, Ordering::Relaxed);
        let tap = Tap::new(2, wake);
        for line in ["a", "b", "c"] {
            tap.push(line.into());
        }
        let (lines, dropped) = tap.take();
        assert_eq!((lines, dropped), (VecDeque::from([b"a".to_vec(), b"b".to_vec()]), 1));
        assert!(woken.load(Ordering::Relaxed));
        assert_eq!(tap.take(), (VecDeque::new(), 0));
    }
}
