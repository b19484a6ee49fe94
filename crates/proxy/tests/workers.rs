//! Targets that are ZHTTP workers.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use world::*;
use zhttp::{Ext, Head, Id, Kind, Packet};

/// A packet of the worker for its request number `n` of this test.
fn said(w: &mut World, n: usize, seq: Option<u32>, fill: impl FnOnce(&mut zhttp::Fields<'_>)) {
    let first = w.to_worker[n].2.clone();
    let id = Packet::parse(&first).unwrap().ids.only().unwrap().id.to_vec();
    let ids = [Id { id: &id, seq }];
    let from = if seq.is_some() { &b"worker"[..] } else { b"" };
    let mut out = Vec::new();
    zhttp::write(&mut out, &Head { from, ids: &ids, ext: Ext::default() }, fill);
    w.engine.worker_packet(w.now, &out);
    w.pull();
}

fn post(w: &mut World) {
    w.request("0-0-0", |f| {
        f.method("POST").uri("http://h/p?q").headers([("Host", "h")].into_iter()).credits(8192);
        f.flag("more", true).flag("stream", true).flag("router-resp", true);
    });
}

#[test]
fn a_stream_both_ways() {
    let mut w = world("* zhttp/ipc:///w,host=other");
    post(&mut w);
    w.client("0-0-0", 1, |f| {
        f.body(&[b'x'; 9_999]).flag("more", true);
    });
    assert_eq!(w.to_worker.len(), 0, "a worker gets the start of the body with the request");
    w.client("0-0-0", 2, |f| {
        f.body(b"x").flag("more", true);
    });
    let (_, to, first) = w.to_worker[0].clone();
    let packet = Packet::parse(&first).unwrap();
    assert_eq!((packet.method, packet.uri, packet.from), ("POST", "http://other/p?q", &b"px"[..]));
    assert!(to.is_none() && packet.more && packet.stream && packet.router_resp);
    assert_eq!((packet.credits, packet.headers.get("host")), (200_000, Some(&b"other"[..])));
    assert!(packet.ignore_policies && packet.body.len() == 10_000);
    w.client("0-0-0", 3, |f| {
        f.body(b"hello").flag("more", true);
    });
    assert_eq!(w.to_worker.len(), 1, "the worker has not said how much it takes");
    said(&mut w, 0, Some(0), |f| {
        f.kind(Kind::Credit).credits(3);
    });
    said(&mut w, 0, Some(1), |f| {
        f.kind(Kind::Credit).credits(100);
    });
    w.client("0-0-0", 4, |f| {
        f.body(b"!");
    });
    let sent: Vec<String> = w.to_worker[1..].iter().map(|(_, _, packet)| show(packet)).collect();
    assert_eq!(sent, ["1 - hel...", "2 - lo...", "3 - !"]);
    said(&mut w, 0, Some(2), |f| {
        f.status(200, "OK").headers([("A", "b")].into_iter()).flag("more", true);
    });
    said(&mut w, 0, Some(3), |f| {
        f.body(b"part").flag("more", true);
    });
    said(&mut w, 0, Some(4), |f| {
        f.body(b"end");
    });
    assert_eq!(w.sent().last().unwrap(), "1 200 partend");
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn a_small_body_goes_with_its_request() {
    let mut w = world("* zhttp/ipc:///w");
    post(&mut w);
    w.client("0-0-0", 1, |f| {
        f.body(b"hel").flag("more", true);
    });
    w.client("0-0-0", 2, |f| {
        f.body(b"lo");
    });
    let packet = w.to_worker[0].2.clone();
    let packet = Packet::parse(&packet).unwrap();
    assert_eq!((packet.body, packet.more), (&b"hello"[..], false));
    said(&mut w, 0, Some(0), |f| {
        f.status(200, "OK").body(b"ok");
    });
    assert_eq!((w.sent().last().unwrap().as_str(), w.engine.sessions()), ("1 200 ok", 0));
}

#[test]
fn request_mode_waits_for_the_whole_body() {
    let mut w = world("* zhttpreq/ipc:///w");
    post(&mut w);
    w.client("0-0-0", 1, |f| {
        f.body(b"hel").flag("more", true);
    });
    assert!(w.to_worker.is_empty());
    w.client("0-0-0", 2, |f| {
        f.body(b"lo");
    });
    let packet = w.to_worker[0].2.clone();
    let packet = Packet::parse(&packet).unwrap();
    assert_eq!((packet.body, packet.from, packet.credits), (&b"hello"[..], &b""[..], 0));
    assert!(packet.ids.only().unwrap().seq.is_none());
    said(&mut w, 0, None, |f| {
        f.status(201, "Made").body(b"done");
    });
    assert_eq!(w.sent().last().unwrap(), "2 201 done");
    assert_eq!((w.engine.sessions(), w.cancels), (0, 0));
}

#[test]
fn what_goes_wrong() {
    let error = "Error while proxying to origin.|";
    let mut w = world("* zhttp/ipc:///w");
    w.get("0-0-0", "http://h/");
    let key = w.to_worker[0].0;
    w.engine.worker_unreachable(w.now, key);
    w.pull();
    assert_eq!(w.sent(), [format!("0 502 {error}")]);
    let mut w = world("* zhttp/ipc:///w b:1");
    w.get("0-0-0", "http://h/");
    said(&mut w, 0, Some(0), |f| {
        f.kind(Kind::Error).condition("remote-connection-failed");
    });
    assert_eq!(w.starts.len(), 1, "the next target");
    let mut w = world("* zhttp/ipc:///w");
    w.get("0-0-0", "http://h/");
    said(&mut w, 0, Some(7), |f| {
        f.status(200, "OK");
    });
    assert_eq!(w.sent(), [format!("0 502 {error}")]);
    // It says what is wrong.
    for (condition, answer) in [
        ("length-required", "0 411 Must provide Content-Length header.|".to_owned()),
        ("policy-violation", "0 502 Error: Origin host/IP blocked.|".into()),
        ("undefined-condition", format!("0 502 {error}")),
    ] {
        let mut w = world("*,debug zhttp/ipc:///w b:1");
        w.get("0-0-0", "http://h/");
        said(&mut w, 0, Some(0), |f| {
            f.kind(Kind::Error).condition(condition);
        });
        assert_eq!((w.sent(), w.starts.len()), (vec![answer], 0));
        let packet = Packet::parse(&w.packets[0]).unwrap();
        let reason = if condition == "length-required" { "Length Required" } else { "Bad Gateway" };
        assert_eq!(packet.reason, reason);
    }
    // The client leaves: so does the request.
    let mut w = world("* zhttp/ipc:///w");
    w.get("0-0-0", "http://h/");
    said(&mut w, 0, Some(0), |f| {
        f.kind(Kind::KeepAlive);
    });
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(show(&w.to_worker[1].2), "1 cancel ");
    assert_eq!((w.engine.sessions(), w.cancels), (0, 0));
    // The worker falls silent.
    let mut w = world("*,debug zhttp/ipc:///w");
    w.get("0-0-0", "http://h/");
    for tick in 1..=700 {
        w.pass(100);
        if tick % 200 == 0 {
            w.client("0-0-0", tick / 200, |f| {
                f.kind(Kind::KeepAlive);
            });
        }
    }
    let last = w.sent().last().unwrap().clone();
    assert!(last.contains("502 Error: zhttp service for route is unreachable."), "{last}");
}

#[test]
fn instructions_of_a_worker_are_held() {
    let mut w = world("* zhttp/ipc:///w");
    w.get("0-0-0", "http://h/");
    said(&mut w, 0, Some(0), |f| {
        f.status(200, "OK").headers([("Grip-Hold", "stream")].into_iter()).body(b"first");
    });
    assert_eq!(w.accepts.len(), 1);
}

#[test]
fn events_of_a_websocket_over_a_worker() {
    let mut w = world("* zhttpreq/ipc:///w,over_http");
    w.request("0-0-0", |f| {
        f.method("GET").uri("ws://h/").headers([("Host", "h")].into_iter()).credits(8192);
        f.flag("router-resp", true);
    });
    let packet = w.to_worker[0].2.clone();
    assert_eq!(Packet::parse(&packet).unwrap().body, b"OPEN\r\n");
    let kind = [("Content-Type", "application/websocket-events")];
    said(&mut w, 0, None, |f| {
        f.status(200, "OK").headers(kind.into_iter()).body(b"OPEN\r\nTEXT 1\r\nx\r\n");
    });
    assert_eq!(w.sent(), ["0 101 ", "1 - x"]);
    w.client("0-0-0", 1, |f| {
        f.content_type("text").body(b"y");
    });
    assert_eq!(Packet::parse(&w.to_worker[1].2).unwrap().body, b"TEXT 1\r\ny\r\n");
}

fn open_socket(w: &mut World, id: &str) {
    w.request(id, |f| {
        let headers = [("Host", "h"), ("X-C", "1")];
        f.method("GET").uri("ws://h/s?q").headers(headers.into_iter()).credits(8192);
        f.flag("router-resp", true);
    });
}

fn accept(w: &mut World, credits: u32) {
    said(w, 0, Some(0), |f| {
        f.status(101, "Switching").headers([("A", "b")].into_iter()).credits(credits);
    });
}

#[test]
fn a_websocket_to_a_worker() {
    let mut w = world("* zhttp/ipc:///w,ssl,host=other");
    open_socket(&mut w, "0-0-0");
    let first = w.to_worker[0].2.clone();
    let packet = Packet::parse(&first).unwrap();
    assert_eq!((packet.method, packet.uri, packet.from), ("", "wss://other/s?q", &b"px"[..]));
    assert_eq!((packet.stream, packet.router_resp, packet.credits), (false, true, 200_000));
    assert_eq!(packet.headers.get("sec-websocket-extensions"), Some(&b"grip"[..]));
    accept(&mut w, 4);
    assert_eq!(w.sent(), ["0 101 "]);
    w.client("0-0-0", 1, |f| {
        f.content_type("binary").body(b"hello");
    });
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Ping).body(b"p");
    });
    said(&mut w, 0, Some(1), |f| {
        f.kind(Kind::Credit).credits(100);
    });
    let sent: Vec<String> = w.to_worker[1..].iter().map(|(_, _, packet)| show(packet)).collect();
    assert_eq!(sent, ["1 - hell...", "2 - o", "3 ping p"]);
    assert_eq!(Packet::parse(&w.to_worker[2].2).unwrap().content_type, b"binary");
    said(&mut w, 0, Some(2), |f| {
        f.content_type("text").body(b"ab").flag("more", true);
    });
    said(&mut w, 0, Some(3), |f| {
        f.content_type("text").body(b"c");
    });
    said(&mut w, 0, Some(4), |f| {
        f.kind(Kind::Pong).body(b"p");
    });
    assert_eq!(w.sent()[1..], ["1 - ab...", "2 - c", "3 pong p"]);
    said(&mut w, 0, Some(5), |f| {
        f.kind(Kind::Close).code(4000).body(b"bye");
    });
    assert_eq!(w.sent().last().unwrap(), "4 close bye");
    w.client("0-0-0", 3, |f| {
        f.kind(Kind::Close).code(4000);
    });
    assert_eq!(show(&w.to_worker.last().unwrap().2), "4 close ");
    assert_eq!((w.engine.sessions(), w.cancels), (0, 0));
}

#[test]
fn ends_of_websockets_to_workers() {
    // The client closes first.
    let mut w = world("* zhttp/ipc:///w");
    open_socket(&mut w, "0-0-0");
    accept(&mut w, 100);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close).code(1000);
    });
    assert_eq!(show(&w.to_worker[1].2), "1 close ");
    said(&mut w, 0, Some(1), |f| {
        f.kind(Kind::Close).code(1000);
    });
    assert_eq!((w.sent().last().unwrap().as_str(), w.engine.sessions()), ("1 close ", 0));
    // A close without a code stays one, both ways.
    let mut w = world("* zhttp/ipc:///w");
    open_socket(&mut w, "0-0-0");
    accept(&mut w, 100);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close);
    });
    assert_eq!(Packet::parse(&w.to_worker[1].2).unwrap().code, None);
    said(&mut w, 0, Some(1), |f| {
        f.kind(Kind::Close);
    });
    assert_eq!(Packet::parse(w.packets.last().unwrap()).unwrap().code, None);
    // The worker refuses.
    let mut w = world("* zhttp/ipc:///w");
    open_socket(&mut w, "0-0-0");
    said(&mut w, 0, Some(0), |f| {
        f.kind(Kind::Error).condition("rejected").status(403, "Forbidden").body(b"no");
    });
    assert_eq!((w.sent(), w.engine.sessions()), (vec!["0 error rejected 403 no".to_owned()], 0));
    // It cannot, and the next target is asked.
    let mut w = world("* zhttp/ipc:///w b:1");
    open_socket(&mut w, "0-0-0");
    said(&mut w, 0, Some(0), |f| {
        f.kind(Kind::Error).condition("remote-connection-failed");
    });
    assert_eq!(w.openings.len(), 1);
    // It breaks off.
    let mut w = world("* zhttp/ipc:///w");
    open_socket(&mut w, "0-0-0");
    accept(&mut w, 100);
    said(&mut w, 0, None, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((w.sent().last().unwrap().as_str(), w.engine.sessions()), ("1 cancel ", 0));
    // The client vanishes.
    let mut w = world("* zhttp/ipc:///w");
    open_socket(&mut w, "0-0-0");
    accept(&mut w, 100);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((show(&w.to_worker[1].2), w.engine.sessions()), ("1 cancel ".to_owned(), 0));
    // Nobody is there.
    let mut w = world("* zhttp/ipc:///w");
    open_socket(&mut w, "0-0-0");
    let key = w.to_worker[0].0;
    w.engine.worker_unreachable(w.now, key);
    w.pull();
    assert_eq!(w.sent(), ["0 error rejected 502 Error while proxying to origin.|"]);
}

#[test]
fn packets_for_another_worker_of_the_proxy_are_not_taken() {
    let settings = proxy::Settings { worker: 1, workers: 2, ..proxy::Settings::default() };
    let mut w = world_with("* zhttp/ipc:///w", settings);
    w.get("0-0-0", "http://h/");
    let first = w.to_worker[0].2.clone();
    let id = Packet::parse(&first).unwrap().ids.only().unwrap().id.to_vec();
    assert!(id.starts_with(b"1-"), "{}", String::from_utf8_lossy(&id));
    let mut other = world_with("* zhttp/ipc:///w", proxy::Settings::default());
    other.get("0-0-0", "http://h/");
    let ids = [Id { id: &id, seq: Some(0) }];
    let mut packet = Vec::new();
    zhttp::write(&mut packet, &Head { from: b"worker", ids: &ids, ext: Ext::default() }, |f| {
        f.status(200, "OK").body(b"x");
    });
    other.engine.worker_packet(0, &packet);
    other.pull();
    assert!(other.sent().is_empty());
    w.engine.worker_packet(0, &packet);
    w.pull();
    assert_eq!(w.sent(), ["0 200 x"]);
}
