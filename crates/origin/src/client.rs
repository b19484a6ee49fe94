//! Requests on connections, driven in the caller's loop. Every socket is registered once, for
//! both directions and edge-triggered; a request on a kept connection is one write and one read.
//! Here are the caller's verbs; `connecting` makes connections, `io` moves bytes, `late` ends
//! what takes too long, `sockets` has the verbs for WebSockets.

mod connecting;
mod io;
mod late;
mod sockets;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use evloop::arena::Key;
use hashbrown::HashMap;
use mio::{Registry, Waker};
use slab::Slab;
use websocket::Deflater;

use crate::conn::Conn;
use crate::names::{Addresses, Lookup, Names};
use crate::pool::Pool;
use crate::said::{Place, Whose};
use crate::talk::Talk;
use crate::tls::Tls;
use crate::{Endpoint, Error, Event, Exchange, Request};

/// Bytes per read; the buffer is shared by all connections.
const READ_BYTES: usize = 32 * 1024;

/// Bounds of time and number.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Idle connections kept in all.
    pub idle_max: usize,
    /// Idle connections kept of one endpoint.
    pub idle_per_endpoint_max: usize,
    /// Connections of one endpoint; requests beyond wait for one of them.
    pub open_per_endpoint_max: usize,
    /// How long an idle connection is kept.
    pub idle_ms: u64,
    /// How long one address may take to connect and shake hands.
    pub connect_ms: u64,
    /// How long a backend may be silent, and a request wait for a name or a connection.
    pub response_ms: u64,
    /// The worker of which the keys are sessions, so that log lines name them; none: they do not.
    pub log_worker: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_max: 1_000,
            idle_per_endpoint_max: 500,
            open_per_endpoint_max: usize::MAX,
            idle_ms: 55_000,
            connect_ms: 30_000,
            response_ms: 1_800_000,
            log_worker: None,
        }
    }
}

/// What a client holds, and has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections, those that are being made included.
    pub open: u64,
    /// Of them those without a request.
    pub idle: u64,
    /// Requests that wait for a name or a connection.
    pub waiting: u64,
    /// Connections made or tried.
    pub opened: u64,
    /// Requests that went to a kept connection.
    pub reused: u64,
}

impl Counts {
    /// Adds those of another client.
    pub fn add(&mut self, other: &Self) {
        let Self { open, idle, waiting, opened, reused } = other;
        self.open += open;
        self.idle += idle;
        self.waiting += waiting;
        self.opened += opened;
        self.reused += reused;
    }
}

/// A request under way.
struct Job {
    key: Key,
    talk: Talk,
    endpoint: Arc<Endpoint>,
    conn: Option<usize>,
    addresses: Addresses,
    next_address: usize,
    paused: bool,
    streams_body: bool,
    /// It counts as a connection of its endpoint, though it has none yet.
    reserved: bool,
    /// An address was there, but the handshake with it failed: that is what is told if no other
    /// address does better.
    tls_failed: bool,
    since_ms: u64,
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
    /// Requests that wait for a name.
    naming: HashMap<String, Vec<Key>>,
    /// Endpoints that have room for one of the requests that wait for them.
    roomy: VecDeque<Arc<Endpoint>>,
    /// Connections that may have more to read.
    unread: VecDeque<usize>,
    preferred: HashMap<String, IpAddr>,
    deflater: Deflater,
    buffer: Box<[u8]>,
    next_sweep_ms: u64,
    opened: u64,
    reused: u64,
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
            naming: HashMap::new(),
            roomy: VecDeque::new(),
            unread: VecDeque::new(),
            preferred: HashMap::new(),
            deflater: Deflater::default(),
            buffer: vec![0; READ_BYTES].into(),
            next_sweep_ms: 0,
            opened: 0,
            reused: 0,
        }
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// Connections, and what waits for one.
    pub fn counts(&self) -> Counts {
        let naming: usize = self.naming.values().map(Vec::len).sum();
        Counts {
            open: self.conns.len() as u64,
            idle: self.pool.idle() as u64,
            waiting: (naming + self.pool.waiting().count()) as u64,
            opened: self.opened,
            reused: self.reused,
        }
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
        self.add(now_ms, key, endpoint, Talk::Http(Exchange::new(request)), streams_body, sink);
    }

    /// Like [`Client::start`], for a caller that takes `window` bytes of the response's body, and
    /// then as many as it says by [`Client::grant`]. Instead of [`Client::pause`].
    pub fn start_with_window(
        &mut self,
        now_ms: u64,
        key: Key,
        endpoint: Arc<Endpoint>,
        request: Request,
        window: usize,
        sink: &mut Sink<'_>,
    ) {
        let streams_body = !request.complete;
        let mut exchange = Exchange::new(request);
        exchange.set_window(window);
        self.add(now_ms, key, endpoint, Talk::Http(exchange), streams_body, sink);
    }

    fn add(
        &mut self,
        now_ms: u64,
        key: Key,
        endpoint: Arc<Endpoint>,
        talk: Talk,
        streams_body: bool,
        sink: &mut Sink<'_>,
    ) {
        let job = Job {
            key,
            talk,
            endpoint,
            conn: None,
            addresses: Arc::new([]),
            next_address: 0,
            paused: false,
            streams_body,
            reserved: false,
            tls_failed: false,
            since_ms: now_ms,
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
        let Talk::Http(exchange) = &mut job.talk else { return };
        exchange.body(data, last);
        if let Some(conn) = job.conn {
            self.pump(now_ms, conn, sink);
        }
    }

    /// The caller takes `bytes` more of the response's body, or of a WebSocket's messages.
    pub fn grant(&mut self, now_ms: u64, key: Key, bytes: usize, sink: &mut Sink<'_>) {
        let Some(job) = self.job(key) else { return };
        let taken = job.talk.grant(bytes, &mut |event| sink(key, event));
        let Some(conn) = job.conn else { return };
        if self.took(now_ms, conn, key, taken, sink) {
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

    /// The request's name in log lines.
    fn whose(&self, key: Key) -> Whose {
        Whose(self.limits.log_worker, Some(key))
    }

    fn job(&mut self, key: Key) -> Option<&mut Job> {
        self.jobs.get_mut(key.index as usize)?.as_deref_mut().filter(|job| job.key == key)
    }

    fn remove_job(&mut self, key: Key) -> Option<Box<Job>> {
        self.job(key)?;
        let job = self.jobs[key.index as usize].take()?;
        if job.reserved {
            self.pool.release(&job.endpoint);
            self.note_room(&job.endpoint);
        }
        Some(job)
    }

    /// An endpoint may have room for a request that waits for it.
    fn note_room(&mut self, endpoint: &Arc<Endpoint>) {
        if self.pool.is_wanted(endpoint) {
            self.roomy.push_back(Arc::clone(endpoint));
        }
    }

    /// Takes an idle connection or makes one.
    fn begin(&mut self, now_ms: u64, key: Key, reuse: bool, sink: &mut Sink<'_>) {
        let Some(job) = self.job(key) else { return };
        let (endpoint, may_restart) = (Arc::clone(&job.endpoint), job.talk.may_restart());
        while let Some(index) = reuse.then(|| self.pool.take(&endpoint)).flatten() {
            // What cannot be sent twice goes to no connection whose end is there to be read.
            if !may_restart && !self.is_quiet(index) {
                self.close(index);
                continue;
            }
            let Some(conn) = self.conns.get_mut(index) else { continue };
            (conn.job, conn.reused, conn.since_ms) = (Some(key), true, now_ms);
            if let Some(job) = self.job(key) {
                job.conn = Some(index);
            }
            self.reused += 1;
            if let Some(conn) = self.conns.get(index) {
                log::debug!("{}reusing connection to {}", self.whose(key), Place(conn));
            }
            return self.pump(now_ms, index, sink);
        }
        if !self.pool.reserve(&endpoint, self.limits.open_per_endpoint_max) {
            return self.pool.wait(&endpoint, key);
        }
        if let Some(job) = self.job(key) {
            job.reserved = true;
        }
        log::debug!("{}resolving: [{}]", self.whose(key), endpoint.host);
        match self.names.lookup(now_ms, &endpoint.host) {
            Lookup::Known(addresses) => self.connect_to(now_ms, key, addresses, sink),
            Lookup::Asked => self.naming.entry(endpoint.host.clone()).or_default().push(key),
            Lookup::Overload => self.fail(key, Error::Overload, sink),
        }
    }

    fn close(&mut self, index: usize) {
        let Some(mut conn) = self.conns.try_remove(index) else { return };
        self.pool.closed(&conn.endpoint, index);
        self.note_room(&conn.endpoint);
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
}
