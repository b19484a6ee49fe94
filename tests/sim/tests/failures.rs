//! What becomes of clients when a backend or the handler is silent, dead, slow or wrong: each gets
//! an answer or a close, nobody waits for ever, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use origin::Error;
use sim::backend::{events_response, hold, plain};
use sim::{Act, Link, Socket, World};

/// A session without a packet from its peer ends after this time.
const EXPIRY_MS: u64 = 60_000;

const UNAVAILABLE: &str = "Accept service unavailable.\n";
const ORIGIN_ERROR: &str = "Error while proxying to origin.\n";

/// Requests with one fault of the backend each.
fn faulty(target: &str) -> Vec<(u64, Act)> {
    let head = |headers: &[(&'static str, &str)], length| {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Act::Head(200, headers, length)
    };
    match target {
        "/silent" => vec![],
        "/slow-hold" => hold(100_000, "stream", "a", &[]),
        "/slow-poll" => hold(100_000, "response", "a", &[]),
        "/half" => vec![
            (1, head(&[], Some(100))),
            (1, Act::Body(b"half".to_vec())),
            (20, Act::Fail(Error::Closed)),
        ],
        "/half-chunked" => vec![
            (1, head(&[], None)),
            (1, Act::Body(b"half".to_vec())),
            (20, Act::Fail(Error::Closed)),
        ],
        "/half-hold" => vec![
            (1, head(&[("Grip-Hold", "stream"), ("Grip-Channel", "a")], Some(100))),
            (1, Act::Body(b"half".to_vec())),
            (20, Act::Fail(Error::Closed)),
        ],
        "/wrong-hold" => hold(1, "forever", "a", &[]),
        "/wrong-timeout" => hold(1, "response", "a", &[("Grip-Timeout", "soon")]),
        "/large-hold" => vec![
            (1, head(&[("Grip-Hold", "response"), ("Grip-Channel", "a")], None)),
            (1, Act::Body(vec![b'x'; 200_000])),
            (2, Act::End),
        ],
        "/stream" => hold(1, "stream", "a", &[]),
        "/poll" => hold(1, "response", "a", &[]),
        _ => plain(1, "hello\n"),
    }
}

fn world() -> World {
    World::new(1, faulty)
}

/// Nobody knows of a session any more.
#[track_caller]
fn nothing_is_left(w: &World) {
    let proxy = w.proxy.as_ref().map_or(0, proxy::Proxy::sessions);
    let handler = w.handler.as_ref().map_or(0, |h| h.sessions() + h.sockets());
    assert_eq!((proxy, handler), (0, 0), "sessions of proxy and handler");
}

/// The answer to `path`, which must have come by then.
#[track_caller]
fn answer(w: &mut World, path: &str, within_ms: u64) -> String {
    let conn = w.get(path);
    w.run(within_ms);
    let text = w.received(conn);
    assert!(!text.is_empty() || w.is_closed(conn), "{path}: nothing in {within_ms} ms");
    text
}

// ------------------------------------------------------------------ backends

#[test]
fn a_backend_that_fails_in_any_way_is_a_502() {
    let errors = [
        Error::Name,
        Error::Connect,
        Error::Unreachable,
        Error::Timeout,
        Error::Tls,
        Error::Policy,
        Error::Closed,
        Error::BadResponse,
        Error::Overload,
    ];
    for error in errors {
        // At once, and after the request was acknowledged.
        for wait_ms in [1, 300] {
            let mut w = World::new(1, move |_| vec![(wait_ms, Act::Fail(error))]);
            let text = answer(&mut w, "/", wait_ms + 20);
            assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{error:?}: {text}");
            assert!(text.ends_with(ORIGIN_ERROR), "{error:?}: {text}");
            nothing_is_left(&w);
        }
    }
}

#[test]
fn a_silent_backend_keeps_its_client_and_lets_it_go() {
    let mut w = world();
    let conn = w.get("/silent");
    w.run(5 * EXPIRY_MS);
    assert!(w.received(conn).is_empty() && !w.is_closed(conn), "the session lives on keep-alives");
    assert_eq!(w.proxy.as_ref().unwrap().sessions(), 1);
    w.leave(conn);
    w.settle();
    nothing_is_left(&w);
}

#[test]
fn a_slow_backend_is_waited_for() {
    let mut w = world();
    let (stream, poll) = (w.get("/slow-hold"), w.get("/slow-poll"));
    w.run(100_100);
    assert!(w.received(stream).ends_with("opened\n\r\n"));
    w.publish("a", "news");
    w.settle();
    assert_eq!(w.received(stream), "4\r\nnews\r\n");
    assert!(w.received(poll).ends_with("\r\n\r\nnews"));
}

#[test]
fn an_answer_that_is_cut_off_is_seen_to_be_cut_off() {
    let mut w = world();
    for path in ["/half", "/half-chunked"] {
        let conn = w.get(path);
        w.run(50);
        let text = w.received(conn);
        assert!(text.contains("half") && w.is_closed(conn), "{path}: {text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{path}: an end that is none: {text}");
    }
    // Nothing was sent on of instructions.
    let text = answer(&mut w, "/half-hold", 50);
    assert!(text.starts_with("HTTP/1.1 502 ") && text.ends_with(ORIGIN_ERROR), "{text}");
    nothing_is_left(&w);
}

#[test]
fn wrong_instructions_are_a_502() {
    let mut w = world();
    for path in ["/wrong-hold", "/wrong-timeout", "/large-hold"] {
        let text = answer(&mut w, path, 50);
        assert!(text.starts_with("HTTP/1.1 502 "), "{path}: {text}");
        assert!(text.ends_with(ORIGIN_ERROR), "{path}: {text}");
    }
    nothing_is_left(&w);
}

// ---------------------------------------------------------------- the handler

#[test]
fn a_handler_that_never_gets_the_call_is_a_500_after_its_time() {
    for path in ["/stream", "/poll"] {
        let mut w = world();
        w.lose(Link::Accept, 0);
        let conn = w.get(path);
        w.run(7_900);
        assert!(w.received(conn).is_empty(), "{path}: the call has eight seconds");
        w.run(300);
        let text = w.received(conn);
        assert!(text.starts_with("HTTP/1.1 500 ") && text.ends_with(UNAVAILABLE), "{path}: {text}");
        nothing_is_left(&w);
        // The next one is as ever.
        assert_eq!(w.get("/stream"), conn + 1);
        w.run(50);
        assert_eq!(w.handler.as_ref().unwrap().sessions(), 1);
    }
}

#[test]
fn a_handler_that_dies_with_a_call_is_a_500_within_a_second() {
    let mut w = world();
    w.delay(Link::Accept, 3_000);
    let conn = w.get("/stream");
    w.run(100);
    w.kill_handler();
    w.run(1_100);
    let text = w.received(conn);
    assert!(text.starts_with("HTTP/1.1 500 ") && text.ends_with(UNAVAILABLE), "{text}");
    nothing_is_left(&w);
    // Without any handler it is the same, and other requests do not mind.
    assert!(answer(&mut w, "/stream", 8_100).starts_with("HTTP/1.1 500 "));
    assert!(answer(&mut w, "/", 50).ends_with("hello\n"));
}

#[test]
fn a_slow_handler_is_waited_for() {
    let mut w = world();
    w.delay(Link::Accept, 5_000);
    w.delay(Link::AcceptReply, 1_000);
    let conn = w.get("/stream");
    w.run(6_100);
    assert!(w.received(conn).ends_with("opened\n\r\n"));
    assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0);
    w.publish("a", "news");
    w.settle();
    assert_eq!(w.received(conn), "4\r\nnews\r\n");
}

#[test]
fn a_reply_that_is_too_late_leaves_one_answer_and_one_owner() {
    for late in [Link::Accept, Link::AcceptReply] {
        let mut w = world();
        w.delay(late, 9_000);
        let conn = w.get("/stream");
        w.run(3 * EXPIRY_MS);
        let text = w.received(conn);
        assert!(text.matches("HTTP/1.1 ").count() <= 1, "{late:?}: {text}");
        // Either the handler has it, as its claim came first, or it was told that it has not.
        let held = w.handler.as_ref().unwrap().sessions();
        assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0, "{late:?}");
        assert_eq!(held == 1, !w.is_closed(conn) && text.contains("200 OK"), "{late:?}: {text}");
    }
}

#[test]
fn nonsense_from_the_handler_is_as_nothing() {
    let mut w = world();
    w.spoil(Link::AcceptReply);
    let conn = w.get("/poll");
    w.run(3 * EXPIRY_MS);
    assert!(w.is_closed(conn) || !w.received(conn).is_empty());
    // The long poll was asked for again a second later, as each first one of a channel.
    assert!(w.proxy.as_ref().unwrap().drops().malformed >= 1);
    assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0);

    let mut w = world();
    let conn = w.get("/stream");
    w.run(50);
    w.received(conn);
    w.spoil(Link::FromHandler);
    w.publish("a", "news");
    w.run(3 * EXPIRY_MS);
    assert!(w.is_closed(conn) && w.received(conn).is_empty(), "no garbage for the client");
    nothing_is_left(&w);
}

// ------------------------------------------------------------------ WebSockets

const HANDSHAKE: &str = "HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SUBSCRIBE: &str = "TEXT 27\r\nc:{\"type\": \"subscribe\", \"channel\": \"a\"}\r\n";

/// A WebSocket that is asked for, and some time.
fn socket(w: &mut World, path: &str, ms: u64) -> u32 {
    let conn = w.connect();
    w.send(conn, &format!("GET {path} {HANDSHAKE}"));
    w.run(ms);
    conn
}

/// As above; it opens.
#[track_caller]
fn opened(w: &mut World, path: &str) -> u32 {
    let conn = socket(w, path, 50);
    let text = w.received(conn);
    assert!(text.starts_with("HTTP/1.1 101 "), "{path}: {text}");
    conn
}

/// A text frame of a client, masked with zeros.
fn text_frame(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// A backend over HTTP: accepts, subscribes, echoes; the path says what goes wrong after that.
fn over_http(target: &str, events: Option<&str>) -> Vec<(u64, Act)> {
    let Some(events) = events else { return faulty_socket(target) };
    let open = events.starts_with("OPEN");
    let echo = || events.replace("TEXT 5\r\nhello", "TEXT 7\r\nm:hello");
    match target {
        "/never" => vec![],
        "/down" => vec![(1, Act::Fail(Error::Connect))],
        "/page" => plain(1, "no WebSocket here\n"),
        "/garbage" => events_response(1, "OPEN\r\nTEXT zz\r\n"),
        "/no-open" => events_response(1, "TEXT 2\r\nhi\r\n"),
        _ if open => events_response(1, &format!("OPEN\r\n{SUBSCRIBE}")),
        "/dies" => vec![(1, Act::Fail(Error::Connect))],
        "/silent" => vec![],
        "/breaks" => vec![(1, Act::Fail(Error::BadResponse))],
        "/page-later" => plain(1, "gone\n"),
        "/garbage-later" => events_response(1, "TEXT zz\r\n"),
        "/disconnects" => events_response(1, "DISCONNECT\r\n"),
        _ => events_response(1, &echo()),
    }
}

/// Under `/socket` the backend takes the handshake, with the extension.
fn faulty_socket(_: &str) -> Vec<(u64, Act)> {
    let grip = vec![("Sec-WebSocket-Extensions", "grip")];
    let subscribe = "c:{\"type\": \"subscribe\", \"channel\": \"a\"}";
    vec![(1, Act::Socket(Socket::Open(grip))), (2, Act::Socket(Socket::Text(subscribe)))]
}

fn ws_world() -> World {
    World::with_events(1, over_http)
}

#[test]
fn websockets_live_and_are_published_to() {
    for path in ["/echo", "/socket"] {
        let mut w = ws_world();
        let conn = opened(&mut w, path);
        w.run(5 * EXPIRY_MS);
        w.publish("a", "news");
        w.settle();
        assert_eq!(w.received(conn), "\u{fffd}\u{4}news", "{path}");
        w.send_bytes(conn, &text_frame("hello"));
        w.run(50);
        match path {
            "/echo" => assert_eq!(w.received(conn), "\u{fffd}\u{5}hello"),
            _ => assert_eq!(w.to_sockets, "hello"),
        }
        w.leave(conn);
        w.run(1_000);
        nothing_is_left(&w);
    }
}

#[test]
fn handshakes_that_go_wrong() {
    for (path, status, body) in [
        ("/down", "502", ORIGIN_ERROR),
        ("/page", "200", "no WebSocket here\n"),
        ("/garbage", "502", ORIGIN_ERROR),
        ("/no-open", "502", ORIGIN_ERROR),
    ] {
        let mut w = ws_world();
        let conn = socket(&mut w, path, 100);
        let text = w.received(conn);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {text}");
        assert!(text.ends_with(body), "{path}: {text}");
        nothing_is_left(&w);
    }
}

#[test]
fn a_handshake_that_is_never_answered() {
    let mut w = ws_world();
    let conn = socket(&mut w, "/never", 5 * EXPIRY_MS);
    assert!(w.received(conn).is_empty() && !w.is_closed(conn));
    w.leave(conn);
    w.settle();
    nothing_is_left(&w);
}

#[test]
fn a_backend_over_http_that_goes_wrong_ends_the_websocket() {
    for (path, within_ms) in [
        ("/breaks", 100),
        ("/page-later", 100),
        ("/garbage-later", 100),
        ("/disconnects", 100),
        // Five more tries, 31 s and up to one more each.
        ("/dies", 37_000),
    ] {
        let mut w = ws_world();
        let conn = opened(&mut w, path);
        w.send_bytes(conn, &text_frame("hello"));
        w.run(within_ms);
        assert!(w.is_closed(conn), "{path}: {:?}", w.received(conn));
        w.run(EXPIRY_MS);
        nothing_is_left(&w);
    }
}

#[test]
fn a_backend_over_http_that_is_silent_keeps_its_client_and_lets_it_go() {
    let mut w = ws_world();
    let conn = opened(&mut w, "/silent");
    w.send_bytes(conn, &text_frame("hello"));
    w.run(3 * EXPIRY_MS);
    assert!(!w.is_closed(conn));
    // What is published does not need the backend.
    w.publish("a", "news");
    w.settle();
    assert_eq!(w.received(conn), "\u{fffd}\u{4}news");
    w.leave(conn);
    w.run(EXPIRY_MS);
    assert_eq!(w.handler.as_ref().unwrap().sockets(), 0);
}

#[test]
fn a_websocket_backend_that_goes_wrong() {
    let mut refused =
        World::with_events(1, |_, _| vec![(1, Act::Socket(Socket::Refused(403, "not you\n")))]);
    let conn = socket(&mut refused, "/socket", 50);
    let text = refused.received(conn);
    assert!(text.starts_with("HTTP/1.1 403 ") && text.ends_with("not you\n"), "{text}");
    nothing_is_left(&refused);

    for error in [Error::Closed, Error::Protocol, Error::Timeout] {
        let mut w = ws_world();
        let conn = opened(&mut w, "/socket");
        w.backend_does(w.sockets[0], Act::Fail(error));
        w.run(50);
        assert!(w.is_closed(conn), "{error:?}: {:?}", w.received(conn));
        nothing_is_left(&w);
    }

    let mut w = ws_world();
    let conn = opened(&mut w, "/socket");
    w.backend_does(w.sockets[0], Act::Socket(Socket::Close(4_001)));
    w.run(50);
    assert_eq!(w.received(conn), "\u{fffd}\u{2}\u{f}\u{fffd}", "a close with 4001");
}

#[test]
fn a_handler_that_dies_ends_the_websockets_that_it_knows() {
    for path in ["/echo", "/socket"] {
        let mut w = ws_world();
        let conns: Vec<u32> = (0..20).map(|_| opened(&mut w, path)).collect();
        assert_eq!(w.handler.as_ref().unwrap().sockets(), 20);
        w.kill_handler();
        w.run(2_000);
        let open = conns.iter().filter(|conn| {
            let text = &w.clients.pipes[*conn].to_client;
            !w.is_closed(**conn) && text.first() != Some(&0x88)
        });
        assert_eq!(open.count(), 0, "{path}");
        w.run(EXPIRY_MS);
        nothing_is_left(&w);
    }
}

#[test]
fn a_handler_that_answers_nothing_or_nonsense_ends_the_websocket_after_its_time() {
    for silent in [true, false] {
        let mut w = ws_world();
        match silent {
            true => w.delay(Link::ControlReply, 1_000_000),
            false => w.spoil(Link::ControlReply),
        }
        let conn = opened(&mut w, "/echo");
        w.run(7_800);
        assert!(!w.is_closed(conn), "a request has eight seconds");
        w.run(400);
        assert!(w.is_closed(conn), "silent: {silent}");
        w.run(2 * EXPIRY_MS);
        assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0);
    }
}

#[test]
fn websockets_of_a_proxy_that_dies_are_closed_at_once() {
    let mut w = ws_world();
    let conns: Vec<u32> = (0..100).map(|n| opened(&mut w, ["/echo", "/socket"][n % 2])).collect();
    w.kill_proxy();
    w.run(2_000);
    assert!(conns.iter().all(|conn| w.is_closed(*conn)));
    w.run(2 * EXPIRY_MS);
    nothing_is_left(&w);
}
