//! Virtual client sockets for the engine.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};

use connmgr::Net;

#[derive(Default)]
pub(crate) struct Sock {
    pub(crate) input: VecDeque<u8>,
    pub(crate) eof: bool,
    /// Bytes that the client still takes.
    pub(crate) room: usize,
    pub(crate) output: Vec<u8>,
}

/// The sockets that are open.
#[derive(Default)]
pub(crate) struct Sockets(pub(crate) HashMap<u32, Sock>);

impl Net for Sockets {
    fn read(&mut self, conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        let sock = self.0.get_mut(&conn).expect("read from a closed connection");
        let n = buf.len().min(sock.input.len());
        if n == 0 {
            assert!(!buf.is_empty(), "read into nothing");
            return if sock.eof { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        for (to, byte) in buf.iter_mut().zip(sock.input.drain(..n)) {
            *to = byte;
        }
        Ok(n)
    }

    fn write(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let sock = self.0.get_mut(&conn).expect("write to a closed connection");
        let before = sock.room;
        for buf in bufs {
            let n = buf.len().min(sock.room);
            sock.output.extend_from_slice(&buf[..n]);
            sock.room -= n;
        }
        if before == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(before - sock.room) }
    }

    fn want_write(&mut self, _conn: u32, _on: bool) {}

    fn shutdown(&mut self, conn: u32) {
        assert!(self.0.contains_key(&conn), "shut down a closed connection");
    }

    fn close(&mut self, conn: u32) {
        assert!(self.0.remove(&conn).is_some(), "closed twice");
    }
}
