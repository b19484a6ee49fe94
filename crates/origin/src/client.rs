//! Requests on connections, driven in the caller's loop. Every socket is registered once, for
//! both directions and edge-triggered; a request on a kept connection is one write and one read.

mod connecting;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use evloop::arena::Key;
use hashbrown::HashMap;
use mio::{Registry, Waker};
use slab::Slab;

use crate::conn::Conn;
use crate::names::{Addresses, Lookup, Names};
use crate::pool::Pool;
use crate::tls::Tls;
use crate::{Endpoint, Error, Event, Exchange, Request};

/// Bytes per read; the buffer is shared by all connections.
const READ_BYTES: usize = 32 * 1024;

/// Reads per connection and turn, so that no backend holds up the others.
const READS_PER_TURN: usize = 4;

/// Milliseconds between two looks at what is late.
const SWEEP_MS: u64 = 1_000;

/// Bounds of time and number.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Idle connections kept in all.
    pub idle_max: usize,
    /// How long one is kept.
    pub idle_ms: u64,
    /// How long one address may take to connect and shake hands.
    pub connect_ms: u64,
    /// How long a backend may be silent.
    pub response_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle_max: 1_000, idle_ms: 55_000, connect_ms: 30_000, response_ms: 1_800_000 }
    }
}

/// A request under way.
struct Job {
    key: Key,
    exchange: Exchange,
    endpoint: Arc<Endpoint>,
    conn: Option<usize>,
    addresses: Addresses,
    next_address: usize,
    paused: bool,
    streams_body: bool,
}

/// Takes the events of requests.
pub type Sink<'s> = dyn FnMut(Key, Event<'_>) + 's;

/// All requests and connections of one loop. `first_token` and above are its tokens.
pub struct Client {
    registry: Registry,
    first_token: usize,
    limits: Limits,
    names: Names,
    tls: Tls,
    pool: Pool,
    conns: Slab<Conn>,
    /// By the index of the key.
    jobs: Vec<Option<Box<Job>>>,
    waiting: HashMap<String, Vec<Key>>,
    unread: VecDeque<usize>,
    preferred: HashMap<String, IpAddr>,
    buffer: Box<[u8]>,
    next_sweep_ms: u64,
}

impl Client {
    /// A client in a loop; `waker` wakes it when a name was looked up.
    pub fn new(registry: Registry, first_token: usize, waker: Arc<Waker>, limits: Limits) -> Self {
        Self {
            registry,
            first_token,
            limits,
            names: Names::new(waker),
            tls: Tls::new(),
            pool: Pool::default(),
            conns: Slab::new(),
            jobs: Vec::new(),
            waiting: HashMap::new(),
            unread: VecDeque::new(),
            preferred: HashMap::new(),
            buffer: vec![0; READ_BYTES].into(),
            next_sweep_ms: 0,
        }
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.pool.len()
    }

    /// Starts a request under `key`, whose index no other request has.
    pub fn start(
        &mut self,
        now_ms: u64,
        key: Key,
        endpoint: Arc<Endpoint>,
        request: Request,
        sink: &mut Sink<'_>,
    ) {
        let streams_body = !request.complete;
        let job = Job {
            key,
            exchange: Exchange::new(request),
            endpoint,
            conn: None,
            addresses: Arc::new([]),
            next_address: 0,
            paused: false,
            streams_body,
        };
        let index = key.index as usize;
        if self.jobs.len() <= index {
            self.jobs.resize_with(index + 1, || None);
        }
        // The caller reuses a key's index only after its request has ended.
        debug_assert!(self.jobs[index].is_none());
        self.jobs[index] = Some(Box::new(job));
        self.begin(now_ms, key, true, sink);
    }

    /// More body of the request.
    pub fn body(&mut self, now_ms: u64, key: Key, data: &[u8], last: bool, sink: &mut Sink<'_>) {
        let Some(job) = self.job(key) else { return };
        job.exchange.body(data, last);
        if let Some(conn) = job.conn {
            self.pump(now_ms, conn, sink);
        }
    }

    /// Reads no more of the response for now.
    pub fn pause(&mut self, key: Key) {
        if let Some(job) = self.job(key) {
            job.paused = true;
        }
    }

    /// Goes on after [`Client::pause`].
    pub fn resume(&mut self, now_ms: u64, key: Key, sink: &mut Sink<'_>) {
        let Some(job) = self.job(key) else { return };
        job.paused = false;
        if let Some(conn) = job.conn {
            self.pump(now_ms, conn, sink);
        }
    }

    /// Ends a request without a further event.
    pub fn cancel(&mut self, key: Key) {
        if let Some(conn) = self.remove_job(key).and_then(|job| job.conn) {
            self.close(conn);
        }
    }

    fn job(&mut self, key: Key) -> Option<&mut Job> {
        self.jobs.get_mut(key.index as usize)?.as_deref_mut().filter(|job| job.key == key)
    }

    fn remove_job(&mut self, key: Key) -> Option<Box<Job>> {
        self.job(key)?;
        self.jobs[key.index as usize].take()
    }

    /// Takes an idle connection or makes one.
    fn begin(&mut self, now_ms: u64, key: Key, reuse: bool, sink: &mut Sink<'_>) {
        let Some(job) = self.job(key) else { return };
        let endpoint = Arc::clone(&job.endpoint);
        while let Some(index) = reuse.then(|| self.pool.take(&endpoint)).flatten() {
            let Some(conn) = self.conns.get_mut(index) else { continue };
            (conn.job, conn.reused, conn.since_ms) = (Some(key), true, now_ms);
            if let Some(job) = self.job(key) {
                job.conn = Some(index);
            }
            return self.pump(now_ms, index, sink);
        }
        match self.names.lookup(now_ms, &endpoint.host) {
            Lookup::Known(addresses) => self.connect_to(now_ms, key, addresses, sink),
            Lookup::Asked => self.waiting.entry(endpoint.host.clone()).or_default().push(key),
            Lookup::Overload => self.fail(key, Error::Overload, sink),
        }
    }

    fn close(&mut self, index: usize) {
        let Some(mut conn) = self.conns.try_remove(index) else { return };
        if conn.job.is_none() {
            self.pool.remove(&conn.endpoint, index);
        }
        if let Err(cause) = self.registry.deregister(&mut conn.stream) {
            log::debug!("taking a socket out of the loop: {cause}");
        }
    }

    fn fail(&mut self, key: Key, error: Error, sink: &mut Sink<'_>) {
        if let Some(job) = self.remove_job(key) {
            if let Some(conn) = job.conn {
                self.close(conn);
            }
            sink(key, Event::Failed(error));
        }
    }

    /// An event of the loop for one of this client's tokens.
    pub fn handle(&mut self, now_ms: u64, event: &mio::event::Event, sink: &mut Sink<'_>) {
        let index = event.token().0.wrapping_sub(self.first_token);
        let Some(conn) = self.conns.get_mut(index) else { return };
        conn.read_closed |= event.is_read_closed() || event.is_error();
        conn.writable |= event.is_writable();
        if !conn.connected && !self.connected(now_ms, index, sink) {
            return;
        }
        match self.conns.get(index).map(|conn| conn.job) {
            Some(Some(_)) => self.pump(now_ms, index, sink),
            Some(None) if event.is_readable() || event.is_read_closed() => self.check_idle(index),
            _ => {}
        }
    }

    /// An idle connection has something to say: the end, or what nobody asked for.
    fn check_idle(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        match conn.read(&mut self.buffer) {
            // TLS may have had something for itself.
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.close(index),
        }
    }

    /// Writes and reads what can be.
    fn pump(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) {
        if let Some(error) = self.write(now_ms, index, sink) {
            // What came before the end may be the answer; only then is the request lost.
            if self.read(now_ms, index, sink) {
                self.broken(now_ms, index, error, sink);
            }
            return;
        }
        self.read(now_ms, index, sink);
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
        let before = job.exchange.output().len();
        while !job.exchange.output().is_empty() {
            let whole = job.exchange.output().len();
            match conn.write(job.exchange.output()) {
                Ok(size) => {
                    job.exchange.advance(size);
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
        let after = job.exchange.output().len();
        if job.streams_body && after < before {
            sink(key, Event::Queued(after));
        }
        None
    }

    /// Reads the response. True if the connection is still there and the request not done.
    fn read(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) -> bool {
        for _ in 0..READS_PER_TURN {
            let Some(conn) = self.conns.get_mut(index) else { return false };
            let Some(key) = conn.job else { return false };
            let job = self.jobs.get_mut(key.index as usize).and_then(Option::as_deref_mut);
            let Some(job) = job.filter(|job| job.key == key) else { return false };
            if !conn.connected || job.paused {
                return true;
            }
            let size = match conn.read(&mut self.buffer) {
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
                0 => job.exchange.end_of_input(&mut sink_one),
                size => job.exchange.receive(&self.buffer[..size], &mut sink_one),
            };
            if let Err(error) = taken {
                self.broken(now_ms, index, error, sink);
                return false;
            }
            if job.exchange.is_done() {
                self.finish(now_ms, index, key);
                return false;
            }
            if job.exchange.has_head_only() {
                conn.acknowledge_at_once();
            }
            // A short read emptied the socket: the next bytes bring a new edge.
            if size < READ_BYTES && !conn.read_closed && conn.tls.is_none() {
                return true;
            }
        }
        self.unread.push_back(index);
        true
    }

    /// The response is complete: keeps the connection if it can be used again.
    fn finish(&mut self, now_ms: u64, index: usize, key: Key) {
        let Some(job) = self.remove_job(key) else { return };
        let Some(conn) = self.conns.get_mut(index) else { return };
        let full = self.pool.len() >= self.limits.idle_max;
        if full || conn.read_closed || !job.exchange.is_reusable() {
            return self.close(index);
        }
        (conn.job, conn.since_ms) = (None, now_ms);
        let endpoint = Arc::clone(&conn.endpoint);
        self.pool.put(&endpoint, index);
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
        if reused && job.exchange.may_restart() {
            job.exchange.restart();
            self.begin(now_ms, key, false, sink);
        } else {
            self.fail(key, error, sink);
        }
    }

    /// Work that no socket event announces: answers about names, unread input, what is late.
    pub fn turn(&mut self, now_ms: u64, sink: &mut Sink<'_>) {
        while let Some((name, addresses)) = self.names.answer(now_ms) {
            for key in self.waiting.remove(&name).unwrap_or_default() {
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
                _ => self.close(index),
            }
        }
    }

    /// How long nothing may happen on a connection.
    fn patience(&self, conn: &Conn) -> u64 {
        let handshaking = conn.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        let job = conn.job.and_then(|key| self.jobs.get(key.index as usize)?.as_ref());
        match job {
            None => self.limits.idle_ms,
            Some(_) if !conn.connected || handshaking => self.limits.connect_ms,
            // The client is slow, not the backend.
            Some(job) if job.paused => u64::MAX,
            Some(_) => self.limits.response_ms,
        }
    }

    /// When [`Client::turn`] has something to do without an event.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.unread.is_empty() {
            return Some(0);
        }
        (!self.conns.is_empty()).then_some(self.next_sweep_ms)
    }
}
