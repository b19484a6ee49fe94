//! `zresponder`: a small ZHTTP responder that stands behind a connection manager in place of proxy
//! and handler, so that connection managers can be measured alone and side by side.
//!
//! What it does with a request is in `sessions`; here are its sockets and its loop.

mod sessions;

use clap::Args;
use evloop::clock::Clock;
use evloop::peers::PeerRouter;
use evloop::zsock::{Error, Options, Socket};
use mio::{Events, Poll, Token};
use sessions::{Out, Sessions};
use std::io;
use std::time::Duration;
use zhttp::Packet;

#[derive(Args, Clone, Debug)]
pub struct ZResponderArgs {
    /// Spec base of a connection manager's sockets, as its --zclient-stream has it; only ipc
    #[arg(long, required = true)]
    base: Vec<String>,
    /// Instance id
    #[arg(long, default_value = "loadgen")]
    id: String,
}

/// Messages taken from one socket before the next has its turn.
const TURN_MESSAGES: usize = 100;

/// Time between two looks at the keep-alives.
const TICK: Duration = Duration::from_millis(100);

pub fn run(args: ZResponderArgs) -> io::Result<()> {
    let context = zmq::Context::new();
    let mut poll = Poll::new()?;
    let mut links = Vec::new();
    for base in &args.base {
        let link = Link::new(&context, base, args.id.as_bytes()).map_err(io::Error::other)?;
        for socket in link.sockets() {
            socket.register(poll.registry(), Token(links.len()))?;
        }
        links.push(link);
    }
    println!("connected");
    serve(&mut poll, &mut links, Sessions::new(args.id.into_bytes()))
}

fn serve(poll: &mut Poll, links: &mut [Link], mut sessions: Sessions) -> io::Result<()> {
    let clock = Clock::new();
    let mut events = Events::with_capacity(16);
    let mut frames = Vec::new();
    let mut out = Vec::new();
    loop {
        let now_ms = clock.now_ms();
        for (i, link) in links.iter_mut().enumerate() {
            link.receive(&mut frames, |packet| sessions.handle(i, packet, &mut out));
        }
        sessions.tick(now_ms, &mut out);
        for packet in out.drain(..) {
            links[packet.link].send(now_ms, packet);
        }
        for link in links.iter_mut() {
            link.retry(now_ms);
        }
        // A call on a socket may have swallowed the event of its descriptor.
        if !links.iter().any(Link::has_input)
            && let Err(e) = poll.poll(&mut events, Some(TICK))
            && e.kind() != io::ErrorKind::Interrupted
        {
            return Err(e);
        }
    }
}

/// The three sockets towards one connection manager (spec/zhttp.md §8.1).
struct Link {
    pull: Socket,
    router: PeerRouter,
    publisher: Socket,
}

impl Link {
    fn new(context: &zmq::Context, base: &str, id: &[u8]) -> Result<Link, Error> {
        let socket = |kind, suffix, options: Options<'_>| {
            let socket = Socket::new(context, kind, &options)?;
            socket.connect(&format!("{base}-{suffix}"))?;
            Ok(socket)
        };
        let named = Options { identity: Some(id), mandatory: true, ..Options::default() };
        Ok(Link {
            pull: socket(zmq::PULL, "out", Options::default())?,
            router: PeerRouter::new(socket(zmq::ROUTER, "out-stream", named)?),
            publisher: socket(zmq::PUB, "in", Options::default())?,
        })
    }

    fn sockets(&self) -> [&Socket; 3] {
        [&self.pull, self.router.socket(), &self.publisher]
    }

    fn has_input(&self) -> bool {
        self.pull.ready().readable || self.router.socket().ready().readable
    }

    /// Gives the packets that have come, a turn's worth from each socket.
    fn receive(&self, frames: &mut Vec<zmq::Message>, mut handle: impl FnMut(&Packet<'_>)) {
        for socket in [&self.pull, self.router.socket()] {
            for _ in 0..TURN_MESSAGES {
                if !socket.recv(frames) {
                    break;
                }
                let Some(message) = frames.last() else { break };
                for packet in zhttp::split(message) {
                    match Packet::parse(packet) {
                        Ok(packet) => handle(&packet),
                        Err(e) => eprintln!("loadgen: packet dropped: {e}"),
                    }
                }
            }
        }
    }

    fn send(&mut self, now_ms: u64, out: Out) {
        if out.by_router {
            self.router.send(now_ms, &out.peer, out.packet);
        } else {
            self.publisher.send(&[&zhttp::route::publish(&out.peer, &out.packet)]);
        }
    }

    fn retry(&mut self, now_ms: u64) {
        if self.router.has_parked() {
            self.router.retry(now_ms);
        }
    }
}
