//! The sockets of the hub: publish inputs, commands, stats.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use bytes::Bytes;
use evloop::zsock::{self, Error, Options, Sent, Socket};
use grip::{Item, Value, parse_message};
use mio::{Registry, Token};

use super::HUB_SOCKETS;
use super::http::Publisher;
use super::options::Config;
use super::shard_io::BUDGET;
use crate::message::{Envelope, Output};

/// What came in for the hub.
#[derive(Debug)]
pub(super) enum HubInput {
    /// Items to publish, in order.
    Items(Vec<Item>),
    /// The same, for a client that waits to be told how many sessions they reach.
    Awaited(Publisher, Vec<Item>),
    /// A stats message of a proxy.
    ProxyStats(zmq::Message),
    /// A subscription message of the stats socket.
    StatsSubscription(zmq::Message),
    /// A command.
    Command(Envelope, zmq::Message),
    /// The proxy answers a call.
    ProxyReply(zmq::Message),
    /// The proxy could not be asked.
    ProxyFailed(u64),
    /// The service that keeps GRIP sessions answers.
    StateReply(zmq::Message),
    /// The service that keeps GRIP sessions could not be called.
    StateFailed(u64),
    /// The recover action of the control API.
    Recover,
}

/// Stats that our own proxies send only to those who ask (design, rule 13). `conn` is asked for
/// while it has a listener.
const PROXY_TOPICS: [&[u8]; 4] = [b"activity ", b"counts ", b"report ", b"conn-max "];

/// The sockets; those that the configuration does not name are not there.
pub(super) struct HubIo {
    pull: Option<Socket>,
    sub: Option<Socket>,
    command: Option<Socket>,
    stats: Option<Socket>,
    state: Option<Socket>,
    proxy_stats: Socket,
    proxy_command: Socket,
    /// Calls that the proxy did not take.
    refused: Vec<u64>,
    /// Calls that no service for GRIP sessions took.
    state_refused: Vec<u64>,
    conn_wanted: bool,
    frames: Vec<zmq::Message>,
}

impl HubIo {
    /// Makes and binds the sockets, in the order of spec/publish.md §12.
    ///
    /// # Errors
    /// What is wrong with an address, and where it is set.
    pub(super) fn new(context: &zmq::Context, config: &Config) -> Result<Self, String> {
        let bound = |kind, options: &Options<'_>, key, spec: &Option<String>| {
            let Some(spec) = spec else { return Ok(None) };
            let socket = Socket::new(context, kind, options).map_err(text)?;
            let bind = socket.bind(spec, config.ipc_file_mode);
            bind.map_err(|error| config.not_bound(key, &error)).map(|()| Some(socket))
        };
        let rpc = Options { hwm: 100, linger_ms: 0, ..Options::default() };
        let state = bound(zmq::DEALER, &rpc, "state_spec", &config.state_spec)?;
        let command = bound(zmq::ROUTER, &rpc, "command_spec", &config.command_spec)?;
        let wide = Options { hwm: 101_000, linger_ms: 0, ..Options::default() };
        let pull = bound(zmq::PULL, &wide, "push_in_spec", &config.push_in_spec)?;
        let sub = sub_input(context, config)?;
        let many = Options { hwm: 200_000, linger_ms: 0, ..Options::default() };
        let stats = bound(zmq::XPUB, &many, "stats_spec", &config.stats_spec)?;
        let proxy_stats = Socket::new(context, zmq::SUB, &many).map_err(text)?;
        for spec in &config.specs.proxy_stats {
            proxy_stats.connect(spec).map_err(text)?;
        }
        PROXY_TOPICS.iter().for_each(|topic| proxy_stats.subscribe(topic));
        let calls = Options { hwm: 100, linger_ms: 0, immediate: true, ..Options::default() };
        let proxy_command = Socket::new(context, zmq::DEALER, &calls).map_err(text)?;
        proxy_command.connect(&config.specs.proxy_command).map_err(text)?;
        log_specs(config);
        Ok(Self {
            pull,
            sub,
            command,
            stats,
            state,
            proxy_stats,
            proxy_command,
            refused: Vec::new(),
            state_refused: Vec::new(),
            conn_wanted: false,
            frames: Vec::new(),
        })
    }

    /// All sockets, in the order of their tokens.
    fn sockets(&self) -> ArrayVec<&Socket, 7> {
        let some = [&self.pull, &self.sub, &self.command, &self.stats, &self.state];
        let some = some.into_iter().flatten();
        some.chain([&self.proxy_command, &self.proxy_stats]).collect()
    }

    pub(super) fn register(&self, registry: &Registry) -> std::io::Result<()> {
        zsock::register_all(&self.sockets(), registry, HUB_SOCKETS)
    }

    /// The loop has reported an event of this token.
    pub(super) fn edge(&self, token: Token) {
        zsock::edge_of(&self.sockets(), token, HUB_SOCKETS);
    }

    /// Takes in what waits, within the budget; gives whether anything came. While `congested`,
    /// what is to be published stays where it is.
    pub(super) fn receive(&mut self, inputs: &mut Vec<HubInput>, congested: bool) -> bool {
        let before = inputs.len();
        if !congested {
            self.receive_pull(inputs);
            self.receive_sub(inputs);
        }
        self.receive_stats(inputs);
        self.receive_commands(inputs);
        self.receive_replies(inputs);
        inputs.len() > before
    }

    fn receive_pull(&mut self, inputs: &mut Vec<HubInput>) {
        let Some(socket) = &self.pull else { return };
        let mut items = Vec::new();
        for _ in 0..BUDGET {
            if !socket.recv(&mut self.frames) {
                break;
            }
            match self.frames.as_slice() {
                [payload] => {
                    log_item(format_args!("pull:"), payload);
                    match parse_items(payload, None) {
                        Ok(parsed) => items.extend(parsed),
                        Err(error) => {
                            log::warn!(
                                "IN pull: received message with invalid format{error}, skipping"
                            );
                        }
                    }
                }
                _ => log::warn!("IN pull: received message with parts != 1, skipping"),
            }
        }
        if !items.is_empty() {
            inputs.push(HubInput::Items(items));
        }
    }

    fn receive_sub(&mut self, inputs: &mut Vec<HubInput>) {
        let Some(socket) = &self.sub else { return };
        let mut items = Vec::new();
        for _ in 0..BUDGET {
            if !socket.recv(&mut self.frames) {
                break;
            }
            match self.frames.as_slice() {
                [topic, payload] => {
                    let topic = String::from_utf8_lossy(topic);
                    log_item(format_args!("sub: channel={topic}"), payload);
                    let topic = Some(&*topic).filter(|topic| !topic.is_empty());
                    match parse_items(payload, topic) {
                        Ok(parsed) => items.extend(parsed),
                        Err(error) => {
                            log::warn!(
                                "IN sub: received message with invalid format{error}, skipping"
                            );
                        }
                    }
                }
                _ => log::warn!("IN sub: received message with parts != 2, skipping"),
            }
        }
        if !items.is_empty() {
            inputs.push(HubInput::Items(items));
        }
    }

    fn receive_stats(&mut self, inputs: &mut Vec<HubInput>) {
        for _ in 0..BUDGET {
            if !self.proxy_stats.recv(&mut self.frames) {
                break;
            }
            inputs.extend(self.frames.drain(..).next().map(HubInput::ProxyStats));
        }
        let Some(socket) = &self.stats else { return };
        for _ in 0..BUDGET {
            if !socket.recv(&mut self.frames) {
                break;
            }
            inputs.extend(self.frames.drain(..).next().map(HubInput::StatsSubscription));
        }
    }

    fn receive_replies(&mut self, inputs: &mut Vec<HubInput>) {
        for _ in 0..BUDGET {
            if !self.proxy_command.recv(&mut self.frames) {
                break;
            }
            inputs.extend(self.frames.pop().map(HubInput::ProxyReply));
        }
        inputs.extend(self.refused.drain(..).map(HubInput::ProxyFailed));
        let Some(socket) = &self.state else { return };
        for _ in 0..BUDGET {
            if !socket.recv(&mut self.frames) {
                break;
            }
            inputs.extend(self.frames.pop().map(HubInput::StateReply));
        }
        inputs.extend(self.state_refused.drain(..).map(HubInput::StateFailed));
    }

    fn receive_commands(&mut self, inputs: &mut Vec<HubInput>) {
        let Some(socket) = &self.command else { return };
        for _ in 0..BUDGET {
            if !socket.recv(&mut self.frames) {
                break;
            }
            let Some(payload) = self.frames.pop() else { continue };
            if self.frames.last().is_none_or(|frame| !frame.is_empty()) {
                log::warn!("zrpc server: received message with parts != 1, skipping");
                continue;
            }
            let envelope: Envelope = self.frames.iter().map(|frame| frame.to_vec()).collect();
            inputs.push(HubInput::Command(envelope, payload));
        }
    }

    /// Does what the engine asks for.
    pub(super) fn send(&mut self, output: Output) {
        match output {
            Output::Stats(frame) => {
                if let Some(socket) = &self.stats {
                    // Who is too slow misses messages, as with any PUB socket.
                    let _ = socket.send(&[&frame]);
                }
            }
            Output::CommandReply { envelope, payload } => {
                let mut frames: Vec<&[u8]> = envelope.iter().map(Vec::as_slice).collect();
                frames.push(&payload);
                if let Some(socket) = &self.command {
                    let _ = socket.send(&frames);
                }
            }
            Output::StateCall { call, payload } => {
                let socket = self.state.as_ref();
                if socket.is_none_or(|socket| socket.send(&[b"", &payload]) != Sent::Ok) {
                    self.state_refused.push(call);
                }
            }
            Output::ProxyCommand { call, payload } => self.ask_proxy(call, &payload),
            Output::Subscribe(channel) => self.follow(&channel, true),
            Output::Unsubscribe(channel) => self.follow(&channel, false),
            Output::ListenConn(wanted) if wanted != self.conn_wanted => {
                self.conn_wanted = wanted;
                match wanted {
                    true => self.proxy_stats.subscribe(b"conn "),
                    false => self.proxy_stats.unsubscribe(b"conn "),
                }
            }
            _ => {}
        }
    }

    fn ask_proxy(&mut self, call: u64, payload: &[u8]) {
        if self.proxy_command.send(&[b"", payload]) != Sent::Ok {
            self.refused.push(call);
        }
    }

    fn follow(&self, channel: &Arc<str>, wanted: bool) {
        let Some(socket) = &self.sub else { return };
        let what = if wanted { "subscribe" } else { "unsubscribe" };
        log::debug!("SUB socket {what}: {channel}");
        match wanted {
            true => socket.subscribe(channel.as_bytes()),
            false => socket.unsubscribe(channel.as_bytes()),
        }
    }
}

/// Which sockets there are, and where.
fn log_specs(config: &Config) {
    for (name, spec) in [
        ("state client", &config.state_spec),
        ("control server", &config.command_spec),
        ("in pull", &config.push_in_spec),
    ] {
        if let Some(spec) = spec {
            log::debug!("{name}: {spec}");
        }
    }
    let subs = &config.push_in_sub_specs;
    let used = if config.push_in_sub_connect { subs } else { &subs[..subs.len().min(1)] };
    if !used.is_empty() {
        log::debug!("in sub: {}", used.join(", "));
    }
    if let Some(spec) = &config.stats_spec {
        log::debug!("stats: {spec}");
    }
    log::debug!("proxy stats: {}", config.specs.proxy_stats.join(", "));
    log::debug!("proxy control client: {}", config.specs.proxy_command);
}

/// The SUB input: the first address bound, or all of them connected. Subscriptions are what it
/// sends, and none of them may be lost.
fn sub_input(context: &zmq::Context, config: &Config) -> Result<Option<Socket>, String> {
    let Some(first) = config.push_in_sub_specs.first() else { return Ok(None) };
    let options = Options {
        hwm: 0,
        receive_hwm: Some(101_000),
        linger_ms: 0,
        keep_alive: true,
        ..Options::default()
    };
    let socket = Socket::new(context, zmq::SUB, &options).map_err(text)?;
    let used = match config.push_in_sub_connect {
        true => config.push_in_sub_specs.iter().try_for_each(|spec| socket.connect(spec)),
        false => socket.bind(first, config.ipc_file_mode),
    };
    used.map_err(|error| config.not_bound("push_in_sub_specs", &error))?;
    Ok(Some(socket))
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Writes a published message as it came; one that cannot be read has a warning of its own.
fn log_item(input: fmt::Arguments<'_>, payload: &[u8]) {
    if !log::log_enabled!(log::Level::Debug) {
        return;
    }
    match payload {
        [b'J', text @ ..] => log::debug!("IN {input} {}", String::from_utf8_lossy(text)),
        payload => {
            let frame = payload.strip_prefix(b"T").unwrap_or(payload);
            if let Ok((value, _)) = tnetstring::parse(frame) {
                log::debug!("IN {input} {value}");
            }
        }
    }
}

/// Reads items as they come by ZeroMQ (spec/publish.md §4). The error is what follows
/// `invalid format` in the log.
fn parse_items(payload: &[u8], topic: Option<&str>) -> Result<Vec<Item>, String> {
    let parsed = match payload {
        [b'J', text @ ..] => {
            let value = Value::from_json(text).ok_or(" (json parse failed)")?;
            value.as_map().ok_or(" (not a valid json object)")?;
            parse_message(&value, topic, true)
        }
        payload => {
            let frame = payload.strip_prefix(b"T").unwrap_or(payload);
            let value = Value::from_tnetstring(&Bytes::copy_from_slice(frame));
            parse_message(&value.ok_or(" (tnetstring parse failed)")?, topic, false)
        }
    };
    parsed.map_err(|error| format!(": {error}"))
}
