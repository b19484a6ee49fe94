//! The client against a backend of the test's own, over loopback.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod kit;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use kit::{World, backend, endpoint, get, note, read_head};
use mio::Events;
use origin::{Endpoint, Error, Key, Limits, Request};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn one_connection_serves_one_request_after_another() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..3 {
            assert!(read_head(&mut stream).starts_with("GET / "));
            stream.write_all(HELLO).unwrap();
        }
    });
    let mut world = World::new(Limits::default());
    for n in 1..=3 {
        world.ask(n, &endpoint, get());
        assert_eq!(world.finish(n), "200 5B end");
    }
    server.join().unwrap();
}

#[test]
fn a_kept_connection_that_closes_without_an_answer_is_replaced() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(HELLO).unwrap();
        // The next request is read and not answered.
        read_head(&mut stream);
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(HELLO).unwrap();
    });
    let mut world = World::new(Limits::default());
    world.ask(1, &endpoint, get());
    assert_eq!(world.finish(1), "200 5B end");
    world.ask(2, &endpoint, get());
    assert_eq!(world.finish(2), "200 5B end");
    server.join().unwrap();
}

#[test]
fn what_may_not_be_repeated_is_not() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(HELLO).unwrap();
        read_head(&mut stream);
    });
    let mut world = World::new(Limits::default());
    world.ask(1, &endpoint, get());
    world.finish(1);
    world.ask(2, &endpoint, Request { idempotent: false, ..get() });
    assert_eq!(world.finish(2), "failed:Closed");
    server.join().unwrap();
}

#[test]
fn errors_by_name() {
    let mut world = World::new(Limits::default());
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.ask(1, &endpoint(port), get());
    assert_eq!(world.finish(1), format!("failed:{:?}", Error::Connect));
    let denied = Endpoint { deny_internal: true, ..endpoint(port) };
    world.ask(2, &denied, get());
    assert_eq!(world.finish(2), format!("failed:{:?}", Error::Policy));
    let unknown = Endpoint { host: "no-such-name.invalid".into(), ..endpoint(80) };
    world.ask(3, &unknown, get());
    assert_eq!(world.finish(3), format!("failed:{:?}", Error::Name));
}

#[test]
fn silence_and_cuts_are_reported() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(&HELLO[..HELLO.len() - 2]).unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        // Until the client gives up.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let mut world = World::new(Limits { response_ms: 300, ..Limits::default() });
    world.ask(1, &endpoint, get());
    assert_eq!(world.finish(1), "200 3B failed:Closed");
    world.ask(2, &endpoint, get());
    assert_eq!(world.finish(2), "failed:Timeout");
    server.join().unwrap();
}

#[test]
fn bodies_stream_both_ways() {
    const SIZE: usize = 3_000_000;
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let mut world = World::new(Limits::default());
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n");
    let request = Request { bytes: head.into_bytes(), ..Request::default() };
    world.ask(1, &endpoint, request);
    let key = Key { index: 1, generation: 1 };
    let piece = vec![7; SIZE / 10];
    for n in 0..10 {
        let seen = &mut world.seen;
        world.client.body(0, key, &piece, n == 9, &mut |key, event| note(seen, key, event));
    }
    let seen = world.finish(1);
    let bytes: usize =
        seen.split(' ').filter_map(|text| text.strip_suffix('B')?.parse::<usize>().ok()).sum();
    assert_eq!(bytes, SIZE);
    server.join().unwrap();
}

#[test]
fn a_paused_response_waits() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        stream.write_all(&vec![0; 1_000_000]).unwrap();
    });
    let mut world = World::new(Limits::default());
    world.ask(1, &endpoint, get());
    let key = Key { index: 1, generation: 1 };
    world.client.pause(key);
    let mut events = Events::with_capacity(64);
    for _ in 0..10 {
        world.poll.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
        let (now, seen) = (world.now(), &mut world.seen);
        for event in &events {
            world.client.handle(now, event, &mut |key, event| note(seen, key, event));
        }
    }
    assert_eq!(world.seen, []);
    let (now, seen) = (world.now(), &mut world.seen);
    world.client.resume(now, key, &mut |key, event| note(seen, key, event));
    assert!(world.finish(1).ends_with("end"));
    server.join().unwrap();
}

#[test]
fn requests_beyond_an_endpoints_connections_wait() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..3 {
            read_head(&mut stream);
            stream.write_all(HELLO).unwrap();
        }
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(HELLO).unwrap();
    });
    let mut world = World::new(Limits { open_per_endpoint_max: 1, ..Limits::default() });
    for n in 1..=4 {
        world.ask(n, &endpoint, get());
    }
    // One that left while it waited holds up nobody.
    world.ask(5, &endpoint, get());
    world.client.cancel(Key { index: 5, generation: 5 });
    for n in 1..=4 {
        assert_eq!(world.finish(n), "200 5B end");
    }
    server.join().unwrap();
}

#[test]
fn what_cannot_be_repeated_avoids_a_connection_that_has_ended() {
    let (closed, is_closed) = std::sync::mpsc::channel();
    let (endpoint, server) = backend(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(HELLO).unwrap();
        drop(stream);
        closed.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(HELLO).unwrap();
    });
    let mut world = World::new(Limits::default());
    world.ask(1, &endpoint, get());
    assert_eq!(world.finish(1), "200 5B end");
    // The connection has ended, but the loop has had no turn to see it.
    is_closed.recv().unwrap();
    world.ask(2, &endpoint, Request { idempotent: false, ..get() });
    assert_eq!(world.finish(2), "200 5B end");
    server.join().unwrap();
}

#[test]
fn names_of_internal_addresses_are_refused_too() {
    let mut world = World::new(Limits::default());
    for (n, host) in
        ["localhost", "a.localhost", "2130706433", "0x7f.1", "[::1]", "::ffff:10.0.0.1"]
            .into_iter()
            .enumerate()
    {
        let denied = Endpoint { host: host.into(), deny_internal: true, ..endpoint(1) };
        world.ask(n as u32, &denied, get());
        assert_eq!(world.finish(n as u32), "failed:Policy", "{host}");
    }
}

#[test]
fn a_response_stays_in_its_window() {
    let (endpoint, server) = backend(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").unwrap();
        stream.write_all(&[7; 100_000]).unwrap();
    });
    let mut world = World::new(Limits::default());
    let key = Key { index: 1, generation: 1 };
    let (now, seen) = (world.now(), &mut world.seen);
    let sink = &mut |key, event: origin::Event<'_>| note(seen, key, event);
    let endpoint = std::sync::Arc::new(endpoint);
    world.client.start_with_window(now, key, endpoint, get(), 1_000, sink);
    let (mut taken, mut granted) = (0, 1_000);
    while taken < 100_000 {
        world.wait_for(1, |text| text.ends_with('B'));
        let seen = std::mem::take(&mut world.seen);
        let sizes =
            seen.iter().filter_map(|(_, text)| text.strip_suffix('B')?.parse::<usize>().ok());
        taken += sizes.sum::<usize>();
        assert!(taken <= granted, "{taken} of {granted}");
        if taken == granted && taken < 100_000 {
            granted += 7_000;
            let (now, seen) = (world.now(), &mut world.seen);
            world.client.grant(now, key, 7_000, &mut |key, event| note(seen, key, event));
        } else if seen.iter().any(|(_, text)| text == "end") {
            break;
        }
    }
    assert_eq!(taken, 100_000);
    server.join().unwrap();
}
