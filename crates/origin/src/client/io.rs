//! Bytes between connections and requests, and what becomes of a connection afterwards.

use std::io;
use std::sync::Arc;

use evloop::arena::Key;

use super::{Client, READ_BYTES, Sink};
use crate::said::{Place, Whose};
use crate::{Error, Event};

/// Reads per connection and turn, so that no backend holds up the others.
const READS_PER_TURN: usize = 4;

impl Client {
    /// An event of the loop for one of this client's tokens.
    pub fn handle(&mut self, now_ms: u64, event: &mio::event::Event, sink: &mut Sink<'_>) {
        let index = event.token().0.wrapping_sub(self.first_token);
        let Some(conn) = self.conns.get_mut(index) else { return };
        conn.read_closed |= event.is_read_closed() || event.is_error();
        conn.writable |= event.is_writable();
        if !conn.connected && !self.connected(now_ms, index, sink) {
            return;
        }
        let Some(conn) = self.conns.get(index) else { return };
        if conn.job.is_some() {
            return self.pump(now_ms, index, sink);
        }
        if (event.is_readable() || event.is_read_closed()) && !self.is_quiet(index) {
            self.close(index);
        }
    }

    /// Whether an idle connection has nothing to say: neither the end, nor what nobody asked for.
    pub(super) fn is_quiet(&mut self, index: usize) -> bool {
        let Some(conn) = self.conns.get_mut(index) else { return false };
        // TLS may have had something for itself.
        let quiet = |cause: io::Error| cause.kind() == io::ErrorKind::WouldBlock;
        conn.read(&mut self.buffer).is_err_and(quiet)
    }

    /// Writes and reads what can be.
    pub(super) fn pump(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) {
        if let Some(error) = self.write(now_ms, index, sink) {
            // What came before the end may be the answer; only then is the request lost.
            if self.read(now_ms, index, sink) {
                self.broken(now_ms, index, error, sink);
            }
            return;
        }
        if !self.said_all(now_ms, index, sink) {
            self.read(now_ms, index, sink);
        }
    }

    /// Whether what was written was the last of a WebSocket.
    fn said_all(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) -> bool {
        let Some(key) = self.conns.get(index).and_then(|conn| conn.job) else { return false };
        let over = self.job(key).is_some_and(|job| job.talk.is_done());
        if over {
            self.finish(now_ms, index, key);
            sink(key, Event::End);
        }
        over
    }

    /// Writes the request. Gives the error if the connection is dead.
    fn write(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) -> Option<Error> {
        let conn = self.conns.get_mut(index)?;
        let key = conn.job?;
        let job = self.jobs.get_mut(key.index as usize)?.as_deref_mut();
        let job = job.filter(|job| job.key == key)?;
        if !conn.connected || !conn.writable {
            return None;
        }
        let before = job.talk.output().len();
        while !job.talk.output().is_empty() {
            let whole = job.talk.output().len();
            match conn.write(job.talk.output()) {
                Ok(size) => {
                    job.talk.advance(size);
                    conn.since_ms = now_ms;
                    // A short write means that the kernel is full; the next edge tells.
                    if size < whole && conn.tls.is_none() {
                        conn.writable = false;
                        break;
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    conn.writable = false;
                    break;
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Some(conn.error(&cause)),
            }
        }
        match conn.flush() {
            Err(cause) if cause.kind() != io::ErrorKind::WouldBlock => {
                return Some(conn.error(&cause));
            }
            _ => {}
        }
        let after = job.talk.output().len();
        if job.streams_body && after < before {
            sink(key, Event::Queued(after));
        }
        None
    }

    /// Reads the response. True if the connection is still there and the request not done.
    pub(super) fn read(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) -> bool {
        for _ in 0..READS_PER_TURN {
            let Some(conn) = self.conns.get_mut(index) else { return false };
            let Some(key) = conn.job else { return false };
            let job = self.jobs.get_mut(key.index as usize).and_then(Option::as_deref_mut);
            let Some(job) = job.filter(|job| job.key == key) else { return false };
            let limit = job.talk.wants().min(READ_BYTES);
            if !conn.connected || job.paused || limit == 0 {
                return true;
            }
            let size = match conn.read(&mut self.buffer[..limit]) {
                Ok(size) => size,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return true,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => {
                    let error = conn.error(&cause);
                    self.broken(now_ms, index, error, sink);
                    return false;
                }
            };
            conn.since_ms = now_ms;
            let mut sink_one = |event: Event<'_>| sink(key, event);
            let taken = match size {
                0 => job.talk.end_of_input(&mut sink_one),
                size => job.talk.receive(&self.buffer[..size], &mut sink_one),
            };
            // A short read emptied the socket: the next bytes bring a new edge.
            let emptied = size < limit && !conn.read_closed && conn.tls.is_none();
            if !self.took(now_ms, index, key, taken, sink) {
                return false;
            }
            if emptied {
                return true;
            }
        }
        self.unread.push_back(index);
        true
    }

    /// What the exchange made of bytes. True if the request goes on.
    pub(super) fn took(
        &mut self,
        now_ms: u64,
        index: usize,
        key: Key,
        taken: Result<(), Error>,
        sink: &mut Sink<'_>,
    ) -> bool {
        if let Err(error) = taken {
            if let Some(conn) = self.conns.get(index) {
                log::debug!("{}connection to {}: {error}", self.whose(key), Place(conn));
            }
            if error == Error::Protocol {
                self.say_last(index, key);
            }
            self.broken(now_ms, index, error, sink);
            return false;
        }
        let Some(job) = self.job(key) else { return false };
        if job.talk.is_done() {
            self.finish(now_ms, index, key);
            return false;
        }
        if job.talk.has_head_only()
            && let Some(conn) = self.conns.get(index)
        {
            conn.acknowledge_at_once();
        }
        true
    }

    /// Tells a backend that broke the protocol so, if its connection takes it at once.
    fn say_last(&mut self, index: usize, key: Key) {
        let job = self.jobs.get(key.index as usize).and_then(Option::as_deref);
        let (Some(job), Some(conn)) = (job, self.conns.get_mut(index)) else { return };
        if let Err(cause) = conn.write(job.talk.output()) {
            log::debug!("a last word to a backend: {cause}");
        }
    }

    /// The response is complete: keeps the connection if it can be used again.
    fn finish(&mut self, now_ms: u64, index: usize, key: Key) {
        let Some(job) = self.remove_job(key) else { return };
        let Some(conn) = self.conns.get_mut(index) else { return };
        let full = self.pool.idle() >= self.limits.idle_max
            || self.pool.idle_of(&conn.endpoint) >= self.limits.idle_per_endpoint_max;
        if full || conn.read_closed || !job.talk.is_reusable() {
            return self.close(index);
        }
        (conn.job, conn.since_ms) = (None, now_ms);
        let endpoint = Arc::clone(&conn.endpoint);
        let whose = Whose(self.limits.log_worker, Some(key));
        log::debug!("{whose}leaving connection intact: {}", Place(conn));
        self.pool.put(&endpoint, index);
        self.note_room(&endpoint);
    }

    /// The connection ended before the response did: once more on a new one if it was a kept
    /// connection that the backend closed, else the request failed.
    fn broken(&mut self, now_ms: u64, index: usize, error: Error, sink: &mut Sink<'_>) {
        let Some(conn) = self.conns.get(index) else { return };
        let (reused, key) = (conn.reused, conn.job);
        let handshake = error == Error::Tls;
        let Some(key) = key else { return self.close(index) };
        if handshake && !reused {
            return self.give_up_address(now_ms, index, error, sink);
        }
        self.close(index);
        let Some(job) = self.job(key) else { return };
        job.conn = None;
        if reused && job.talk.may_restart() {
            job.talk.restart();
            self.begin(now_ms, key, false, sink);
        } else {
            self.fail(key, error, sink);
        }
    }
}
