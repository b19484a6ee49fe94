//! The loop of one worker: sockets and backends on one side, the engine on the other.

mod handed;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use config::specs::{ClientSpecs, ProxySpecs};
use evloop::clock::Clock;
use evloop::peers::Routed;
use evloop::zsock::Sent;
use mio::{Events, Poll, Token, Waker};
use origin::{Client, Limits};

use super::Order;
use super::calls::{Calls, FirstWords};
use super::drain::{drain, drain_commands, drain_router};
use super::neighbours::{Handed, Neighbours};
use super::scrape::Board;
use super::sockets::{COUNT, FIRST, Sockets};
use super::targets::{self, Ask, Targets};
use super::topics::{listeners, note_topic};
use crate::{Output, Proxy, Routes, Settings};

/// How long packets for a peer whose queue is full wait before the next try.
const PARKED_MS: u64 = 20;

/// How long the handler may take to answer calls after one of its links was lost.
const HANDLER_GONE_MS: u64 = 1_000;

/// When peers are probed after a link was lost: the kernel, ZeroMQ and this loop learn of an end
/// in any order.
const PROBES_MS: [u64; 3] = [5, 100, 800];

const WAKE: Token = Token(0);
const FIRST_TARGET: usize = FIRST + COUNT;
const FIRST_ORIGIN: usize = FIRST_TARGET + targets::COUNT;

/// What a worker needs to start.
pub(crate) struct Plan {
    pub context: zmq::Context,
    pub clock: Clock,
    pub specs: ProxySpecs,
    /// Who makes requests to hosts, if it is not the worker itself.
    pub outside: Option<ClientSpecs>,
    pub ipc_file_mode: Option<u32>,
    pub settings: Settings,
    pub routes: Arc<Routes>,
    pub main: Arc<Waker>,
    pub number: usize,
    pub neighbours: Arc<Neighbours>,
    /// What other workers give.
    pub handed: Receiver<Handed>,
    pub board: Option<Board>,
}

/// One worker.
pub(crate) struct Loop {
    poll: Poll,
    waker: Arc<Waker>,
    main: Arc<Waker>,
    clock: Clock,
    orders: Receiver<Order>,
    number: usize,
    neighbours: Arc<Neighbours>,
    handed: Receiver<Handed>,
    handed_check: bool,
    /// Requests of other workers that wait until one may be taken.
    requests: VecDeque<Vec<u8>>,
    engine: Proxy,
    client: Client,
    sockets: Sockets,
    /// The first worker's.
    targets: Option<Targets>,
    accepts: Calls,
    inspects: Calls,
    first_words: FirstWords,
    topics: Vec<Vec<u8>>,
    frames: Vec<zmq::Message>,
    stats_lost: u64,
    probes: VecDeque<u64>,
    handler_probes: VecDeque<u64>,
    board: Option<Board>,
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The main thread looks whether this end was wanted.
        if let Err(cause) = self.main.wake() {
            log::debug!("waking the main thread: {cause}");
        }
    }
}

impl Loop {
    /// Makes the sockets.
    ///
    /// # Errors
    /// A text for the log: which address, and why.
    pub fn new(plan: Plan, orders: Receiver<Order>) -> Result<Self, String> {
        let text = |cause: io::Error| format!("unable to set up the event loop: {cause}");
        let poll = Poll::new().map_err(text)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(text)?);
        plan.neighbours.arrived(plan.number, Arc::clone(&waker));
        let id = plan.settings.instance_id.clone();
        let sockets =
            Sockets::new(&plan.context, poll.registry(), &plan.specs, &id, plan.ipc_file_mode)?;
        let registry = poll.registry().try_clone().map_err(text)?;
        let client = Client::new(registry, FIRST_ORIGIN, Arc::clone(&waker), Limits::default());
        let target_id = plan.settings.target_id.clone();
        let engine = Proxy::new(plan.settings, Arc::clone(&plan.routes));
        let registry = poll.registry().try_clone().map_err(text)?;
        let mut targets = (plan.number == 0)
            .then(|| Targets::new(plan.context, registry, &target_id, FIRST_TARGET));
        if let Some(targets) = &mut targets {
            if let Some(specs) = &plan.outside {
                targets.connect_outside(specs)?;
            }
            targets.update(plan.clock.now_ms(), &plan.routes);
        }
        Ok(Self {
            poll,
            waker,
            main: plan.main,
            clock: plan.clock,
            orders,
            number: plan.number,
            requests: VecDeque::new(),
            neighbours: plan.neighbours,
            handed: plan.handed,
            handed_check: true,
            engine,
            targets,
            client,
            sockets,
            accepts: Calls::default(),
            inspects: Calls::default(),
            first_words: FirstWords::default(),
            topics: Vec::new(),
            frames: Vec::new(),
            stats_lost: 0,
            probes: VecDeque::new(),
            handler_probes: VecDeque::new(),
            board: plan.board,
        })
    }

    /// Wakes this loop.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) {
        let mut events = Events::with_capacity(1_024);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(cause) if cause.kind() != io::ErrorKind::Interrupted => {
                    return log::error!("event loop failed: {cause}");
                }
                _ => {}
            }
            let _turn = logging::turn();
            let now = self.clock.now_ms();
            if self.take_events(now, &events) {
                return self.tell_losses();
            }
            self.monitors(now);
            self.drain(now);
            self.retry_calls(now);
            self.engine.timeout(now);
            let engine = &mut self.engine;
            self.client.turn(now, &mut |key, event| engine.origin_event(now, key, event));
            self.outputs(now);
            self.show_figures(now);
        }
    }

    /// Writes what the metrics listener shows.
    fn show_figures(&mut self, now: u64) {
        let Self { board: Some(board), engine, client, sockets, stats_lost, .. } = self else {
            return;
        };
        board.turn(now, || {
            let mut figures = engine.figures();
            figures.backends = client.counts();
            for router in [&sockets.stream, &sockets.int_stream, &sockets.ws_stream] {
                figures.undelivered.add(router.drops());
            }
            figures.stats_lost = *stats_lost;
            figures
        });
    }

    /// Says at the end what was lost on the way, by cause.
    fn tell_losses(&self) {
        let (packets, stream) = (self.engine.drops(), self.sockets.stream.drops());
        log::debug!("packets not used: {packets:?}; not delivered: {stream:?}");
        log::debug!("stats packets lost: {}", self.stats_lost);
    }

    /// How long nothing needs to be done.
    fn timeout(&mut self) -> Option<Duration> {
        let requests = !self.requests.is_empty() && self.engine.wants_requests();
        let handed = self.handed_check || requests;
        if handed
            || self.sockets.any_check(self.engine.wants_requests())
            || self.targets.as_ref().is_some_and(Targets::any_check)
        {
            return Some(Duration::ZERO);
        }
        let now = self.clock.now_ms();
        let parked = self.sockets.stream.has_parked()
            || self.sockets.int_stream.has_parked()
            || self.sockets.ws_stream.has_parked()
            || self.first_words.is_waiting()
            || self.targets.as_ref().is_some_and(Targets::is_waiting)
            || self.accepts.is_waiting()
            || self.inspects.is_waiting();
        let next = [
            self.engine.next_deadline(),
            self.client.next_deadline(),
            parked.then_some(now + PARKED_MS),
            self.probes.front().copied(),
            self.handler_probes.front().copied(),
            self.board.as_ref().map(Board::due),
        ];
        let next = next.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// True if it is time to stop.
    fn take_events(&mut self, now: u64, events: &Events) -> bool {
        for event in events {
            match event.token() {
                WAKE => {
                    self.handed_check = true;
                    while let Ok(order) = self.orders.try_recv() {
                        match order {
                            Order::Routes(routes) => {
                                if let Some(targets) = &mut self.targets {
                                    targets.update(now, &routes);
                                }
                                self.engine.set_routes(routes);
                            }
                            Order::Settings(settings) => {
                                self.engine.set_settings(now, *settings);
                            }
                            Order::Stop => return true,
                        }
                    }
                }
                token if token.0 >= FIRST_ORIGIN => {
                    let engine = &mut self.engine;
                    self.client
                        .handle(now, event, &mut |key, event| engine.origin_event(now, key, event));
                }
                token if token.0 >= FIRST_TARGET => {
                    if let Some(targets) = &mut self.targets {
                        targets.event(token);
                    }
                }
                token => self.sockets.event(token),
            }
        }
        false
    }

    /// Peers that left.
    fn monitors(&mut self, now: u64) {
        let (clients, handlers) = self.sockets.lost_links();
        if clients > 0 {
            self.probes = PROBES_MS.iter().map(|wait| now + wait).collect();
        }
        if self.probes.front().is_some_and(|due| *due <= now) {
            self.probes.pop_front();
            self.engine.probe_peers(now);
        }
        if handlers > 0 {
            self.engine.handler_gone(now, HANDLER_GONE_MS);
            self.handler_probes = PROBES_MS.iter().map(|wait| now + wait).collect();
        }
        if self.handler_probes.front().is_some_and(|due| *due <= now) {
            self.handler_probes.pop_front();
            self.engine.probe_handlers(now);
        }
    }

    /// Takes what came, each socket within its budget.
    fn drain(&mut self, now: u64) {
        self.take_handed(now);
        self.take_targets(now);
        let Self { engine, sockets, frames, topics, .. } = self;
        if sockets.requests.check && engine.wants_requests() {
            drain(&mut sockets.requests, frames, |frames| match frames {
                [packet] => engine.request(now, packet),
                _ => log::warn!("request message with parts != 1, skipping"),
            });
        }
        drain_router(&mut sockets.stream, &mut sockets.stream_check, frames, |packet| {
            engine.client_packet(now, packet);
        });
        drain(&mut sockets.accept, frames, |frames| match frames {
            [empty, payload] if empty.is_empty() => engine.accept_reply(now, payload),
            _ => log::warn!("zrpc client: received message with parts != 2, skipping"),
        });
        drain(&mut sockets.inspect, frames, |frames| match frames {
            [empty, payload] if empty.is_empty() => engine.inspect_reply(now, payload),
            _ => log::warn!("zrpc client: received message with parts != 2, skipping"),
        });
        drain(&mut sockets.retry, frames, |frames| match frames {
            [_, empty, payload] if empty.is_empty() => engine.retry(now, payload),
            _ => log::warn!("retry: received message with parts != 1, skipping"),
        });
        if sockets.int_requests.check && engine.wants_requests() {
            drain(&mut sockets.int_requests, frames, |frames| match frames {
                [packet] => engine.internal_request(now, packet),
                _ => log::warn!("request message with parts != 1, skipping"),
            });
        }
        drain_router(&mut sockets.int_stream, &mut sockets.int_stream_check, frames, |packet| {
            engine.internal_packet(now, packet);
        });
        drain_router(&mut sockets.ws_stream, &mut sockets.ws_stream_check, frames, |packet| {
            engine.control_packet(now, packet);
        });
        let mut listeners_changed = false;
        drain(&mut sockets.stats, frames, |frames| {
            listeners_changed |= frames.first().is_some_and(|frame| note_topic(topics, frame));
        });
        if listeners_changed {
            let (conn, conn_max) = listeners(topics);
            engine.stats_listeners(conn, conn_max);
        }
        drain_commands(now, &mut sockets.command, frames, engine);
        if sockets.ws_stream.has_parked() {
            sockets.ws_stream_check = true;
            let gone = sockets.ws_stream.retry(now);
            gone.iter().for_each(|handler| engine.control_gone(now, handler));
        }
        let streams = [
            (&mut sockets.stream, &mut sockets.stream_check, false),
            (&mut sockets.int_stream, &mut sockets.int_stream_check, true),
        ];
        for (router, check, internal) in streams {
            if router.has_parked() {
                *check = true;
                let gone = router.retry(now);
                gone.iter().for_each(|peer| engine.peer_gone(now, peer, internal));
            }
        }
    }

    /// Calls that wait for the handler.
    fn retry_calls(&mut self, now: u64) {
        self.first_words.retry(&self.sockets.ws_init);
        if let Some(targets) = self.targets.as_mut().filter(|targets| targets.is_waiting()) {
            targets.retry(now);
        }
        if self.accepts.is_waiting() {
            let late = self.accepts.retry(now, &mut self.sockets.accept);
            late.into_iter().for_each(|key| self.engine.accept_failed(now, key));
        }
        if self.inspects.is_waiting() {
            let late = self.inspects.retry(now, &mut self.sockets.inspect);
            late.into_iter().for_each(|key| self.engine.inspect_failed(now, key));
        }
    }

    /// Does what the engine wants.
    fn outputs(&mut self, now: u64) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Client { peer, internal, router, message } => {
                    self.send_to_client(now, &peer, internal, router, message);
                }
                Output::Elsewhere { worker, message } => {
                    let given = self.neighbours.give(worker, Handed::Request(message));
                    if let Err(Handed::Request(message)) = given {
                        self.engine.not_handed(now, &message);
                    }
                }
                Output::Accept { key, payload } => {
                    self.accepts.send(now, &mut self.sockets.accept, key, payload);
                }
                Output::Inspect { key, payload } => {
                    self.inspects.send(now, &mut self.sockets.inspect, key, payload);
                }
                Output::Control { handler: Some(handler), payload } => {
                    self.send_control(now, &handler, payload);
                }
                Output::Control { handler: None, payload } => {
                    self.first_words.push(&self.sockets.ws_init, payload);
                }
                Output::Worker { spec, req, key, to, message } => {
                    let asker = (self.number, key);
                    self.ask_target(now, Ask { asker, spec, req, to, message });
                }
                Output::Stats(packet) => {
                    self.sockets.stats.check = true;
                    self.stats_lost +=
                        u64::from(self.sockets.stats.socket.send(&[&packet]) != Sent::Ok);
                }
                output => self.ask_backend(now, output),
            }
        }
    }

    /// What is for backends.
    fn ask_backend(&mut self, now: u64, output: Output) {
        let Self { engine, client, .. } = self;
        let sink = &mut |key, event: origin::Event<'_>| engine.origin_event(now, key, event);
        match output {
            Output::Start { key, endpoint, request } => {
                client.start(now, key, endpoint, request, sink);
            }
            Output::Body { key, data, last } => client.body(now, key, &data, last, sink),
            Output::Pause(key) => client.pause(key),
            Output::Resume(key) => client.resume(now, key, sink),
            Output::Cancel(key) => client.cancel(key),
            Output::OpenWebSocket { key, endpoint, opening, window } => {
                client.open_websocket(now, key, endpoint, opening, window, sink);
            }
            Output::Message { key, kind, data, last } => {
                client.message(now, key, kind, &data, last, sink);
            }
            Output::Ping { key, data } => client.ping(now, key, &data, sink),
            Output::Pong { key, data } => client.pong(now, key, &data, sink),
            Output::Close { key, code, reason } => {
                client.close_websocket(now, key, code, &reason, sink);
            }
            Output::Grant { key, bytes } => client.grant(now, key, bytes, sink),
            Output::Client { .. }
            | Output::Elsewhere { .. }
            | Output::Accept { .. }
            | Output::Inspect { .. }
            | Output::Control { .. }
            | Output::Worker { .. }
            | Output::Stats(_) => debug_assert!(false, "is for others"),
        }
    }

    /// Something about WebSockets for a handler that is known.
    fn send_control(&mut self, now: u64, handler: &[u8], payload: Vec<u8>) {
        self.sockets.ws_stream_check = true;
        match self.sockets.ws_stream.send(now, handler, payload) {
            Routed::Sent | Routed::Parked => {}
            Routed::Overflow | Routed::Gone => self.engine.control_gone(now, handler),
        }
    }

    fn send_to_client(
        &mut self,
        now: u64,
        peer: &[u8],
        internal: bool,
        router: bool,
        message: Vec<u8>,
    ) {
        let sockets = &mut self.sockets;
        if !router {
            let socket = if internal { &sockets.int_publish } else { &sockets.publish };
            if socket.send(&[&zhttp::route::publish(peer, &message)]) != Sent::Ok {
                log::warn!("a packet could not be published");
            }
            return;
        }
        let (socket, check) = if internal {
            (&mut sockets.int_stream, &mut sockets.int_stream_check)
        } else {
            (&mut sockets.stream, &mut sockets.stream_check)
        };
        *check = true;
        match socket.send(now, peer, message) {
            Routed::Sent | Routed::Parked => {}
            Routed::Overflow | Routed::Gone => {
                log::debug!("zmq send to host unreachable");
                self.engine.peer_gone(now, peer, internal);
            }
        }
    }
}
