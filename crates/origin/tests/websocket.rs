//! WebSockets to backends of the test's own, over loopback.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod kit;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use kit::{World, backend, note, read_head};
use origin::{Endpoint, Key, Limits, Opening};
use websocket::{Decoder, Event, Frame, Opcode, Role, Type};

fn opening(compression: bool) -> Opening {
    Opening::new("/s", "h", [(&b"Origin"[..], &b"o"[..])], compression, 1_000).unwrap()
}

fn open(world: &mut World, n: u32, endpoint: &Endpoint, compression: bool, window: usize) -> Key {
    let key = Key { index: n, generation: n };
    let (now, seen) = (world.now(), &mut world.seen);
    let sink = &mut |key, event: origin::Event<'_>| note(seen, key, event);
    let endpoint = Arc::new(endpoint.clone());
    world.client.open_websocket(now, key, endpoint, opening(compression), window, sink);
    key
}

fn grant(world: &mut World, key: Key, bytes: usize) {
    let (now, seen) = (world.now(), &mut world.seen);
    world.client.grant(now, key, bytes, &mut |key, event| note(seen, key, event));
}

fn say(world: &mut World, key: Key, data: &[u8]) {
    let (now, seen) = (world.now(), &mut world.seen);
    let sink = &mut |key, event: origin::Event<'_>| note(seen, key, event);
    world.client.message(now, key, Type::Binary, data, true, sink);
}

fn close(world: &mut World, key: Key) {
    let (now, seen) = (world.now(), &mut world.seen);
    let sink = &mut |key, event: origin::Event<'_>| note(seen, key, event);
    world.client.close_websocket(now, key, Some(1000), "", sink);
}

/// The backend's side of a WebSocket.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    input: Vec<u8>,
    deflater: Option<websocket::Deflater>,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().unwrap();
        let head = read_head(&mut stream);
        let value = |name: &str| {
            let line = head.lines().find(|line| line.starts_with(name));
            line.map(|line| line[name.len()..].to_owned())
        };
        let accept = websocket::accept(value("Sec-WebSocket-Key: ").unwrap().as_bytes());
        let offer = value("Sec-WebSocket-Extensions: ").unwrap_or_default();
        let deflate = websocket::negotiate([offer.as_bytes()], false).unwrap();
        let mut answer = format!("HTTP/1.1 101 Up\r\nSec-WebSocket-Accept: {accept}\r\n");
        if let Some(deflate) = deflate {
            answer += &format!("Sec-WebSocket-Extensions: {}\r\n", deflate.answer());
        }
        stream.write_all(answer.as_bytes()).unwrap();
        stream.write_all(b"\r\n").unwrap();
        let decoder = Decoder::new(Role::Server, deflate, 1 << 30);
        let deflater = deflate.map(|_| websocket::Deflater::default());
        Self { stream, decoder, input: Vec::new(), deflater }
    }

    /// The next event and its bytes.
    fn next(&mut self) -> (Event, Vec<u8>) {
        let mut piece = Vec::new();
        loop {
            let step = self.decoder.decode(&self.input, 1 << 20, &mut piece).unwrap();
            self.input.drain(..step.consumed);
            if let Some(event) = step.event {
                return (event, piece);
            }
            if step.consumed == 0 {
                let mut buffer = [0; 10_000];
                let size = self.stream.read(&mut buffer).unwrap();
                assert!(size > 0, "the end");
                self.input.extend_from_slice(&buffer[..size]);
            }
        }
    }

    /// A whole message's bytes.
    fn message(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let (event, bytes) = self.next();
            whole.extend_from_slice(&bytes);
            if matches!(event, Event::Piece { last: true, .. }) {
                return whole;
            }
        }
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut out = Vec::new();
        match &mut self.deflater {
            Some(deflater) if !opcode.is_control() => {
                let mut packed = Vec::new();
                deflater.piece(&mut packed, payload, true);
                let frame = Frame { opcode, last: true, compressed: true };
                websocket::frame(&mut out, frame, &packed, None);
            }
            _ => websocket::frame(&mut out, Frame::whole(opcode), payload, None),
        }
        self.stream.write_all(&out).unwrap();
    }

    fn close(&mut self) {
        let mut out = Vec::new();
        websocket::close(&mut out, Some(1000), "", None);
        self.stream.write_all(&out).unwrap();
    }
}

fn bytes_of(seen: &str) -> usize {
    let sizes = seen.split(' ').filter_map(|text| text.strip_prefix("piece:"));
    sizes.filter_map(|text| text.split_once('B')?.0.parse::<usize>().ok()).sum()
}

#[test]
fn messages_both_ways_and_a_close() {
    for compression in [false, true] {
        let (endpoint, server) = backend(|listener| {
            let mut peer = Peer::accept(listener);
            let message = peer.message();
            peer.send(Opcode::Binary, &message);
            peer.send(Opcode::Ping, b"hi");
            assert_eq!(peer.next(), (Event::Pong, b"hi".to_vec()));
            assert_eq!(peer.next(), (Event::Close { code: Some(1000) }, Vec::new()));
            peer.close();
        });
        let mut world = World::new(Limits::default());
        let key = open(&mut world, 1, &endpoint, compression, 1_000_000);
        world.wait_for(1, |text| text == format!("open:{compression}"));
        say(&mut world, key, &[7; 100_000]);
        world.wait_for(1, |text| text == "ping:2B");
        assert_eq!(bytes_of(&world.seen_of(1)), 100_000);
        let (now, seen) = (world.now(), &mut world.seen);
        world.client.pong(now, key, b"hi", &mut |key, event| note(seen, key, event));
        close(&mut world, key);
        assert!(world.finish(1).ends_with("close:Some(1000) end"));
        server.join().unwrap();
    }
}

#[test]
fn a_window_holds_even_a_bomb_back() {
    const SIZE: usize = 5_000_000;
    let (endpoint, server) = backend(|listener| {
        let mut peer = Peer::accept(listener);
        peer.send(Opcode::Binary, &vec![0; SIZE]);
        assert!(matches!(peer.next(), (Event::Close { .. }, _)));
        peer.close();
    });
    let mut world = World::new(Limits::default());
    let key = open(&mut world, 1, &endpoint, true, 10_000);
    let (mut taken, mut granted) = (0, 10_000);
    while taken < SIZE {
        world.wait_for(1, |text| text.starts_with("piece"));
        taken += bytes_of(&world.seen_of(1));
        world.seen.clear();
        assert!(taken <= granted, "{taken} of {granted}");
        if taken == granted {
            granted += 10_000;
            grant(&mut world, key, 10_000);
        }
    }
    close(&mut world, key);
    world.finish(1);
    server.join().unwrap();
}

#[test]
fn refusals_and_ends_without_a_close() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(read_head(&mut stream).contains("Origin: o"));
        stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nsorry").unwrap();
        // The same connection serves the next one, which ends without a close.
        read_head(&mut stream);
        drop(stream);
        let mut peer = Peer::accept(listener);
        peer.send(Opcode::Text, b"bye");
        drop(peer);
        // Breaks the protocol and is told so.
        let mut peer = Peer::accept(listener);
        peer.stream.write_all(b"\xff\x00").unwrap();
        assert_eq!(peer.next(), (Event::Close { code: Some(1002) }, Vec::new()));
    });
    let mut world = World::new(Limits::default());
    open(&mut world, 1, &endpoint, false, 100);
    assert_eq!(world.finish(1), "refused:403:5B");
    assert_eq!(world.client.idle(), 1);
    open(&mut world, 2, &endpoint, false, 100);
    assert_eq!(world.finish(2), "open:false piece:3B:true failed:Closed");
    open(&mut world, 3, &endpoint, false, 100);
    assert_eq!(world.finish(3), "open:false failed:Protocol");
    server.join().unwrap();
}
