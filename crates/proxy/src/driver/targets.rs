//! The sockets of targets that are ZHTTP workers (spec/routes.md §4.1). The proxy binds, workers
//! connect. An address can be bound once, so the first worker of the proxy has all of them; the
//! others reach them through it. An outside client for requests to hosts is one more target, to
//! which the proxy connects.

use std::collections::VecDeque;
use std::sync::Arc;

use config::specs::ClientSpecs;
use evloop::arena::Key;
use evloop::peers::{PeerRouter, Routed};
use evloop::zsock::{Error, Options, Sent, Socket};
use mio::{Registry, Token};

use super::sockets::Watched;
use crate::Routes;
use crate::zmq_target::OUTSIDE;

/// Addresses that are bound at most.
const TARGETS_MAX: usize = 100;

/// Tokens that this takes: each target, and an outside client, has up to two sockets to read.
pub(crate) const COUNT: usize = 2 * (TARGETS_MAX + 1);

/// Sockets that no route names are closed if so long nothing was sent: streams have keep-alives
/// more often.
const UNUSED_MS: u64 = 120_000;

/// How long a request waits for a worker.
const WAIT_MS: u64 = 1_000;

/// Requests that may wait for workers.
const WAITING_MAX: usize = 10_000;

enum Sockets {
    Stream { push: Socket, router: PeerRouter, router_check: bool, sub: Watched },
    Req(Watched),
}

struct Target {
    spec: Arc<str>,
    req: bool,
    sockets: Sockets,
    /// When something was last sent.
    used_ms: u64,
}

/// A packet for a ZHTTP worker.
pub(crate) struct Ask {
    /// The proxy's worker that asks, and its session.
    pub asker: (usize, Key),
    /// Address of the target.
    pub spec: Arc<str>,
    /// Request mode.
    pub req: bool,
    /// The worker; none for the first packet.
    pub to: Option<Arc<[u8]>>,
    pub message: Vec<u8>,
}

struct Waiting {
    ask: Ask,
    give_up_ms: u64,
}

/// All of them.
pub(crate) struct Targets {
    context: zmq::Context,
    registry: Registry,
    instance_id: String,
    first_token: usize,
    /// By token; a place is used again.
    places: Vec<Option<Target>>,
    waiting: VecDeque<Waiting>,
    /// Who asked in vain.
    failed: Vec<(usize, Key)>,
}

/// `base-out`, `base-out-stream`, `base-in`; for host and port the next ports (spec §4.1).
fn stream_specs(base: &str) -> [String; 3] {
    let port = base.split_once("://").and_then(|(_, rest)| rest.rsplit_once(':'));
    match port.and_then(|(_, port)| Some((port.len(), port.parse::<u16>().ok()?))) {
        Some((digits, port)) => {
            let start = &base[..base.len() - digits];
            [0, 1, 2].map(|n| format!("{start}{}", port.saturating_add(n)))
        }
        None => ["out", "out-stream", "in"].map(|name| format!("{base}-{name}")),
    }
}

/// Binds or connects a socket.
type Attach<'a> = dyn Fn(&Socket) -> Result<(), Error> + 'a;

/// First packets go to whoever is there.
fn first_packets() -> Options<'static> {
    Options { hwm: 1_000, linger_ms: 0, immediate: true, ..Options::default() }
}

impl Targets {
    pub fn new(
        context: zmq::Context,
        registry: Registry,
        instance_id: &str,
        first_token: usize,
    ) -> Self {
        let instance_id = instance_id.to_owned();
        Self {
            context,
            registry,
            instance_id,
            first_token,
            places: Vec::new(),
            waiting: VecDeque::new(),
            failed: Vec::new(),
        }
    }

    /// Binds the sockets of new routes, and closes those that nothing names or uses any more.
    pub fn update(&mut self, now: u64, routes: &Routes) {
        let wanted = routes.workers();
        for place in &mut self.places {
            let unused = place.as_ref().is_some_and(|target| {
                let named = wanted.iter().any(|w| w.spec == &*target.spec && w.req == target.req);
                !named
                    && *target.spec != *OUTSIDE
                    && now.saturating_sub(target.used_ms) >= UNUSED_MS
            });
            if unused {
                *place = None;
            }
        }
        for worker in wanted {
            let known = |target: &Target| *target.spec == *worker.spec && target.req == worker.req;
            if self.places.iter().flatten().any(known) {
                continue;
            }
            let count = self.places.iter().flatten().filter(|t| *t.spec != *OUTSIDE).count();
            if count >= TARGETS_MAX {
                return log::warn!(
                    "too many unique zhttp route targets, limiting to {TARGETS_MAX}"
                );
            }
            if let Err(cause) = self.add(worker.spec, worker.req, worker.mode) {
                log::error!("{cause}");
            }
        }
    }

    fn add(&mut self, spec: &str, req: bool, mode: Option<u32>) -> Result<(), String> {
        let [out, stream, input] = stream_specs(spec);
        let bound = |spec: &str, socket: &Socket| socket.bind(spec, mode);
        let sockets = if req {
            let socket = self.socket(zmq::DEALER, &first_packets(), |s| bound(spec, s))?;
            self.watch(&socket, 0)?;
            Sockets::Req(Watched { socket, check: true })
        } else {
            self.stream_sockets(
                false,
                [&|socket| bound(&out, socket), &|socket| bound(&stream, socket), &|socket| {
                    bound(&input, socket)
                }],
            )?
        };
        self.put(Target { spec: spec.into(), req, sockets, used_ms: 0 });
        Ok(())
    }

    /// Connects to the client that makes requests to hosts.
    ///
    /// # Errors
    /// A text for the log: which address, and why.
    pub fn connect_outside(&mut self, specs: &ClientSpecs) -> Result<(), String> {
        let connected = |specs: &[String], socket: &Socket| {
            specs.iter().try_for_each(|spec| socket.connect(spec))
        };
        let sockets = self.stream_sockets(
            true,
            [
                &|socket| connected(&specs.out, socket),
                &|socket| connected(&specs.out_stream, socket),
                &|socket| connected(&specs.input, socket),
            ],
        )?;
        self.put(Target { spec: OUTSIDE.into(), req: false, sockets, used_ms: 0 });
        Ok(())
    }

    /// First packets out, packets of sessions both ways, responses in; `attach` binds or connects
    /// each.
    fn stream_sockets(&self, connects: bool, attach: [&Attach<'_>; 3]) -> Result<Sockets, String> {
        let identity = Some(self.instance_id.as_bytes());
        // Without this a connecting socket keeps what is sent to a peer that is gone.
        let router =
            Options { identity, mandatory: true, immediate: connects, ..Options::default() };
        let topic = format!("{} ", self.instance_id);
        let sub = Options { subscribe: Some(topic.as_bytes()), ..Options::default() };
        let push = self.socket(zmq::PUSH, &first_packets(), attach[0])?;
        let router = self.socket(zmq::ROUTER, &router, attach[1])?;
        let sub = self.socket(zmq::SUB, &sub, attach[2])?;
        self.watch(&router, 0)?;
        self.watch(&sub, 1)?;
        Ok(Sockets::Stream {
            push,
            router: PeerRouter::new(router),
            router_check: true,
            sub: Watched { socket: sub, check: true },
        })
    }

    fn socket(
        &self,
        kind: zmq::SocketType,
        options: &Options<'_>,
        attach: impl Fn(&Socket) -> Result<(), Error>,
    ) -> Result<Socket, String> {
        let socket = Socket::new(&self.context, kind, options).map_err(|e| e.to_string())?;
        attach(&socket).map_err(|cause| cause.to_string())?;
        Ok(socket)
    }

    /// The place that the next target takes.
    fn free_place(&self) -> usize {
        self.places.iter().position(Option::is_none).unwrap_or(self.places.len())
    }

    /// Lets the loop report socket number `n` of the next target.
    fn watch(&self, socket: &Socket, n: usize) -> Result<(), String> {
        let token = Token(self.first_token + 2 * self.free_place() + n);
        socket.register(&self.registry, token).map_err(|cause| cause.to_string())
    }

    fn put(&mut self, target: Target) {
        let place = self.free_place();
        match self.places.get_mut(place) {
            Some(free) => *free = Some(target),
            None => self.places.push(Some(target)),
        }
    }

    /// Notes that the loop reported a socket.
    pub fn event(&mut self, token: Token) {
        let n = token.0.wrapping_sub(self.first_token);
        let target = self.places.get_mut(n / 2).and_then(Option::as_mut);
        match target.map(|target| &mut target.sockets) {
            Some(Sockets::Req(dealer)) => dealer.check = true,
            Some(Sockets::Stream { router_check, .. }) if n.is_multiple_of(2) => {
                *router_check = true;
            }
            Some(Sockets::Stream { sub, .. }) => sub.check = true,
            None => {}
        }
    }

    /// Whether any socket is to be looked at, or [`Targets::take_failed`] has something.
    pub fn any_check(&self) -> bool {
        let check = |target: &Target| match &target.sockets {
            Sockets::Req(dealer) => dealer.check,
            Sockets::Stream { router_check, sub, .. } => *router_check || sub.check,
        };
        !self.failed.is_empty() || self.places.iter().flatten().any(check)
    }

    /// Whether something waits, so that [`Targets::retry`] is worth a turn.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a packet. A first one may wait a moment for a worker.
    pub fn send(&mut self, now: u64, ask: Ask) {
        let same = |t: &Target| *t.spec == *ask.spec && t.req == ask.req;
        let Some(target) = self.places.iter_mut().flatten().find(|t| same(t)) else {
            return self.failed.push(ask.asker);
        };
        target.used_ms = now;
        if let Some(peer) = &ask.to {
            let Sockets::Stream { router, router_check, .. } = &mut target.sockets else { return };
            *router_check = true;
            if matches!(router.send(now, peer, ask.message), Routed::Gone | Routed::Overflow) {
                self.failed.push(ask.asker);
            }
            return;
        }
        let behind = self.waiting.iter().any(|w| w.ask.spec == ask.spec && w.ask.req == ask.req);
        if !behind && target.first(&ask.message) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            return self.failed.push(ask.asker);
        }
        self.waiting.push_back(Waiting { ask, give_up_ms: now + WAIT_MS });
    }

    /// Who asked in vain since the last call.
    pub fn take_failed(&mut self) -> Vec<(usize, Key)> {
        std::mem::take(&mut self.failed)
    }

    /// Tries what waits.
    pub fn retry(&mut self, now: u64) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { return };
            let ask = &waiting.ask;
            let target =
                self.places.iter_mut().flatten().find(|t| t.spec == ask.spec && t.req == ask.req);
            if target.is_some_and(|target| target.first(&ask.message)) {
                continue;
            }
            match waiting.give_up_ms <= now {
                true => self.failed.push(ask.asker),
                false => self.waiting.push_back(waiting),
            }
        }
    }

    /// Takes what came: messages of workers, without their envelopes.
    pub fn drain(&mut self, now: u64, frames: &mut Vec<zmq::Message>, take: &mut dyn FnMut(&[u8])) {
        let id = self.instance_id.as_bytes();
        for target in self.places.iter_mut().flatten() {
            match &mut target.sockets {
                Sockets::Req(dealer) => {
                    super::drain::drain(dealer, frames, |frames| match frames {
                        [empty, packet] if empty.is_empty() => take(packet),
                        _ => log::warn!("zhttpreq message with parts != 2, skipping"),
                    })
                }
                Sockets::Stream { router, router_check, sub, .. } => {
                    super::drain::drain_router(router, router_check, frames, |packet| {
                        take(packet);
                    });
                    super::drain::drain(sub, frames, |frames| {
                        let message = frames.first().map_or(&b""[..], |frame| frame);
                        match zhttp::route::published(id, message) {
                            Ok(packet) => take(packet),
                            Err(cause) => log::warn!("{cause}"),
                        }
                    });
                    if router.has_parked() {
                        *router_check = true;
                        router.retry(now);
                    }
                }
            }
        }
    }
}

impl Target {
    /// Gives a request to whichever worker takes it.
    fn first(&mut self, message: &[u8]) -> bool {
        match &mut self.sockets {
            Sockets::Req(dealer) => {
                dealer.check = true;
                dealer.socket.send(&[b"", message]) == Sent::Ok
            }
            Sockets::Stream { push, .. } => push.send(&[message]) == Sent::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_streams() {
        assert_eq!(
            stream_specs("ipc:///a/b"),
            ["ipc:///a/b-out", "ipc:///a/b-out-stream", "ipc:///a/b-in"]
        );
        assert_eq!(
            stream_specs("tcp://127.0.0.1:90"),
            ["tcp://127.0.0.1:90", "tcp://127.0.0.1:91", "tcp://127.0.0.1:92"]
        );
    }
}
