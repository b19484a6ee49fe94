//! The debug socket (`spec/connmgr.md §2`): every client gets all log records at all levels while
//! it is connected, and may send `dump`, a line, for what the program holds. A client that does
//! not read loses lines and is told how many.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::thread;

use logging::Tap;
use mio::{Events, Poll, Token, Waker};

use crate::Address;
use crate::listen::{Listener, Stream};

/// Clients at a time; further ones are closed at once.
const CLIENTS_MAX: usize = 10;

/// Bytes that may wait for one client.
const OUT_MAX: usize = 1 << 20;

/// Longest command.
const COMMAND_MAX: usize = 256;

const LISTENER: Token = Token(0);
const WAKE: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// Binds, and serves from a thread of its own until the process ends. At most `lines_max` records
/// wait for it. `dump` makes the lines of a dump, in that thread; it may wait for the program's
/// loops.
///
/// # Errors
/// What the system says about the address or the thread, or that logging was not started.
pub fn serve_debug(
    address: &Address,
    lines_max: usize,
    dump: impl Fn() -> Vec<String> + Send + 'static,
) -> io::Result<()> {
    let mut listener = Listener::bind(address)?;
    let poll = Poll::new()?;
    listener.register(poll.registry(), LISTENER)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    // A thread that ended needs no waking.
    let tap = logging::tap(lines_max, move || drop(waker.wake()))?;
    let mut server = Server { poll, listener, tap, dump, clients: [const { None }; CLIENTS_MAX] };
    thread::Builder::new().name("debug".into()).stack_size(1 << 20).spawn(move || {
        if let Err(error) = server.run() {
            server.tap.listen(false);
            log::error!("the debug socket ends: {error}");
        }
    })?;
    Ok(())
}

struct Server<D> {
    poll: Poll,
    listener: Listener,
    tap: Tap,
    dump: D,
    clients: [Option<Client>; CLIENTS_MAX],
}

struct Client {
    stream: Stream,
    command: Vec<u8>,
    out: VecDeque<u8>,
    dropped: u64,
}

impl<D: Fn() -> Vec<String>> Server<D> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(32);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKE => {}
                    Token(token) => self.read(token - FIRST_CLIENT),
                }
            }
            self.pass_on();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Nobody there, or out of files: the next client to come is another event.
                Err(_) => return Ok(()),
            };
            let Some(place) = self.clients.iter().position(Option::is_none) else {
                log::warn!("too many debug socket connections, rejecting");
                continue;
            };
            stream.register(self.poll.registry(), Token(FIRST_CLIENT + place))?;
            let (command, out) = (Vec::new(), VecDeque::new());
            self.clients[place] = Some(Client { stream, command, out, dropped: 0 });
            self.tap.listen(true);
        }
    }

    fn read(&mut self, place: usize) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        let Some(client) = slot else { return };
        match client.commands() {
            Ok(dumps) => {
                for _ in 0..dumps {
                    let lines = (self.dump)();
                    lines.iter().for_each(|line| client.add(format!("{line}\n").as_bytes()));
                }
            }
            Err(_) => *slot = None,
        }
    }

    /// Gives the records that wait to all clients, and forgets those that left.
    fn pass_on(&mut self) {
        let (lines, dropped) = self.tap.take();
        for slot in &mut self.clients {
            let Some(client) = slot else { continue };
            lines.iter().for_each(|line| client.add(line));
            client.dropped += dropped;
            if client.write().is_err() {
                *slot = None;
            }
        }
        if self.clients.iter().all(Option::is_none) {
            self.tap.listen(false);
        }
    }
}

impl Client {
    /// Reads what is there; gives how often it says `dump`.
    fn commands(&mut self) -> io::Result<usize> {
        let mut buf = [0; 512];
        let mut dumps = 0;
        loop {
            let n = match self.stream.read(&mut buf) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(dumps),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for byte in &buf[..n] {
                if *byte != b'\n' {
                    self.command.push(*byte);
                } else {
                    dumps = 1.min(dumps + usize::from(self.command.trim_ascii() == b"dump"));
                    self.command.clear();
                }
            }
            if self.command.len() > COMMAND_MAX {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
    }

    /// Takes a line, or counts it if the client does not keep up.
    fn add(&mut self, line: &[u8]) {
        if self.dropped > 0 && self.out.len() < OUT_MAX / 2 {
            let dropped = std::mem::take(&mut self.dropped);
            self.out.extend(format!("** dropped {dropped} logs\n").as_bytes());
        }
        if self.dropped > 0 || self.out.len() + line.len() > OUT_MAX {
            self.dropped += 1;
        } else {
            self.out.extend(line);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(self.out.as_slices().0) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.shrink_to(4096);
        Ok(())
    }
}
