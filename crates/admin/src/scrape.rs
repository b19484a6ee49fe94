//! The metrics listener (`spec/connmgr.md §11`, `spec/stats.md §7`): any method, any path, one
//! answer per connection. A scrape that stalls is dropped; nothing of it reaches the program.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use http1::write::Response;
use http1::{BodyKind, HeaderSlots, Version, parse_request};
use mio::{Events, Poll, Token, Waker};

use crate::later::{Later, Ticket, Work};
use crate::listen::{Listener, Stream};
use crate::{Address, MetricsSpec};

/// From accept to the last byte.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes behind the request's head that are thrown away, so that they do not reset the answer.
const DISCARD_MAX: usize = 64 * 1024;

/// How long to wait before accepting again when the process is out of files.
const NO_FILES_WAIT: Duration = Duration::from_millis(200);

const LISTENER: Token = Token(0);

/// An answer that somebody waits for was made.
const MADE: Token = Token(usize::MAX);

/// What differs between the programs' metrics listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Connections at a time; further ones are closed at once.
    pub connections_max: usize,
    /// Bytes of a request's head.
    pub request_max: usize,
    /// The `Content-Type` of a page of metrics.
    pub content_type: &'static str,
}

impl Rules {
    /// As the connection manager has it.
    pub const CONNMGR: Self =
        Self { connections_max: 10, request_max: 4096, content_type: "text/plain; version=0.0.4" };

    /// As proxy and handler have it.
    pub const PUSHPIN: Self =
        Self { connections_max: 16, request_max: 8192, content_type: "text/plain" };
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub code: u16,
    /// Its words.
    pub reason: &'static str,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub text: String,
}

impl Reply {
    /// Plain text.
    pub fn text(code: u16, reason: &'static str, text: &str) -> Self {
        Self { code, reason, content_type: "text/plain", text: text.to_owned() }
    }

    /// A page of metrics, with the content type of [`Rules::CONNMGR`].
    pub fn metrics(text: String) -> Self {
        Self { code: 200, reason: "OK", content_type: Rules::CONNMGR.content_type, text }
    }
}

/// What a request gets.
pub enum Answer {
    /// This.
    Now(Reply),
    /// What this gives. It may wait, and holds up nobody but those who ask for such things too.
    Later(Work),
}

/// Binds, and serves from a thread of its own until the process ends. `page` makes the text of an
/// answer, in that thread; it may wait for the program's loops. Gives the address in use.
///
/// # Errors
/// What the system says about the address or the thread.
pub fn serve_metrics(
    address: &Address,
    rules: Rules,
    mut page: impl FnMut() -> String + Send + 'static,
) -> io::Result<String> {
    let content_type = rules.content_type;
    serve(address, rules, move |_| Answer::Now(Reply { content_type, ..Reply::metrics(page()) }))
}

/// As [`serve_metrics`]; `respond` gets the request's target.
///
/// # Errors
/// What the system says about the address or the thread.
pub fn serve(
    address: &Address,
    rules: Rules,
    respond: impl FnMut(&str) -> Answer + Send + 'static,
) -> io::Result<String> {
    let mut listener = Listener::bind(address)?;
    let described = listener.describe(address);
    let poll = Poll::new()?;
    listener.register(poll.registry(), LISTENER)?;
    let later = Later::new(Waker::new(poll.registry(), MADE)?);
    let clients = Vec::new();
    let mut server = Server { poll, listener, rules, respond, later, clients, stalled: false };
    thread::Builder::new().name("metrics".into()).stack_size(1 << 20).spawn(move || {
        if let Err(error) = server.run() {
            log::error!("the metrics listener ends: {error}");
        }
    })?;
    Ok(described)
}

/// Serves at the value of `prometheus_port` (spec/stats.md §7.1): `[address:]port`, or `ipc://` and
/// a path. `page` as above.
///
/// # Errors
/// A text for the log: the port, and what is wrong with it.
pub fn serve_port(port: &str, page: impl FnMut() -> String + Send + 'static) -> Result<(), String> {
    let failed =
        |cause: &dyn fmt::Display| format!("unable to bind to prometheus port: {port}: {cause}");
    let address = MetricsSpec::of_port(port).map_err(|cause| failed(&cause))?.address;
    serve_metrics(&address, Rules::PUSHPIN, page).map_err(|cause| failed(&cause))?;
    Ok(())
}

struct Server<R> {
    poll: Poll,
    listener: Listener,
    rules: Rules,
    respond: R,
    later: Later,
    /// By token, less one.
    clients: Vec<Option<Client>>,
    /// Out of files: accepting is tried again after a while.
    stalled: bool,
}

struct Client {
    stream: Stream,
    ends_at: Instant,
    step: Step,
}

enum Step {
    Reading(Vec<u8>),
    /// For an answer; what comes meanwhile is thrown away.
    Waiting(Shape, Ticket, usize),
    Writing(Vec<u8>, usize),
    Discarding(usize),
}

/// How an answer is to be written.
#[derive(Clone, Copy)]
struct Shape {
    version: Version,
    bodyless: bool,
}

/// What became of a client's turn.
#[derive(PartialEq, Eq)]
enum Turn {
    Waits,
    Over,
}

impl<R: FnMut(&str) -> Answer> Server<R> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(32);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            let accepts = self.stalled || events.iter().any(|event| event.token() == LISTENER);
            for event in &events {
                match event.token() {
                    LISTENER => {}
                    MADE => self.hand_out(),
                    Token(n) => self.turn(n - 1),
                }
            }
            self.expire();
            if accepts {
                self.accept()?;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let ends = self.clients.iter().flatten().map(|client| client.ends_at);
        let wait = ends.min().map(|at| at.saturating_duration_since(now));
        if self.stalled { Some(wait.map_or(NO_FILES_WAIT, |w| w.min(NO_FILES_WAIT))) } else { wait }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for client in &mut self.clients {
            client.take_if(|client| client.ends_at <= now);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        self.stalled = false;
        loop {
            match self.listener.accept() {
                Ok(stream) => self.add(stream)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::debug!("metrics accept error: {error}");
                    self.stalled = true;
                    return Ok(());
                }
            }
        }
    }

    fn add(&mut self, mut stream: Stream) -> io::Result<()> {
        let place = match self.clients.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.clients.len() < self.rules.connections_max => {
                self.clients.push(None);
                self.clients.len() - 1
            }
            None => {
                log::warn!("too many prometheus connections, rejecting");
                return Ok(());
            }
        };
        stream.register(self.poll.registry(), Token(place + 1))?;
        let ends_at = Instant::now() + TIME_MAX;
        self.clients[place] = Some(Client { stream, ends_at, step: Step::Reading(Vec::new()) });
        Ok(())
    }

    /// Gives the answers that were made to those who still wait for them.
    fn hand_out(&mut self) {
        let made: Vec<_> = self.later.made().collect();
        for (ticket, reply) in made {
            let waits = |client: &Client| match &client.step {
                Step::Waiting(_, own, _) => own.is_for(&ticket),
                _ => false,
            };
            let place = self.clients.iter().position(|c| c.as_ref().is_some_and(waits));
            let Some(place) = place else { continue };
            if let Some(client) = &mut self.clients[place]
                && let Step::Waiting(shape, ..) = client.step
            {
                client.step = Step::Writing(response(shape, &reply), 0);
            }
            self.turn(place);
        }
    }

    fn turn(&mut self, place: usize) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        let Some(client) = slot else { return };
        let result = client.turn(&self.rules, &mut self.later, &mut self.respond);
        if result.unwrap_or(Turn::Over) == Turn::Over {
            *slot = None;
        }
    }
}

impl Client {
    /// Goes on until the socket has nothing to give or take.
    fn turn(
        &mut self,
        rules: &Rules,
        later: &mut Later,
        respond: &mut impl FnMut(&str) -> Answer,
    ) -> io::Result<Turn> {
        let mut buf = [0; 4096];
        loop {
            let result = match &mut self.step {
                Step::Writing(answer, written) => self.stream.write(&answer[*written..]),
                _ => self.stream.read(&mut buf),
            };
            let n = match result {
                // It has said everything, and waits all the same.
                Ok(0) if matches!(self.step, Step::Waiting(..)) => return Ok(Turn::Waits),
                Ok(0) => return Ok(Turn::Over),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match &mut self.step {
                Step::Reading(request) => {
                    request.extend_from_slice(&buf[..n]);
                    match answer(request, rules, respond) {
                        None => {}
                        Some((shape, Answer::Now(reply))) => {
                            self.step = Step::Writing(response(shape, &reply), 0);
                        }
                        Some((shape, Answer::Later(work))) => {
                            self.step = Step::Waiting(shape, later.ask(work)?, DISCARD_MAX);
                        }
                    }
                }
                Step::Writing(answer, written) => {
                    *written += n;
                    if *written == answer.len() {
                        self.stream.end();
                        self.step = Step::Discarding(DISCARD_MAX);
                    }
                }
                Step::Discarding(left) | Step::Waiting(_, _, left) if *left > n => *left -= n,
                Step::Discarding(_) | Step::Waiting(..) => return Ok(Turn::Over),
            }
        }
    }
}

/// The answer, once the head is complete or turns out to be none.
fn answer(
    request: &[u8],
    rules: &Rules,
    respond: &mut impl FnMut(&str) -> Answer,
) -> Option<(Shape, Answer)> {
    let bad = |text: String| {
        let shape = Shape { version: Version::V10, bodyless: false };
        Some((shape, Answer::Now(Reply::text(400, "Bad Request", &text))))
    };
    let mut slots = HeaderSlots::new();
    match parse_request(request, &mut slots) {
        Ok(None) if request.len() < rules.request_max => None,
        Ok(Some(head)) if head.size <= rules.request_max => {
            let shape = Shape { version: head.version, bodyless: head.method == "HEAD" };
            Some((shape, respond(head.target)))
        }
        Ok(_) => {
            bad(format!("Request header size exceeded limit of {} bytes.\n", rules.request_max))
        }
        Err(reason) => bad(format!("Failed to parse request: {reason}\n")),
    }
}

fn response(shape: Shape, reply: &Reply) -> Vec<u8> {
    let Shape { version, bodyless } = shape;
    let text = &reply.text;
    let parts = Response {
        version,
        code: reply.code,
        reason: reply.reason.as_bytes(),
        persistent: false,
        body: BodyKind::Length(text.len() as u64),
    };
    let mut out = Vec::with_capacity(text.len() + 200);
    let headers = [(&b"Content-Type"[..], reply.content_type.as_bytes())];
    // Only a status or a header that is not well-formed is refused, and these are ours.
    let _ = http1::write::response(&mut out, &parts, headers);
    if !bodyless {
        out.extend_from_slice(text.as_bytes());
    }
    out
}
