//! The loop of one worker of the client side: its engine, its connections to backends, and one
//! end of the exchange with the requesters.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evloop::clock::Clock;
use mio::{Events, Poll, Token, Waker};
use origin::{Client, Key, Limits};

use super::reports::Reports;
use super::sockets::{Arrival, Room, Sockets};
use crate::client::{ClientConfig, Message, Order, Outgo, Outgoing};

/// What wakes a worker.
pub(super) const WAKE: Token = Token(0);

const FIRST_ORIGIN: usize = 16;

/// Packets go out and come in through it.
pub(super) trait Exchange {
    /// Gives the engine what came.
    fn receive(&mut self, now: u64, engine: &mut Outgoing);
    /// Sends. Gives a requester that turned out to be gone.
    fn send(&mut self, now: u64, message: Message) -> Option<Arc<[u8]>>;
    /// The engine wants nothing more for now.
    fn end_turn(&mut self, engine: &Outgoing);
    /// When it wants a turn without an event.
    fn next_deadline(&self, now: u64) -> Option<u64>;
    /// Whether a turn would find something at once.
    fn is_ready(&self, engine: &Outgoing) -> bool;
    /// Whether the worker is to end.
    fn stops(&self) -> bool;
    /// Sees to it that what was sent last leaves.
    fn finish(&mut self) {}
}

/// One worker.
pub(super) struct WorkLoop<E> {
    poll: Poll,
    clock: Clock,
    engine: Outgoing,
    client: Client,
    exchange: E,
    number: u16,
    reports: Arc<Reports>,
}

impl<E: Exchange> WorkLoop<E> {
    /// `poll` has `waker` and the exchange's sources already.
    pub(super) fn new(
        poll: Poll,
        waker: Arc<Waker>,
        config: ClientConfig,
        limits: Limits,
        exchange: E,
        reports: Arc<Reports>,
    ) -> io::Result<Self> {
        let client = Client::new(poll.registry().try_clone()?, FIRST_ORIGIN, waker, limits);
        let number = config.worker.0;
        let engine = Outgoing::new(config);
        Ok(Self { poll, clock: Clock::new(), engine, client, exchange, number, reports })
    }

    /// Runs until the exchange says stop; the last cancels have been sent then.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.exchange.stops() {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.turn(&events);
        }
        let now = self.clock.now_ms();
        self.engine.shutdown(now);
        self.outputs(now);
        self.exchange.finish();
        log::debug!("{:?}", self.engine.counters());
        Ok(())
    }

    fn turn(&mut self, events: &Events) {
        let now = self.clock.now_ms();
        let Self { engine, client, .. } = self;
        for event in events.iter().filter(|event| event.token().0 >= FIRST_ORIGIN) {
            client.handle(now, event, &mut |key, event| engine.origin_event(now, key, event));
        }
        self.exchange.receive(now, &mut self.engine);
        self.engine.timeout(now);
        let Self { engine, client, .. } = self;
        client.turn(now, &mut |key, event| engine.origin_event(now, key, event));
        self.outputs(now);
        self.exchange.end_turn(&self.engine);
        self.reports.put(self.number, &self.engine, self.client.counts());
    }

    /// How long nothing needs to be done.
    fn timeout(&self) -> Option<Duration> {
        if self.exchange.is_ready(&self.engine) {
            return Some(Duration::ZERO);
        }
        let now = self.clock.now_ms();
        let deadlines = [
            self.engine.next_deadline(),
            self.client.next_deadline(),
            self.exchange.next_deadline(now),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// Does what the engine wants.
    fn outputs(&mut self, now: u64) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Outgo::Message(message) => {
                    if let Some(peer) = self.exchange.send(now, message) {
                        self.engine.peer_gone(now, &peer);
                    }
                }
                Outgo::Origin(key, order) => self.order(now, key, order),
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

/// The exchange of an only worker: it owns the ZeroMQ sockets.
pub(super) struct Direct {
    pub(super) sockets: Sockets,
    /// Most sessions of each mode.
    pub(super) max: Room,
    pub(super) stop: Arc<AtomicBool>,
}

impl Direct {
    fn room(&self, engine: &Outgoing) -> Room {
        Room {
            stream: self.max.stream.saturating_sub(engine.stream_len()),
            req: self.max.req.saturating_sub(engine.req_len()),
        }
    }
}

impl Exchange for Direct {
    fn receive(&mut self, now: u64, engine: &mut Outgoing) {
        let room = self.room(engine);
        self.sockets.receive(room, &mut |arrival| match arrival {
            Arrival::First(packet) => engine.first(now, packet),
            Arrival::Further(message) => engine.packet(now, message),
            Arrival::Request(envelope, packet) => engine.request(now, envelope, packet),
        });
        if self.sockets.is_probe_due(now) {
            engine.probe(now);
        }
        for peer in self.sockets.retry(now) {
            engine.peer_gone(now, &peer);
        }
    }

    fn send(&mut self, now: u64, message: Message) -> Option<Arc<[u8]>> {
        self.sockets.send(now, message)
    }

    fn end_turn(&mut self, _: &Outgoing) {}

    fn next_deadline(&self, now: u64) -> Option<u64> {
        self.sockets.next_deadline(now)
    }

    fn is_ready(&self, engine: &Outgoing) -> bool {
        self.sockets.is_ready(self.room(engine))
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
