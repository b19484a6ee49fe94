//! The client side on real sockets: one thread with ZeroMQ on one side and the backends on the
//! other (`spec/connmgr.md §10`, `spec/zhttp.md §8.2`).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use evloop::clock::Clock;
use evloop::monitor::Monitor;
use evloop::peers::{PeerRouter, Routed};
use evloop::zsock::{self, Sent, Socket};
use mio::{Events, Poll, Token, Waker};
use origin::{Client, Key, Limits};
use zhttp::route;

use super::EndsProcess;
use super::trace::Dump;
use crate::client::{ClientConfig, Order, Outgo, Outgoing};
use crate::options::Options;

const WAKE: Token = Token(0);

/// All ZeroMQ sockets: each turn asks all of them.
const ZMQ: Token = Token(1);

const FIRST_ORIGIN: usize = 16;

/// Messages per socket and turn, so that none holds up the others.
const BUDGET: usize = 100;

/// Messages that may wait in the sockets of first packets and of req mode (`spec/zhttp.md §8.5`).
const FIRST_HWM: i32 = 128;

/// Parts before a packet of req mode (`spec/zhttp.md §8.4`).
const ENVELOPE_MAX: usize = 8;

/// How soon packets for a peer whose queue is full are tried again.
const PARKED_MS: u64 = 20;

/// When to probe after a connection ended: at once, and again when ZeroMQ surely knows of it.
const PROBES_MS: [u64; 3] = [0, 200, 1_000];

/// How long the last packets hold up the end.
const LINGER_MS: i32 = 500;

/// The running thread.
pub(super) struct ClientSide {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

impl ClientSide {
    /// Makes the sockets and starts the thread; nothing if no address is given.
    pub(super) fn start(context: &zmq::Context, options: &Options) -> Result<Option<Self>, String> {
        if options.zserver_stream.is_empty() && options.zserver_req.is_empty() {
            return Ok(None);
        }
        let poll = Poll::new().map_err(super::loop_error)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(super::loop_error)?);
        let stop = Arc::new(AtomicBool::new(false));
        let sockets = Sockets::new(context, options, &poll)?;
        let registry = poll.registry().try_clone().map_err(super::loop_error)?;
        let client = Client::new(registry, FIRST_ORIGIN, waker.clone(), limits(options));
        let mut work = Loop {
            poll,
            stop: stop.clone(),
            clock: Clock::new(),
            engine: Outgoing::new(config(options)),
            client,
            sockets,
            probes: VecDeque::new(),
        };
        if options.deny_out_internal {
            log::debug!("default policy: block outgoing connections to internal addresses");
        }
        let thread = std::thread::Builder::new().name("client-worker 0".into()).spawn(move || {
            let _ended = EndsProcess;
            if let Err(error) = work.run() {
                log::error!("client-worker 0: {error}");
                logging::flush();
                std::process::exit(1);
            }
        });
        let thread = thread.map_err(|error| format!("failed to start a thread: {error}"))?;
        Ok(Some(Self { stop, waker, thread }))
    }

    /// Lets it end, and waits for it.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that has ended needs no waking.
        let _ = self.waker.wake();
        let _ = self.thread.join();
    }
}

fn config(options: &Options) -> ClientConfig {
    ClientConfig {
        instance: options.id.as_bytes().to_vec(),
        buffer_size: options.buffer_size as usize,
        body_buffer_size: options.body_buffer_size as usize,
        stream_max: options.stream_maxconn,
        req_max: options.req_maxconn,
        req_timeout_ms: options.req_timeout_ms.into(),
        deny_internal: options.deny_out_internal,
        compression: options.compression,
    }
}

fn limits(options: &Options) -> Limits {
    let idle_max = (options.req_maxconn + options.stream_maxconn) / 10;
    let idle_max = idle_max.max(1);
    Limits {
        idle_max,
        idle_per_endpoint_max: idle_max,
        response_ms: options.stream_timeout_ms.into(),
        ..Limits::default()
    }
}

/// The ZeroMQ sockets; those of a mode that is not used are not bound.
struct Sockets {
    pull: Socket,
    router: PeerRouter,
    publish: Socket,
    req: Socket,
    monitor: Monitor,
    frames: Vec<zmq::Message>,
}

impl Sockets {
    fn new(context: &zmq::Context, options: &Options, poll: &Poll) -> Result<Self, String> {
        let sockets = Self::unbound(context, options).map_err(|error| error.to_string())?;
        for base in &options.zserver_stream {
            // The requesters' PUSH ends here, their SUB begins here.
            let [publish, stream, pull] = stream_specs(base)?;
            for (socket, spec) in [
                (&sockets.pull, pull),
                (sockets.router.socket(), stream),
                (&sockets.publish, publish),
            ] {
                attach(socket, &spec, options, "stream")?;
            }
        }
        for spec in &options.zserver_req {
            attach(&sockets.req, spec, options, "req")?;
        }
        let register = || -> io::Result<()> {
            let registry = poll.registry();
            sockets.pull.register(registry, ZMQ)?;
            sockets.router.socket().register(registry, ZMQ)?;
            sockets.publish.register(registry, ZMQ)?;
            sockets.req.register(registry, ZMQ)?;
            sockets.monitor.register(registry, ZMQ)
        };
        register().map_err(super::loop_error)?;
        Ok(sockets)
    }

    fn unbound(context: &zmq::Context, options: &Options) -> Result<Self, zsock::Error> {
        let base = zsock::Options { linger_ms: LINGER_MS, heartbeat: true, ..Default::default() };
        let first = zsock::Options { hwm: FIRST_HWM, ..base.clone() };
        let identity = Some(options.id.as_bytes());
        let router = zsock::Options { identity, mandatory: true, ..base.clone() };
        let router = Socket::new(context, zmq::ROUTER, &router)?;
        Ok(Self {
            pull: Socket::new(context, zmq::PULL, &first)?,
            monitor: Monitor::new(context, &router)?,
            router: PeerRouter::new(router),
            publish: Socket::new(context, zmq::PUB, &base)?,
            req: Socket::new(context, zmq::ROUTER, &first)?,
            frames: Vec::new(),
        })
    }
}

/// The addresses of PUB, ROUTER and PULL for a spec base (`spec/zhttp.md §8.2`).
fn stream_specs(base: &str) -> Result<[String; 3], String> {
    let [one, two, three] = super::zmqside::stream_specs(base)?;
    if base.starts_with("tcp:") {
        return Ok([three, two, one]);
    }
    Ok([one, two.replace("-out-stream", "-in-stream"), three])
}

fn attach(socket: &Socket, spec: &str, options: &Options, mode: &str) -> Result<(), String> {
    let result = if options.zserver_connect {
        socket.connect(spec)
    } else {
        socket.bind(spec, options.ipc_file_mode)
    };
    let verb = if options.zserver_connect { "connect" } else { "bind" };
    log::debug!("zhttp server {verb} {spec}");
    result.map_err(|e| format!("failed to set zhttp server {mode} specs: {}", e.short()))
}

struct Loop {
    poll: Poll,
    stop: Arc<AtomicBool>,
    clock: Clock,
    engine: Outgoing,
    client: Client,
    sockets: Sockets,
    probes: VecDeque<u64>,
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.stop.load(Ordering::Relaxed) {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = self.clock.now_ms();
            let engine = &mut self.engine;
            for event in events.iter().filter(|event| event.token().0 >= FIRST_ORIGIN) {
                self.client.handle(now, event, &mut |key, e| engine.origin_event(now, key, e));
            }
            self.receive(now);
            self.left(now);
            self.engine.timeout(now);
            let engine = &mut self.engine;
            self.client.turn(now, &mut |key, event| engine.origin_event(now, key, event));
            self.outputs(now);
        }
        let now = self.clock.now_ms();
        self.engine.shutdown(now);
        self.outputs(now);
        log::debug!("client-worker 0: {:?}", self.engine.counters());
        Ok(())
    }

    /// How long nothing needs to be done.
    fn timeout(&self) -> Option<Duration> {
        let first = self.engine.wants_stream() && self.sockets.pull.ready().readable;
        let req = self.engine.wants_req() && self.sockets.req.ready().readable;
        if first || req || self.sockets.router.socket().ready().readable {
            return Some(Duration::ZERO);
        }
        let now = self.clock.now_ms();
        let parked = self.sockets.router.has_parked().then_some(now + PARKED_MS);
        let deadlines = [
            self.engine.next_deadline(),
            self.client.next_deadline(),
            parked,
            self.probes.front().copied(),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// Takes what came, each socket within its budget.
    fn receive(&mut self, now: u64) {
        let Sockets { pull, router, req, frames, .. } = &mut self.sockets;
        for _ in 0..BUDGET {
            if !self.engine.wants_stream() || !pull.recv(frames) {
                break;
            }
            // Further parts have no meaning (`spec/zhttp.md §8.4`).
            let packet = frames.first().map_or(&b""[..], |frame| frame);
            log::trace!("IN server stream {}", Dump(packet));
            self.engine.first(now, packet);
        }
        for _ in 0..BUDGET {
            if !router.socket().recv(frames) {
                break;
            }
            let parts: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
            match route::routed(&parts) {
                Ok((sender, packet)) => {
                    router.heard_of(sender);
                    log::trace!("IN server stream next {}", Dump(packet));
                    self.engine.packet(now, packet);
                }
                Err(reason) => log::warn!("{reason}"),
            }
        }
        for _ in 0..BUDGET {
            if !self.engine.wants_req() || !req.recv(frames) {
                break;
            }
            let parts: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
            match split_envelope(&parts) {
                Some((envelope, packet)) => {
                    log::trace!("IN server req {}", Dump(packet));
                    self.engine.request(now, envelope, packet);
                }
                None => log::warn!("unable to determine packet address"),
            }
        }
    }

    /// Notices requesters that left.
    fn left(&mut self, now: u64) {
        if self.sockets.monitor.disconnected() > 0 {
            self.probes = PROBES_MS.iter().map(|wait| now + wait).collect();
        }
        if self.probes.front().is_some_and(|due| *due <= now) {
            self.probes.pop_front();
            self.engine.probe(now);
        }
        if self.sockets.router.has_parked() {
            let gone = self.sockets.router.retry(now);
            gone.iter().for_each(|peer| self.engine.peer_gone(now, peer));
        }
    }

    /// Does what the engine wants.
    fn outputs(&mut self, now: u64) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Outgo::Packet { peer, router: true, message } => self.route(now, &peer, message),
                Outgo::Packet { peer, message, .. } => {
                    log::trace!("OUT server stream {}", Dump(&message));
                    if self.sockets.publish.send(&[&route::publish(&peer, &message)]) != Sent::Ok {
                        log::warn!("a packet could not be published");
                    }
                }
                Outgo::Reply { envelope, message } => {
                    log::trace!("OUT server req {}", Dump(&message));
                    let mut parts: Vec<&[u8]> = envelope.iter().map(Vec::as_slice).collect();
                    parts.push(&message);
                    if self.sockets.req.send(&parts) != Sent::Ok {
                        log::warn!("an answer of req mode could not be sent");
                    }
                }
                Outgo::Origin(key, order) => self.order(now, key, order),
            }
        }
    }

    fn route(&mut self, now: u64, peer: &[u8], message: Vec<u8>) {
        log::trace!("OUT server stream to={} {}", String::from_utf8_lossy(peer), Dump(&message));
        match self.sockets.router.send(now, peer, message) {
            Routed::Sent | Routed::Parked => {}
            Routed::Gone | Routed::Overflow => {
                log::debug!("server stream zmq send to host unreachable");
                self.engine.peer_gone(now, peer);
            }
        }
    }

    fn order(&mut self, now: u64, key: Key, order: Order) {
        let Self { engine, client, .. } = self;
        let sink = &mut |key, event: origin::Event<'_>| engine.origin_event(now, key, event);
        match order {
            Order::Start(endpoint, request, window) => {
                client.start_with_window(now, key, endpoint, request, window, sink);
            }
            Order::Open(endpoint, opening, window) => {
                client.open_websocket(now, key, endpoint, opening, window, sink);
            }
            Order::Body(data, last) => client.body(now, key, &data, last, sink),
            Order::Grant(bytes) => client.grant(now, key, bytes, sink),
            Order::Message(kind, data, last) => client.message(now, key, kind, &data, last, sink),
            Order::Ping(data) => client.ping(now, key, &data, sink),
            Order::Pong(data) => client.pong(now, key, &data, sink),
            Order::Close(code, reason) => client.close_websocket(now, key, code, &reason, sink),
            Order::Cancel => client.cancel(key),
        }
    }
}

/// The parts up to the first empty one, and the packet behind them.
fn split_envelope<'f>(parts: &[&'f [u8]]) -> Option<(Vec<Vec<u8>>, &'f [u8])> {
    let end = parts.iter().take(ENVELOPE_MAX).position(|part| part.is_empty())?;
    let packet = parts.get(end + 1)?;
    Some((parts[..=end].iter().map(|part| part.to_vec()).collect(), packet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_those_of_the_other_end() {
        let ipc = stream_specs("ipc://run/x-client").unwrap();
        assert_eq!(
            ipc,
            ["ipc://run/x-client-out", "ipc://run/x-client-in-stream", "ipc://run/x-client-in"]
        );
        let tcp = stream_specs("tcp://127.0.0.1:5000").unwrap();
        assert_eq!(tcp, ["tcp://127.0.0.1:5002", "tcp://127.0.0.1:5001", "tcp://127.0.0.1:5000"]);
    }

    #[test]
    fn envelopes() {
        let whole: [&[u8]; 4] = [b"a", b"b", b"", b"T"];
        let (envelope, packet) = split_envelope(&whole).unwrap();
        assert_eq!((envelope.len(), packet), (3, &b"T"[..]));
        assert_eq!(split_envelope(&[b"a", b"b"]), None);
        assert_eq!(split_envelope(&[b"a", b""]), None);
        assert_eq!(split_envelope(&[&b"a"[..]; 20]), None);
    }
}
