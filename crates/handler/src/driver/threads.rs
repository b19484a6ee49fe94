//! Several workers: the hub on the main thread, a thread for each shard with sockets of its
//! own, and one FIFO each way between them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use evloop::clock::Clock;
use mio::{Events, Poll, Waker};

use super::http::{self, HttpServer};
use super::hub_io::{HubInput, HubIo};
use super::options::Config;
use super::scrape::Scrape;
use super::shard_io::{Gone, ShardInput, ShardIo};
use super::single::http_server;
use super::{STOP_STEP_MS, WAKE, Wish, Wishes, loop_error, obey};
use crate::hub::Hub;
use crate::message::{Output, ToHub, ToShard};
use crate::shard::Shard;

/// Messages that may wait for a shard before publish inputs are left where they are.
const BEHIND_MAX: usize = 10_000;

/// What the hub has of a shard.
struct Seat {
    sender: Sender<ToShard>,
    waker: Arc<Waker>,
    /// Messages on their way, and items under way inside.
    behind: Arc<AtomicUsize>,
    congested: Arc<AtomicBool>,
}

/// What a shard has of the hub.
struct HubEnd {
    number: usize,
    sender: Sender<(usize, Vec<ToHub>)>,
    waker: Arc<Waker>,
    receiver: Receiver<ToShard>,
    behind: Arc<AtomicUsize>,
    congested: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

pub(super) fn run(
    config: &Config,
    context: &zmq::Context,
    mut poll: Poll,
    waker: Arc<Waker>,
    wishes: &Wishes,
) -> Result<(), String> {
    let clock = Clock::new();
    let settings = Arc::new(config.settings.clone());
    let hub_io = HubIo::new(context, config)?;
    let mut http = http_server(config)?;
    hub_io.register(poll.registry()).map_err(loop_error)?;
    if let Some(http) = &mut http {
        http.register(poll.registry()).map_err(loop_error)?;
    }
    let (sender, receiver) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut seats, mut threads) = (Vec::new(), Vec::new());
    for number in 0..settings.workers {
        let io = ShardIo::new(context, &config.specs, &settings.shard_id(number))
            .map_err(|error| error.to_string())?;
        let shard = Shard::new(settings.clone(), number);
        let end = (sender.clone(), waker.clone(), stop.clone());
        let (seat, thread) = spawn(clock, number, shard, io, end).map_err(loop_error)?;
        seats.push(seat);
        threads.push(thread);
    }
    let hub = Hub::new(clock.now_ms(), settings);
    let scrape = Scrape::bind(config)?;
    let mut main =
        HubLoop { clock, hub, hub_io, http, scrape, seats, receiver, inputs: Vec::new() };
    log::info!("started");
    obey(main.scrape.as_ref())?;
    main.run(&mut poll, wishes).map_err(loop_error)?;
    stop.store(true, Ordering::Relaxed);
    main.seats.iter().for_each(|seat| drop(seat.waker.wake()));
    main.run_until_ended(poll, &threads).map_err(loop_error)?;
    log::debug!("stopped");
    Ok(())
}

type End = (Sender<(usize, Vec<ToHub>)>, Arc<Waker>, Arc<AtomicBool>);

fn spawn(
    clock: Clock,
    number: usize,
    shard: Shard,
    io: ShardIo,
    (sender, hub_waker, stop): End,
) -> io::Result<(Seat, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    io.register(poll.registry())?;
    let (to_shard, receiver) = channel();
    let behind = Arc::new(AtomicUsize::new(0));
    let congested = Arc::new(AtomicBool::new(false));
    let seat =
        Seat { sender: to_shard, waker, behind: behind.clone(), congested: congested.clone() };
    let end = HubEnd { number, sender, waker: hub_waker, receiver, behind, congested, stop };
    let mut work = ShardLoop { clock, shard, io, end, inputs: Vec::new(), news: Vec::new() };
    let run = move || {
        let _ended = EndsProcess;
        if let Err(error) = work.run(poll) {
            log::error!("shard {number}: {error}");
            logging::flush();
            std::process::exit(1);
        }
    };
    let thread = std::thread::Builder::new().name(format!("shard {number}")).spawn(run)?;
    Ok((seat, thread))
}

/// Ends the process when a shard panics: its clients would hang otherwise.
struct EndsProcess;

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a shard failed, the process ends");
            logging::flush();
            std::process::exit(1);
        }
    }
}

/// The main thread.
struct HubLoop {
    clock: Clock,
    hub: Hub,
    hub_io: HubIo,
    http: Option<HttpServer>,
    scrape: Option<Scrape>,
    seats: Vec<Seat>,
    receiver: Receiver<(usize, Vec<ToHub>)>,
    inputs: Vec<HubInput>,
}

impl HubLoop {
    fn run(&mut self, poll: &mut Poll, wishes: &Wishes) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let busy = self.turn(poll);
            let timeout = if busy { Some(Duration::ZERO) } else { self.timeout() };
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = self.clock.now_ms();
            for event in &events {
                match event.token() {
                    WAKE => match wishes.next() {
                        Wish::Stop => return Ok(()),
                        Wish::Reload(config) => self.reload(now, *config),
                        Wish::Nothing => {}
                    },
                    token if token < http::LISTENER => self.hub_io.edge(token),
                    token => {
                        if let Some(http) = &mut self.http {
                            http.event(now, token, &mut self.inputs);
                        }
                    }
                }
            }
        }
    }

    fn reload(&mut self, now: u64, config: Config) {
        if let Some(http) = &mut self.http {
            http.set_rules(config.rules());
        }
        self.hub.set_settings(now, config.settings);
    }

    /// Goes on while the shards end their sessions.
    fn run_until_ended(&mut self, mut poll: Poll, threads: &[JoinHandle<()>]) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while !threads.iter().all(JoinHandle::is_finished) {
            self.turn(&poll);
            match poll.poll(&mut events, Some(Duration::from_millis(5))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            events.iter().for_each(|event| self.hub_io.edge(event.token()));
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now_ms();
        let http = self.http.as_ref().and_then(HttpServer::next_deadline);
        // A shard that is behind does not wake this thread when it has caught up.
        let soon = self.congested().then_some(now + 5);
        let scrape = self.scrape.as_ref().map(Scrape::due);
        let next = [self.hub.next_deadline(), http, soon, scrape].into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now) + u64::from(next > now)))
    }

    fn congested(&self) -> bool {
        self.seats.iter().any(|seat| {
            seat.behind.load(Ordering::Relaxed) > BEHIND_MAX
                || seat.congested.load(Ordering::Relaxed)
        })
    }

    fn turn(&mut self, poll: &Poll) -> bool {
        let _turn = logging::turn();
        let now = self.clock.now_ms();
        let congested = self.congested();
        let mut busy = self.hub_io.receive(&mut self.inputs, congested);
        if let Some(http) = &mut self.http {
            http.accept(now, poll.registry(), &mut self.inputs, congested);
        }
        while let Ok((shard, messages)) = self.receiver.try_recv() {
            busy = true;
            for message in messages {
                self.hub.from_shard(now, shard, message);
            }
        }
        busy |= !self.inputs.is_empty();
        self.apply(now);
        if self.hub.next_deadline().is_some_and(|at| at <= now) {
            self.hub.timeout(now);
        }
        if let Some(scrape) = &mut self.scrape {
            scrape.turn(now, &self.hub);
        }
        busy | self.send()
    }

    fn apply(&mut self, now: u64) {
        let mut told = Vec::new();
        for input in self.inputs.drain(..) {
            match input {
                HubInput::Items(items) => drop(self.hub.publish(now, items)),
                HubInput::Awaited(publisher, items) => {
                    told.push((publisher, self.hub.publish(now, items)));
                }
                HubInput::ProxyStats(message) => self.hub.proxy_stats(now, &message),
                HubInput::StatsSubscription(message) => self.hub.stats_subscription(&message),
                HubInput::Command(envelope, payload) => self.hub.command(now, envelope, &payload),
                HubInput::ProxyReply(payload) => self.hub.proxy_reply(&payload),
                HubInput::ProxyFailed(call) => self.hub.proxy_failed(call),
                HubInput::StateReply(payload) => self.hub.state_reply(now, &payload),
                HubInput::StateFailed(call) => self.hub.state_failed(call),
                HubInput::Recover => self.hub.recover(),
            }
        }
        for (publisher, receivers) in told {
            if let Some(http) = &mut self.http {
                http.published(now, publisher, receivers, &mut self.inputs);
            }
        }
    }

    fn send(&mut self) -> bool {
        let mut messages: Vec<(usize, ToShard)> = Vec::new();
        self.hub.take_to_shards(&mut messages);
        let mut outputs: Vec<Output> = Vec::new();
        self.hub.take_output(&mut outputs);
        let any = !messages.is_empty() || !outputs.is_empty();
        let mut touched = vec![false; self.seats.len()];
        for (number, message) in messages {
            let Some(seat) = self.seats.get(number) else { continue };
            seat.behind.fetch_add(1, Ordering::Relaxed);
            let _ = seat.sender.send(message);
            touched[number] = true;
        }
        for (seat, _) in self.seats.iter().zip(touched).filter(|(_, touched)| *touched) {
            let _ = seat.waker.wake();
        }
        outputs.into_iter().for_each(|output| self.hub_io.send(output));
        any
    }
}

/// A shard's thread.
struct ShardLoop {
    clock: Clock,
    shard: Shard,
    io: ShardIo,
    end: HubEnd,
    inputs: Vec<ShardInput>,
    news: Vec<ToHub>,
}

impl ShardLoop {
    fn run(&mut self, mut poll: Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        while !self.end.stop.load(Ordering::Relaxed) {
            let busy = self.turn();
            let timeout = if busy { Some(Duration::ZERO) } else { self.timeout() };
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
            events.iter().for_each(|event| self.io.edge(event.token()));
        }
        self.stop(poll)
    }

    /// Ends all sessions, over the time that the configuration gives for it.
    fn stop(&mut self, mut poll: Poll) -> io::Result<()> {
        self.shard.begin_stop();
        let (mut events, mut now) = (Events::with_capacity(64), self.clock.now_ms());
        let end = now + self.shard.settings().drain_ms;
        while now < end && self.shard.sessions() + self.shard.sockets() > 0 {
            self.shard.end_part(now, (end - now).div_ceil(STOP_STEP_MS));
            let next = now + STOP_STEP_MS;
            while now < next {
                let wait = if self.turn() { 0 } else { next.saturating_sub(now).min(10) };
                match poll.poll(&mut events, Some(Duration::from_millis(wait))) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                    _ => {}
                }
                events.iter().for_each(|event| self.io.edge(event.token()));
                now = self.clock.now_ms();
            }
        }
        self.shard.end_part(now, 1);
        self.send(now);
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now_ms();
        let deadlines = [self.shard.next_deadline(), self.io.next_deadline(now)];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now) + u64::from(next > now)))
    }

    fn turn(&mut self) -> bool {
        let _turn = logging::turn();
        let now = self.clock.now_ms();
        let mut busy = self.io.receive(now, &mut self.inputs);
        for input in self.inputs.drain(..) {
            match input {
                ShardInput::Call(envelope, payload) => self.shard.call(now, envelope, &payload),
                ShardInput::Client(message) => self.shard.client_message(now, &message),
                ShardInput::BadEnvelope(reason) => self.shard.bad_envelope(reason),
                ShardInput::PeerGone(peer) => self.shard.peer_gone(now, &peer),
                ShardInput::Internal(message) => self.shard.internal_message(now, &message),
                ShardInput::InternalRefused(packet) => {
                    self.shard.internal_refused(now, &packet);
                }
                ShardInput::Probe => self.shard.probe(),
                ShardInput::Control(packet) => self.shard.control(now, &packet),
                ShardInput::ProxyGone(proxy) => self.shard.proxy_gone(now, &proxy),
                ShardInput::ProbeProxies => self.shard.probe_proxies(),
            }
        }
        while let Ok(message) = self.end.receiver.try_recv() {
            busy = true;
            self.end.behind.fetch_sub(1, Ordering::Relaxed);
            self.shard.from_hub(now, message);
        }
        if self.shard.next_deadline().is_some_and(|at| at <= now) {
            self.shard.timeout(now);
        }
        busy |= self.shard.has_work();
        self.shard.work(now);
        self.end.congested.store(self.shard.congested(), Ordering::Relaxed);
        busy | self.send(now)
    }

    fn send(&mut self, now: u64) -> bool {
        let mut outputs = Vec::new();
        self.shard.take_output(&mut outputs);
        let mut any = !outputs.is_empty();
        for output in outputs {
            match self.io.send(now, output) {
                Some(Gone::ConnectionManager(id)) => self.shard.peer_gone(now, &id),
                Some(Gone::Proxy(id)) => self.shard.proxy_gone(now, &id),
                None => {}
            }
        }
        self.shard.take_to_hub(&mut self.news);
        if !self.news.is_empty() {
            any = true;
            let news = std::mem::take(&mut self.news);
            let _ = self.end.sender.send((self.end.number, news));
            let _ = self.end.waker.wake();
        }
        any
    }
}
