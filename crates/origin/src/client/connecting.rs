//! From a name to a connection: addresses in turn, TLS, and what to do when one fails.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use evloop::arena::Key;
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::{Client, Sink};
use crate::conn::Conn;
use crate::names::Addresses;
use crate::said::Whose;
use crate::{Endpoint, Error, policy};

/// Hosts of which a good address is remembered.
const PREFERRED_MAX: usize = 1_000;

impl Client {
    /// The name is known: starts with its first address.
    pub(super) fn connect_to(
        &mut self,
        now_ms: u64,
        key: Key,
        found: Addresses,
        sink: &mut Sink<'_>,
    ) {
        let Some(job) = self.job(key) else { return };
        let endpoint = Arc::clone(&job.endpoint);
        if found.is_empty() {
            return self.fail(key, Error::Name, sink);
        }
        let mut addresses = found;
        if endpoint.deny_internal {
            addresses = addresses.iter().copied().filter(|a| !policy::is_internal(*a)).collect();
            if addresses.is_empty() {
                return self.fail(key, Error::Policy, sink);
            }
        }
        if let Some(good) = self.preferred.get(&endpoint.host) {
            let mut ordered = addresses.to_vec();
            ordered.sort_by_key(|address| address != good);
            addresses = ordered.into();
        }
        log::debug!("{}connecting to one of {addresses:?}", self.whose(key));
        if let Some(job) = self.job(key) {
            (job.addresses, job.next_address) = (addresses, 0);
        }
        self.connect_next(now_ms, key, Error::Connect, sink);
    }

    /// Tries the next address, or fails with `error`, the last one's; a failed handshake says
    /// more than an address that nobody listens on.
    fn connect_next(&mut self, now_ms: u64, key: Key, mut error: Error, sink: &mut Sink<'_>) {
        while let Some(job) = self.job(key) {
            job.tls_failed |= error == Error::Tls;
            let Some(address) = job.addresses.get(job.next_address) else { break };
            let address = SocketAddr::new(*address, job.endpoint.port);
            job.next_address += 1;
            let endpoint = Arc::clone(&job.endpoint);
            match self.connect(now_ms, key, endpoint, address) {
                Ok(index) => return self.give_to_job(key, index),
                Err(failed) => error = failed,
            }
        }
        let tls_failed = self.job(key).is_some_and(|job| job.tls_failed);
        self.fail(key, if tls_failed { Error::Tls } else { error }, sink);
    }

    /// The job has this connection from now on, and what was reserved for it.
    fn give_to_job(&mut self, key: Key, index: usize) {
        let Some(job) = self.job(key) else { return };
        job.conn = Some(index);
        if !std::mem::take(&mut job.reserved) {
            let endpoint = Arc::clone(&job.endpoint);
            self.pool.reserve(&endpoint, usize::MAX);
        }
    }

    fn connect(
        &mut self,
        now_ms: u64,
        key: Key,
        endpoint: Arc<Endpoint>,
        address: SocketAddr,
    ) -> Result<usize, Error> {
        let tls = match &endpoint.tls {
            None => None,
            Some(options) => Some(Box::new(self.tls.connection(options).map_err(|cause| {
                log::warn!("TLS with {endpoint}: {cause}");
                Error::Tls
            })?)),
        };
        let mut stream = TcpStream::connect(address).map_err(|cause| {
            log::debug!("{}connecting to {address} for {endpoint}: {cause}", self.whose(key));
            // EMFILE and ENFILE have no name in std.
            let out_of_files = matches!(cause.raw_os_error(), Some(23 | 24));
            if out_of_files { Error::Overload } else { connect_error(&cause) }
        })?;
        let entry = self.conns.vacant_entry();
        let index = entry.key();
        let token = Token(self.first_token + index);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, token, both).map_err(|_| Error::Overload)?;
        let mut conn = Conn::new(stream, endpoint, key, now_ms);
        conn.tls = tls;
        entry.insert(conn);
        self.opened += 1;
        Ok(index)
    }

    /// Whether the connect is complete; if it failed, goes on with the next address.
    pub(super) fn connected(&mut self, now_ms: u64, index: usize, sink: &mut Sink<'_>) -> bool {
        let Some(conn) = self.conns.get_mut(index) else { return false };
        let failed = match conn.stream.take_error() {
            Ok(None) => match conn.stream.peer_addr() {
                Ok(peer) => {
                    conn.connected = true;
                    let whose = Whose(self.limits.log_worker, conn.job);
                    log::debug!("{whose}connected to {peer} for {}", conn.endpoint);
                    if let Err(cause) = conn.stream.set_nodelay(true) {
                        log::debug!("TCP_NODELAY: {cause}");
                    }
                    let host = &conn.endpoint.host;
                    let second = conn.job.is_some_and(|key| {
                        let job = self.jobs.get(key.index as usize).and_then(Option::as_ref);
                        job.is_some_and(|job| job.next_address > 1)
                    });
                    if second && self.preferred.len() < PREFERRED_MAX {
                        self.preferred.insert(host.clone(), peer.ip());
                    }
                    return true;
                }
                // The event came before the connect was complete.
                Err(_) if !conn.read_closed => return false,
                Err(cause) => cause,
            },
            Ok(Some(cause)) | Err(cause) => cause,
        };
        log::debug!("{}: {failed}", self.attempt(index));
        self.give_up_address(now_ms, index, connect_error(&failed), sink);
        false
    }

    /// What a connection was to be, in the words of the log.
    fn attempt(&self, index: usize) -> String {
        let Some(conn) = self.conns.get(index) else { return String::new() };
        let job = conn.job.and_then(|key| self.jobs.get(key.index as usize)?.as_ref());
        let tried = job.and_then(|job| job.addresses.get(job.next_address.checked_sub(1)?));
        let address = tried.map_or(String::new(), |ip| {
            format!("{} for ", SocketAddr::new(*ip, conn.endpoint.port))
        });
        let whose = Whose(self.limits.log_worker, conn.job);
        format!("{whose}connecting to {address}{}", conn.endpoint)
    }

    /// Closes a connection that did not come about, and tries the next address.
    pub(super) fn give_up_address(
        &mut self,
        now_ms: u64,
        index: usize,
        error: Error,
        sink: &mut Sink<'_>,
    ) {
        let key = self.conns.get(index).and_then(|conn| conn.job);
        self.close(index);
        if let Some(key) = key {
            if let Some(job) = self.job(key) {
                job.conn = None;
            }
            self.connect_next(now_ms, key, error, sink);
        }
    }
}

/// Why no connection came about, as a request's error.
fn connect_error(cause: &io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => Error::Connect,
        io::ErrorKind::TimedOut => Error::Timeout,
        _ => Error::Unreachable,
    }
}
