//! The clients' sockets of one worker, by the engine's numbers.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;

use mio::{Registry, Token};

use super::listen::Stream;
use super::tls::{Buffers, TlsStream};
use crate::Net;

/// Tokens below this are not clients.
pub(crate) const FIRST_CLIENT: usize = 256;

/// Sockets in one block.
const BLOCK: usize = 256;

/// Neighbouring places; dropped when the last socket leaves, so that a past crowd costs nothing.
#[derive(Debug, Default)]
struct Block {
    streams: Vec<Option<Stream>>,
    used: usize,
}

/// The sockets by place.
#[derive(Debug, Default)]
struct Places {
    blocks: Vec<Block>,
}

impl Places {
    fn insert(&mut self, conn: u32, stream: Stream) {
        let (block, place) = split(conn);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Block::default);
        }
        let block = &mut self.blocks[block];
        if block.streams.is_empty() {
            block.streams.resize_with(BLOCK, || None);
        }
        block.used += usize::from(block.streams[place].is_none());
        block.streams[place] = Some(stream);
    }

    fn get(&mut self, conn: u32) -> io::Result<&mut Stream> {
        let (block, place) = split(conn);
        let block = self.blocks.get_mut(block);
        let stream = block.and_then(|block| block.streams.get_mut(place)?.as_mut());
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn remove(&mut self, conn: u32) -> Option<Stream> {
        let (block, place) = split(conn);
        let block = self.blocks.get_mut(block)?;
        let stream = block.streams.get_mut(place).and_then(Option::take);
        block.used -= usize::from(stream.is_some());
        if block.used == 0 {
            *block = Block::default();
        }
        while self.blocks.last().is_some_and(|block| block.used == 0) {
            self.blocks.pop();
        }
        if self.blocks.capacity() > 4 * self.blocks.len() + 64 {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
        stream
    }
}

fn split(conn: u32) -> (usize, usize) {
    (conn as usize / BLOCK, conn as usize % BLOCK)
}

/// Steps of handshakes in one turn. Each costs up to a millisecond; a crowd that comes at once
/// must not hold up those who are there.
const STEPS_MAX: usize = 64;

/// The sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    places: Places,
    tls: Buffers,
    /// Steps of handshakes in this turn.
    steps: usize,
    /// Connections whose handshake goes on in the next turn.
    later: Vec<u32>,
    /// Ciphertext that waits in all streams.
    waiting: usize,
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
        self.places.insert(conn, stream);
        Ok(())
    }

    /// A turn begins. Gives the connections that the engine is to be told to read, for their bytes
    /// were left in the turn before.
    pub(crate) fn start_turn(&mut self) -> Vec<u32> {
        self.steps = 0;
        let later = std::mem::take(&mut self.later);
        for conn in &later {
            if let Ok(Stream::Tls(stream)) = self.places.get(*conn) {
                stream.resume();
            }
        }
        later
    }

    /// Whether a turn would find something without an event.
    pub(crate) fn is_ready(&self) -> bool {
        !self.later.is_empty()
    }

    /// The socket has bytes or, if `closed`, an end; before the engine is told.
    pub(crate) fn arrived(&mut self, conn: u32, closed: bool) {
        if let Ok(Stream::Tls(stream)) = self.places.get(conn) {
            stream.arrived(closed);
        }
    }

    /// The socket has room; before the engine is told.
    pub(crate) fn has_room(&mut self, conn: u32) {
        // An error shows itself at the engine's next read or write.
        let _ = self.with_tls(conn, |stream, _| stream.flush().map(|_| ()));
    }
}

impl Sockets {
    /// Does `what` with a client of TLS and counts the ciphertext that waits afterwards; nothing
    /// with others.
    fn with_tls(
        &mut self,
        conn: u32,
        what: impl FnOnce(&mut TlsStream, &mut Buffers) -> io::Result<()>,
    ) -> io::Result<()> {
        let Ok(Stream::Tls(stream)) = self.places.get(conn) else { return Ok(()) };
        let before = stream.waiting();
        let result = what(stream, &mut self.tls);
        self.waiting = self.waiting + stream.waiting() - before;
        result
    }
}

impl Net for Sockets {
    fn read(&mut self, conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        match self.places.get(conn)? {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Local(stream) => stream.read(buf),
            Stream::Tls(stream) => {
                if stream.is_costly() {
                    if self.steps >= STEPS_MAX {
                        if stream.put_off() {
                            self.later.push(conn);
                        }
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    self.steps += 1;
                }
                let before = stream.waiting();
                let result = stream.read(&mut self.tls, buf);
                self.waiting = self.waiting + stream.waiting() - before;
                result
            }
        }
    }

    fn write(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.places.get(conn)? {
            // One piece is the usual case, and the plain call the cheaper one.
            Stream::Tcp(stream) => match bufs {
                [one] => stream.write(one),
                _ => stream.write_vectored(bufs),
            },
            Stream::Local(stream) => stream.write_vectored(bufs),
            Stream::Tls(stream) => {
                let before = stream.waiting();
                let result = stream.write(&mut self.tls, bufs);
                self.waiting = self.waiting + stream.waiting() - before;
                result
            }
        }
    }

    /// Nothing: sockets are registered for both directions, edge-triggered.
    fn want_write(&mut self, _conn: u32, _on: bool) {}

    fn unsent(&self) -> usize {
        self.waiting
    }

    fn shutdown(&mut self, conn: u32) {
        // A client that is gone already shows itself at the next read.
        let _ = match self.places.get(conn) {
            Ok(Stream::Tcp(stream)) => stream.shutdown(Shutdown::Write),
            Ok(Stream::Local(stream)) => stream.shutdown(Shutdown::Write),
            Ok(Stream::Tls(_)) => self.with_tls(conn, TlsStream::shutdown),
            Err(error) => Err(error),
        };
    }

    fn close(&mut self, conn: u32) {
        if let Some(Stream::Tls(stream)) = self.places.remove(conn) {
            self.waiting -= stream.waiting();
        }
    }

    fn end(&mut self, conn: u32) {
        // Best effort: the client may be gone.
        let _ = self.with_tls(conn, TlsStream::close_notify);
        self.close(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::Local(mio::net::UnixStream::pair().unwrap().0)
    }

    #[test]
    fn places_of_a_past_crowd_are_given_back() {
        let mut places = Places::default();
        let crowd = 3 * BLOCK as u32;
        for conn in 0..crowd {
            places.insert(conn, stream());
        }
        for conn in 1..crowd - 1 {
            places.remove(conn);
            places.remove(conn);
            assert!(places.get(conn).is_err());
        }
        assert!(places.get(0).is_ok() && places.get(crowd - 1).is_ok());
        let rooms: Vec<usize> = places.blocks.iter().map(|b| b.streams.capacity()).collect();
        assert_eq!(rooms, [BLOCK, 0, BLOCK]);
        places.remove(crowd - 1);
        assert_eq!(places.blocks.len(), 1);
        places.remove(0);
        assert!(places.blocks.is_empty());
    }
}
