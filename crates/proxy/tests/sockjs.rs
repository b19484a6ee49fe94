//! SockJS: sessions whose clients poll, and framed WebSockets.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use origin::{Error, Event};
use proxy::{Output, Settings};
use world::*;
use zhttp::{Kind, Packet};
use zrpc::control::{self, Item, Kind as ItemKind};

const EVENTS: (&str, &str) = ("Content-Type", "application/websocket-events");
const GRIP: (&str, &str) = ("Sec-WebSocket-Extensions", "grip");
const ROUTE: &str = "*,sockjs=/sj,sockjs_as_path=/app b:1,over_http";

fn ask(w: &mut World, id: &str, method: &str, path: &str, body: &str) {
    let uri = format!("http://h{path}");
    w.request(id, |f| {
        f.method(method).uri(&uri).headers([("Host", "h"), ("X-C", "1")].into_iter());
        f.credits(8192).body(body.as_bytes()).flag("stream", true).flag("router-resp", true);
    });
}

/// The answer to the last request: status and body.
fn last(w: &World) -> String {
    w.sent().last().unwrap().clone()
}

fn backend(w: &World) -> String {
    let bytes = String::from_utf8_lossy(&w.starts.last().unwrap().2.bytes).into_owned();
    bytes.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "|")
}

/// A session `s` that polls, of which the client knows that it is open.
fn opened() -> World {
    let mut w = world(ROUTE);
    ask(&mut w, "0-0-0", "POST", "/sj/0/s/xhr?q", "");
    assert!(w.sent().is_empty());
    w.respond(200, &[EVENTS, GRIP], b"OPEN\r\n");
    assert_eq!(w.sent(), ["0 200 o|"]);
    w
}

fn poll(w: &mut World, id: &str) {
    ask(w, id, "POST", "/sj/0/s/xhr", "");
}

fn send(w: &mut World, id: &str, body: &str) {
    ask(w, id, "POST", "/sj/0/s/xhr_send", body);
}

#[test]
fn what_needs_no_session() {
    let mut w = world(ROUTE);
    for (n, (method, path, answer)) in [
        ("OPTIONS", "/sj/info", "0 204 "),
        ("GET", "/sj", "0 404 Not Found|"),
        ("GET", "/sjx", "0 404 Not Found|"),
        ("POST", "/sj/0/x/xhr_send", "0 404 Not Found|"),
        ("GET", "/sj/0/x/jsonp", "0 400 Bad Request|"),
        ("GET", "/sj/0/x/jsonp?c=alert(1)", "0 400 Bad Request|"),
        ("POST", "/sj/0//xhr", "0 404 Not Found|"),
    ]
    .into_iter()
    .enumerate()
    {
        ask(&mut w, &format!("0-0-{n}"), method, path, "");
        assert_eq!(last(&w), answer, "{method} {path}");
    }
    let packet = Packet::parse(w.packets.last().unwrap()).unwrap();
    let names: Vec<_> = packet.headers.iter().map(|(name, _)| name).collect();
    let expected = [
        "Content-Type",
        "Cache-Control",
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Credentials",
    ];
    assert_eq!(names, expected);
    assert_eq!((w.engine.sessions(), w.starts.len()), (0, 0));
}

#[test]
fn a_session_opens_by_its_first_poll() {
    let w = opened();
    let head = String::from_utf8_lossy(&w.starts[0].2.bytes).into_owned();
    assert!(
        head.starts_with("POST /app?q HTTP/1.1\r\n") && head.contains("\r\nX-C: 1\r\n"),
        "{head}"
    );
    let here = control::Packet::parse(&w.controls[0]).unwrap();
    assert_eq!(here.items[0].uri, "ws://h/app?q");
}

#[test]
fn messages_both_ways() {
    let mut w = opened();
    send(&mut w, "0-0-1", "[\"a\",\"b\"]");
    assert_eq!(last(&w), "0 200 ok");
    assert_eq!(backend(&w), "TEXT 1|a|");
    w.respond(200, &[EVENTS], b"TEXT 4\r\nm:\"x\r\nPING\r\n");
    poll(&mut w, "0-0-2");
    assert_eq!(last(&w), "0 200 a[\"\\\"x\"]|");
    w.respond(200, &[EVENTS], b"");
    poll(&mut w, "0-0-3");
    poll(&mut w, "0-0-4");
    assert_eq!(last(&w), "0 200 c[2010,\"Another connection still open\"]|");
    w.pass(24_900);
    let count = w.sent().len();
    w.pass(200);
    assert_eq!((last(&w).as_str(), w.sent().len()), ("1 200 h|", count + 1));
    for (n, body) in ["", "\"a\"", "[1]", "[\"a\"]x"].into_iter().enumerate() {
        send(&mut w, &format!("1-0-{n}"), body);
        assert_eq!(last(&w), "0 400 Payload expected|");
    }
}

#[test]
fn published_messages_reach_a_client_that_polls() {
    let mut w = opened();
    let here = w.controls[0].clone();
    let cid = control::Packet::parse(&here).unwrap().items[0].cid.to_vec();
    let say = |w: &mut World, item: &Item<'_>| {
        let mut list = Vec::new();
        control::write_item(&mut list, item);
        let payload = control::write_packet(b"handler_1", &list);
        w.engine.control_packet(w.now, &payload);
        w.pull();
    };
    let own = Item { content_type: "text", message: b"new", ..Item::new(&cid, ItemKind::Send) };
    say(&mut w, &own);
    say(&mut w, &Item { content_type: "ping", message: b"", ..own.clone() });
    say(&mut w, &own);
    poll(&mut w, "0-0-1");
    assert_eq!(last(&w), "0 200 a[\"new\",\"new\"]|");
}

#[test]
fn the_backend_closes() {
    let mut w = opened();
    send(&mut w, "0-0-1", "[\"a\"]");
    w.respond(200, &[EVENTS], b"TEXT 3\r\nm:x\r\nCLOSE 5\r\n\x0b\xb8bye\r\n");
    poll(&mut w, "0-0-2");
    assert_eq!(last(&w), "0 200 a[\"x\"]|");
    poll(&mut w, "0-0-3");
    assert_eq!(last(&w), "0 200 c[3000,\"bye\"]|");
    assert_eq!(backend(&w), "CLOSE 5|\u{b}\u{fffd}bye|");
    w.respond(200, &[EVENTS], b"");
    assert_eq!(w.engine.sessions(), 0);
    send(&mut w, "0-0-4", "[\"b\"]");
    assert_eq!(last(&w), "0 200 c[3000,\"bye\"]|");
    w.pass(5_100);
    send(&mut w, "0-0-5", "[\"b\"]");
    assert_eq!(last(&w), "0 404 Not Found|");
}

#[test]
fn a_client_that_leaves_its_poll_has_closed() {
    let mut w = opened();
    poll(&mut w, "0-0-1");
    w.client("0-0-1", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(backend(&w), "CLOSE|");
    poll(&mut w, "0-0-2");
    assert_eq!(last(&w), "0 200 c[3000,\"Client already closed connection\"]|");
    w.respond(200, &[EVENTS], b"CLOSE\r\n");
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn nobody_polls() {
    let mut w = opened();
    w.pass(4_900);
    assert_eq!(w.engine.sessions(), 1);
    w.pass(200);
    assert_eq!(backend(&w), "DISCONNECT|");
    w.respond(200, &[EVENTS], b"");
    send(&mut w, "0-0-1", "[]");
    assert_eq!((last(&w).as_str(), w.engine.sessions()), ("0 404 Not Found|", 0));
}

#[test]
fn refused_and_failed() {
    let mut w = world(ROUTE);
    ask(&mut w, "0-0-0", "POST", "/sj/0/s/xhr", "");
    w.respond(403, &[("X-A", "b")], b"no");
    assert_eq!(w.sent(), ["0 403 no"]);
    let packet = Packet::parse(&w.packets[0]).unwrap();
    assert_eq!(packet.headers.iter().next().unwrap(), ("X-A", &b"b"[..]));
    ask(&mut w, "0-0-1", "GET", "/sj/0/s/jsonp?c=f", "");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!(last(&w), "0 502 Error while proxying to origin.|");
    // An open session that breaks, with a poll and without.
    let mut w = opened();
    poll(&mut w, "0-0-1");
    send(&mut w, "0-0-2", "[\"a\"]");
    w.respond(500, &[], b"");
    assert_eq!(last(&w), "0 410 Session terminated|");
    send(&mut w, "0-0-3", "[]");
    assert_eq!(last(&w), "0 404 Not Found|");
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn jsonp() {
    let mut w = world(ROUTE);
    ask(&mut w, "0-0-0", "GET", "/sj/0/s/jsonp?c=a.b", "");
    w.respond(200, &[EVENTS], b"OPEN\r\n");
    assert_eq!(last(&w), "0 200 /**/a.b(\"o\");|");
    ask(&mut w, "0-0-1", "POST", "/sj/0/s/jsonp_send", "d=%5B%22x+y%22%5D");
    assert_eq!((last(&w).as_str(), backend(&w).as_str()), ("0 200 ok", "TEXT 3|x y|"));
    w.respond(200, &[EVENTS], b"TEXT 1\r\nz\r\n");
    ask(&mut w, "0-0-2", "GET", "/sj/0/s/jsonp?callback=f", "");
    assert_eq!(last(&w), "0 200 /**/f(\"a[\\\"z\\\"]\");|");
    ask(&mut w, "0-0-3", "GET", "/sj/0/s/jsonp_send?d=%5B%5D&c=f", "");
    assert_eq!(last(&w), "0 200 /**/f(\"ok\");|");
}

#[test]
fn bodies_have_a_limit() {
    let mut w = opened();
    w.request("0-0-1", |f| {
        f.method("POST").uri("http://h/sj/0/s/xhr_send").headers([("Host", "h")].into_iter());
        f.credits(8192).flag("more", true).flag("stream", true).flag("router-resp", true);
    });
    assert_eq!(last(&w), "0 credit 200000 ");
    w.client("0-0-1", 1, |f| {
        f.body(&[b' '; 100_001]).flag("more", true);
    });
    assert_eq!(last(&w), "1 400 Request too large.|");
}

#[test]
fn what_is_sent_waits_for_room() {
    let mut w = opened();
    let large = format!("[\"{}\"]", "x".repeat(99_000));
    for n in 1..=2 {
        send(&mut w, &format!("0-0-{n}"), &large);
        assert_eq!(last(&w), "0 200 ok");
    }
    let count = w.sent().len();
    send(&mut w, "0-0-3", &large);
    assert_eq!(w.sent().len(), count);
    send(&mut w, "0-0-4", "[]");
    assert_eq!(last(&w), "0 400 Already sending|");
    w.respond(200, &[EVENTS], b"");
    assert_eq!(last(&w), "0 200 ok");
}

#[test]
fn a_framed_websocket() {
    let mut w = world(ROUTE);
    let open = |w: &mut World, id: &str, uri: &str| {
        w.request(id, |f| {
            f.method("GET").uri(uri).headers([("Host", "h")].into_iter()).credits(8192);
            f.flag("router-resp", true);
        });
    };
    open(&mut w, "0-0-0", "ws://h/sj/0/s/websocket");
    w.respond(200, &[EVENTS, GRIP], b"OPEN\r\nTEXT 4\r\nm:hi\r\n");
    assert_eq!(w.sent(), ["0 101 ", "1 - o", "2 - a[\"hi\"]"]);
    w.client("0-0-0", 1, |f| {
        f.content_type("text").body(b"[\"a").flag("more", true);
    });
    w.client("0-0-0", 2, |f| {
        f.content_type("text").body(b"\",\"b\"]");
    });
    assert_eq!(backend(&w), "TEXT 1|a|");
    w.client("0-0-0", 3, |f| {
        f.kind(Kind::Ping).body(b"p");
    });
    assert!(w.sent().iter().any(|packet| packet.contains("pong p")), "{:?}", w.sent());
    w.pass(25_100);
    assert!(last(&w).ends_with(" - h"), "{}", last(&w));
    w.client("0-0-0", 4, |f| {
        f.content_type("text").body(b"a");
    });
    assert!(last(&w).ends_with(" cancel "), "{}", last(&w));
    open(&mut w, "0-0-1", "ws://h/sj/what");
    assert_eq!(last(&w), "0 error rejected 404 Not Found|");
    open(&mut w, "0-0-2", "ws://h/sj/websocket");
    w.respond(200, &[EVENTS], b"OPEN\r\nTEXT 2\r\nhi\r\n");
    assert!(last(&w).ends_with(" - hi"), "raw: {}", last(&w));
}

#[test]
fn a_request_goes_to_the_worker_that_has_the_session() {
    let make = |worker| {
        let settings =
            Settings { instance_id: "px".into(), worker, workers: 2, ..Settings::default() };
        world_with(ROUTE, settings)
    };
    let (mut a, mut b) = (make(0), make(1));
    for n in 0..20 {
        let path = format!("/sj/0/s{n}/xhr");
        ask(&mut a, &format!("0-0-{n}"), "POST", &path, "");
        ask(&mut b, &format!("0-0-{n}"), "POST", &path, "");
    }
    let (to_b, to_a) = (a.elsewhere.len(), b.elsewhere.len());
    assert!(to_b > 0 && to_a > 0 && to_a + to_b == 20, "{to_a} {to_b}");
    assert!(a.elsewhere.iter().all(|(worker, _)| *worker == 1));
    let (before, (_, packet)) = (b.starts.len(), a.elsewhere.remove(0));
    b.engine.handed_request(0, &packet);
    b.pull();
    // The same id came to both workers in this test; a new one is taken.
    assert_eq!(b.starts.len(), before);
    b.engine.not_handed(
        0,
        &from_client("9-9-9", 0, |f| {
            f.method("POST").uri("http://h/sj/0/s/xhr").credits(100).flag("router-resp", true);
        }),
    );
    b.pull();
    assert_eq!(last(&b), "0 503 Service Unavailable|");
}

/// A request of the handler's own.
fn of_handler(id: &str, method: &str, path: &str, prefer: bool) -> Vec<u8> {
    let mut frame = tnetstring::Writer::new();
    frame.map(|m| {
        m.str("route");
        m.str("r");
        m.str("prefer-internal");
        m.bool(prefer);
    });
    let (frame, uri) = (frame.into_vec(), format!("http://h{path}"));
    from_client(id, 0, |f| {
        f.method(method).uri(&uri).credits(8192).flag("stream", true).flag("router-resp", true);
        f.frame("passthrough", Some(&frame));
    })
}

#[test]
fn the_handler_is_answered_as_a_client_is() {
    let mut w = world("*,id=r,sockjs=/sj b:1");
    let mut ask = |id: &str, path: &str, prefer| {
        w.engine.internal_request(0, &of_handler(id, "GET", path, prefer));
        w.pull();
        (w.sent().last().cloned().unwrap_or_default(), w.starts.len())
    };
    assert_eq!(ask("1", "/sj/nope", true), ("0 404 Not Found|".to_owned(), 0));
    let (info, _) = ask("2", "/sj/info", true);
    assert!(info.starts_with("0 200 "), "{info}");
    assert_eq!(ask("3", "/other", true).1, 1);
    assert_eq!(ask("4", "/sj/info", false).1, 2, "straight to the host of the URI");
}

#[test]
fn the_handler_hears_of_a_session_from_the_worker_that_has_it() {
    let settings = |worker| Settings { worker, workers: 2, ..Settings::default() };
    let route = "*,id=r,sockjs=/sj b:1";
    let (mut a, mut b) = (world_with(route, settings(0)), world_with(route, settings(1)));
    for n in 0..20 {
        let path = format!("/sj/0/s{n}/xhr_send");
        a.engine.internal_request(0, &of_handler(&n.to_string(), "POST", &path, true));
        a.pull();
    }
    let (_, packet) = a.elsewhere.remove(0);
    b.engine.handed_request(0, &packet);
    b.engine.not_handed(0, &a.elsewhere.remove(0).1);
    let mut answers = std::iter::from_fn(|| b.engine.poll_output());
    let to_handler = |o: Output| matches!(o, Output::Client { internal: true, .. });
    assert!(answers.by_ref().take(2).all(to_handler) && answers.next().is_none());
}
