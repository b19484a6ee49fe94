//! Virtual client sockets: what a client sent, what it can still take, what it got.

use std::collections::HashMap;
use std::io::{self, IoSlice};

use connmgr::Net;

/// One client's socket, seen from both sides.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Sent by the client, not read by the server yet.
    pub to_server: Vec<u8>,
    /// Written by the server.
    pub to_client: Vec<u8>,
    /// Bytes that the client's side still takes; a slow reader has few.
    pub room: usize,
    /// The client closed its side.
    pub client_closed: bool,
    /// The server closed.
    pub server_closed: bool,
    /// The server waits for room.
    pub wants_write: bool,
    /// System calls that wrote.
    pub writes: usize,
}

/// All client sockets of one connection manager.
#[derive(Debug, Default)]
pub struct Clients {
    /// By the number that the connection manager gave.
    pub pipes: HashMap<u32, Pipe>,
}

impl Clients {
    fn pipe(&mut self, conn: u32) -> io::Result<&mut Pipe> {
        self.pipes.get_mut(&conn).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Net for Clients {
    fn read(&mut self, conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        let pipe = self.pipe(conn)?;
        if pipe.to_server.is_empty() {
            return if pipe.client_closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let n = buf.len().min(pipe.to_server.len());
        buf[..n].copy_from_slice(&pipe.to_server[..n]);
        pipe.to_server.drain(..n);
        Ok(n)
    }

    fn write(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let pipe = self.pipe(conn)?;
        if pipe.client_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if pipe.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.writes += 1;
        let mut written = 0;
        for buf in bufs {
            let n = buf.len().min(pipe.room);
            pipe.to_client.extend_from_slice(&buf[..n]);
            pipe.room -= n;
            written += n;
            if n < buf.len() {
                break;
            }
        }
        Ok(written)
    }

    fn want_write(&mut self, conn: u32, on: bool) {
        if let Ok(pipe) = self.pipe(conn) {
            pipe.wants_write = on;
        }
    }

    fn shutdown(&mut self, conn: u32) {
        if let Ok(pipe) = self.pipe(conn) {
            pipe.server_closed = true;
        }
    }

    fn close(&mut self, conn: u32) {
        if let Ok(pipe) = self.pipe(conn) {
            pipe.server_closed = true;
        }
    }
}
