//! A ZeroMQ socket in a mio loop.
//!
//! The descriptor of a ZeroMQ socket is edge-triggered in a way of its own: any call on the
//! socket may swallow an edge. So a driver asks [`Socket::ready`] for every socket before it
//! goes to sleep, and stays awake while one has something to give.
//!
//! Each such question is a system call, and dozens of them were a seventh of what an open costs. So
//! a socket can be registered by [`Socket::register_edges`]: it then knows itself when there is
//! nothing to ask, because it was emptied and neither an edge nor a call came since.

use std::cell::Cell;
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// A socket could not be set up. The text names the address and the cause.
#[derive(Debug)]
pub struct Error {
    text: String,
    short: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(text: String) -> Self {
        Self { text, short: None }
    }

    /// An address that did not work: as proxy and handler say it, and as the connection manager.
    fn address(long: &str, short: &str, spec: &str, cause: &dyn fmt::Display) -> Self {
        let short = Some(format!("{short} {spec}: {cause}"));
        Self { text: format!("{long} {spec}: {cause}"), short }
    }

    pub(crate) fn monitor(cause: zmq::Error) -> Self {
        Self::new(format!("cannot watch a ZeroMQ socket: {cause}"))
    }

    /// `bind SPEC: cause`, `connect SPEC: cause` or `set mode SPEC: cause`, the form of
    /// spec/connmgr.md §1; anything else as it is displayed.
    pub fn short(&self) -> &str {
        self.short.as_deref().unwrap_or(&self.text)
    }
}

/// How a message left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// ZeroMQ has it.
    Ok,
    /// The queue is full, or nobody is connected; try later.
    Full,
    /// A mandatory ROUTER knows no peer of that identity.
    Unreachable,
    /// ZeroMQ refused it for another reason; it is lost.
    Failed,
}

/// What a socket can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// A message waits.
    pub readable: bool,
    /// A message can be sent.
    pub writable: bool,
}

/// Settings before a socket is bound or connected. Numbers are messages and milliseconds.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// ROUTER identity.
    pub identity: Option<&'a [u8]>,
    /// High-water mark of sending and receiving, messages per peer; 0: no mark.
    pub hwm: i32,
    /// Another mark for receiving.
    pub receive_hwm: Option<i32>,
    /// How long unsent messages hold up the end of the process.
    pub linger_ms: i32,
    /// ROUTER reports a peer that it does not know.
    pub mandatory: bool,
    /// Send only to peers that have shaken hands.
    pub immediate: bool,
    /// ZMTP heartbeats, so that a stopped peer is noticed (design, rule 9).
    pub heartbeat: bool,
    /// TCP keep-alives, so that a vanished peer is noticed (spec/publish.md §4).
    pub keep_alive: bool,
    /// SUB: receive what begins with this.
    pub subscribe: Option<&'a [u8]>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            identity: None,
            hwm: 100_000,
            receive_hwm: None,
            linger_ms: 100,
            mandatory: false,
            immediate: false,
            heartbeat: false,
            keep_alive: false,
            subscribe: None,
        }
    }
}

/// Milliseconds between heartbeats, and without one until a peer counts as gone.
const HEARTBEAT_MS: (i32, i32) = (1_000, 3_000);

/// Seconds of silence before TCP asks the peer, seconds between questions, and how many may stay
/// without an answer.
const KEEP_ALIVE: (i32, i32, i32) = (30, 5, 6);

/// A non-blocking ZeroMQ socket.
pub struct Socket {
    inner: zmq::Socket,
    fd: RawFd,
    /// The driver tells of every edge.
    edges: Cell<bool>,
    /// Emptied, and no edge or call since: there is nothing to read.
    quiet: Cell<bool>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.fd)
    }
}

impl Socket {
    /// A socket of that type with these settings.
    ///
    /// # Errors
    /// If ZeroMQ refuses it, for example because the process is out of files.
    pub fn new(
        context: &zmq::Context,
        kind: zmq::SocketType,
        options: &Options<'_>,
    ) -> Result<Self, Error> {
        let make = || -> zmq::Result<Self> {
            let inner = context.socket(kind)?;
            options.apply(&inner, kind)?;
            let fd = inner.get_fd()?;
            Ok(Self { inner, fd, edges: Cell::new(false), quiet: Cell::new(false) })
        };
        make().map_err(|cause| Error::new(format!("cannot make a ZeroMQ {kind:?} socket: {cause}")))
    }

    /// Binds to `spec`. `mode` is given to the file of an `ipc:` address.
    ///
    /// # Errors
    /// `unable to bind to SPEC: cause` or `unable to set permissions on SPEC: cause`
    /// (spec/programs.md §3).
    pub fn bind(&self, spec: &str, mode: Option<u32>) -> Result<(), Error> {
        self.inner
            .bind(spec)
            .map_err(|cause| Error::address("unable to bind to", "bind", spec, &said(cause)))?;
        let (Some(mode), Some(path)) = (mode, spec.strip_prefix("ipc://")) else { return Ok(()) };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|cause| {
            Error::address("unable to set permissions on", "set mode", spec, &cause)
        })
    }

    /// Connects to `spec`; the peer may come later.
    ///
    /// # Errors
    /// `unable to connect to SPEC: cause`, for an address that is none.
    pub fn connect(&self, spec: &str) -> Result<(), Error> {
        self.inner
            .connect(spec)
            .map_err(|cause| Error::address("unable to connect to", "connect", spec, &said(cause)))
    }

    /// SUB: from now on receive what begins with `topic`.
    pub fn subscribe(&self, topic: &[u8]) {
        self.quiet.set(false);
        if let Err(cause) = self.inner.set_subscribe(topic) {
            log::warn!("subscribing failed: {cause}");
        }
    }

    /// SUB: undoes one [`Socket::subscribe`].
    pub fn unsubscribe(&self, topic: &[u8]) {
        self.quiet.set(false);
        if let Err(cause) = self.inner.set_unsubscribe(topic) {
            log::warn!("unsubscribing failed: {cause}");
        }
    }

    /// Puts the socket's descriptor into a loop; its events say "ask [`Socket::ready`]".
    ///
    /// # Errors
    /// If the loop refuses the descriptor.
    pub fn register(&self, registry: &Registry, token: Token) -> std::io::Result<()> {
        registry.register(&mut SourceFd(&self.fd), token, Interest::READABLE)
    }

    /// Puts the socket's descriptor into a loop that calls [`Socket::edge`] for each of its events,
    /// before anything else is asked of the socket.
    ///
    /// # Errors
    /// If the loop refuses the descriptor.
    pub fn register_edges(&self, registry: &Registry, token: Token) -> std::io::Result<()> {
        self.edges.set(true);
        self.register(registry, token)
    }

    /// The loop has reported an event of the socket.
    pub fn edge(&self) {
        self.quiet.set(false);
    }

    /// The address in use, with the port that was chosen for `:*`.
    pub fn last_endpoint(&self) -> Option<String> {
        self.inner.get_last_endpoint().ok()?.ok()
    }

    /// What the socket can do now.
    pub fn ready(&self) -> Ready {
        let events = self.inner.get_events().unwrap_or(zmq::PollEvents::empty());
        Ready { readable: events.contains(zmq::POLLIN), writable: events.contains(zmq::POLLOUT) }
    }

    /// Whether a message waits.
    pub fn is_readable(&self) -> bool {
        let readable = !self.quiet.get() && self.ready().readable;
        self.note_empty(!readable);
        readable
    }

    /// ZeroMQ was asked for a message. After "there is none" it has seen all signals, and the
    /// next one is an edge.
    fn note_empty(&self, empty: bool) {
        self.quiet.set(empty && self.edges.get());
    }

    /// Takes one message into `frames` (cleared first). False: none waits.
    pub fn recv(&self, frames: &mut Vec<zmq::Message>) -> bool {
        frames.clear();
        if self.quiet.get() {
            return false;
        }
        let got = self.recv_frames(frames);
        self.note_empty(!got);
        got
    }

    fn recv_frames(&self, frames: &mut Vec<zmq::Message>) -> bool {
        loop {
            match self.inner.recv_msg(zmq::DONTWAIT) {
                Ok(frame) => frames.push(frame),
                Err(zmq::Error::EINTR) => continue,
                Err(_) => return false,
            }
            if !frames.last().is_some_and(zmq::Message::get_more) {
                return true;
            }
        }
    }

    /// Sends one message of these frames. Only the first frame decides whether it can leave.
    pub fn send(&self, frames: &[&[u8]]) -> Sent {
        let last = frames.len().saturating_sub(1);
        for (i, frame) in frames.iter().enumerate() {
            let more = if i < last { zmq::SNDMORE } else { 0 };
            let sent = self.send_frame(frame, zmq::DONTWAIT | more);
            if sent != Sent::Ok {
                return sent;
            }
        }
        Sent::Ok
    }

    fn send_frame(&self, frame: &[u8], flags: i32) -> Sent {
        // Sending may swallow the edge of a message that came.
        self.quiet.set(false);
        loop {
            match self.inner.send(frame, flags) {
                Ok(()) => return Sent::Ok,
                Err(zmq::Error::EINTR) => {}
                Err(zmq::Error::EAGAIN) => return Sent::Full,
                Err(zmq::Error::EHOSTUNREACH) => return Sent::Unreachable,
                Err(_) => return Sent::Failed,
            }
        }
    }

    /// The socket itself, for [`crate::monitor`].
    pub(crate) fn inner(&self) -> &zmq::Socket {
        &self.inner
    }
}

/// What is wrong with an address. ZeroMQ calls one that it cannot read an invalid argument.
fn said(cause: zmq::Error) -> String {
    match cause {
        zmq::Error::EINVAL => {
            "this is no ZeroMQ address (for example tcp://127.0.0.1:5560)".to_owned()
        }
        cause => cause.to_string(),
    }
}

/// Registers sockets by [`Socket::register_edges`] with tokens from `first` on.
///
/// # Errors
/// If the loop refuses a descriptor.
pub fn register_all(sockets: &[&Socket], registry: &Registry, first: usize) -> std::io::Result<()> {
    for (n, socket) in sockets.iter().enumerate() {
        socket.register_edges(registry, Token(first + n))?;
    }
    Ok(())
}

/// Calls [`Socket::edge`] of the one that [`register_all`] gave this token, if there is one.
pub fn edge_of(sockets: &[&Socket], token: Token, first: usize) {
    if let Some(socket) = token.0.checked_sub(first).and_then(|n| sockets.get(n)) {
        socket.edge();
    }
}

impl Options<'_> {
    fn apply(&self, socket: &zmq::Socket, kind: zmq::SocketType) -> zmq::Result<()> {
        socket.set_linger(self.linger_ms)?;
        socket.set_sndhwm(self.hwm)?;
        socket.set_rcvhwm(self.receive_hwm.unwrap_or(self.hwm))?;
        if let Some(identity) = self.identity {
            socket.set_identity(identity)?;
        }
        if kind == zmq::ROUTER {
            socket.set_router_mandatory(self.mandatory)?;
            // A process that was killed and started again under the same name takes over.
            socket.set_router_handover(true)?;
        }
        socket.set_immediate(self.immediate)?;
        if self.heartbeat {
            socket.set_heartbeat_ivl(HEARTBEAT_MS.0)?;
            socket.set_heartbeat_timeout(HEARTBEAT_MS.1)?;
        }
        if self.keep_alive {
            let (idle_s, interval_s, count) = KEEP_ALIVE;
            socket.set_tcp_keepalive(1)?;
            socket.set_tcp_keepalive_idle(idle_s)?;
            socket.set_tcp_keepalive_intvl(interval_s)?;
            socket.set_tcp_keepalive_cnt(count)?;
        }
        match self.subscribe {
            Some(topic) => socket.set_subscribe(topic),
            None => Ok(()),
        }
    }
}
