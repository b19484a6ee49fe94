//! The clients' sockets of one worker, by the engine's numbers.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;

use mio::{Registry, Token};

use super::listen::Stream;
use crate::Net;

/// Tokens below this are not clients.
pub(crate) const FIRST_CLIENT: usize = 256;

/// The sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    streams: Vec<Option<Stream>>,
}

impl Sockets {
    /// Puts a new client's socket in its place and into the loop.
    pub(crate) fn add(
        &mut self,
        registry: &Registry,
        conn: u32,
        mut stream: Stream,
    ) -> io::Result<()> {
        stream.register(registry, Token(FIRST_CLIENT + conn as usize))?;
        let place = conn as usize;
        if self.streams.len() <= place {
            self.streams.resize_with(place + 1, || None);
        }
        self.streams[place] = Some(stream);
        Ok(())
    }

    fn get(&mut self, conn: u32) -> io::Result<&mut Stream> {
        let stream = self.streams.get_mut(conn as usize).and_then(Option::as_mut);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Net for Sockets {
    fn read(&mut self, conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        match self.get(conn)? {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Local(stream) => stream.read(buf),
        }
    }

    fn write(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.get(conn)? {
            Stream::Tcp(stream) => stream.write_vectored(bufs),
            Stream::Local(stream) => stream.write_vectored(bufs),
        }
    }

    /// Nothing: sockets are registered for both directions, edge-triggered.
    fn want_write(&mut self, _conn: u32, _on: bool) {}

    fn shutdown(&mut self, conn: u32) {
        // A client that is gone already shows itself at the next read.
        let _ = match self.get(conn) {
            Ok(Stream::Tcp(stream)) => stream.shutdown(Shutdown::Write),
            Ok(Stream::Local(stream)) => stream.shutdown(Shutdown::Write),
            Err(error) => Err(error),
        };
    }

    fn close(&mut self, conn: u32) {
        if let Some(stream) = self.streams.get_mut(conn as usize) {
            *stream = None;
        }
        while let Some(None) = self.streams.last() {
            self.streams.pop();
        }
        if self.streams.capacity() > 4 * self.streams.len() + 4096 {
            self.streams.shrink_to(2 * self.streams.len());
        }
    }
}
