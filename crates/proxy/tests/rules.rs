//! Rules of arrival that no other file of this folder has: what holds without a route, for clients
//! behind a proxy that is believed, for the handler's own requests, and for slow uploads.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use origin::{Error, Event};
use proxy::Settings;
use tnetstring::Writer;
use world::*;
use zhttp::{Kind, Packet};
use zrpc::accept::{self, Reply};
use zrpc::inspect;

fn settings() -> Settings {
    Settings { instance_id: "px".into(), target_id: "px".into(), ..Settings::default() }
}

/// The header of the last packet.
fn header(w: &World, name: &str) -> Option<String> {
    let packet = Packet::parse(w.packets.last().unwrap()).unwrap();
    packet.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

fn head(w: &World) -> String {
    let bytes = String::from_utf8_lossy(&w.starts.last().unwrap().2.bytes).into_owned();
    bytes.split_once("\r\n\r\n").unwrap().0.to_owned()
}

fn ask(w: &mut World, id: &str, uri: &str, headers: &[(&str, &str)]) {
    w.request(id, |f| {
        f.method("GET").uri(uri).headers(headers.iter().copied()).credits(8192);
        f.flag("stream", true).flag("router-resp", true);
    });
}

/// A request of the handler, with its `passthrough`.
fn internal(w: &mut World, id: &str, uri: &str, route: &str, prefer: bool, more: bool) {
    let mut frame = Writer::new();
    frame.map(|m| {
        m.str("route");
        m.str(route);
        m.str("prefer-internal");
        m.bool(prefer);
    });
    let frame = frame.into_vec();
    let packet = from_client(id, 0, |f| {
        let headers = [("Origin", "http://o"), ("eb9bf0f5-a", "1"), ("Grip-Last", "c; last-id=1")];
        f.method("GET").uri(uri).headers(headers.into_iter()).credits(8192);
        f.flag("router-resp", true).flag("more", more).frame("passthrough", Some(&frame));
    });
    w.engine.internal_request(w.now, &packet);
    w.pull();
}

#[test]
fn what_all_clients_get_is_given_without_a_route_too() {
    let mut w = world_with("a b:1", Settings { auto_cross_origin: true, ..settings() });
    ask(&mut w, "0", "http://none/x", &[("Origin", "http://o")]);
    assert_eq!(w.sent(), ["0 502 Route not found|"]);
    assert_eq!(header(&w, "Access-Control-Allow-Origin").as_deref(), Some("http://o"));
    ask(&mut w, "1", "http://none/x?callback=f", &[]);
    let body = String::from_utf8_lossy(Packet::parse(&w.packets[1]).unwrap().body).into_owned();
    assert!(body.starts_with("/**/f({\"code\": 502, \"reason\": \"Bad Gateway\", "), "{body}");
    // A call that is none is told so first, whatever else is asked.
    for (id, uri) in [("2", "http://none/x?callback="), ("3", "http://a/x?callback=")] {
        ask(&mut w, id, uri, &[("Pushpin-Check", "1")]);
        assert_eq!(w.sent().last().unwrap(), "0 400 Invalid callback parameter.|");
        assert_eq!(header(&w, "Access-Control-Allow-Origin").as_deref(), Some("*"));
    }
    ask(&mut w, "4", "http://a/x", &[("Pushpin-Check", "")]);
    let notice = String::from_utf8_lossy(Packet::parse(&w.packets[4]).unwrap().body).into_owned();
    assert!(notice.starts_with("Copyright (C) ") && notice.ends_with(".\n"), "{notice}");
    assert_eq!(header(&w, "Access-Control-Max-Age").as_deref(), Some("3600"));
    assert_eq!((w.starts.len(), w.engine.sessions()), (0, 0));
}

#[test]
fn who_is_believed_to_be_secure_has_a_secure_uri() {
    let believed = Settings { accept_forwarded_proto: true, inspect_all: true, ..settings() };
    let mut w = World { mute: true, ..world_with("h,ssl=yes b:1", believed) };
    ask(&mut w, "0", "http://h/x?q", &[("X-Forwarded-Proto", ""), ("X-Forwarded-Protocol", "wss")]);
    let call = zrpc::Request::parse(&w.inspects[0].1).unwrap();
    assert_eq!(inspect::Args::parse(call.args).unwrap().uri, "https://h/x?q");
    w.pass(8_000);
    w.respond(200, &[("Grip-Hold", "response")], b"");
    w.client("0", 1, |f| {
        f.kind(Kind::HandoffProceed);
    });
    let args = zrpc::Request::parse(&w.accepts[0].1).unwrap().args;
    let args = accept::Args::parse(args).unwrap();
    assert_eq!((args.request.uri, args.orig_request.uri), ("https://h/x?q", "https://h/x?q"));
    assert!(args.requests[0].https);
    ask(&mut w, "1", "http://h/x", &[("X-Forwarded-Proto", "http")]);
    assert_eq!(w.sent().last().unwrap(), "0 502 Route not found|");
}

#[test]
fn the_handlers_requests_have_the_options_of_the_route_they_use() {
    let all = Settings { auto_cross_origin: true, debug: true, ..settings() };
    let mut w = world_with("a,id=r,aco,debug,orig_headers,no_grip b:1,insecure\nc,id=s b:2", all);
    let cors = "Access-Control-Allow-Origin";
    internal(&mut w, "0", "http://a/x", "r", true, false);
    w.respond(200, &[("X-Own", "1")], b"hi");
    assert_eq!((header(&w, cors).as_deref(), w.sent()[0].as_str()), (Some("http://o"), "0 200 hi"));
    internal(&mut w, "1", "http://a/x?callback=f", "r", true, false);
    assert!(head(&w).starts_with("GET /x HTTP/1.1"));
    w.respond(200, &[], b"hi");
    let body = String::from_utf8_lossy(Packet::parse(&w.packets[1]).unwrap().body).into_owned();
    assert!(body.starts_with("/**/f({\"code\": 200, "), "{body}");
    internal(&mut w, "2", "http://a/x", "r", true, false);
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!(w.sent()[2], "0 502 Unable to connect to any targets. Tried: b:1|");
    // What holds for all clients does not hold for them.
    internal(&mut w, "3", "http://c/x", "s", true, false);
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!(w.sent()[3], "0 502 Error while proxying to origin.|");
    assert_eq!(header(&w, cors), None);
    // A request that does not use the route has none of its options.
    internal(&mut w, "4", "http://other:81/x?callback=f", "r", false, false);
    assert_eq!(w.starts.last().unwrap().1, 81);
    let seen = head(&w);
    assert!(seen.contains("GET /x?callback=f HTTP/1.1") && seen.contains("Grip-Feature: "));
    assert!(!seen.contains("eb9bf0f5-") && seen.contains("Grip-Last: c; last-id=1"), "{seen}");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!(w.sent()[4], "0 502 Error while proxying to origin.|");
    assert_eq!(header(&w, cors), None);
    internal(&mut w, "5", "http://a/x", "unknown", true, false);
    assert_eq!(w.sent()[5], "0 502 Route not found|");
}

#[test]
fn user_data_comes_back_in_every_packet() {
    let mut w = world("a b:1");
    for id in ["0", "1"] {
        w.request(id, |f| {
            f.method("GET").uri("http://a/").credits(3).flag("router-resp", true);
            f.user_data((id == "0").then_some(b"2:ud,"));
        });
    }
    w.pass(50);
    w.respond(200, &[], b"hello");
    // Each session once in this time: those with user data by themselves.
    for _ in 0..450 {
        w.pass(100);
    }
    let of = |id: &str| {
        let is = |p: &Packet<'_>| p.ids.iter().any(|one| one.id == id.as_bytes());
        let packets: Vec<_> =
            w.packets.iter().map(|p| Packet::parse(p).unwrap()).filter(is).collect();
        packets.iter().map(|p| (p.kind, p.user_data.map(<[u8]>::to_vec))).collect::<Vec<_>>()
    };
    let (with, without) = (Some(b"2:ud,".to_vec()), None);
    assert_eq!(of("0"), [(Kind::KeepAlive, with.clone()), (Kind::KeepAlive, with)]);
    let kinds = [Kind::KeepAlive, Kind::Data, Kind::KeepAlive];
    assert_eq!(of("1"), kinds.map(|kind| (kind, without.clone())));
}

fn begin_upload(w: &mut World) {
    w.request("0-0-0", |f| {
        let headers = [("Host", "h"), ("Content-Length", "150000")];
        f.method("POST").uri("http://h/").headers(headers.into_iter()).credits(8192);
        f.body(b"first").flag("more", true).flag("stream", true).flag("router-resp", true);
    });
}

fn upload(w: &mut World, seq: u32, body: &[u8], more: bool) {
    w.client("0-0-0", seq, |f| {
        f.body(body).flag("more", more);
    });
}

/// The body that the backend gets, as far as it was sent on.
fn uploaded(w: &World) -> usize {
    let bytes = &w.starts[0].2.bytes;
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    bytes.len() - head + w.bodies.iter().map(|(data, _)| data.len()).sum::<usize>()
}

#[test]
fn an_upload_that_stalls_before_the_handler_is_asked() {
    let mut w = World { mute: true, ..world("*,session b:1") };
    begin_upload(&mut w);
    assert_eq!(w.sent(), ["0 credit 200000 "]);
    // However slow its client is, a session is looked for in the body.
    w.pass(20_000);
    assert_eq!((w.inspects.len(), w.starts.len()), (0, 0));
    upload(&mut w, 1, &[1; 9_995], true);
    assert_eq!(w.inspects.len(), 1);
    let call = zrpc::Request::parse(&w.inspects[0].1).unwrap();
    let args = inspect::Args::parse(call.args).unwrap();
    assert_eq!((args.body.len(), args.truncated, args.get_session), (10_000, true, true));
    // The call has its own time.
    w.pass(7_999);
    assert_eq!(w.starts.len(), 0);
    w.pass(1);
    assert_eq!((w.starts.len(), uploaded(&w)), (1, 10_000));
}

#[test]
fn an_upload_goes_on_while_the_handler_is_asked() {
    let mut w = World { mute: true, ..world("*,session b:1") };
    begin_upload(&mut w);
    upload(&mut w, 1, &[1; 59_995], true);
    upload(&mut w, 2, &[2; 60_000], true);
    assert_eq!((w.inspects.len(), w.starts.len()), (1, 0));
    assert_eq!(w.sent().len(), 1, "no more credits than can be kept");
    let call = zrpc::Request::parse(&w.inspects[0].1).unwrap();
    let known = inspect::Reply { sid: Some(b"s"), ..inspect::Reply::default() };
    let mut out = Vec::new();
    zrpc::write_success(&mut out, call.id, |v| known.write(v));
    w.engine.inspect_reply(w.now, &out);
    w.pull();
    assert!(head(&w).contains("Grip-Session-Id: s") && head(&w).contains("Content-Length: 150000"));
    assert_eq!((uploaded(&w), w.starts[0].2.complete), (120_000, false));
    // What the backend has taken, the client may send anew.
    w.event(Event::Queued(20_000));
    w.pull();
    // (The first five bytes came without credits.)
    assert_eq!(w.sent()[1..], ["1 credit 99995 "]);
    upload(&mut w, 3, &[3; 30_000], false);
    assert_eq!((uploaded(&w), w.bodies.last().unwrap().1), (150_000, true));
    w.respond(200, &[("Grip-Hold", "stream")], b"");
    assert_eq!(w.sent()[2..], ["2 400 Request too large to accept GRIP instruct.|"]);
}

#[test]
fn the_handlers_uploads_are_not_waited_for() {
    let mut w = World { mute: true, ..world("a,id=r,session b:1") };
    internal(&mut w, "0", "http://a/x", "r", true, true);
    let call = zrpc::Request::parse(&w.inspects[0].1).unwrap();
    assert!(inspect::Args::parse(call.args).unwrap().truncated);
}

#[test]
fn a_request_that_came_whole_may_be_too_large_for_a_hold_too() {
    for (size, answer) in [(100_000, None), (100_001, Some(400))] {
        let mut w = world("* b:1");
        w.request("0", |f| {
            f.method("POST").uri("http://h/").credits(8192).body(&vec![1; size]);
            f.flag("stream", true).flag("router-resp", true);
        });
        w.respond(200, &[("Grip-Hold", "stream")], b"");
        let code = w.packets.last().and_then(|packet| Packet::parse(packet).unwrap().code);
        assert_eq!((code, w.accepts.len()), (answer, usize::from(answer.is_none())));
        if answer.is_none() {
            w.reply(&Reply::Accepted);
        }
        assert_eq!(w.engine.sessions(), 0);
    }
}

#[test]
fn the_test_target_sees_what_the_route_leaves_of_the_path() {
    let mut w = world_with("h,path_beg=/test test\nd,path_beg=/test/ test\ne test", settings());
    let (hello, none) = ("200 Hello from the Pushpin test handler!|", "404 no such test resource|");
    for (n, (uri, answer)) in [
        ("h/test", none),
        ("h/test?x", none),
        ("h/testx", none),
        ("h/test/", hello),
        ("h/test/?x", hello),
        ("h/test//", hello),
        ("h/test/test", none),
        ("d/test/", hello),
        ("d/test/nope", none),
        ("d/test//", hello),
        ("e/", hello),
        ("e//", hello),
        ("e/?a=b", hello),
        ("e/ws", none),
    ]
    .into_iter()
    .enumerate()
    {
        ask(&mut w, &n.to_string(), &format!("http://{uri}"), &[]);
        assert_eq!(w.sent().last().unwrap(), &format!("0 {answer}"), "{uri}");
    }
}

#[test]
fn only_requests_are_refused_for_websocket_events_in_them() {
    let events = [("Content-Type", "application/websocket-events; x=y")];
    for (n, (uri, refused)) in [("http://h/", true), ("ws://h/", false)].into_iter().enumerate() {
        let mut w = world("* b:1,over_http");
        ask(&mut w, &n.to_string(), uri, &events);
        let text = "0 403 Client not allowed to send WebSocket events directly.|";
        assert_eq!(w.sent().iter().any(|packet| packet == text), refused, "{uri}");
        assert_eq!(w.starts.len(), usize::from(!refused), "{uri}");
    }
}

#[test]
fn the_handlers_requests_count_towards_the_backend_alone() {
    let mut w = world_with("a,id=r b:1", settings());
    internal(&mut w, "x", "http://a/next", "r", true, false);
    w.respond(200, &[("A", "bc")], b"hello");
    let sums = w.counters();
    assert_eq!(sums.server_content_bytes_received, 5);
    assert_eq!(sums.server_header_bytes_received, 3 + "OK".len() as u64 + 3);
    assert!(sums.server_header_bytes_sent > "GET/next".len() as u64);
    assert_eq!(sums, sums.of_server());
    assert!(!w.stats.iter().any(|text| text.starts_with("counts ")), "{:?}", w.stats);
    // One that no backend was asked for leaves no trace.
    let mut w = world_with("a,id=r b:1", settings());
    internal(&mut w, "x", "http://a/next", "other", true, false);
    assert_eq!((w.starts.len(), w.sent().len()), (0, 1));
    w.pass(10_000);
    assert!(!w.stats.iter().any(|text| text.starts_with("report ")), "{:?}", w.stats);
}
