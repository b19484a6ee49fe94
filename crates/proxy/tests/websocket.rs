//! WebSockets: the test target, backends that are asked by requests, and the handler's control.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use origin::{Error, Event, WebSocketEvent};
use world::*;
use zhttp::{Kind, Packet};
use zrpc::control::{self, Item, Kind as ItemKind};

const EVENTS: (&str, &str) = ("Content-Type", "application/websocket-events");
const GRIP: (&str, &str) = ("Sec-WebSocket-Extensions", "grip");

fn open(w: &mut World, id: &str, uri: &str) {
    w.request(id, |f| {
        let headers = [("Host", "h"), ("Sec-WebSocket-Key", "k"), ("X-C", "1")];
        f.method("GET").uri(uri).headers(headers.into_iter()).credits(8192);
        f.flag("router-resp", true).peer("192.0.2.1", 5);
    });
}

/// A connection to a backend that is asked by requests, with the extension on.
fn opened(lines: &str) -> World {
    let mut w = world(lines);
    open(&mut w, "0-0-0", "ws://h/a?q");
    w.respond(200, &[EVENTS, GRIP, ("Set-Meta-A", "b"), ("X-Own", "v")], b"OPEN\r\n");
    w
}

fn body(w: &World) -> String {
    let bytes = String::from_utf8_lossy(&w.starts.last().unwrap().2.bytes).into_owned();
    bytes.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "|")
}

fn head(w: &World) -> String {
    let bytes = String::from_utf8_lossy(&w.starts.last().unwrap().2.bytes).into_owned();
    bytes.split_once("\r\n\r\n").unwrap().0.to_owned()
}

fn text(w: &mut World, seq: u32, text: &str) {
    w.client("0-0-0", seq, |f| {
        f.content_type("text").body(text.as_bytes());
    });
}

/// The items so far: kind, request id, and what else matters.
fn items(w: &World) -> Vec<String> {
    let mut seen = Vec::new();
    for payload in &w.controls {
        let packet = control::Packet::parse(payload).unwrap();
        assert_eq!(packet.from, b"px");
        for item in packet.items {
            let id = String::from_utf8_lossy(item.req_id.unwrap_or(b"-")).into_owned();
            let rest = String::from_utf8_lossy(item.message).into_owned() + item.channel;
            seen.push(format!("{} {id} {rest}", item.kind.name()));
        }
    }
    seen
}

fn cid(w: &World) -> Vec<u8> {
    let packet = control::Packet::parse(&w.controls[0]).unwrap();
    packet.items[0].cid.to_vec()
}

fn say(w: &mut World, item: &Item<'_>) {
    let mut list = Vec::new();
    control::write_item(&mut list, item);
    let payload = control::write_packet(b"handler_1", &list);
    w.engine.control_packet(w.now, &payload);
    w.pull();
}

#[test]
fn the_first_request_and_the_handshake() {
    let mut w = opened("h,id=r,prefix=p- b:1,over_http,sub=s");
    let head = head(&w);
    for line in [
        "POST /a?q HTTP/1.1\r\nHost: h\r\n",
        "\r\nX-C: 1\r\n",
        "\r\nSec-WebSocket-Extensions: grip\r\n",
        "\r\nAccept: application/websocket-events\r\nConnection-Id: ",
        "\r\nContent-Type: application/websocket-events",
        "\r\nContent-Length: 6",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert_eq!(body(&w), "OPEN|");
    assert_eq!(w.sent(), ["0 101 "]);
    let packet = Packet::parse(&w.packets[0]).unwrap();
    assert_eq!(packet.headers.iter().collect::<Vec<_>>(), [("X-Own", &b"v"[..])]);
    assert_eq!(packet.credits, 200_000);
    let here = control::Packet::parse(&w.controls[0]).unwrap();
    let here = &here.items[0];
    assert_eq!((here.kind, here.uri, here.ttl_s), (ItemKind::Here, "ws://h/a?q", Some(60)));
    assert_eq!((here.route, here.separate_stats, here.channel_prefix), ("r", true, "p-"));
    assert!(here.multi && here.trusted && !here.debug);
    assert_eq!(w.controls.len(), 1, "the subscription waits for the handler to speak");
    let cid = cid(&w);
    say(&mut w, &Item { req_id: Some(b"0"), ..Item::new(&cid, ItemKind::Ack) });
    assert_eq!(items(&w)[1..], ["subscribe 1 s"]);
    text(&mut w, 1, "x");
    assert!(self::head(&w).contains("\r\nMeta-A: b"));
}

#[test]
fn messages_both_ways_and_control_messages() {
    let mut w = opened("* b:1,over_http");
    text(&mut w, 1, "one");
    assert_eq!(body(&w), "TEXT 3|one|");
    text(&mut w, 2, "two");
    w.respond(200, &[EVENTS], b"TEXT 5\r\nm:hey\r\nTEXT 4\r\nc:{}\r\nTEXT 2\r\nno\r\nPING\r\n");
    assert_eq!(w.sent()[1..], ["1 credit 3 ", "2 - hey", "3 ping "]);
    assert_eq!(body(&w), "TEXT 3|two|");
    let cid = cid(&w);
    say(&mut w, &Item { req_id: Some(b"0"), ..Item::new(&cid, ItemKind::Ack) });
    assert_eq!(items(&w)[1..], ["grip 1 {}"]);
    assert_eq!(w.engine.drops().no_prefix, 1);
}

#[test]
fn a_handler_that_does_not_settle_a_request_ends_the_connection() {
    let mut w = opened("* b:1,over_http,sub=s");
    w.pass(7_900);
    assert_eq!(w.sent().len(), 1);
    w.pass(200);
    assert_eq!(w.sent()[1..], ["1 cancel "]);
    assert_eq!(body(&w), "DISCONNECT|");
    w.respond(200, &[EVENTS], b"");
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn published_messages() {
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    let send =
        |kind, message| Item { content_type: kind, message, ..Item::new(&cid, ItemKind::Send) };
    say(&mut w, &send("text", b"a"));
    say(&mut w, &Item { req_id: Some(b"7"), queue: true, ..send("binary", b"b") });
    say(&mut w, &send("ping", b""));
    assert_eq!(w.sent()[1..], ["1 - a", "2 - b", "3 ping "]);
    let packet = Packet::parse(&w.packets[2]).unwrap();
    assert_eq!(packet.content_type, b"binary");
    assert_eq!(items(&w)[1..], ["ack 7 "]);
    say(&mut w, &Item { code: Some(4002), reason: b"enough", ..Item::new(&cid, ItemKind::Close) });
    assert_eq!(w.sent()[4..], ["4 close enough"]);
    // The code is not for the backend; Pushpin 1.36 does the same.
    assert_eq!(body(&w), "CLOSE|");
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close).code(4002);
    });
    w.respond(200, &[EVENTS], b"CLOSE\r\n");
    assert_eq!((w.engine.sessions(), w.sent().len()), (0, 5));
    assert_eq!(items(&w)[2..], ["gone - "]);
    say(&mut w, &send("text", b"late"));
    assert_eq!(items(&w)[3..], ["cancel - "]);
}

#[test]
fn a_close_of_the_handler_is_not_overtaken_by_a_cancel() {
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    say(&mut w, &Item { code: Some(4010), ..Item::new(&cid, ItemKind::Close) });
    // The backend does not answer the close, which ends the conversation with it.
    w.respond(200, &[EVENTS], b"");
    assert_eq!((w.sent()[1..].to_vec(), w.engine.sessions()), (vec!["1 close ".to_owned()], 1));
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close).code(4010);
    });
    assert_eq!((w.sent().len(), w.engine.sessions()), (2, 0));
}

#[test]
fn one_packet_for_many_clients() {
    let mut w = world("* b:1,over_http");
    let mut cids = Vec::new();
    for n in 0..130 {
        open(&mut w, &format!("0-{n}-0"), "ws://h/");
        w.respond(200, &[EVENTS, GRIP], b"OPEN\r\n");
        let here = control::Packet::parse(w.controls.last().unwrap()).unwrap();
        cids.push(here.items[0].cid.to_vec());
    }
    w.packets.clear();
    w.messages = 0;
    let message = vec![b'x'; 5_000];
    for part in [&cids[..128], &cids[128..]] {
        let mut list: Vec<&[u8]> = part.iter().map(Vec::as_slice).collect();
        list.push(list[0]);
        list.truncate(128);
        let item = Item {
            cids: list,
            content_type: "text",
            message: &message,
            ..Item::new(b"", ItemKind::Send)
        };
        say(&mut w, &item);
    }
    let ids: Vec<usize> =
        w.packets.iter().map(|packet| Packet::parse(packet).unwrap().ids.len()).collect();
    assert_eq!(ids, [128, 2]);
    // 3,192 credits are left: the next message needs two packets, of which one can go.
    let item = Item {
        cids: vec![&cids[0]],
        content_type: "text",
        message: &message,
        ..Item::new(b"", ItemKind::Send)
    };
    say(&mut w, &item);
    assert_eq!(w.sent()[2..], ["2 - 3192B..."]);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Credit).credits(8_000);
    });
    assert_eq!(w.sent()[3..], ["3 - 1808B"]);
}

#[test]
fn a_client_that_does_not_read_loses_messages_that_may_be_lost() {
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    let message = vec![b'x'; 100_000];
    for queue in [false, false, false, true] {
        let item = Item {
            message: &message,
            queue,
            req_id: queue.then_some(b"1"),
            ..Item::new(&cid, ItemKind::Send)
        };
        say(&mut w, &item);
    }
    assert_eq!(w.engine.drops().ws_full, 1);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Credit).credits(1_000_000);
    });
    let bytes: usize =
        w.packets.iter().map(|packet| Packet::parse(packet).unwrap().body.len()).sum();
    assert_eq!((bytes, items(&w).last().unwrap().as_str()), (300_000, "ack 1 "));
}

#[test]
fn closes_of_client_and_backend() {
    let mut w = opened("* b:1,over_http");
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close).code(1000).body(b"done");
    });
    assert_eq!(body(&w), "CLOSE 6|\u{3}\u{fffd}done|");
    w.respond(200, &[EVENTS], b"CLOSE 6\r\n\x03\xe8done\r\n");
    assert_eq!(w.sent()[1..], ["1 close done"]);
    assert_eq!((w.engine.sessions(), w.starts.len()), (0, 2));

    let mut w = opened("* b:1,over_http");
    text(&mut w, 1, "x");
    w.respond(200, &[EVENTS], b"TEXT 3\r\nm:a\r\nCLOSE 5\r\n\x0f\xa4why\r\nTEXT 3\r\nm:b\r\n");
    assert_eq!(w.sent()[2..], ["2 - a", "3 close why"]);
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Close).code(4004);
    });
    assert_eq!(body(&w), "CLOSE 2|\u{f}\u{fffd}|");
    w.respond(200, &[EVENTS], b"");
    assert_eq!(w.engine.sessions(), 0);
}

/// Code and reason of the last packet, which is a close.
fn told(w: &World) -> (Option<u16>, String) {
    let packet = Packet::parse(w.packets.last().unwrap()).unwrap();
    assert_eq!(packet.kind, Kind::Close);
    (packet.code, String::from_utf8_lossy(packet.body).into_owned())
}

fn client_closes(w: &mut World, code: Option<u16>, reason: &str) {
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close);
        if let Some(code) = code {
            f.code(code).body(reason.as_bytes());
        }
    });
}

/// What a close says goes through as it is, and so does that it says nothing.
#[test]
fn codes_of_closes() {
    for (code, reason, event) in [
        (None, "", &b"CLOSE\r\n"[..]),
        (Some(1000), "", b"CLOSE 2\r\n\x03\xe8\r\n"),
        (Some(1001), "bye", b"CLOSE 5\r\n\x03\xe9bye\r\n"),
        (Some(4999), "x", b"CLOSE 3\r\n\x13\x87x\r\n"),
    ] {
        let close = || Event::WebSocket(WebSocketEvent::Close { code, reason });
        let mut w = socket_opened("* b:1", &[]);
        client_closes(&mut w, code, reason);
        assert_eq!(w.to_socket, [format!("close {code:?} {reason}")]);
        socket(&mut w, close());
        assert_eq!(told(&w), (code, reason.to_owned()));
        let mut w = socket_opened("* b:1", &[]);
        socket(&mut w, close());
        assert_eq!(told(&w), (code, reason.to_owned()));

        let mut w = opened("* b:1,over_http");
        client_closes(&mut w, code, reason);
        assert!(w.starts.last().unwrap().2.bytes.ends_with(event), "{code:?}");
        w.respond(200, &[EVENTS], event);
        assert_eq!(told(&w), (code, reason.to_owned()));
        let mut w = opened("* b:1,over_http");
        text(&mut w, 1, "x");
        w.respond(200, &[EVENTS], event);
        assert_eq!(told(&w), (code, reason.to_owned()));

        // The test target answers with the same.
        let mut w = world("* test");
        open(&mut w, "0-0-0", "ws://h/ws");
        client_closes(&mut w, code, reason);
        assert_eq!(told(&w), (code, reason.to_owned()));
    }
}

#[test]
fn ends_that_are_none() {
    // The client vanishes, while a request is under way.
    let mut w = opened("* b:1,over_http");
    text(&mut w, 1, "x");
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(body(&w), "TEXT 1|x|");
    w.respond(200, &[EVENTS], b"TEXT 3\r\nm:y\r\n");
    assert_eq!(body(&w), "DISCONNECT|");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!((w.engine.sessions(), w.sent().len()), (0, 1));

    // The backend breaks the rules.
    for (code, answer) in [(500, &b"x"[..]), (200, b"DISCONNECT\r\n"), (200, b"TEXT")] {
        let mut w = opened("* b:1,over_http");
        text(&mut w, 1, "x");
        w.respond(code, &[EVENTS], answer);
        assert_eq!((&w.sent()[1..], w.engine.sessions()), (&["1 cancel ".to_owned()][..], 0));
        assert_eq!(w.starts.len(), 2, "no DISCONNECT after an error of the exchange itself");
    }

    // The handler wants it gone.
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    say(&mut w, &Item::new(&cid, ItemKind::Cancel));
    assert_eq!(
        (w.sent()[1..].to_vec(), body(&w)),
        (vec!["1 cancel ".to_owned()], "DISCONNECT|".into())
    );
    assert_eq!(items(&w).len(), 1, "no gone to the one that cancelled");
}

#[test]
fn refusals() {
    let mut w = world("* b:1,over_http c:2,over_http");
    open(&mut w, "0-0-0", "ws://h/");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!(w.starts.last().unwrap().1, 2);
    w.respond(401, &[("X-Why", "w"), ("Connection", "close")], b"go away");
    assert_eq!(w.sent(), ["0 error rejected 401 go away"]);
    let packet = Packet::parse(&w.packets[0]).unwrap();
    assert_eq!(packet.headers.iter().collect::<Vec<_>>(), [("X-Why", &b"w"[..])]);

    let mut w = world("* b:1,over_http");
    open(&mut w, "0-0-0", "ws://h/");
    w.respond(200, &[EVENTS], b"TEXT\r\n");
    open(&mut w, "0-0-1", "ws://h/");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    let text = "Error while proxying to origin.|";
    assert_eq!(
        w.sent(),
        [format!("0 error rejected 502 {text}"), format!("0 error rejected 502 {text}")]
    );
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn retries_after_failures_and_keep_alives() {
    let mut w = world("* b:1,over_http");
    open(&mut w, "0-0-0", "ws://h/");
    w.respond(200, &[EVENTS, ("Keep-Alive-Interval", "25")], b"OPEN\r\n");
    text(&mut w, 1, "x");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    assert_eq!(w.starts.len(), 2);
    w.pass(2_050);
    assert_eq!((w.starts.len(), body(&w)), (3, "TEXT 1|x|".into()));
    w.respond(200, &[EVENTS], b"");
    w.pass(25_050);
    assert_eq!((w.starts.len(), body(&w)), (4, String::new()));
    w.event(Event::Failed(Error::Closed));
    w.pull();
    assert_eq!(w.sent().last().unwrap(), "2 cancel ");
}

#[test]
fn refresh_and_detach() {
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    say(&mut w, &Item::new(&cid, ItemKind::Refresh));
    assert_eq!(body(&w), "");
    w.respond(200, &[EVENTS], b"");
    let mut call = Vec::new();
    zrpc::write_request(&mut call, None, Some(b"1"), "refresh", |a| {
        a.str("cid");
        a.bytes(&cid);
    });
    let reply = w.engine.command(w.now, &call).unwrap();
    assert!(zrpc::Response::parse(&reply).unwrap().result.is_ok());
    w.pull();
    assert_eq!(w.starts.len(), 3);
    w.respond(200, &[EVENTS], b"");
    say(&mut w, &Item::new(&cid, ItemKind::Detach));
    assert_eq!(body(&w), "CLOSE|");
    w.respond(500, &[], b"");
    text(&mut w, 1, "nobody reads this");
    say(&mut w, &Item { message: b"still", ..Item::new(&cid, ItemKind::Send) });
    assert_eq!(w.sent().last().unwrap(), "1 - still");
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Close).code(1000);
    });
    assert_eq!((w.sent().last().unwrap().as_str(), w.engine.sessions()), ("2 close ", 0));
}

#[test]
fn keep_alive_timers() {
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    let setup = Item { timeout_s: Some(10), ..Item::new(&cid, ItemKind::KeepAliveSetup) };
    say(&mut w, &setup);
    w.pass(8_900);
    say(&mut w, &Item { message: b"x", ..Item::new(&cid, ItemKind::Send) });
    w.pass(8_900);
    assert_eq!(items(&w).len(), 1, "a frame to the client starts the timer anew");
    w.pass(1_200);
    assert_eq!(items(&w)[1..], ["need-keep-alive - "]);
    let interval = Item { interval_mode: true, timeout_s: Some(20), ..setup.clone() };
    say(&mut w, &interval);
    w.pass(18_000);
    say(&mut w, &Item { message: b"x", ..Item::new(&cid, ItemKind::Send) });
    w.pass(2_100);
    assert_eq!(items(&w)[2..], ["need-keep-alive - "]);
    say(&mut w, &Item { timeout_s: None, ..setup });
    w.pass(30_000);
    assert!(items(&w)[3..].iter().all(|item| item == "keep-alive - "), "{:?}", items(&w));
}

#[test]
fn the_shortest_keep_alive_comes_about_twice_a_second_to_everybody() {
    let mut w = world("* b:1,over_http");
    let mut cids = Vec::new();
    for n in 0..200 {
        open(&mut w, &format!("0-{n}-0"), "ws://h/");
        w.respond(200, &[EVENTS, GRIP], b"OPEN\r\n");
        let here = control::Packet::parse(w.controls.last().unwrap()).unwrap();
        cids.push(here.items[0].cid.to_vec());
    }
    for cid in &cids {
        let item = Item {
            timeout_s: Some(1),
            interval_mode: true,
            ..Item::new(cid, ItemKind::KeepAliveSetup)
        };
        say(&mut w, &item);
    }
    w.controls.clear();
    (0..10_000).for_each(|_| w.pass(1));
    let mut counts = std::collections::BTreeMap::<Vec<u8>, u32>::new();
    for payload in &w.controls {
        for item in control::Packet::parse(payload).unwrap().items {
            *counts.entry(item.cid.to_vec()).or_default() += 1;
        }
    }
    let least_and_most = (counts.values().min(), counts.values().max());
    assert!(
        counts.len() == 200 && counts.values().all(|n| (10..50).contains(n)),
        "{least_and_most:?}"
    );
}

#[test]
fn the_test_target_echoes() {
    let mut w = world("* test");
    open(&mut w, "0-0-0", "ws://h/ws?channel=a");
    assert_eq!(w.sent(), ["0 101 "]);
    text(&mut w, 1, "hello");
    assert_eq!(w.sent()[1..], ["1 - hello"]);
    let cid = cid(&w);
    say(&mut w, &Item { req_id: Some(b"0"), ..Item::new(&cid, ItemKind::Ack) });
    assert_eq!(items(&w)[1..], [r#"grip 1 {"channel":"a","type":"subscribe"}"#]);
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Close).code(1001).body(b"bye");
    });
    assert_eq!((w.sent()[2..].to_vec(), w.engine.sessions()), (vec!["2 close bye".to_owned()], 0));
    open(&mut w, "0-0-1", "ws://h/other");
    assert_eq!(w.sent()[3..], ["0 error rejected 404 no such test resource|"]);
    open(&mut w, "0-0-2", "ws://h/ws/");
    assert_eq!(w.sent()[4..], ["0 101 "]);
}

#[test]
fn a_handler_that_dies_closes_its_clients() {
    let mut w = opened("* b:1,over_http");
    let cid = cid(&w);
    say(&mut w, &Item { req_id: Some(b"0"), ..Item::new(&cid, ItemKind::Ack) });
    w.engine.probe_handlers(w.now);
    w.pull();
    assert_eq!(items(&w)[1..], ["keep-alive - "]);
    w.engine.control_gone(w.now, b"other");
    w.engine.control_gone(w.now, b"handler_1");
    w.pull();
    let packet = Packet::parse(w.packets.last().unwrap()).unwrap();
    assert_eq!((packet.kind, packet.code), (Kind::Close, Some(1012)));
    assert_eq!(body(&w), "CLOSE 2|\u{3}\u{fffd}|");
    // The client does not answer.
    w.respond(200, &[EVENTS], b"CLOSE\r\n");
    w.pass(31_000);
    assert_eq!((w.sent().last().unwrap().as_str(), w.engine.sessions()), ("2 cancel ", 0));
}

#[test]
fn stats_of_websockets() {
    let mut w = world("* b:1,over_http");
    w.engine.stats_listeners(true, false);
    open(&mut w, "0-0-0", "wss://h/");
    w.respond(200, &[EVENTS], b"OPEN\r\n");
    assert!(w.stats[0].contains("4:type,2:ws,") && w.stats[0].contains("192.0.2.1"));
    assert!(w.stats[0].contains("3:ssl,4:true!"));
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert!(w.stats.last().unwrap().contains("unavailable"), "{:?}", w.stats);
}

#[test]
fn a_conversation_by_requests_counts_as_one_websocket() {
    let mut w = world("* b:1,over_http");
    open(&mut w, "0-0-0", "ws://h/a?q");
    w.respond(200, &[EVENTS, ("X-Own", "v")], b"OPEN\r\nTEXT 5\r\nhello\r\n");
    text(&mut w, 1, "abc");
    w.respond(200, &[EVENTS], b"");
    let sums = w.counters();
    // The first request counts as the handshake would.
    let headers = w.starts[0].2.bytes.clone();
    let headers = String::from_utf8(headers).unwrap();
    let own = ["Host: h", "Sec-WebSocket-Key: k", "X-C: 1"];
    assert!(own.iter().all(|line| headers.contains(line)), "{headers}");
    let least = "GET/a?qhosthhosthSec-WebSocket-KeykX-C1".len() as u64;
    assert!((least..2 * headers.len() as u64).contains(&sums.server_header_bytes_sent), "{sums:?}");
    assert!(sums.server_header_bytes_sent < w.starts[0].2.bytes.len() as u64, "{sums:?}");
    let opened = 3 + "Switching ProtocolsX-Ownv".len() as u64;
    assert_eq!(sums.server_header_bytes_received, opened);
    assert_eq!(sums.client_header_bytes_sent, opened);
    assert_eq!((sums.server_content_bytes_received, sums.server_content_bytes_sent), (5, 3));
    assert_eq!((sums.server_messages_received, sums.server_messages_sent), (1, 1));
}

#[test]
fn a_refused_websocket_counts_its_head() {
    let mut w = world("* b:1,over_http");
    open(&mut w, "0-0-0", "ws://h/");
    w.respond(404, &[("A", "bc")], b"no");
    assert_eq!(w.counters().client_header_bytes_sent, 3 + "OKAbc".len() as u64);
}

#[test]
fn activity_of_a_websocket_is_by_whole_minutes_from_its_opening() {
    let mut w = world("* b:1,over_http");
    w.engine.stats_listeners(false, true);
    open(&mut w, "0-0-0", "ws://h/");
    w.respond(200, &[EVENTS], b"OPEN\r\n");
    let count = |w: &World| -> u64 {
        let each = w.stats.iter().filter_map(|packet| stats::Packet::parse(packet.as_bytes()).ok());
        let counts = each.map(|packet| match packet.body {
            stats::Body::Activity { count } => count,
            _ => 0,
        });
        counts.sum()
    };
    let mut seq = 1;
    let mut say = |w: &mut World, seconds: u64| {
        for second in 1..=seconds {
            w.pass(1_000);
            if second % 20 == 0 {
                w.client("0-0-0", seq, |f| {
                    f.kind(Kind::KeepAlive);
                });
                seq += 1;
            }
        }
        text(w, seq, "x");
        seq += 1;
        w.respond(200, &[EVENTS], b"");
        w.pass(100);
    };
    say(&mut w, 1);
    assert_eq!(count(&w), 1);
    // After 100 s, which is in the second minute; then the third begins 20 s later.
    say(&mut w, 100);
    assert_eq!(count(&w), 2);
    say(&mut w, 20);
    assert_eq!(count(&w), 3);
}

#[test]
fn every_minute_of_a_websocket_counts() {
    let mut w = world("* b:1,over_http");
    open(&mut w, "0-0-0", "ws://h/");
    w.respond(200, &[EVENTS], b"OPEN\r\n");
    for seq in 1..=13 {
        // As often as the loop looks after its sessions.
        (0..100).for_each(|_| w.pass(100));
        w.client("0-0-0", seq, |f| {
            f.kind(Kind::KeepAlive);
        });
    }
    let minutes: u32 = w
        .stats
        .iter()
        .filter_map(|packet| packet.strip_prefix("report ")?.split_once("7:minutes,1:"))
        .map(|(_, rest)| rest[..1].parse::<u32>().unwrap())
        .sum();
    // One at its start, then one for each that is full (spec/stats.md §5).
    assert_eq!(minutes, 3);
}

/// An event of the WebSocket to the backend.
fn socket(w: &mut World, event: Event<'_>) {
    let key = *w.openings.last().expect("a WebSocket to a backend");
    w.engine.origin_event(w.now, key, event);
    w.pull();
}

fn piece(data: &[u8], last: bool) -> Event<'_> {
    Event::WebSocket(WebSocketEvent::Piece { kind: websocket::Type::Text, data, last })
}

fn socket_opened(lines: &str, headers: &[(&str, &str)]) -> World {
    let mut w = world(lines);
    open(&mut w, "0-0-0", "ws://h/a");
    let headers: Vec<http1::Header<'_>> = headers
        .iter()
        .map(|(name, value)| http1::Header { name, value: value.as_bytes() })
        .collect();
    let event = WebSocketEvent::Open { reason: "Up", headers: &headers, compressed: false };
    socket(&mut w, Event::WebSocket(event));
    w
}

#[test]
fn a_backend_that_speaks_websocket() {
    let mut w = socket_opened("* b:1", &[("Sec-WebSocket-Protocol", "p")]);
    assert_eq!(w.sent(), ["0 101 "]);
    text(&mut w, 1, "hello");
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Ping).body(b"p");
    });
    assert_eq!(w.to_socket, ["hello.", "ping p"]);
    socket(&mut w, piece(b"one ", false));
    socket(&mut w, piece(b"two", true));
    socket(&mut w, Event::WebSocket(WebSocketEvent::Pong(b"p")));
    assert_eq!(w.sent()[1..], ["1 - one ...", "2 - two", "3 pong p"]);
    w.client("0-0-0", 3, |f| {
        f.kind(Kind::Close).code(1001).body(b"bye");
    });
    assert_eq!(w.to_socket[2..], ["close Some(1001) bye"]);
    socket(&mut w, Event::WebSocket(WebSocketEvent::Close { code: Some(1001), reason: "bye" }));
    assert_eq!(w.sent()[4..], ["4 close bye"]);
    socket(&mut w, Event::End);
    assert_eq!((w.engine.sessions(), w.controls.len()), (0, 0));
}

#[test]
fn a_backend_that_closes_first_is_answered() {
    let mut w = socket_opened("* b:1", &[]);
    socket(&mut w, piece(b"x", true));
    socket(&mut w, Event::WebSocket(WebSocketEvent::Close { code: Some(4001), reason: "r" }));
    assert_eq!(w.sent()[1..], ["1 - x", "2 close r"]);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Close).code(4001);
    });
    assert_eq!((w.to_socket.clone(), w.engine.sessions()), (vec!["close Some(4001) ".into()], 1));
    socket(&mut w, Event::End);
    assert_eq!((w.engine.sessions(), w.cancels), (0, 0));
}

#[test]
fn the_backends_window_follows_the_client() {
    let mut w = socket_opened("* b:1", &[]);
    for _ in 0..10 {
        socket(&mut w, piece(&[b'x'; 16_384], true));
    }
    assert_eq!(w.to_socket, ["grant 32768", "grant 32768"]);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Credit).credits(150_000);
    });
    assert_eq!(w.to_socket[2..], ["grant 98304"]);
}

#[test]
fn grip_over_a_websocket() {
    let mut w = socket_opened("* b:1", &[("Sec-WebSocket-Extensions", "grip; message-prefix=z")]);
    let packet = Packet::parse(&w.packets[0]).unwrap();
    assert!(packet.headers.is_empty());
    socket(&mut w, piece(b"c:{\"a\"", false));
    socket(&mut w, piece(b":1}", true));
    socket(&mut w, piece(b"zhey", true));
    assert_eq!(w.sent()[1..], ["1 - hey"]);
    let cid = cid(&w);
    say(&mut w, &Item { req_id: Some(b"0"), ..Item::new(&cid, ItemKind::Ack) });
    assert_eq!(items(&w)[1..], [r#"grip 1 {"a":1}"#]);
    socket(&mut w, piece(b"zpart", false));
    say(&mut w, &Item { message: b"pushed", ..Item::new(&cid, ItemKind::Send) });
    socket(&mut w, piece(b"end", true));
    assert_eq!(w.sent()[2..], ["2 - part...", "3 - end", "4 - pushed"]);
    say(&mut w, &Item::new(&cid, ItemKind::Detach));
    assert_eq!(w.to_socket, ["close None "]);
    socket(&mut w, Event::Failed(Error::Closed));
    say(&mut w, &Item { message: b"still", ..Item::new(&cid, ItemKind::Send) });
    assert_eq!(w.sent().last().unwrap(), "5 - still");
}

#[test]
fn sockets_that_fail() {
    let mut w = world("* b:1 c:2");
    open(&mut w, "0-0-0", "ws://h/a");
    socket(&mut w, Event::Failed(Error::Connect));
    assert_eq!(w.openings.len(), 2);
    let headers = [http1::Header { name: "X-Why", value: b"w" }];
    let refused =
        WebSocketEvent::Refused { code: 403, reason: "No", headers: &headers, body: b"not here" };
    socket(&mut w, Event::WebSocket(refused));
    assert_eq!((w.sent(), w.engine.sessions()), (vec!["0 error rejected 403 not here".into()], 0));
    let mut w = socket_opened("* b:1", &[]);
    socket(&mut w, piece(b"half", false));
    socket(&mut w, Event::Failed(Error::Closed));
    assert_eq!(
        (w.sent()[1..].to_vec(), w.cancels),
        (vec!["1 - half...".into(), "2 cancel ".to_owned()], 0)
    );
    let mut w = socket_opened("* b:1", &[]);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((w.engine.sessions(), w.cancels), (0, 1));
}
