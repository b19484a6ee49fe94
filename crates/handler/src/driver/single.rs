//! One thread: the hub and its only shard, all sockets in one loop.

use std::io;
use std::time::Duration;

use evloop::clock::Clock;
use mio::{Events, Poll, Token};

use super::http::{self, HttpServer};
use super::hub_io::{HubInput, HubIo};
use super::options::Config;
use super::scrape::Scrape;
use super::shard_io::{Gone, ShardInput, ShardIo};
use super::{STOP_STEP_MS, WAKE, Wish, Wishes, loop_error, obey};
use crate::engine::Handler;
use crate::message::Output;

/// The loop and everything in it.
struct Single {
    clock: Clock,
    handler: Handler,
    shard_io: ShardIo,
    hub_io: HubIo,
    http: Option<HttpServer>,
    scrape: Option<Scrape>,
    hub_inputs: Vec<HubInput>,
    shard_inputs: Vec<ShardInput>,
}

pub(super) fn run(
    config: &Config,
    context: &zmq::Context,
    mut poll: Poll,
    wishes: &Wishes,
) -> Result<(), String> {
    let clock = Clock::new();
    let id = config.settings.shard_id(0);
    let mut single = Single {
        handler: Handler::new(clock.now_ms(), config.settings.clone()),
        shard_io: ShardIo::new(context, &config.specs, &id).map_err(|error| error.to_string())?,
        hub_io: HubIo::new(context, config)?,
        http: http_server(config)?,
        scrape: Scrape::bind(config)?,
        hub_inputs: Vec::new(),
        shard_inputs: Vec::new(),
        clock,
    };
    let registry = poll.registry();
    single.shard_io.register(registry).map_err(loop_error)?;
    single.hub_io.register(registry).map_err(loop_error)?;
    if let Some(http) = &mut single.http {
        http.register(registry).map_err(loop_error)?;
    }
    log::info!("started");
    obey(single.scrape.as_ref())?;
    single.turn_until(&mut poll, wishes).map_err(loop_error)?;
    log::debug!("stopped");
    Ok(())
}

/// The control server, if the configuration asks for one.
pub(super) fn http_server(config: &Config) -> Result<Option<HttpServer>, String> {
    let server = config.http.map(|address| HttpServer::bind(address, config.rules())).transpose();
    server.map_err(|error| config.not_bound("push_in_http_port", &error))
}

impl Single {
    fn turn_until(&mut self, poll: &mut Poll, wishes: &Wishes) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            // Only after a turn in which nothing happened is it safe to sleep: ZeroMQ tells of a
            // message once.
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
                        Wish::Stop => return self.stop(poll),
                        Wish::Reload(config) => self.reload(now, *config),
                        Wish::Nothing => {}
                    },
                    token if token < http::LISTENER => self.edge(token),
                    token => {
                        if let Some(http) = &mut self.http {
                            http.event(now, token, &mut self.hub_inputs);
                        }
                    }
                }
            }
        }
    }

    /// A ZeroMQ socket has something to tell.
    fn edge(&self, token: Token) {
        self.shard_io.edge(token);
        self.hub_io.edge(token);
    }

    fn reload(&mut self, now: u64, config: Config) {
        if let Some(http) = &mut self.http {
            http.set_rules(config.rules());
        }
        self.handler.set_settings(now, config.settings);
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now_ms();
        let http = self.http.as_ref().and_then(HttpServer::next_deadline);
        let scrape = self.scrape.as_ref().map(Scrape::due);
        let deadlines =
            [self.handler.next_deadline(), self.shard_io.next_deadline(now), http, scrape];
        let next = deadlines.into_iter().flatten().min()?;
        // The clock counts whole milliseconds: one more, so that the deadline has passed.
        Some(Duration::from_millis(next.saturating_sub(now) + u64::from(next > now)))
    }

    /// Takes in, works, sends; gives whether there was anything to do.
    fn turn(&mut self, poll: &Poll) -> bool {
        let _turn = logging::turn();
        let now = self.clock.now_ms();
        let congested = self.handler.congested();
        let mut busy = self.shard_io.receive(now, &mut self.shard_inputs);
        busy |= self.hub_io.receive(&mut self.hub_inputs, congested);
        if let Some(http) = &mut self.http {
            http.accept(now, poll.registry(), &mut self.hub_inputs, congested);
        }
        busy |= !self.hub_inputs.is_empty();
        self.apply(now);
        if self.handler.next_deadline().is_some_and(|at| at <= now) {
            self.handler.timeout(now);
        }
        busy |= self.handler.has_work();
        self.handler.work(now);
        if let Some(scrape) = &mut self.scrape {
            scrape.turn(now, self.handler.hub());
        }
        busy | self.send(now)
    }

    fn apply(&mut self, now: u64) {
        for input in self.shard_inputs.drain(..) {
            match input {
                ShardInput::Call(envelope, payload) => {
                    self.handler.call(now, 0, envelope, &payload);
                }
                ShardInput::Client(message) => self.handler.client_message(now, 0, &message),
                ShardInput::BadEnvelope(reason) => self.handler.bad_envelope(0, reason),
                ShardInput::PeerGone(peer) => self.handler.peer_gone(now, &peer),
                ShardInput::Internal(message) => self.handler.internal_message(now, 0, &message),
                ShardInput::InternalRefused(packet) => {
                    self.handler.internal_refused(now, 0, &packet);
                }
                ShardInput::Probe => self.handler.probe(),
                ShardInput::Control(packet) => self.handler.control(now, 0, &packet),
                ShardInput::ProxyGone(proxy) => self.handler.proxy_gone(now, &proxy),
                ShardInput::ProbeProxies => self.handler.probe_proxies(),
            }
        }
        let mut told = Vec::new();
        for input in self.hub_inputs.drain(..) {
            match input {
                HubInput::Items(items) => drop(self.handler.publish(now, items)),
                HubInput::Awaited(publisher, items) => {
                    told.push((publisher, self.handler.publish(now, items)));
                }
                HubInput::ProxyStats(message) => self.handler.proxy_stats(now, &message),
                HubInput::StatsSubscription(message) => {
                    self.handler.stats_subscription(now, &message);
                }
                HubInput::Command(envelope, payload) => {
                    self.handler.command(now, envelope, &payload);
                }
                HubInput::ProxyReply(payload) => self.handler.proxy_reply(now, &payload),
                HubInput::ProxyFailed(call) => self.handler.proxy_failed(now, call),
                HubInput::StateReply(payload) => self.handler.state_reply(now, &payload),
                HubInput::StateFailed(call) => self.handler.state_failed(now, call),
                HubInput::Recover => self.handler.recover(now),
            }
        }
        for (publisher, receivers) in told {
            if let Some(http) = &mut self.http {
                http.published(now, publisher, receivers, &mut self.hub_inputs);
            }
        }
    }

    /// Sends everything; gives whether there was anything.
    fn send(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some(output) = self.handler.poll_output() {
            any = true;
            match output {
                Output::ToClient { .. }
                | Output::ToProxy { .. }
                | Output::Reply { .. }
                | Output::Retry { .. }
                | Output::Internal { .. } => match self.shard_io.send(now, output) {
                    Some(Gone::ConnectionManager(id)) => self.handler.peer_gone(now, &id),
                    Some(Gone::Proxy(id)) => self.handler.proxy_gone(now, &id),
                    None => {}
                },
                output => self.hub_io.send(output),
            }
        }
        any
    }

    /// Ends all sessions, over the time that the configuration gives for it.
    fn stop(&mut self, poll: &mut Poll) -> io::Result<()> {
        self.handler.begin_stop();
        let (mut events, mut now) = (Events::with_capacity(256), self.clock.now_ms());
        let end = now + self.handler.settings().drain_ms;
        while now < end && self.handler.sessions() + self.handler.sockets() > 0 {
            self.handler.end_part(now, (end - now).div_ceil(STOP_STEP_MS));
            let next = now + STOP_STEP_MS;
            while now < next {
                let busy = self.turn(poll);
                let wait = if busy { 0 } else { next.saturating_sub(now).min(10) };
                match poll.poll(&mut events, Some(Duration::from_millis(wait))) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                    _ => {}
                }
                events.iter().for_each(|event| self.edge(event.token()));
                now = self.clock.now_ms();
            }
        }
        self.handler.end_part(now, 1);
        self.send(now);
        Ok(())
    }
}
