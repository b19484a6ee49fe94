//! The sockets of a shard: connection managers, and the calls of the proxies.

use std::sync::Arc;

use config::specs::HandlerSpecs;
use evloop::monitor::Monitor;
use evloop::peers::{PeerRouter, Routed};
use evloop::zsock::{self, Error, Options, Sent, Socket};
use mio::{Registry, Token};

use super::SHARD_SOCKETS;
use super::pubside::PubSide;
use super::trace::Dump;
use crate::message::{Envelope, Output};

/// Messages taken from one socket in a turn.
pub(super) const BUDGET: usize = 100;

/// When, after a connection to a connection manager broke, it is looked who is gone: at once
/// and again, because ZeroMQ takes the broken pipe down a little later. Milliseconds.
const PROBES_MS: [u64; 3] = [0, 100, 1_000];

/// What came in for a shard.
#[derive(Debug)]
pub(super) enum ShardInput {
    /// A call of a proxy.
    Call(Envelope, zmq::Message),
    /// A message of a connection manager.
    Client(zmq::Message),
    /// A message whose parts are not those of a packet; why.
    BadEnvelope(&'static str),
    /// A WebSocket control packet of a proxy.
    Control(zmq::Message),
    /// A proxy that held WebSockets is gone.
    ProxyGone(Vec<u8>),
    /// A connection to some proxy broke: see who is gone.
    ProbeProxies,
    /// A packet of a proxy that answers a request of ours.
    Internal(zmq::Message),
    /// No proxy takes the request that this packet begins.
    InternalRefused(Vec<u8>),
    /// A connection manager is gone.
    PeerGone(Vec<u8>),
    /// A connection to some connection manager broke: see who is gone.
    Probe,
}

/// A message that came by a ROUTER and is not sender, nothing, packet.
const BAD_ENVELOPE: ShardInput = ShardInput::BadEnvelope("unable to determine packet address");

/// A peer that is gone.
pub(super) enum Gone {
    ConnectionManager(Arc<[u8]>),
    Proxy(Arc<[u8]>),
}

/// Whether it is time to look who is gone.
fn due(now: u64, monitor: &mut Monitor, probes: &mut Vec<u64>) -> bool {
    if monitor.disconnected() > 0 {
        probes.extend(PROBES_MS.map(|after| now + after));
    }
    let due = probes.iter().any(|at| *at <= now);
    probes.retain(|at| *at > now);
    due
}

/// The sockets.
pub(super) struct ShardIo {
    stream: PeerRouter,
    monitor: Monitor,
    probes: Vec<u64>,
    publisher: PubSide,
    accept: PeerRouter,
    inspect: PeerRouter,
    retry: PeerRouter,
    requests: Socket,
    request_stream: PeerRouter,
    responses: Socket,
    control_init: Socket,
    control: PeerRouter,
    control_monitor: Monitor,
    control_probes: Vec<u64>,
    id: String,
    /// Requests that no proxy took.
    refused: Vec<Vec<u8>>,
    /// Answers of accept and inspect calls go back to where the call came from.
    frames: Vec<zmq::Message>,
}

/// Which of the call sockets; the last frame of an envelope here says so.
const ACCEPT: &[u8] = b"a";
const INSPECT: &[u8] = b"i";

/// Of the sockets that reach a process by its name.
fn router_options(id: &str) -> Options<'_> {
    Options {
        identity: Some(id.as_bytes()),
        hwm: 101_000,
        linger_ms: 500,
        mandatory: true,
        // A peer that left is gone at once, not a queue that fills.
        immediate: true,
        heartbeat: true,
        ..Options::default()
    }
}

impl ShardIo {
    /// Makes and connects the sockets of a shard with that instance id.
    pub(super) fn new(
        context: &zmq::Context,
        specs: &HandlerSpecs,
        id: &str,
    ) -> Result<Self, Error> {
        let router = || Socket::new(context, zmq::ROUTER, &router_options(id));
        let stream = router()?;
        let monitor = Monitor::new(context, &stream)?;
        // Mandatory, and what does not fit is parked: a plain ROUTER drops answers at its mark
        // without an error, and the client of a lost answer is ended by two owners.
        let calls = Options { hwm: 1_000, mandatory: true, ..Options::default() };
        let accept = Socket::new(context, zmq::ROUTER, &calls)?;
        let inspect = Socket::new(context, zmq::ROUTER, &calls)?;
        // Room for the requests of many backends at once: one that does not fit counts as failed.
        let push = Options { hwm: 10_000, linger_ms: 0, immediate: true, ..Options::default() };
        let topic = format!("{id} ");
        let wide = Options { hwm: 101_000, linger_ms: 0, ..Options::default() };
        let answers = Options { subscribe: Some(topic.as_bytes()), ..wide };
        let control = router()?;
        let control_monitor = Monitor::new(context, &control)?;
        let io = Self {
            stream: PeerRouter::new(stream),
            monitor,
            probes: Vec::new(),
            publisher: PubSide::new(context, &specs.connmgr_out)?,
            accept: PeerRouter::new(accept),
            inspect: PeerRouter::new(inspect),
            retry: PeerRouter::new(router()?),
            requests: Socket::new(context, zmq::PUSH, &push)?,
            request_stream: PeerRouter::new(router()?),
            responses: Socket::new(context, zmq::SUB, &answers)?,
            control_init: Socket::new(context, zmq::PULL, &wide)?,
            control: PeerRouter::new(control),
            control_monitor,
            control_probes: Vec::new(),
            id: id.to_owned(),
            refused: Vec::new(),
            frames: Vec::new(),
        };
        io.connect(specs)?;
        Ok(io)
    }

    fn connect(&self, specs: &HandlerSpecs) -> Result<(), Error> {
        for (name, socket, specs) in [
            ("zhttp in stream", self.stream.socket(), &specs.connmgr_in_stream),
            ("inspect server", self.inspect.socket(), &specs.proxy_inspect),
            ("accept server", self.accept.socket(), &specs.proxy_accept),
            ("retry", self.retry.socket(), &specs.proxy_retry_out),
            ("ws control init", &self.control_init, &specs.proxy_ws_control_init),
            ("ws control stream", self.control.socket(), &specs.proxy_ws_control_stream),
            ("zhttp request out", &self.requests, &specs.proxy_intreq_out),
            (
                "zhttp request out stream",
                self.request_stream.socket(),
                &specs.proxy_intreq_out_stream,
            ),
            ("zhttp request in", &self.responses, &specs.proxy_intreq_in),
        ] {
            for spec in specs {
                socket.connect(spec)?;
            }
            log::debug!("{name}: {}", specs.join(", "));
        }
        log::debug!("zhttp out: {}", specs.connmgr_out.join(", "));
        Ok(())
    }

    /// All sockets, in the order of their tokens.
    fn sockets(&self) -> [&Socket; 12] {
        [
            self.monitor.socket(),
            self.control_monitor.socket(),
            self.stream.socket(),
            self.publisher.socket(),
            self.accept.socket(),
            self.inspect.socket(),
            self.retry.socket(),
            &self.requests,
            self.request_stream.socket(),
            &self.responses,
            &self.control_init,
            self.control.socket(),
        ]
    }

    pub(super) fn register(&self, registry: &Registry) -> std::io::Result<()> {
        zsock::register_all(&self.sockets(), registry, SHARD_SOCKETS)
    }

    /// The loop has reported an event of this token.
    pub(super) fn edge(&self, token: Token) {
        zsock::edge_of(&self.sockets(), token, SHARD_SOCKETS);
    }

    /// When [`ShardIo::receive`] is to be called though nothing came in.
    pub(super) fn next_deadline(&self, now: u64) -> Option<u64> {
        let routers = [
            &self.stream,
            &self.retry,
            &self.accept,
            &self.inspect,
            &self.request_stream,
            &self.control,
        ];
        let parked = routers.iter().any(|r| r.has_parked()) || self.publisher.waits();
        let soon = parked.then_some(now + 20);
        self.probes.iter().chain(&self.control_probes).copied().chain(soon).min()
    }

    /// Takes in what waits, within the budget; gives whether anything came.
    pub(super) fn receive(&mut self, now: u64, inputs: &mut Vec<ShardInput>) -> bool {
        let before = inputs.len();
        self.receive_stream(inputs);
        self.receive_calls(inputs);
        self.receive_internal(inputs);
        self.receive_control(inputs);
        while self.retry.socket().recv(&mut self.frames) {}
        inputs.extend(self.publisher.turn(now).into_iter().map(ShardInput::PeerGone));
        if self.stream.has_parked() {
            inputs.extend(self.stream.retry(now).into_iter().map(ShardInput::PeerGone));
        }
        let routers =
            [&mut self.retry, &mut self.accept, &mut self.inspect, &mut self.request_stream];
        for router in routers {
            if router.has_parked() {
                router.retry(now);
            }
        }
        if self.control.has_parked() {
            inputs.extend(self.control.retry(now).into_iter().map(ShardInput::ProxyGone));
        }
        if due(now, &mut self.monitor, &mut self.probes) {
            inputs.push(ShardInput::Probe);
        }
        if due(now, &mut self.control_monitor, &mut self.control_probes) {
            inputs.push(ShardInput::ProbeProxies);
        }
        inputs.len() > before
    }

    fn receive_control(&mut self, inputs: &mut Vec<ShardInput>) {
        for _ in 0..BUDGET {
            if !self.control_init.recv(&mut self.frames) {
                break;
            }
            match self.frames.as_slice() {
                [_] => inputs.extend(self.frames.pop().map(ShardInput::Control)),
                _ => log::warn!("IN ws control init: received message with parts != 1, skipping"),
            }
        }
        for _ in 0..BUDGET {
            if !self.control.socket().recv(&mut self.frames) {
                break;
            }
            match self.frames.as_slice() {
                [proxy, empty, _] if empty.is_empty() => {
                    self.control.heard_of(proxy);
                    inputs.extend(self.frames.pop().map(ShardInput::Control));
                }
                _ => inputs.push(ShardInput::BadEnvelope(
                    "IN ws control: received message with parts != 3, skipping",
                )),
            }
        }
    }

    fn receive_stream(&mut self, inputs: &mut Vec<ShardInput>) {
        for _ in 0..BUDGET {
            if !self.stream.socket().recv(&mut self.frames) {
                return;
            }
            let (peer, packet) = match self.frames.as_slice() {
                [peer, empty, packet] if empty.is_empty() => (peer, packet),
                _ => {
                    inputs.push(BAD_ENVELOPE);
                    continue;
                }
            };
            if log::log_enabled!(log::Level::Trace) {
                zhttp::split(packet).for_each(|p| log::trace!("IN stream {}", Dump(p)));
            }
            self.stream.heard_of(peer);
            inputs.extend(self.frames.pop().map(ShardInput::Client));
        }
    }

    fn receive_internal(&mut self, inputs: &mut Vec<ShardInput>) {
        for _ in 0..BUDGET {
            if !self.request_stream.socket().recv(&mut self.frames) {
                break;
            }
            match self.frames.as_slice() {
                [peer, empty, _] if empty.is_empty() => {
                    self.request_stream.heard_of(peer);
                    inputs.extend(self.frames.pop().map(ShardInput::Internal));
                }
                _ => inputs.push(BAD_ENVELOPE),
            }
        }
        for _ in 0..BUDGET {
            if !self.responses.recv(&mut self.frames) {
                break;
            }
            let packet = self.frames.first();
            match packet.map(|message| zhttp::route::published(self.id.as_bytes(), message)) {
                Some(Ok(packet)) => inputs.push(ShardInput::Internal(packet.into())),
                _ => inputs.push(ShardInput::BadEnvelope("packet not for us")),
            }
        }
        inputs.extend(self.refused.drain(..).map(ShardInput::InternalRefused));
    }

    fn send_internal(&mut self, now: u64, proxy: Option<Arc<[u8]>>, packet: Vec<u8>) {
        match proxy {
            Some(proxy) => drop(self.request_stream.send(now, &proxy, packet)),
            None => {
                if self.requests.send(&[&packet]) != Sent::Ok {
                    self.refused.push(packet);
                }
            }
        }
    }

    fn receive_calls(&mut self, inputs: &mut Vec<ShardInput>) {
        for (router, mark) in [(&self.accept, ACCEPT), (&self.inspect, INSPECT)] {
            for _ in 0..BUDGET {
                if !router.socket().recv(&mut self.frames) {
                    break;
                }
                let Some(payload) = self.frames.pop() else { continue };
                if self.frames.last().is_none_or(|frame| !frame.is_empty()) {
                    log::warn!("zrpc server: received message with parts != 1, skipping");
                    continue;
                }
                let mut envelope: Envelope = self.frames.iter().map(|f| f.to_vec()).collect();
                envelope.push(mark.to_vec());
                inputs.push(ShardInput::Call(envelope, payload));
            }
        }
    }

    /// Does what the engine asks for; gives a peer that turned out to be gone.
    pub(super) fn send(&mut self, now: u64, output: Output) -> Option<Gone> {
        match output {
            Output::ToClient { peer, router, message, .. } => {
                let gone = self.send_to_client(now, peer, router, message);
                return gone.map(Gone::ConnectionManager);
            }
            Output::Reply { envelope, payload, .. } => self.reply(now, &envelope, payload),
            Output::Internal { proxy, packet, .. } => self.send_internal(now, proxy, packet),
            Output::Retry { proxy, packet, .. } => self.send_retry(now, &proxy, packet),
            Output::ToProxy { proxy, packet, .. } => {
                // A proxy that takes nothing more has lost what its clients were to get.
                let sent = self.control.send(now, &proxy, packet);
                if matches!(sent, Routed::Gone | Routed::Overflow) {
                    return Some(Gone::Proxy(proxy));
                }
            }
            _ => {}
        }
        None
    }

    fn send_retry(&mut self, now: u64, proxy: &[u8], packet: Vec<u8>) {
        if self.retry.send(now, proxy, packet) == Routed::Gone {
            let proxy = String::from_utf8_lossy(proxy);
            log::error!("a retry is lost: proxy {proxy} is gone");
        }
    }

    fn send_to_client(
        &mut self,
        now: u64,
        peer: Arc<[u8]>,
        router: bool,
        message: Vec<u8>,
    ) -> Option<Arc<[u8]>> {
        if log::log_enabled!(log::Level::Trace) {
            let to = String::from_utf8_lossy(&peer);
            zhttp::split(&message).for_each(|p| log::trace!("OUT stream to={to} {}", Dump(p)));
        }
        if !router {
            self.publisher.send(now, &peer, &message);
            return None;
        }
        match self.stream.send(now, &peer, message) {
            Routed::Sent | Routed::Parked => None,
            // What is lost has used up sequence numbers: the sessions cannot go on.
            Routed::Overflow | Routed::Gone => Some(peer),
        }
    }

    fn reply(&mut self, now: u64, envelope: &Envelope, payload: Vec<u8>) {
        let (Some(peer), Some(mark)) = (envelope.first(), envelope.last()) else { return };
        let router = if mark == ACCEPT { &mut self.accept } else { &mut self.inspect };
        if matches!(router.send(now, peer, payload), Routed::Gone | Routed::Overflow) {
            log::warn!("an answer to a proxy is lost: the proxy is gone or takes no more");
        }
    }
}
