//! The ZeroMQ sockets of the client side (`spec/zhttp.md §8.2`, §8.3): PULL for first packets,
//! ROUTER for further ones and most answers, PUB for the other answers, ROUTER for req mode.
//! Whoever owns them (the only worker, or the thread between several) drains them each turn.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use evloop::monitor::Monitor;
use evloop::peers::{PeerRouter, Routed};
use evloop::zsock::{self, Sent, Socket};
use mio::{Registry, Token};
use zhttp::route;

use super::reports::Reports;
use crate::client::Message;
use crate::driver::trace::Dump;
use crate::options::Options;

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

/// What came.
pub(super) enum Arrival<'a> {
    /// A first packet of stream mode.
    First(&'a [u8]),
    /// A message with further packets.
    Further(&'a [u8]),
    /// A request of req mode: the parts before its packet, and the packet.
    Request(Vec<Vec<u8>>, &'a [u8]),
}

/// How many more sessions there is room for. Requests beyond stay in ZeroMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Of stream mode.
    pub(super) stream: usize,
    /// Of req mode.
    pub(super) req: usize,
}

impl Room {
    pub(super) const NONE: Self = Self { stream: 0, req: 0 };
}

/// The ZeroMQ sockets; those of a mode that is not used are not bound.
pub(super) struct Sockets {
    pull: Socket,
    router: PeerRouter,
    publish: Socket,
    req: Socket,
    monitor: Monitor,
    probes: VecDeque<u64>,
    frames: Vec<zmq::Message>,
    reports: Arc<Reports>,
}

impl Sockets {
    /// Makes the sockets and binds or connects those of the modes that have an address.
    pub(super) fn new(
        context: &zmq::Context,
        options: &Options,
        reports: Arc<Reports>,
    ) -> Result<Self, String> {
        let sockets =
            Self::unbound(context, options, reports).map_err(|error| error.to_string())?;
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
        Ok(sockets)
    }

    /// Puts the sockets into a loop; none of their events needs a look at the token.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        for socket in [&self.pull, self.router.socket(), &self.publish, &self.req] {
            socket.register(registry, token)?;
        }
        self.monitor.register(registry, token)
    }

    fn unbound(
        context: &zmq::Context,
        options: &Options,
        reports: Arc<Reports>,
    ) -> Result<Self, zsock::Error> {
        let base = zsock::Options { linger_ms: LINGER_MS, heartbeat: true, ..Default::default() };
        let first = zsock::Options { hwm: FIRST_HWM, ..base.clone() };
        let identity = Some(options.id.as_bytes());
        let mandatory = zsock::Options { mandatory: true, ..base.clone() };
        let router = zsock::Options { identity, ..mandatory.clone() };
        let router = Socket::new(context, zmq::ROUTER, &router)?;
        let req = zsock::Options { receive_hwm: Some(FIRST_HWM), ..mandatory };
        Ok(Self {
            pull: Socket::new(context, zmq::PULL, &first)?,
            monitor: Monitor::new(context, &router)?,
            router: PeerRouter::new(router),
            publish: Socket::new(context, zmq::PUB, &base)?,
            req: Socket::new(context, zmq::ROUTER, &req)?,
            probes: VecDeque::new(),
            frames: Vec::new(),
            reports,
        })
    }

    /// Gives what came, each socket within its budget, and no more first packets than there is
    /// room for.
    pub(super) fn receive(&mut self, room: Room, take: &mut dyn FnMut(Arrival<'_>)) {
        let Self { pull, router, req, frames, reports, .. } = self;
        let malformed = |reason: &str| {
            reports.drops.malformed();
            log::warn!("{reason}");
        };
        for _ in 0..BUDGET.min(room.stream) {
            if !pull.recv(frames) {
                break;
            }
            // Further parts have no meaning (`spec/zhttp.md §8.4`).
            let packet = frames.first().map_or(&b""[..], |frame| frame);
            log::trace!("IN server stream {}", Dump(packet));
            take(Arrival::First(packet));
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
                    take(Arrival::Further(packet));
                }
                Err(reason) => malformed(reason),
            }
        }
        for _ in 0..BUDGET.min(room.req) {
            if !req.recv(frames) {
                break;
            }
            let parts: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
            match split_envelope(&parts) {
                Some((envelope, packet)) => {
                    log::trace!("IN server req {}", Dump(packet));
                    take(Arrival::Request(envelope, packet));
                }
                None => malformed("unable to determine packet address"),
            }
        }
    }

    /// Sends, or lets it wait. Gives a requester that turned out to be gone.
    #[must_use]
    pub(super) fn send(&mut self, now: u64, message: Message) -> Option<Arc<[u8]>> {
        match message {
            Message::Packet { peer, router: true, packet } => return self.route(now, peer, packet),
            Message::Packet { peer, packet, .. } => {
                log::trace!("OUT server stream {}", Dump(&packet));
                if self.publish.send(&[&route::publish(&peer, &packet)]) != Sent::Ok {
                    self.reports.drops.unsent();
                    log::warn!("a packet could not be published");
                }
            }
            Message::Reply { envelope, packet } => {
                log::trace!("OUT server req {}", Dump(&packet));
                let mut parts: Vec<&[u8]> = envelope.iter().map(Vec::as_slice).collect();
                parts.push(&packet);
                if self.req.send(&parts) != Sent::Ok {
                    self.reports.drops.unsent();
                    log::warn!("an answer of req mode could not be sent");
                }
            }
        }
        None
    }

    fn route(&mut self, now: u64, peer: Arc<[u8]>, packet: Vec<u8>) -> Option<Arc<[u8]>> {
        log::trace!("OUT server stream to={} {}", String::from_utf8_lossy(&peer), Dump(&packet));
        match self.router.send(now, &peer, packet) {
            Routed::Sent | Routed::Parked => None,
            Routed::Gone | Routed::Overflow => {
                log::debug!("server stream zmq send to host unreachable");
                Some(peer)
            }
        }
    }

    /// Whether it is time to probe the requesters, because one of them left.
    pub(super) fn is_probe_due(&mut self, now: u64) -> bool {
        if self.monitor.disconnected() > 0 {
            self.probes = PROBES_MS.iter().map(|wait| now + wait).collect();
        }
        let due = self.probes.front().is_some_and(|at| *at <= now);
        if due {
            self.probes.pop_front();
        }
        due
    }

    /// Tries what waits for slow requesters; gives those that are gone.
    pub(super) fn retry(&mut self, now: u64) -> Vec<Vec<u8>> {
        if self.router.has_parked() { self.router.retry(now) } else { Vec::new() }
    }

    /// When the sockets want a turn without an event, in milliseconds.
    pub(super) fn next_deadline(&self, now: u64) -> Option<u64> {
        let parked = self.router.has_parked().then_some(now + PARKED_MS);
        [parked, self.probes.front().copied()].into_iter().flatten().min()
    }

    /// Whether a turn would find something at once. To be asked before sleeping: any call on a
    /// socket may have swallowed its edge.
    pub(super) fn is_ready(&self, room: Room) -> bool {
        (room.stream > 0 && self.pull.ready().readable)
            || (room.req > 0 && self.req.ready().readable)
            || self.router.socket().ready().readable
    }
}

/// The addresses of PUB, ROUTER and PULL for a spec base (`spec/zhttp.md §8.2`).
fn stream_specs(base: &str) -> Result<[String; 3], String> {
    let [one, two, three] = crate::driver::zmqside::stream_specs(base)?;
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
