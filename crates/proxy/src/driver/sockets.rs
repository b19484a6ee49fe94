//! The ZeroMQ sockets of one worker (spec/internal-rpc.md §1, spec/zhttp.md §8).

use config::specs::ProxySpecs;
use evloop::monitor::Monitor;
use evloop::peers::PeerRouter;
use evloop::zsock::{Error, Options, Socket};
use mio::{Registry, Token};

/// Requests that may wait in a worker's queue.
const REQUESTS_HWM: i32 = 1_000;

/// Calls that may wait for the handler (spec/internal-rpc.md §1 has 100; opens come in crowds).
const CALLS_HWM: i32 = 10_000;

/// Places of the sockets among the loop's tokens.
pub(crate) const FIRST: usize = 1;

/// A socket that is looked at only when something may have come: after an event of the loop, and
/// after every own call on it, which may have swallowed one.
pub(crate) struct Watched {
    pub socket: Socket,
    pub check: bool,
}

/// All sockets.
pub(crate) struct Sockets {
    /// Requests of connection managers.
    pub requests: Watched,
    /// Packets of client sessions, both ways.
    pub stream: PeerRouter,
    pub stream_check: bool,
    /// Responses to connection managers that take no others.
    pub publish: Socket,
    pub inspect: Watched,
    pub accept: Watched,
    pub retry: Watched,
    pub stats: Watched,
    pub command: Watched,
    pub int_requests: Watched,
    pub int_stream: PeerRouter,
    pub int_stream_check: bool,
    pub int_publish: Socket,
    /// First words about WebSockets.
    pub ws_init: Socket,
    /// Everything else about WebSockets.
    pub ws_stream: PeerRouter,
    pub ws_stream_check: bool,
    pub stream_monitor: Monitor,
    pub accept_monitor: Monitor,
    /// A socket whose descriptor is waited for must have been found empty once before.
    pub monitors_check: bool,
}

/// How many tokens the sockets take.
pub(crate) const COUNT: usize = 13;

struct Maker<'a> {
    context: &'a zmq::Context,
    registry: &'a Registry,
    mode: Option<u32>,
    next: usize,
}

impl Maker<'_> {
    fn bound(
        &mut self,
        kind: zmq::SocketType,
        options: &Options<'_>,
        spec: &str,
    ) -> Result<Socket, Error> {
        let socket = Socket::new(self.context, kind, options)?;
        socket.bind(spec, self.mode)?;
        Ok(socket)
    }

    fn connected(
        &mut self,
        kind: zmq::SocketType,
        options: &Options<'_>,
        specs: &[String],
    ) -> Result<Socket, Error> {
        let socket = Socket::new(self.context, kind, options)?;
        specs.iter().try_for_each(|spec| socket.connect(spec))?;
        Ok(socket)
    }

    fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next - 1)
    }

    fn watch(&mut self, socket: Socket) -> Result<Watched, String> {
        let token = self.token();
        socket.register(self.registry, token).map_err(|cause| cause.to_string())?;
        Ok(Watched { socket, check: true })
    }

    fn watch_monitor(&mut self, monitor: &Monitor) -> Result<(), String> {
        let token = self.token();
        monitor.register(self.registry, token).map_err(|cause| cause.to_string())
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

impl Sockets {
    /// Makes, binds and connects everything.
    ///
    /// # Errors
    /// `unable to bind to SPEC: cause` and the like.
    pub fn new(
        context: &zmq::Context,
        registry: &Registry,
        specs: &ProxySpecs,
        instance_id: &str,
        mode: Option<u32>,
    ) -> Result<Self, String> {
        let mut make = Maker { context, registry, mode, next: FIRST };
        let identity = Some(instance_id.as_bytes());
        let plain = Options::default();
        let router = Options { identity, mandatory: true, heartbeat: true, ..plain.clone() };
        // Without this a connecting socket keeps what is sent to a peer that is gone.
        let connecting = Options { immediate: true, ..router.clone() };
        let bounded = |hwm| Options { hwm, linger_ms: 0, ..plain.clone() };
        let (calls, requests) = (bounded(CALLS_HWM), bounded(REQUESTS_HWM));

        let inspect = make.bound(zmq::DEALER, &calls, &specs.handler_inspect).map_err(text)?;
        let accept = make.bound(zmq::DEALER, &calls, &specs.handler_accept).map_err(text)?;
        let retry = Options { identity, ..plain.clone() };
        let retry = make.bound(zmq::ROUTER, &retry, &specs.handler_retry_in).map_err(text)?;
        let stats = make.bound(zmq::XPUB, &bounded(200_000), &specs.stats).map_err(text)?;
        let command = make.bound(zmq::ROUTER, &plain, &specs.command).map_err(text)?;
        let int_requests = make.bound(zmq::PULL, &requests, &specs.intreq_in).map_err(text)?;
        let int_stream = make.bound(zmq::ROUTER, &router, &specs.intreq_in_stream).map_err(text)?;
        let int_publish = make.bound(zmq::PUB, &plain, &specs.intreq_out).map_err(text)?;
        let ws_init =
            make.bound(zmq::PUSH, &plain, &specs.handler_ws_control_init).map_err(text)?;
        let ws_stream =
            make.bound(zmq::ROUTER, &router, &specs.handler_ws_control_stream).map_err(text)?;
        let pull = make.connected(zmq::PULL, &requests, &specs.connmgr_in).map_err(text)?;
        let stream =
            make.connected(zmq::ROUTER, &connecting, &specs.connmgr_in_stream).map_err(text)?;
        let publish = make.connected(zmq::PUB, &plain, &specs.connmgr_out).map_err(text)?;

        let stream_monitor = Monitor::new(context, &stream).map_err(text)?;
        let accept_monitor = Monitor::new(context, &accept).map_err(text)?;
        let requests = make.watch(pull)?;
        let stream = make.watch(stream)?.socket;
        let inspect = make.watch(inspect)?;
        let accept = make.watch(accept)?;
        let retry = make.watch(retry)?;
        let stats = make.watch(stats)?;
        let command = make.watch(command)?;
        let int_requests = make.watch(int_requests)?;
        let int_stream = make.watch(int_stream)?.socket;
        let ws_stream = make.watch(ws_stream)?.socket;
        make.watch_monitor(&stream_monitor)?;
        make.watch_monitor(&accept_monitor)?;
        Ok(Self {
            requests,
            stream: PeerRouter::new(stream),
            stream_check: true,
            publish,
            inspect,
            accept,
            retry,
            stats,
            command,
            int_requests,
            int_stream: PeerRouter::new(int_stream),
            int_stream_check: true,
            int_publish,
            ws_init,
            ws_stream: PeerRouter::new(ws_stream),
            ws_stream_check: true,
            stream_monitor,
            accept_monitor,
            monitors_check: true,
        })
    }

    /// Notes that the loop reported a socket.
    pub fn event(&mut self, token: Token) {
        let check = match token.0.wrapping_sub(FIRST) {
            0 => &mut self.requests.check,
            1 => &mut self.stream_check,
            2 => &mut self.inspect.check,
            3 => &mut self.accept.check,
            4 => &mut self.retry.check,
            5 => &mut self.stats.check,
            6 => &mut self.command.check,
            7 => &mut self.int_requests.check,
            8 => &mut self.int_stream_check,
            9 => &mut self.ws_stream_check,
            10 | 11 => &mut self.monitors_check,
            _ => return,
        };
        *check = true;
    }

    /// How many links of connection managers and of handlers were lost since the last call.
    pub fn lost_links(&mut self) -> (usize, usize) {
        if !std::mem::take(&mut self.monitors_check) {
            return (0, 0);
        }
        (self.stream_monitor.disconnected(), self.accept_monitor.disconnected())
    }

    /// Whether any socket is to be looked at; those with requests only if these are wanted.
    pub fn any_check(&self, wants_requests: bool) -> bool {
        let requests = self.requests.check || self.int_requests.check;
        let watched = [&self.inspect, &self.accept, &self.retry, &self.stats, &self.command];
        (requests && wants_requests)
            || self.stream_check
            || self.int_stream_check
            || self.ws_stream_check
            || self.monitors_check
            || watched.iter().any(|w| w.check)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mio::{Events, Poll};

    use super::*;

    /// Addresses in a folder of their own.
    fn specs(dir: &std::path::Path) -> ProxySpecs {
        let spec = |name: &str| format!("ipc://{}/{name}", dir.display());
        ProxySpecs {
            connmgr_in: vec![spec("out")],
            connmgr_in_stream: vec![spec("out-stream")],
            connmgr_out: vec![spec("in")],
            handler_inspect: spec("inspect"),
            handler_accept: spec("accept"),
            handler_retry_in: spec("retry"),
            handler_ws_control_init: spec("ws-init"),
            handler_ws_control_stream: spec("ws-stream"),
            stats: spec("stats"),
            command: spec("command"),
            intreq_in: spec("intreq-in"),
            intreq_in_stream: spec("intreq-in-stream"),
            intreq_out: spec("intreq-out"),
        }
    }

    #[test]
    fn a_handler_that_leaves_is_noticed() {
        let dir = std::env::temp_dir().join(format!("proxy-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let specs = specs(&dir);
        let mut poll = Poll::new().unwrap();
        let context = zmq::Context::new();
        let mut sockets = Sockets::new(&context, poll.registry(), &specs, "px", None).unwrap();
        let handler = zmq::Context::new();
        let peer = Socket::new(&handler, zmq::ROUTER, &Options::default()).unwrap();
        peer.connect(&specs.handler_accept).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while sockets.accept.socket.send(&[b"", b"call"]) != evloop::zsock::Sent::Ok {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(peer);
        let mut events = Events::with_capacity(16);
        let mut lost = 0;
        while lost == 0 {
            assert!(Instant::now() < until, "nothing said that the peer left");
            let wait = if sockets.monitors_check { 0 } else { 100 };
            poll.poll(&mut events, Some(Duration::from_millis(wait))).unwrap();
            events.iter().for_each(|event| sockets.event(event.token()));
            lost += sockets.lost_links().1;
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
