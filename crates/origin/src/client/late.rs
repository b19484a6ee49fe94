//! Work that no socket event announces: answers about names, unread input, room for requests that
//! wait, and the end of what is late.

use std::sync::Arc;

use evloop::arena::Key;

use super::{Client, Sink};
use crate::Error;
use crate::conn::Conn;
use crate::said::Place;

/// Milliseconds between two looks at what is late.
const SWEEP_MS: u64 = 1_000;

/// How long a backend may take to answer a close frame.
const CLOSE_MS: u64 = 30_000;

impl Client {
    /// Does what is due; to be called once per turn of the loop.
    pub fn turn(&mut self, now_ms: u64, sink: &mut Sink<'_>) {
        while let Some((name, addresses)) = self.names.answer(now_ms) {
            for key in self.naming.remove(&name).unwrap_or_default() {
                self.connect_to(now_ms, key, Arc::clone(&addresses), sink);
            }
        }
        for _ in 0..self.unread.len() {
            if let Some(index) = self.unread.pop_front() {
                self.read(now_ms, index, sink);
            }
        }
        if now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms + SWEEP_MS;
            self.sweep(now_ms, sink);
        }
        for _ in 0..self.roomy.len() {
            self.serve_waiting(now_ms, sink);
        }
    }

    /// Starts the requests that the next endpoint with room has room for.
    fn serve_waiting(&mut self, now_ms: u64, sink: &mut Sink<'_>) {
        let Some(endpoint) = self.roomy.pop_front() else { return };
        let max = self.limits.open_per_endpoint_max;
        while let Some(key) = self.pool.next_waiting(&endpoint, max) {
            self.begin(now_ms, key, true, sink);
        }
    }

    /// Ends what is late.
    fn sweep(&mut self, now_ms: u64, sink: &mut Sink<'_>) {
        let late: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, conn)| now_ms.saturating_sub(conn.since_ms) > self.patience(conn))
            .map(|(index, _)| index)
            .collect();
        for index in late {
            match self.conns.get(index).map(|conn| (conn.job, conn.connected)) {
                Some((Some(_), false)) => self.give_up_address(now_ms, index, Error::Timeout, sink),
                Some((Some(key), true)) => self.fail(key, Error::Timeout, sink),
                _ => {
                    if let Some(conn) = self.conns.get(index) {
                        log::debug!("closing idle connection to {}", Place(conn));
                    }
                    self.close(index);
                }
            }
        }
        self.sweep_waiting(now_ms, sink);
    }

    /// Ends requests that wait too long for a name or a connection.
    fn sweep_waiting(&mut self, now_ms: u64, sink: &mut Sink<'_>) {
        let waiting: Vec<Key> =
            self.naming.values().flatten().copied().chain(self.pool.waiting()).collect();
        for key in waiting {
            let response_ms = self.limits.response_ms;
            let late = |since: u64| now_ms.saturating_sub(since) > response_ms;
            if self.job(key).is_some_and(|job| job.conn.is_none() && late(job.since_ms)) {
                self.fail(key, Error::Timeout, sink);
            }
        }
        let Self { pool, jobs, .. } = self;
        let is_gone = |key: Key| {
            let job = jobs.get(key.index as usize).and_then(Option::as_deref);
            job.is_none_or(|job| job.key != key)
        };
        pool.forget_waiting(is_gone);
    }

    /// How long nothing may happen on a connection.
    fn patience(&self, conn: &Conn) -> u64 {
        let handshaking = conn.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        let job = conn.job.and_then(|key| self.jobs.get(key.index as usize)?.as_ref());
        match job {
            None => self.limits.idle_ms,
            Some(_) if !conn.connected || handshaking => self.limits.connect_ms,
            // The client is slow, not the backend.
            Some(job) if job.paused || job.talk.wants() == 0 => u64::MAX,
            Some(job) if job.talk.is_closing() => CLOSE_MS.min(self.limits.response_ms),
            Some(_) => self.limits.response_ms,
        }
    }

    /// When [`Client::turn`] has something to do without an event.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.unread.is_empty() || !self.roomy.is_empty() {
            return Some(0);
        }
        let waits = !self.conns.is_empty() || !self.naming.is_empty();
        waits.then_some(self.next_sweep_ms)
    }
}
