//! ZHTTP workers that pass requests on, and those that are asked with WebSocket events.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use world::*;
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

const EVENTS: (&str, &str) = ("Content-Type", "application/websocket-events");

/// A packet of a worker for its request number `n` of this test.
fn said_by(w: &mut World, from: &str, n: usize, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) {
    let first = w.to_worker[n].2.clone();
    let id = Packet::parse(&first).unwrap().ids.only().unwrap().id.to_vec();
    let ids = [Id { id: &id, seq: Some(seq) }];
    let mut out = Vec::new();
    zhttp::write(&mut out, &Head { from: from.as_bytes(), ids: &ids, ext: Ext::default() }, fill);
    w.engine.worker_packet(w.now, &out);
    w.pull();
}

fn said(w: &mut World, n: usize, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) {
    said_by(w, "worker", n, seq, fill);
}

fn credit(w: &mut World, n: usize, seq: u32, credits: u32) {
    said(w, n, seq, |f| {
        f.kind(Kind::Credit).credits(credits);
    });
}

fn hand_off(w: &mut World, seq: u32) {
    said(w, 0, seq, |f| {
        f.kind(Kind::HandoffStart);
    });
}

/// The packets after the first one: to whom, and what.
fn to_workers(w: &World) -> Vec<String> {
    let later = w.to_worker.iter().filter(|(_, to, _)| to.is_some());
    let name = |to: &[u8]| String::from_utf8_lossy(to).into_owned();
    later
        .map(|(_, to, packet)| format!("{}: {}", name(to.as_ref().unwrap()), show(packet)))
        .collect()
}

#[test]
fn a_request_goes_to_another_worker() {
    let mut w = world("* zhttp/ipc:///w");
    w.request("0-0-0", |f| {
        f.method("POST").uri("http://h/").headers([("Host", "h")].into_iter()).credits(200_000);
        f.flag("more", true).flag("stream", true).flag("router-resp", true);
    });
    w.client("0-0-0", 1, |f| {
        f.body(&[b'x'; 10_000]).flag("more", true);
    });
    hand_off(&mut w, 0);
    assert_eq!(to_workers(&w), ["worker: 1 handoff-proceed "]);
    // Nobody has it now.
    w.client("0-0-0", 2, |f| {
        f.body(b"rest");
    });
    w.pass(45_000);
    assert_eq!(to_workers(&w).len(), 1);
    said_by(&mut w, "other", 0, 1, |f| {
        f.kind(Kind::Credit).credits(100);
    });
    assert_eq!(to_workers(&w)[1..], ["other: 2 - rest"]);
    said_by(&mut w, "other", 0, 2, |f| {
        f.status(200, "OK").body(b"part").flag("more", true);
    });
    said_by(&mut w, "other", 0, 3, |f| {
        f.body(b"end");
    });
    assert!(w.sent().last().unwrap().ends_with(" 200 partend"), "{:?}", w.sent());
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn a_response_goes_on_from_another_worker() {
    let mut w = world("* zhttp/ipc:///w");
    w.request("0-0-0", |f| {
        f.method("GET").uri("http://h/").credits(1_000_000);
        f.flag("stream", true).flag("router-resp", true);
    });
    said(&mut w, 0, 0, |f| {
        f.status(200, "OK").body(&[b'x'; 40_000]).flag("more", true);
    });
    hand_off(&mut w, 1);
    w.pass(100);
    said_by(&mut w, "other", 0, 2, |f| {
        f.body(&[b'y'; 40_000]).flag("more", true);
    });
    assert_eq!(to_workers(&w), ["worker: 1 handoff-proceed ", "other: 2 credit 80000 "]);
    // The one that gave it away has no say any more, but the next packet has.
    said(&mut w, 0, 3, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn a_websocket_goes_to_another_worker() {
    let mut w = world("* zhttp/ipc:///w");
    w.request("0-0-0", |f| {
        f.method("GET").uri("ws://h/").credits(1_000_000).flag("router-resp", true);
    });
    said(&mut w, 0, 0, |f| {
        f.status(101, "Switching").credits(100);
    });
    hand_off(&mut w, 1);
    w.client("0-0-0", 1, |f| {
        f.content_type("text").body(b"hello");
    });
    assert_eq!(to_workers(&w), ["worker: 1 handoff-proceed "]);
    said_by(&mut w, "other", 0, 2, |f| {
        f.content_type("binary").body(&[b'x'; 100_000]);
    });
    assert_eq!(to_workers(&w)[1..], ["other: 2 - hello", "other: 3 credit 100000 "]);
}

fn open(w: &mut World) {
    w.request("0-0-0", |f| {
        f.method("GET").uri("ws://h/").headers([("Host", "h")].into_iter()).credits(1_000_000);
        f.flag("router-resp", true);
    });
}

/// A connection whose backend has accepted.
fn opened(routes: &str) -> World {
    let mut w = world(routes);
    open(&mut w);
    credit(&mut w, 0, 0, 100);
    said(&mut w, 0, 1, |f| {
        f.status(200, "OK").headers([EVENTS].into_iter()).body(b"OPEN\r\n");
    });
    assert_eq!(w.sent(), ["0 101 "]);
    w.to_worker.clear();
    w
}

fn text(w: &mut World, seq: u32, body: &str) {
    w.client("0-0-0", seq, |f| {
        f.content_type("text").body(body.as_bytes());
    });
}

#[test]
fn events_wait_for_the_worker() {
    let mut w = world("* zhttp/ipc:///w,over_http");
    open(&mut w);
    let first = w.to_worker[0].2.clone();
    let packet = Packet::parse(&first).unwrap();
    assert_eq!((packet.method, packet.uri, packet.more), ("POST", "http://h/", true));
    assert_eq!(packet.headers.get("content-length"), Some(&b"6"[..]));
    assert!(packet.body.is_empty() && w.to_worker.len() == 1);
    said(&mut w, 0, 0, |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(to_workers(&w), [""; 0], "it takes nothing yet");
    credit(&mut w, 0, 1, 4);
    credit(&mut w, 0, 2, 100);
    assert_eq!(to_workers(&w), ["worker: 1 - OPEN...", "worker: 2 - \r|"]);
}

#[test]
fn in_request_mode_events_go_at_once() {
    let mut w = world("* zhttpreq/ipc:///w,over_http");
    open(&mut w);
    let packet = w.to_worker[0].2.clone();
    let packet = Packet::parse(&packet).unwrap();
    assert_eq!((packet.body, packet.more), (&b"OPEN\r\n"[..], false));
    assert_eq!(packet.headers.get("content-length"), Some(&b"6"[..]));
}

#[test]
fn large_messages_come_in_frames() {
    let mut w = opened("* zhttp/ipc:///w,over_http");
    text(&mut w, 1, "hello");
    credit(&mut w, 0, 0, 100);
    let body = format!("TEXT 8001\r\n{}\r\nPING 1\r\np\r\n", "x".repeat(0x8001));
    said(&mut w, 0, 1, |f| {
        f.status(200, "OK").headers([EVENTS].into_iter()).body(body.as_bytes());
    });
    assert_eq!(w.sent()[2..], ["2 - 16384B...", "3 - 16384B...", "4 - x", "5 ping p"]);
}

#[test]
fn nothing_is_granted_after_the_end() {
    let mut w = world("* zhttp/ipc:///w");
    w.request("0-0-0", |f| {
        f.method("GET").uri("http://h/").credits(1_000_000);
        f.flag("stream", true).flag("router-resp", true);
    });
    said(&mut w, 0, 0, |f| {
        f.status(200, "OK").body(&[b'x'; 60_000]);
    });
    assert_eq!((to_workers(&w), w.engine.sessions()), (Vec::new(), 0));
}

/// How a connection stands after a request failed: whether it is asked again within two seconds.
fn is_repeated(mut w: World) -> bool {
    let count = w.to_worker.len();
    for _ in 0..30 {
        w.pass(100);
    }
    let again = w.to_worker.len() > count && w.to_worker.last().unwrap().1.is_none();
    assert_eq!(w.engine.sessions(), usize::from(again));
    again
}

#[test]
fn what_the_worker_never_got_is_sent_again() {
    let route = "* zhttp/ipc:///w,over_http";
    for (condition, granted, again) in [
        ("undefined-condition", 0, true),
        ("undefined-condition", 3, true),
        ("undefined-condition", 100, false),
        ("remote-connection-failed", 100, true),
        ("policy-violation", 0, false),
        ("length-required", 0, false),
    ] {
        let mut w = opened(route);
        text(&mut w, 1, "hello");
        credit(&mut w, 0, 0, granted);
        said(&mut w, 0, 1, |f| {
            f.kind(Kind::Error).condition(condition);
        });
        assert_eq!(is_repeated(w), again, "{condition} {granted}");
    }
    // No worker is there, or it has left.
    for (route, granted, again) in [
        (route, None, true),
        (route, Some(100), false),
        ("* zhttpreq/ipc:///w,over_http", None, true),
    ] {
        let mut w = world(route);
        open(&mut w);
        if route.contains("zhttpreq") {
            let first = w.to_worker[0].2.clone();
            let id = Packet::parse(&first).unwrap().ids.only().unwrap().id.to_vec();
            let ids = [Id { id: &id, seq: None }];
            let mut out = Vec::new();
            zhttp::write(&mut out, &Head { from: b"", ids: &ids, ext: Ext::default() }, |f| {
                f.status(200, "OK").headers([EVENTS].into_iter()).body(b"OPEN\r\n");
            });
            w.engine.worker_packet(w.now, &out);
            w.pull();
        } else {
            w = opened(route);
        }
        w.to_worker.clear();
        text(&mut w, 1, "hello");
        if let Some(credits) = granted {
            credit(&mut w, 0, 0, credits);
        }
        let key = w.to_worker[0].0;
        w.engine.worker_unreachable(w.now, key);
        w.pull();
        assert_eq!(is_repeated(w), again, "{route} {granted:?}");
    }
}
