//! Asks the workers what they hold, from another thread: for metrics, the debug view and the log.
//! A worker looks at one number per turn; only when somebody asks does it walk its connections, a
//! piece per turn, and hand in a report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::Histogram;
use mio::Waker;

use super::clientside::reports::{ClientOverview, Reports};
use super::zmqside::Queues;
use crate::{Blocks, Counters, Survey, Worker};

/// How long to wait for the workers; one that does not report by then is busy or stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that one turn looks at.
const PLACES_PER_TURN: u32 = 4096;

/// Bounds of the durations of turns.
const TURN_BOUNDS_US: &[u64] =
    &[100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// What one worker holds.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) counters: Counters,
    pub(crate) survey: Survey,
    /// Processes that answer, and their sessions.
    pub(crate) peers: Vec<(String, u32)>,
    /// Durations of the turns of its loop.
    pub(crate) turns: Histogram,
    /// Bytes that wait for clients that do not read.
    pub(crate) pinned: usize,
    /// Bytes by which windows are larger than a buffer.
    pub(crate) lent: usize,
    /// Messages that wait on their way to the ZeroMQ sockets.
    pub(crate) outputs: usize,
}

/// What a worker said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The newest report, if there ever was one.
    pub(crate) report: Option<Report>,
    /// Whether it is the one that was asked for.
    pub(crate) fresh: bool,
}

/// What all of them said.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    pub(crate) workers: Vec<Answer>,
    pub(crate) queues: Queues,
    /// Spare buffer blocks that nobody has.
    pub(crate) spare_blocks: usize,
    /// Only in client mode.
    pub(crate) client_side: Option<ClientOverview>,
}

#[derive(Debug, Default)]
struct State {
    /// Of each worker: number of the question, and report.
    reports: Vec<(u64, Option<Report>)>,
    /// The same for the sockets.
    queues: (u64, Queues),
    wakers: Vec<Arc<Waker>>,
}

impl State {
    /// Whether somebody has not answered this question yet.
    fn is_behind(&self, number: u64) -> bool {
        self.queues.0 < number || self.reports.iter().any(|(answered, _)| *answered < number)
    }
}

/// Between those who ask and the workers.
#[derive(Debug, Default)]
pub(crate) struct Inspector {
    asked: AtomicU64,
    state: Mutex<State>,
    answered: Condvar,
    blocks: Blocks,
    client_side: Option<Arc<Reports>>,
}

impl Inspector {
    pub(crate) fn new(blocks: Blocks, client_side: Option<Arc<Reports>>) -> Arc<Self> {
        Arc::new(Self { blocks, client_side, ..Self::default() })
    }

    /// A panic elsewhere must not end the view that would show it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker, which `waker` wakes.
    pub(crate) fn join(self: &Arc<Self>, waker: Arc<Waker>) -> Inspection {
        let mut state = self.lock();
        state.wakers.push(waker);
        state.reports.push((0, None));
        let turns = Histogram::new(TURN_BOUNDS_US);
        let seat = state.reports.len() - 1;
        Inspection { inspector: Arc::clone(self), seat, answered: 0, running: None, turns }
    }

    /// Adds a thread that has only sockets to report of.
    pub(crate) fn join_sockets(&self, waker: Arc<Waker>) {
        self.lock().wakers.push(waker);
    }

    /// Notes what waits in front of the sockets, for whoever owns them.
    pub(crate) fn note_queues(&self, seen: &mut u64, queues: impl FnOnce() -> Queues) {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked != *seen {
            *seen = asked;
            self.lock().queues = (asked, queues());
            self.answered.notify_all();
        }
    }

    /// Asks, and waits for the answers. Not for a worker's thread.
    pub(crate) fn ask(&self) -> Overview {
        let ends_at = Instant::now() + PATIENCE;
        let mut state = self.lock();
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        for waker in &state.wakers {
            // A worker that ended needs no waking.
            let _ = waker.wake();
        }
        while state.is_behind(number) {
            let left = ends_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = match self.answered.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(error) => error.into_inner().0,
            };
        }
        let answer = |(answered, report): &(u64, Option<Report>)| Answer {
            report: report.clone(),
            fresh: *answered >= number,
        };
        let workers = state.reports.iter().map(answer).collect();
        Overview {
            workers,
            queues: state.queues.1,
            spare_blocks: self.blocks.left(),
            client_side: self.client_side.as_ref().map(|reports| reports.overview()),
        }
    }
}

/// A worker's end.
pub(crate) struct Inspection {
    inspector: Arc<Inspector>,
    seat: usize,
    answered: u64,
    running: Option<(u64, Box<Survey>)>,
    turns: Histogram,
}

impl Inspection {
    /// Counts the duration of a turn that began then.
    pub(crate) fn turn_took(&mut self, since: Instant) {
        self.turns.observe(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
    }

    /// Whether a walk is going on, so that the loop must not sleep.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Goes on with the answer, if somebody asked. `parked`: messages beyond the worker's own.
    pub(crate) fn step(&mut self, now: u64, worker: &Worker, parked: usize) {
        let asked = self.inspector.asked.load(Ordering::Relaxed);
        if self.running.is_none() {
            if asked == self.answered {
                return;
            }
            self.running = Some((asked, Box::default()));
        }
        let Some((number, survey)) = &mut self.running else { return };
        if !worker.survey(survey, now, PLACES_PER_TURN) {
            return;
        }
        let report = Report {
            counters: *worker.counters(),
            survey: Survey::clone(survey),
            peers: worker.peer_sessions(),
            turns: self.turns.clone(),
            pinned: worker.pinned(),
            lent: worker.lent(),
            outputs: worker.outputs() + parked,
        };
        self.answered = *number;
        self.inspector.lock().reports[self.seat] = (self.answered, Some(report));
        self.inspector.answered.notify_all();
        self.running = None;
    }
}
