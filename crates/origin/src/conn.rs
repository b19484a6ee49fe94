//! One connection to a backend: a socket, perhaps with TLS.

use std::io::{self, Read, Write};
use std::sync::Arc;

use evloop::arena::Key;
use mio::net::TcpStream;
use rustls::ClientConnection;

use crate::{Endpoint, Error, tls};

/// A connection, in use or idle.
pub(crate) struct Conn {
    pub stream: TcpStream,
    pub tls: Option<Box<ClientConnection>>,
    pub endpoint: Arc<Endpoint>,
    /// The request that has it; none while it is idle.
    pub job: Option<Key>,
    pub connected: bool,
    /// It served a request before.
    pub reused: bool,
    /// When something last happened on it.
    pub since_ms: u64,
    /// The kernel said that the backend closed its side.
    pub read_closed: bool,
    /// The kernel took everything so far.
    pub writable: bool,
}

impl Conn {
    /// A connection whose connect is under way.
    pub fn new(stream: TcpStream, endpoint: Arc<Endpoint>, job: Key, now_ms: u64) -> Self {
        Self {
            stream,
            tls: None,
            endpoint,
            job: Some(job),
            connected: false,
            reused: false,
            since_ms: now_ms,
            read_closed: false,
            writable: true,
        }
    }

    /// Reads decrypted bytes. 0: the backend closed.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                // A close without close_notify: the framing of the body decides what it means.
                Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            if tls.read_tls(&mut self.stream)? == 0 && tls.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            tls.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            // Handshake answers and alerts leave at once.
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
                    Err(cause) => return Err(cause),
                }
            }
        }
    }

    /// Writes what the kernel takes; 0 only if TLS is still busy with itself.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.write(bytes) };
        let taken = if tls.is_handshaking() { 0 } else { tls.writer().write(bytes)? };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock && taken > 0 => break,
                Err(cause) => return Err(cause),
            }
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Whether TLS holds bytes that did not leave yet.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Lets the kernel acknowledge now what came, not up to 40 ms later: the backend's kernel may
    /// hold the rest of the response back until then.
    pub fn acknowledge_at_once(&self) {
        if let Err(cause) = rustix::net::sockopt::set_tcp_quickack(&self.stream, true) {
            log::debug!("TCP_QUICKACK: {cause}");
        }
    }

    /// Why the connection ended, as a request's error.
    pub fn error(&self, cause: &io::Error) -> Error {
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        if handshaking || (self.tls.is_some() && tls::is_protocol(cause)) {
            log::warn!("TLS with {}:{} failed: {cause}", self.endpoint.host, self.endpoint.port);
            Error::Tls
        } else {
            Error::Closed
        }
    }
}
