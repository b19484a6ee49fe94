//! The HTTP control server: connections, reading and writing. What is said is in
//! [`crate::control`].

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::hub_io::HubInput;
use crate::control::{Answer, Published, Rules, Step, read_request};

/// Connections at a time; more wait in the backlog (spec/publish.md §2.1).
const CONNECTIONS_MAX: usize = 128;

/// How long a client may take to read its answer after it was sent.
const LINGER_MS: u64 = 2_000;

/// How long a connection may stay without a request.
const IDLE_MS: u64 = 60_000;

/// The token of the listener; connections have the ones after it.
pub(super) const LISTENER: Token = Token(1_000);

/// Bytes of answers that may wait for a client before its next request is looked at.
const OUTPUT_MAX: usize = 64 * 1024;

/// Bytes read at a time, and reads in a row of what nobody looks at.
const READ: usize = 16 * 1024;
const READS_MAX: usize = 64;

/// The connection that waits for the result of a publish; its place may be another's by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publisher {
    place: usize,
    serial: u64,
}

struct Connection {
    publisher: Publisher,
    /// The answer that waits for the result.
    published: Option<Published>,
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of it that were answered.
    done: usize,
    output: Vec<u8>,
    continued: bool,
    /// The answer is complete; when it is written the connection ends.
    answered: bool,
    /// The answer is written; until then what still comes is read and thrown away, so that the
    /// client sees the answer and no reset.
    closes: Option<u64>,
    /// Since when it waits for another request.
    idle: Option<u64>,
}

/// The server.
pub(super) struct HttpServer {
    listener: TcpListener,
    connections: Slab<Connection>,
    rules: Rules,
    /// Clients wait in the backlog.
    acceptable: bool,
    /// Connections so far.
    accepted: u64,
}

impl HttpServer {
    /// Listens on `address`.
    pub(super) fn bind(address: SocketAddr, rules: Rules) -> Result<Self, String> {
        let listener = TcpListener::bind(address).map_err(|error| {
            format!("unable to bind to http control address {address}: {error}")
        })?;
        let address = listener.local_addr().unwrap_or(address);
        log::info!("http control server: {address}");
        Ok(Self { listener, connections: Slab::new(), rules, acceptable: false, accepted: 0 })
    }

    /// Other rules for requests that come from now on.
    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)
    }

    /// When connections are to be looked at though nothing happened.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.connections.iter().filter_map(|(_, connection)| connection.ends()).min()
    }

    /// An event of the loop.
    pub(super) fn event(&mut self, now: u64, token: Token, inputs: &mut Vec<HubInput>) {
        match token.0.checked_sub(LISTENER.0 + 1) {
            None => self.acceptable = true,
            Some(number) => self.advance(now, number, inputs),
        }
    }

    /// Takes new clients in, unless the engine has enough to do.
    pub(super) fn accept(
        &mut self,
        now: u64,
        registry: &Registry,
        inputs: &mut Vec<HubInput>,
        congested: bool,
    ) {
        self.close_lingering(now);
        while self.acceptable && !congested && self.has_room() {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(now, registry, stream, inputs),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.acceptable = false;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        log::warn!("http control server: cannot accept a client: {error}");
                    }
                }
            }
        }
    }

    fn add(
        &mut self,
        now: u64,
        registry: &Registry,
        mut stream: TcpStream,
        inputs: &mut Vec<HubInput>,
    ) {
        let entry = self.connections.vacant_entry();
        let number = entry.key();
        let token = Token(LISTENER.0 + 1 + number);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut stream, token, interest) {
            log::warn!("http control server: cannot watch a client: {error}");
            return;
        }
        self.accepted += 1;
        entry.insert(Connection {
            publisher: Publisher { place: number, serial: self.accepted },
            published: None,
            stream,
            input: Vec::new(),
            done: 0,
            output: Vec::new(),
            continued: false,
            answered: false,
            closes: None,
            idle: None,
        });
        self.advance(now, number, inputs);
    }

    /// A publish that a client waits for reached so many sessions.
    pub(super) fn published(
        &mut self,
        now: u64,
        publisher: Publisher,
        receivers: u64,
        inputs: &mut Vec<HubInput>,
    ) {
        let Some(connection) = self.connections.get_mut(publisher.place) else { return };
        if connection.publisher != publisher {
            return;
        }
        if let Some(published) = connection.published.take() {
            connection.answer(now, published.answer(Some(receivers)));
            self.advance(now, publisher.place, inputs);
        }
    }

    fn advance(&mut self, now: u64, number: usize, inputs: &mut Vec<HubInput>) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        if !connection.advance(now, &self.rules, inputs) {
            self.connections.remove(number);
        }
    }

    fn close_lingering(&mut self, now: u64) {
        self.connections.retain(|_, connection| connection.ends().is_none_or(|at| at > now));
    }

    /// Whether one more client may come in; the one that idles longest makes room.
    fn has_room(&mut self) -> bool {
        if self.connections.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle =
            self.connections.iter().filter_map(|(n, connection)| Some((connection.idle?, n)));
        match idle.min() {
            Some((_, number)) => self.connections.try_remove(number).is_some(),
            None => false,
        }
    }
}

impl Connection {
    /// When it ends though nothing happened.
    fn ends(&self) -> Option<u64> {
        self.closes.or_else(|| self.idle.map(|since| since + IDLE_MS))
    }

    /// Reads, answers and writes as far as it goes; false: the connection is over.
    fn advance(&mut self, now: u64, rules: &Rules, inputs: &mut Vec<HubInput>) -> bool {
        let most = rules.limits.head + rules.limits.body + READ;
        loop {
            let Ok(open) = self.read(most) else { return false };
            let full = self.input.len() >= most;
            let Some(more) = self.serve(now, rules, open, inputs) else { return false };
            self.input.drain(..std::mem::take(&mut self.done));
            if self.write(now).is_err() {
                return false;
            }
            // Of a full buffer something was answered, or all of it refused: there is room.
            let more = more || (full && self.published.is_none());
            if !more || self.output.len() >= OUTPUT_MAX {
                return open || !self.answered || !self.output.is_empty();
            }
        }
    }

    /// Answers what has come in; gives whether there is more than the client's answers allow,
    /// and nothing if the connection is over.
    fn serve(
        &mut self,
        now: u64,
        rules: &Rules,
        open: bool,
        inputs: &mut Vec<HubInput>,
    ) -> Option<bool> {
        while !self.answered {
            if self.published.is_some() {
                return Some(false);
            }
            // A client that does not take its answers gets no more of them.
            if self.output.len() >= OUTPUT_MAX {
                return Some(true);
            }
            let input = &self.input[self.done..];
            if self.idle.is_some() && input.is_empty() {
                self.answered = !open;
                return Some(false);
            }
            self.idle = None;
            match read_request(input, rules) {
                Step::Read(_) if !open => {
                    log::debug!("httpserver error: client closed unexpectedly");
                    return None;
                }
                Step::Read(go_on) => {
                    if go_on && !std::mem::replace(&mut self.continued, true) {
                        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    return Some(false);
                }
                Step::Answer(answer) => self.answer(now, answer),
                Step::Publish(published, items) if rules.tells_receivers => {
                    self.published = Some(published);
                    inputs.push(HubInput::Awaited(self.publisher, items));
                }
                Step::Publish(published, items) => {
                    self.answer(now, published.answer(None));
                    inputs.push(HubInput::Items(items));
                }
                Step::Recover(answer) => {
                    self.answer(now, answer);
                    inputs.push(HubInput::Recover);
                }
            }
        }
        Some(false)
    }

    fn answer(&mut self, now: u64, answer: Answer) {
        if let Some(line) = answer.log {
            log::debug!("{line}");
        }
        self.output.extend(answer.bytes);
        self.continued = false;
        match answer.keeps {
            Some(size) => {
                self.done += size;
                self.idle = Some(now);
            }
            None => {
                self.answered = true;
                (self.input, self.done) = (Vec::new(), 0);
            }
        }
    }

    /// Reads what is there, up to `most` bytes that wait to be looked at; false: the client has
    /// ended its side.
    fn read(&mut self, most: usize) -> io::Result<bool> {
        let mut buffer = [0; READ];
        let mut reads = 0;
        // What comes behind the last answer is thrown away, but not as long as it pleases.
        while self.input.len() < most && reads < READS_MAX {
            reads += usize::from(self.answered);
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(_) if self.answered => {}
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write(&mut self, now: u64) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.answered && self.closes.is_none() {
            self.closes = Some(now + LINGER_MS);
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}
