//! The metrics listener (`spec/connmgr.md §11`, `spec/stats.md §7`): any method, any path, one
//! answer per connection. A scrape that stalls is dropped; nothing of it reaches the program.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use http1::write::Response;
use http1::{BodyKind, HeaderSlots, Version, parse_request};
use mio::{Events, Poll, Token};

use crate::listen::{Listener, Stream};
use crate::{Address, MetricsSpec};

/// From accept to the last byte.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes behind the request's head that are thrown away, so that they do not reset the answer.
const DISCARD_MAX: usize = 64 * 1024;

/// How long to wait before accepting again when the process is out of files.
const NO_FILES_WAIT: Duration = Duration::from_millis(200);

const LISTENER: Token = Token(0);

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
    serve(address, rules, move |_| Reply { content_type, ..Reply::metrics(page()) })
}

/// As [`serve_metrics`]; `respond` gets the request's target.
///
/// # Errors
/// What the system says about the address or the thread.
pub fn serve(
    address: &Address,
    rules: Rules,
    respond: impl FnMut(&str) -> Reply + Send + 'static,
) -> io::Result<String> {
    let mut listener = Listener::bind(address)?;
    let described = listener.describe(address);
    let poll = Poll::new()?;
    listener.register(poll.registry(), LISTENER)?;
    let mut server = Server { poll, listener, rules, respond, clients: Vec::new(), stalled: false };
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
    Writing(Vec<u8>, usize),
    Discarding(usize),
}

/// What became of a client's turn.
#[derive(PartialEq, Eq)]
enum Turn {
    Waits,
    Over,
}

impl<R: FnMut(&str) -> Reply> Server<R> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(32);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            let accepts = self.stalled || events.iter().any(|event| event.token() == LISTENER);
            for event in events.iter().filter(|event| event.token() != LISTENER) {
                self.turn(event.token().0 - 1);
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

    fn turn(&mut self, place: usize) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        let Some(client) = slot else { return };
        if client.turn(&self.rules, &mut self.respond).unwrap_or(Turn::Over) == Turn::Over {
            *slot = None;
        }
    }
}

impl Client {
    /// Goes on until the socket has nothing to give or take.
    fn turn(&mut self, rules: &Rules, respond: &mut impl FnMut(&str) -> Reply) -> io::Result<Turn> {
        let mut buf = [0; 4096];
        loop {
            let result = match &mut self.step {
                Step::Reading(_) | Step::Discarding(_) => self.stream.read(&mut buf),
                Step::Writing(answer, written) => self.stream.write(&answer[*written..]),
            };
            let n = match result {
                Ok(0) => return Ok(Turn::Over),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match &mut self.step {
                Step::Reading(request) => {
                    request.extend_from_slice(&buf[..n]);
                    if let Some(answer) = answer(request, rules, respond) {
                        self.step = Step::Writing(answer, 0);
                    }
                }
                Step::Writing(answer, written) => {
                    *written += n;
                    if *written == answer.len() {
                        self.stream.end();
                        self.step = Step::Discarding(DISCARD_MAX);
                    }
                }
                Step::Discarding(left) if *left > n => *left -= n,
                Step::Discarding(_) => return Ok(Turn::Over),
            }
        }
    }
}

/// The answer, once the head is complete or turns out to be none.
fn answer(
    request: &[u8],
    rules: &Rules,
    respond: &mut impl FnMut(&str) -> Reply,
) -> Option<Vec<u8>> {
    let mut slots = HeaderSlots::new();
    match parse_request(request, &mut slots) {
        Ok(None) if request.len() < rules.request_max => None,
        Ok(Some(head)) if head.size <= rules.request_max => {
            let bodyless = head.method == "HEAD";
            Some(response(head.version, &respond(head.target), bodyless))
        }
        Ok(_) => {
            let text =
                format!("Request header size exceeded limit of {} bytes.\n", rules.request_max);
            Some(response(Version::V10, &Reply::text(400, "Bad Request", &text), false))
        }
        Err(reason) => {
            let text = format!("Failed to parse request: {reason}\n");
            Some(response(Version::V10, &Reply::text(400, "Bad Request", &text), false))
        }
    }
}

fn response(version: Version, reply: &Reply, bodyless: bool) -> Vec<u8> {
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
