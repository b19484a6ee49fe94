//! ZeroMQ sockets under mio, over real ipc.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::{Duration, Instant};

use evloop::monitor::Monitor;
use evloop::peers::{PeerRouter, Routed};
use evloop::zsock::{self, Options, Sent, Socket};
use mio::{Events, Poll, Token};

struct Place(std::path::PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("evloop-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn spec(&self, name: &str) -> String {
        format!("ipc://{}/{name}", self.0.display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Turns the loop until `done`, at most ten seconds.
fn until(poll: &mut Poll, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    let mut events = Events::with_capacity(8);
    while !done() {
        assert!(Instant::now() < end, "timed out");
        poll.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
    }
}

#[test]
fn a_flood_arrives_whole_through_an_edge_triggered_descriptor() {
    let place = Place::new("flood");
    let context = zmq::Context::new();
    let pull = Socket::new(&context, zmq::PULL, &Options::default()).unwrap();
    pull.bind(&place.spec("a"), Some(0o600)).unwrap();
    let push = Socket::new(&context, zmq::PUSH, &Options::default()).unwrap();
    push.connect(&place.spec("a")).unwrap();
    let mut poll = Poll::new().unwrap();
    pull.register(poll.registry(), Token(0)).unwrap();

    let mut sent = 0u32;
    let mut received = 0u32;
    let mut frames = Vec::new();
    until(&mut poll, || {
        while sent < 20_000 && push.send(&[&sent.to_le_bytes()]) == Sent::Ok {
            sent += 1;
        }
        // A budget, as drivers have it: what is left must still wake the loop's owner.
        for _ in 0..100 {
            if !pull.recv(&mut frames) {
                break;
            }
            assert_eq!(frames[0][..], received.to_le_bytes());
            received += 1;
        }
        received == 20_000
    });
    assert!(!pull.ready().readable);
}

/// Sends `last` numbers back and forth, asking the socket only as its edges tell; gives the
/// highest that came. Sleeps long enough that a lost edge shows.
fn exchange(socket: &Socket, begins: bool, last: u32) -> u32 {
    let mut poll = Poll::new().unwrap();
    zsock::register_all(&[socket], poll.registry(), 5).unwrap();
    let (mut events, mut frames, mut highest) = (Events::with_capacity(8), Vec::new(), 0);
    if begins {
        // Three on the way at a time, so that sending meets what came meanwhile.
        (1..=3u32).for_each(|n| assert_eq!(socket.send(&[&n.to_le_bytes()]), Sent::Ok));
    }
    while highest < last {
        if !socket.is_readable() {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "an edge is lost at {highest}");
            events.iter().for_each(|event| zsock::edge_of(&[socket], event.token(), 5));
        }
        while socket.recv(&mut frames) {
            let number = u32::from_le_bytes(frames[0][..].try_into().unwrap());
            highest = highest.max(number);
            assert_eq!(socket.send(&[&(number + 3).to_le_bytes()]), Sent::Ok);
        }
    }
    highest
}

#[test]
fn a_socket_that_is_asked_by_its_edges_misses_nothing() {
    let place = Place::new("edges");
    let context = zmq::Context::new();
    let one = Socket::new(&context, zmq::PAIR, &Options::default()).unwrap();
    one.bind(&place.spec("a"), None).unwrap();
    let two = Socket::new(&context, zmq::PAIR, &Options::default()).unwrap();
    two.connect(&place.spec("a")).unwrap();
    // Each stays until the other is through: a socket that is dropped may take its last words along.
    let other = std::thread::spawn(move || (exchange(&two, true, 30_000), two));
    assert!(exchange(&one, false, 30_000) >= 30_000);
    let (highest, _two) = other.join().unwrap();
    assert!(highest >= 30_000);
}

#[test]
fn a_socket_without_an_edge_is_not_asked() {
    let context = zmq::Context::new();
    let one = Socket::new(&context, zmq::PAIR, &Options::default()).unwrap();
    one.bind("inproc://quiet", None).unwrap();
    let two = Socket::new(&context, zmq::PAIR, &Options::default()).unwrap();
    two.connect("inproc://quiet").unwrap();
    let mut poll = Poll::new().unwrap();
    zsock::register_all(&[&one], poll.registry(), 5).unwrap();
    let mut frames = Vec::new();
    while one.recv(&mut frames) {}
    assert_eq!(two.send(&[b"one"]), Sent::Ok);
    assert!(!one.recv(&mut frames) && !one.is_readable(), "asked without an edge");
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
    events.iter().for_each(|event| zsock::edge_of(&[&one], event.token(), 5));
    assert!(one.is_readable() && one.recv(&mut frames));
}

/// The timers of the established TCP connections to a port, as the kernel shows them: kind, and
/// hundredths of a second.
fn timers_to(port: u16) -> Vec<(u8, u64)> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01")
        .map(|fields| {
            let (kind, when) = fields[5].split_once(':').unwrap();
            (u8::from_str_radix(kind, 16).unwrap(), u64::from_str_radix(when, 16).unwrap())
        })
        .collect()
}

#[test]
fn tcp_asks_a_peer_that_is_silent() {
    const KEEP_ALIVE_TIMER: u8 = 2;
    let context = zmq::Context::new();
    let publisher = Socket::new(&context, zmq::XPUB, &Options::default()).unwrap();
    publisher.bind("tcp://127.0.0.1:*", None).unwrap();
    let spec = publisher.last_endpoint().unwrap();
    let port = spec.rsplit(':').next().unwrap().parse().unwrap();
    let options = Options { keep_alive: true, subscribe: Some(b""), ..Options::default() };
    let sub = Socket::new(&context, zmq::SUB, &options).unwrap();
    sub.connect(&spec).unwrap();
    let mut poll = Poll::new().unwrap();
    let asks = |timers: &[(u8, u64)]| {
        timers.iter().any(|(kind, when)| *kind == KEEP_ALIVE_TIMER && *when <= 3_000)
    };
    until(&mut poll, || asks(&timers_to(port)));
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let context = zmq::Context::new();
    let bind = |spec: &str| {
        let pull = Socket::new(&context, zmq::PULL, &Options::default()).unwrap();
        pull.bind(spec, None)
    };
    let place = Place::new("bind");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held = format!("tcp://{}", holder.local_addr().unwrap());
    let long = place.spec(&"x".repeat(120));
    for (spec, cause) in [
        ("ipc:///nonexistent-folder/x", "No such file or directory"),
        (&*held, "Address already in use"),
        (&*long, "File name too long"),
        ("tcp://127.0.0.1", "this is no ZeroMQ address (for example tcp://127.0.0.1:5560)"),
        ("tcp://127.0.0.1:x", "this is no ZeroMQ address (for example tcp://127.0.0.1:5560)"),
        ("what://x", "Protocol not supported"),
    ] {
        let error = bind(spec).unwrap_err().to_string();
        assert_eq!(error, format!("unable to bind to {spec}: {cause}"));
    }
}

fn router(context: &zmq::Context, identity: &[u8]) -> Socket {
    let options = Options { identity: Some(identity), mandatory: true, ..Options::default() };
    Socket::new(context, zmq::ROUTER, &options).unwrap()
}

#[test]
fn packets_wait_for_a_peer_and_its_end_is_told() {
    let place = Place::new("peers");
    let context = zmq::Context::new();
    let mut server = PeerRouter::new(router(&context, b"server"));
    server.socket().bind(&place.spec("r"), None).unwrap();
    let mut monitor = Monitor::new(&context, server.socket()).unwrap();
    let mut poll = Poll::new().unwrap();
    server.socket().register(poll.registry(), Token(0)).unwrap();
    monitor.register(poll.registry(), Token(1)).unwrap();

    // Before first contact packets wait.
    assert_eq!(server.send(0, b"client", b"one".to_vec()), Routed::Parked);
    assert_eq!(server.send(0, b"client", b"two".to_vec()), Routed::Parked);
    assert_eq!(server.retry(1), Vec::<Vec<u8>>::new());

    let client = router(&context, b"client");
    client.connect(&place.spec("r")).unwrap();
    let mut frames = Vec::new();
    let mut got = Vec::new();
    until(&mut poll, || {
        assert!(server.retry(2).is_empty());
        while client.recv(&mut frames) {
            assert_eq!(frames.len(), 3);
            got.push(frames[2].to_vec());
        }
        got.len() == 2
    });
    assert_eq!(got, [b"one", b"two"]);
    assert!(!server.has_parked());

    // After it left, the next packet says so.
    drop(client);
    until(&mut poll, || monitor.disconnected() > 0);
    until(&mut poll, || server.send(3, b"client", b"three".to_vec()) == Routed::Gone);
    assert!(server.drops().gone >= 1);
}

#[test]
fn a_peer_that_never_comes_is_given_up() {
    let place = Place::new("never");
    let context = zmq::Context::new();
    let mut server = PeerRouter::new(router(&context, b"server"));
    server.socket().bind(&place.spec("r"), None).unwrap();
    assert_eq!(server.send(0, b"nobody", b"one".to_vec()), Routed::Parked);
    assert_eq!(server.retry(1_999), Vec::<Vec<u8>>::new());
    assert_eq!(server.retry(2_000), [b"nobody"]);
    assert_eq!(server.drops().gone, 1);
    assert!(!server.has_parked());
}
