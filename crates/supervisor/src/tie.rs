//! The supervisor's end of the tie to a child (`evloop::parent`): what the child says comes in a
//! thread of its own, orders go out without waiting for a child that does not read. Used by
//! `child` and `board`.

use std::io::{self, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use evloop::parent::{Order, Said};

/// How long an order waits for a child that reads nothing.
const SEND_MAX: Duration = Duration::from_millis(200);

/// A tie; the child learns of the supervisor's end when all clones are gone.
#[derive(Debug)]
pub(crate) struct Tie(UnixStream);

impl Tie {
    /// A tie and what becomes the child's standard input.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<(Self, Stdio)> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_write_timeout(Some(SEND_MAX))?;
        Ok((Self(own), OwnedFd::from(theirs).into()))
    }

    /// The same tie once more.
    ///
    /// # Errors
    /// What the system says.
    pub fn share(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Calls `said` for everything that the child says, until it ends.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn listen(&self, mut said: impl FnMut(Said) + Send + 'static) -> io::Result<()> {
        let mut input = BufReader::new(self.0.try_clone()?);
        let run = move || {
            while let Ok(Some(word)) = Said::read(&mut input) {
                said(word);
            }
        };
        let thread = thread::Builder::new().name("tie".into());
        thread.stack_size(evloop::signals::SMALL_STACK_BYTES).spawn(run).map(drop)
    }

    /// Sends an order. A child that has gone, or is stuck, does not get it.
    pub fn send(&self, order: Order) {
        if let Err(error) = (&self.0).write_all(format!("{order}\n").as_bytes()) {
            log::debug!("a process does not take orders: {error}");
        }
    }
}
