//! What the engine needs of the sockets. The driver has real ones, tests have virtual ones.

use std::io::{self, IoSlice};

/// Non-blocking sockets, named by the number that [`crate::Worker::accept`] gave.
pub trait Net {
    /// Reads what is there. `Ok(0)`: the client closed its side. `WouldBlock`: nothing there.
    /// `InvalidData`: the client speaks plain text where TLS is spoken; from now on what is
    /// written goes out as it is.
    fn read(&mut self, conn: u32, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits. Less than all, or `WouldBlock`: [`crate::Worker::writable`] is to be
    /// called when there is room again.
    fn write(&mut self, conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Whether the engine waits for room to write.
    fn want_write(&mut self, conn: u32, on: bool);

    /// Bytes in memory of the sockets that clients have not taken: ciphertext.
    fn unsent(&self) -> usize {
        0
    }

    /// Nothing more will be written; the client sees the end of the stream.
    fn shutdown(&mut self, conn: u32);

    /// Closes; the number may be given to another connection from now on.
    fn close(&mut self, conn: u32);

    /// Closes after a regular end. Where the protocol has a word for that, the client gets it.
    fn end(&mut self, conn: u32) {
        self.close(conn);
    }
}
