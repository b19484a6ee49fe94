//! The ZeroMQ sockets of stream mode (`spec/zhttp.md §8.1`): PUSH for first packets, ROUTER for
//! the rest, SUB for peers that answer by PUB. Whoever owns them (the only worker, or the thread
//! between several) drains them each turn and is told who left.

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;
use evloop::monitor::Monitor;
use evloop::peers::{PeerRouter, Routed};
use evloop::zsock::{self, Sent, Socket};
use mio::{Registry, Token};
use zhttp::route;

use super::listen::ListenSpec;
use super::reqside::ReqSide;
use super::trace::Dump;
use super::waiting::WaitList;
use crate::Session;
use crate::options::Options;

/// Messages that may wait in a PUSH socket for one process (`spec/zhttp.md §8.5`).
const PUSH_HWM: i32 = 128;

/// Messages that may wait for or from one process on the other sockets. What is more waits at
/// its sender: thousands of messages here would be memory that is not given back.
const STREAM_HWM: i32 = 500;

/// How long unsent messages, the last cancels above all, hold up the end.
const LINGER_MS: i32 = 500;

/// Tokens of the sockets that tell by an edge when they are worth a question: the first, the last.
const FIRST_TOKEN: usize = 1;
pub(crate) const LAST_TOKEN: usize = 4;

/// When to probe after a connection ended: at once, and again when libzmq surely knows of it.
const PROBES_MS: [u64; 3] = [0, 200, 1_000];

/// What the sockets report besides messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// A process that takes first packets left.
    pub(crate) push: bool,
    /// Probes are due.
    pub(crate) probe: bool,
}

/// What waits in front of the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    /// First packets that nobody could take yet.
    pub(crate) first: usize,
    /// Requests of both modes that were dropped because too many waited.
    pub(crate) dropped: u64,
    /// Requests of req mode that nobody could take yet.
    pub(crate) req: usize,
    /// Processes that do not keep up, so that packets wait for them.
    pub(crate) parked: usize,
    /// Messages that were dropped before a worker saw them: they do not tell whose they are.
    pub(crate) malformed: u64,
    /// Sessions that packets named and no worker has.
    pub(crate) unknown: u64,
}

/// The sockets.
pub(crate) struct ZmqSide {
    push: Socket,
    router: PeerRouter,
    sub: Socket,
    push_monitor: Monitor,
    router_monitor: Monitor,
    instance: Vec<u8>,
    waiting: WaitList,
    probes: VecDeque<u64>,
    frames: Vec<zmq::Message>,
    malformed: u64,
    /// Processes for which messages wait.
    full: Vec<Arc<[u8]>>,
    /// Only where there are listeners of req mode.
    pub(crate) req: Option<ReqSide>,
}

impl ZmqSide {
    /// Makes the sockets and binds or connects those of the modes that have a listener.
    pub(crate) fn new(context: &zmq::Context, options: &Options) -> Result<Self, String> {
        let mut sockets = Self::sockets(context, options).map_err(|e| e.to_string())?;
        if options.listen.iter().any(ListenSpec::is_req) {
            sockets.req = Some(ReqSide::new(context, options)?);
        }
        if options.listen.iter().all(ListenSpec::is_req) {
            return Ok(sockets);
        }
        for spec in &options.zclient_stream {
            let specs = stream_specs(spec)?;
            for (socket, spec) in
                [&sockets.push, sockets.router.socket(), &sockets.sub].iter().zip(specs)
            {
                super::attach(socket, &spec, options, "stream")?;
            }
        }
        let verb = if options.zclient_connect { "connect" } else { "bind" };
        log::debug!("zhttp client {verb} {}", options.zclient_stream.join(","));
        Ok(sockets)
    }

    fn sockets(context: &zmq::Context, options: &Options) -> Result<Self, zsock::Error> {
        let instance = options.id.as_bytes();
        let base = zsock::Options {
            hwm: STREAM_HWM,
            linger_ms: LINGER_MS,
            heartbeat: true,
            ..zsock::Options::default()
        };
        let push_options = zsock::Options { hwm: PUSH_HWM, linger_ms: 0, ..base.clone() };
        let push = Socket::new(context, zmq::PUSH, &push_options)?;
        let router_options =
            zsock::Options { identity: Some(instance), mandatory: true, ..base.clone() };
        let router = Socket::new(context, zmq::ROUTER, &router_options)?;
        let topic = [instance, b" "].concat();
        let sub_options = zsock::Options { subscribe: Some(&topic), ..base };
        let sub = Socket::new(context, zmq::SUB, &sub_options)?;
        Ok(Self {
            push_monitor: Monitor::new(context, &push)?,
            router_monitor: Monitor::new(context, &router)?,
            push,
            router: PeerRouter::new(router),
            sub,
            instance: instance.to_vec(),
            waiting: WaitList::new(options.stream_maxconn),
            probes: VecDeque::new(),
            frames: Vec::new(),
            malformed: 0,
            full: Vec::new(),
            req: None,
        })
    }

    /// Puts the sockets into a loop. It reports events of tokens up to [`LAST_TOKEN`] to
    /// [`ZmqSide::edge`]; those of `token` only wake it.
    pub(crate) fn register(&self, registry: &Registry, token: Token) -> std::io::Result<()> {
        self.push.register(registry, token)?;
        if let Some(req) = &self.req {
            req.register(registry, token)?;
        }
        zsock::register_all(&self.read(), registry, FIRST_TOKEN)
    }

    /// The sockets that are read, in the order of their tokens.
    fn read(&self) -> [&Socket; LAST_TOKEN + 1 - FIRST_TOKEN] {
        let monitors = [&self.push_monitor, &self.router_monitor].map(Monitor::socket);
        [self.router.socket(), &self.sub, monitors[0], monitors[1]]
    }

    /// The loop has reported an event of this token.
    pub(crate) fn edge(&self, token: Token) {
        zsock::edge_of(&self.read(), token, FIRST_TOKEN);
    }

    /// Gives up to `budget` messages to `take`.
    pub(crate) fn receive(&mut self, budget: usize, mut take: impl FnMut(&[u8])) {
        for _ in 0..budget {
            let routed = self.receive_routed(&mut take);
            let published = self.receive_published(&mut take);
            if !routed && !published {
                return;
            }
        }
    }

    fn receive_routed(&mut self, take: &mut impl FnMut(&[u8])) -> bool {
        if !self.router.socket().recv(&mut self.frames) {
            return false;
        }
        // One more than a message may have, so that longer ones are seen as such.
        let frames: ArrayVec<&[u8], 4> =
            self.frames.iter().take(4).map(|frame| &frame[..]).collect();
        match route::routed(&frames) {
            Ok((sender, packet)) => {
                self.router.heard_of(sender);
                log::trace!("IN stream (router) {}", Dump(packet));
                take(packet);
            }
            Err(reason) => warn_malformed(&mut self.malformed, reason),
        }
        true
    }

    fn receive_published(&mut self, take: &mut impl FnMut(&[u8])) -> bool {
        if !self.sub.recv(&mut self.frames) {
            return false;
        }
        let message = self.frames.first().map_or(&b""[..], |frame| frame);
        match route::published(&self.instance, message) {
            Ok(packet) => {
                log::trace!("IN stream {}", Dump(packet));
                take(packet);
            }
            Err(reason) => warn_malformed(&mut self.malformed, reason),
        }
        true
    }

    /// Sends a first packet, or lets it wait.
    pub(crate) fn first(&mut self, now: u64, session: Session, packet: Vec<u8>) {
        let push = &self.push;
        self.waiting.send(now, session, packet, |packet| push_now(push, packet));
    }

    /// Sends a request of req mode, or lets it wait.
    pub(crate) fn request(&mut self, now: u64, session: Session, packet: Vec<u8>) {
        if let Some(req) = &mut self.req {
            req.request(now, session, packet);
        }
    }

    /// Tries waiting requests again; those that `wanted` denies are dropped.
    pub(crate) fn send_waiting(&mut self, now: u64, wanted: impl Fn(Session) -> bool) {
        let push = &self.push;
        self.waiting.retry(now, &wanted, |packet| push_now(push, packet));
        if let Some(req) = &mut self.req {
            req.send_waiting(now, wanted);
        }
    }

    /// What waits here.
    pub(crate) fn queues(&self) -> Queues {
        Queues {
            first: self.waiting.len(),
            dropped: self.waiting.dropped() + self.req.as_ref().map_or(0, ReqSide::dropped),
            req: self.req.as_ref().map_or(0, ReqSide::waiting),
            parked: self.router.parked_peers(),
            malformed: self.malformed + self.req.as_ref().map_or(0, ReqSide::malformed),
            unknown: 0,
        }
    }

    /// Sends to one process. False: it is gone, and its sessions with it.
    #[must_use]
    pub(crate) fn to(&mut self, now: u64, peer: &Arc<[u8]>, packet: Vec<u8>) -> bool {
        log::trace!("OUT stream to={} {}", String::from_utf8_lossy(peer), Dump(&packet));
        match self.router.send(now, peer, packet) {
            Routed::Sent | Routed::Parked => true,
            Routed::Gone => {
                log::debug!("stream zmq send to host unreachable");
                false
            }
            Routed::Overflow => {
                log::warn!("queue for {} is full, its sessions end", String::from_utf8_lossy(peer));
                false
            }
        }
    }

    /// Whether messages have begun to wait for that process: true once, until
    /// [`ZmqSide::emptied`] has named it.
    pub(crate) fn filled(&mut self, peer: &Arc<[u8]>) -> bool {
        let new = self.router.is_parked(peer) && !self.full.contains(peer);
        if new {
            self.full.push(peer.clone());
        }
        new
    }

    /// Processes for which messages wait no more.
    pub(crate) fn emptied(&mut self) -> Vec<Arc<[u8]>> {
        self.full.extract_if(.., |peer| !self.router.is_parked(peer)).collect()
    }

    /// Tries what waits for slow processes; gives those that are gone.
    pub(crate) fn retry(&mut self, now: u64) -> Vec<Vec<u8>> {
        if self.router.has_parked() { self.router.retry(now) } else { Vec::new() }
    }

    /// Who left since the last call.
    pub(crate) fn left(&mut self, now: u64) -> Left {
        let push = self.push_monitor.disconnected() > 0;
        if self.router_monitor.disconnected() > 0 {
            self.probes = PROBES_MS.iter().map(|wait| now + wait).collect();
        }
        let due = self.probes.iter().take_while(|at| **at <= now).count();
        self.probes.drain(..due);
        Left { push, probe: due > 0 }
    }

    /// When the sockets want a turn without an event, in milliseconds.
    pub(crate) fn next_deadline(&self, now: u64) -> Option<u64> {
        let probe = self.probes.front().copied();
        // A full queue shows itself by an edge, but one that a call may have swallowed.
        let retry = self.router.has_parked().then_some(now + 50);
        [probe, retry].into_iter().flatten().min()
    }

    /// Whether a turn would find something at once. To be asked before sleeping: any call on a
    /// socket may have swallowed its edge.
    pub(crate) fn is_ready(&self) -> bool {
        self.router.socket().is_readable()
            || self.sub.is_readable()
            || (self.waiting.len() > 0 && self.push.ready().writable)
            || self.req.as_ref().is_some_and(ReqSide::is_ready)
    }
}

/// The addresses of PUSH, ROUTER and SUB for a spec base.
pub(super) fn stream_specs(base: &str) -> Result<[String; 3], String> {
    if base.starts_with("ipc:") {
        return Ok(["-out", "-out-stream", "-in"].map(|suffix| format!("{base}{suffix}")));
    }
    let port = base.strip_prefix("tcp:").and_then(|rest| rest.rsplit_once(':'));
    let port = port.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((host, port)) if port <= u16::MAX - 2 => {
            Ok([0, 1, 2].map(|n| format!("tcp:{host}:{}", port + n)))
        }
        _ => Err(format!("base spec must be ipc or tcp with a port: {base}")),
    }
}

fn warn_malformed(count: &mut u64, reason: &str) {
    *count += 1;
    log::warn!("{reason}");
}

fn push_now(push: &Socket, packet: &[u8]) -> bool {
    let sent = push.send(&[packet]) != Sent::Full;
    if sent {
        log::trace!("OUT stream {}", Dump(packet));
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_three_addresses() {
        let ipc = stream_specs("ipc://run/x").unwrap();
        assert_eq!(ipc, ["ipc://run/x-out", "ipc://run/x-out-stream", "ipc://run/x-in"]);
        let tcp = stream_specs("tcp://127.0.0.1:5000").unwrap();
        assert_eq!(tcp[2], "tcp://127.0.0.1:5002");
        for bad in ["inproc://x", "tcp://127.0.0.1", "tcp://x:65535", ""] {
            assert!(stream_specs(bad).is_err(), "{bad}");
        }
    }
}
