//! A client in a loop of its own, and backends that a test plays in a thread.

#![allow(dead_code, reason = "each test file uses a part of the kit")]
#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use origin::{Client, Endpoint, Event, Key, Limits, Request, WebSocketEvent};

/// Long enough for anything that works.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub poll: Poll,
    pub client: Client,
    pub seen: Vec<(u32, String)>,
    start: Instant,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let registry = poll.registry().try_clone().unwrap();
        let client = Client::new(registry, 1, waker, limits);
        Self { poll, client, seen: Vec::new(), start: Instant::now() }
    }

    pub fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub fn ask(&mut self, n: u32, endpoint: &Endpoint, request: Request) {
        let (now, seen) = (self.now(), &mut self.seen);
        let key = Key { index: n, generation: n };
        let endpoint = Arc::new(endpoint.clone());
        self.client.start(now, key, endpoint, request, &mut |key, event| note(seen, key, event));
    }

    /// Runs until request `n` has ended, and gives what was seen of it.
    pub fn finish(&mut self, n: u32) -> String {
        let ended =
            |text: &str| text == "end" || text.starts_with("failed") || text.starts_with("refused");
        self.wait_for(n, ended);
        self.seen_of(n)
    }

    /// What was seen of request `n`.
    pub fn seen_of(&self, n: u32) -> String {
        let of_n = self.seen.iter().filter(|(k, _)| *k == n).map(|(_, text)| text.as_str());
        of_n.collect::<Vec<_>>().join(" ")
    }

    /// Runs until something that `wanted` knows was seen of request `n`.
    pub fn wait_for(&mut self, n: u32, wanted: impl Fn(&str) -> bool) {
        let mut events = Events::with_capacity(64);
        let until = Instant::now() + PATIENCE;
        while !self.seen.iter().any(|(k, text)| *k == n && wanted(text)) {
            assert!(Instant::now() < until, "nothing more came: {:?}", self.seen);
            self.poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
            let now = self.now();
            let seen = &mut self.seen;
            for event in &events {
                self.client.handle(now, event, &mut |key, event| note(seen, key, event));
            }
            self.client.turn(now, &mut |key, event| note(seen, key, event));
        }
    }
}

pub fn note(seen: &mut Vec<(u32, String)>, key: Key, event: Event<'_>) {
    let text = match event {
        Event::Head { code, .. } => code.to_string(),
        Event::Body(data) => format!("{}B", data.len()),
        Event::End => "end".to_owned(),
        Event::Queued(_) => return,
        Event::WebSocket(event) => websocket(event),
        Event::Failed(error) => format!("failed:{error:?}"),
    };
    seen.push((key.index, text));
}

fn websocket(event: WebSocketEvent<'_>) -> String {
    match event {
        WebSocketEvent::Open { compressed, .. } => format!("open:{compressed}"),
        WebSocketEvent::Refused { code, body, .. } => format!("refused:{code}:{}B", body.len()),
        WebSocketEvent::Piece { data, last, .. } => format!("piece:{}B:{last}", data.len()),
        WebSocketEvent::Ping(data) => format!("ping:{}B", data.len()),
        WebSocketEvent::Pong(data) => format!("pong:{}B", data.len()),
        WebSocketEvent::Close { code, .. } => format!("close:{code:?}"),
    }
}

pub fn endpoint(port: u16) -> Endpoint {
    Endpoint { host: "127.0.0.1".into(), port, tls: None, deny_internal: false }
}

pub fn get() -> Request {
    Request {
        bytes: b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        complete: true,
        idempotent: true,
        ..Request::default()
    }
}

/// A backend whose connections are handled in turn by `serve`, which gives how many there were.
pub fn backend(serve: impl FnOnce(&TcpListener) + Send + 'static) -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (endpoint(port), std::thread::spawn(move || serve(&listener)))
}

pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
