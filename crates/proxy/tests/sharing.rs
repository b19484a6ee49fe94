//! Requests that are answered from one (spec/proxy.md §7.2).

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use origin::{Error, Event};
use proptest::prelude::*;
use proxy::Settings;
use world::*;
use zhttp::{Kind, Packet};
use zrpc::accept::Reply;
use zrpc::{HttpRequest, HttpResponse, Rid, accept, retry};

fn sharing(lines: &str) -> World {
    let (instance_id, target_id) = ("px".into(), "px".into());
    let settings = Settings { instance_id, target_id, inspect_all: true, ..Settings::default() };
    World { sharing: Some("k"), ..world_with(lines, settings) }
}

/// What each session was sent, by its id.
fn of(w: &World, id: &str) -> Vec<String> {
    let is = |packet: &&Vec<u8>| {
        Packet::parse(packet).unwrap().ids.iter().all(|i| i.id == id.as_bytes())
    };
    w.packets.iter().filter(is).map(|packet| show(packet)).collect()
}

fn get(w: &mut World, ids: &[&str]) {
    ids.iter().for_each(|id| w.get(id, "http://h/a"));
}

fn credit(w: &mut World, id: &str, seq: u32, credits: u32) {
    w.client(id, seq, |f| {
        f.kind(Kind::Credit).credits(credits);
    });
}

fn proceed(w: &mut World, id: &str, seq: u32) {
    w.client(id, seq, |f| {
        f.kind(Kind::HandoffProceed);
    });
}

/// Which sessions the calls so far hand over.
fn calls(w: &World) -> Vec<Vec<String>> {
    let ids = |(_, payload): &(proxy::Key, Vec<u8>)| {
        let args = zrpc::Request::parse(payload).unwrap().args;
        let requests = accept::Args::parse(args).unwrap().requests;
        requests.iter().map(|s| String::from_utf8_lossy(s.rid.id).into_owned()).collect()
    };
    w.accepts.iter().map(ids).collect()
}

#[test]
fn equal_requests_are_one_for_the_backend() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2", "3"]);
    assert_eq!(w.starts.len(), 1);
    w.respond(200, &[("A", "b")], b"hello");
    for id in ["1", "2", "3"] {
        assert_eq!(of(&w, id), ["0 200 hello"]);
    }
    assert_eq!((w.engine.sessions(), w.cancels), (0, 0));
    get(&mut w, &["4"]);
    assert_eq!(w.starts.len(), 2);
    w.sharing = Some("other");
    get(&mut w, &["5"]);
    assert_eq!(w.starts.len(), 3);
}

#[test]
fn who_comes_late_gets_it_from_its_start_or_asks_anew() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1"]);
    w.begin(200, &[], None);
    w.event(Event::Body(b"one"));
    w.pass(5);
    get(&mut w, &["2"]);
    w.event(Event::Body(b"two"));
    w.pass(5);
    assert_eq!(of(&w, "1"), ["0 200 one...", "1 - two..."]);
    assert_eq!(of(&w, "2"), ["0 200 onetwo..."]);
    w.event(Event::Body(&[1; 100_000]));
    w.pull();
    get(&mut w, &["3"]);
    assert_eq!(w.starts.len(), 2);
}

#[test]
fn held_sessions_are_handed_over_by_one_call() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2", "3"]);
    w.respond(200, &[("Grip-Hold", "stream")], b"x");
    assert_eq!(calls(&w), [["1", "2", "3"]]);
    w.reply(&Reply::Accepted);
    assert_eq!((w.messages, w.engine.sessions()), (0, 0));
}

#[test]
fn the_call_waits_until_every_client_is_paused() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2"]);
    w.pass(50);
    get(&mut w, &["3"]);
    w.respond(200, &[("Grip-Hold", "response")], b"");
    assert_eq!(of(&w, "1"), ["0 keep-alive ", "1 handoff-start "]);
    assert_eq!(of(&w, "3"), [""; 0]);
    proceed(&mut w, "1", 1);
    assert!(w.accepts.is_empty());
    // One that leaves is not waited for.
    w.client("2", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(calls(&w), [["1", "3"]]);
    let headers = zhttp::Headers::EMPTY;
    let response = HttpResponse { code: 404, reason: "No", headers, body: b"gone" };
    w.reply(&Reply::Response(response));
    assert_eq!(of(&w, "1")[2..], ["2 404 gone"]);
    assert_eq!(of(&w, "3"), ["0 404 gone"]);
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn a_call_in_vain_is_told_to_all() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2"]);
    w.respond(200, &[("Grip-Hold", "stream")], b"");
    w.pass(8_000);
    for id in ["1", "2"] {
        assert_eq!(of(&w, id), ["0 500 Accept service unavailable.|"]);
    }
    assert_eq!(w.engine.sessions(), 0);
    get(&mut w, &["3"]);
    assert_eq!(w.starts.len(), 2);
}

#[test]
fn the_slowest_sets_the_pace() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2"]);
    credit(&mut w, "1", 1, 1_000_000);
    w.begin(200, &[], None);
    w.event(Event::Body(&[1; 80_000]));
    w.pull();
    assert_eq!(w.pauses, [true]);
    credit(&mut w, "2", 1, 60_000);
    assert_eq!(w.pauses, [true, false]);
    w.event(Event::Body(&[1; 80_000]));
    w.pull();
    assert_eq!(w.pauses, [true, false, true]);
    w.client("2", 2, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((w.pauses.last(), w.cancels), (Some(&false), 0));
}

#[test]
fn who_asked_first_may_leave() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2", "3"]);
    for (n, id) in ["1", "2"].iter().enumerate() {
        w.client(id, 1, |f| {
            f.kind(Kind::Cancel);
        });
        assert_eq!((w.cancels, w.engine.sessions()), (0, 3 - n));
    }
    w.respond(200, &[], b"hi");
    assert_eq!(of(&w, "3"), ["0 200 hi"]);
    get(&mut w, &["4"]);
    w.client("4", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((w.cancels, w.engine.sessions()), (1, 0));
}

#[test]
fn backends_that_fail_fail_for_all() {
    let mut w = sharing("*,debug b:1 b:2");
    get(&mut w, &["1", "2"]);
    for _ in 0..2 {
        w.event(Event::Failed(Error::Connect));
        w.pull();
    }
    assert_eq!(w.starts.iter().map(|(_, port, _)| *port).collect::<Vec<_>>(), [1, 2]);
    for id in ["1", "2"] {
        let text = "Unable to connect to any targets. Tried: b:1, b:2|";
        assert_eq!(of(&w, id), [format!("0 502 {text}")]);
    }
    get(&mut w, &["3", "4"]);
    w.begin(200, &[], Some(9));
    w.event(Event::Body(b"12"));
    w.event(Event::Failed(Error::Closed));
    w.pull();
    for id in ["3", "4"] {
        assert_eq!(of(&w, id), ["0 200 12...", "1 cancel "]);
    }
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn bodies_are_awaited_and_large_ones_go_alone() {
    let mut w = sharing("* b:1");
    let post = |w: &mut World, id: &str, size: usize| {
        w.request(id, |f| {
            f.method("POST").uri("http://h/").credits(8192).flag("more", true);
            f.flag("stream", true).flag("router-resp", true);
        });
        assert_eq!(of(w, id), ["0 credit 200000 "]);
        w.client(id, 1, |f| {
            f.body(&vec![b'x'; size]).flag("more", true);
        });
    };
    post(&mut w, "1", 10);
    assert_eq!(w.starts.len(), 0);
    w.client("1", 2, |f| {
        f.body(b"y");
    });
    assert!(w.starts[0].2.bytes.ends_with(b"\r\n\r\nxxxxxxxxxxy"));
    post(&mut w, "2", 100_001);
    assert_eq!(w.starts.len(), 2);
    w.client("2", 2, |f| {
        f.body(b"y").flag("more", true);
    });
    assert_eq!(w.bodies, [(b"y".to_vec(), false)]);
    w.event(Event::Queued(0));
    w.pull();
    assert_eq!(of(&w, "2")[1..], ["1 credit 100002 "]);
}

#[test]
fn a_large_stream_is_sent_to_all_and_then_handed_over() {
    let mut w = sharing("* b:1");
    get(&mut w, &["1", "2"]);
    for id in ["1", "2"] {
        credit(&mut w, id, 1, 1_000_000);
    }
    w.begin(200, &[("Grip-Hold", "stream")], None);
    w.event(Event::Body(&[b'x'; 100_001]));
    w.event(Event::End);
    w.pull();
    let sent = ["0 200 100000B...", "1 - x...", "2 handoff-start "];
    assert_eq!(
        (of(&w, "1"), of(&w, "2")),
        (sent.map(Into::into).to_vec(), sent.map(Into::into).to_vec())
    );
    proceed(&mut w, "2", 2);
    assert!(w.accepts.is_empty());
    proceed(&mut w, "1", 2);
    assert_eq!(calls(&w), [["1", "2"]]);
    let args = zrpc::Request::parse(&w.accepts[0].1).unwrap().args;
    let args = accept::Args::parse(args).unwrap();
    assert!(args.response_sent && args.requests.iter().all(|s| s.response_code == Some(200)));
    assert_eq!(args.inspect.unwrap().sharing_key, Some(&b"k"[..]));
    w.reply(&Reply::Nothing);
    assert_eq!((of(&w, "1")[3..].to_vec(), w.engine.sessions()), (vec!["3 - ".to_owned()], 0));
}

#[test]
fn a_handler_that_does_not_answer_is_waited_for_once() {
    let mut w = sharing("* b:1");
    w.mute = true;
    get(&mut w, &["1"]);
    w.pass(7_999);
    assert_eq!(w.starts.len(), 0);
    w.pass(1);
    assert_eq!(w.starts.len(), 1);
    get(&mut w, &["2", "3"]);
    assert_eq!(w.starts.len(), 3);
    // It is back: one request learns of it, the next ones wait again.
    (w.mute, w.now) = (false, w.now + 100);
    get(&mut w, &["4", "5", "6"]);
    assert_eq!(w.starts.len(), 5);
}

#[test]
fn sessions_that_come_back_share_too() {
    let mut w = sharing("* b:1");
    let session = |id| zrpc::Session {
        rid: Rid { sender: CM, id },
        in_seq: 4,
        out_seq: 6,
        out_credits: 100,
        router_resp: true,
        ..zrpc::Session::default()
    };
    let known = zrpc::inspect::Reply { sharing_key: Some(b"k"), ..Default::default() };
    let packet = retry::Packet {
        requests: vec![session(b"1"), session(b"2")],
        request: HttpRequest {
            method: "GET",
            uri: "http://a/x",
            headers: zhttp::Headers::EMPTY,
            body: b"",
        },
        inspect: Some(known),
        route: None,
        retry_seq: None,
    };
    let mut payload = Vec::new();
    packet.write(&mut payload);
    w.engine.retry(0, &payload);
    w.pull();
    assert_eq!(w.starts.len(), 1);
    w.respond(200, &[("Grip-Hold", "response")], b"");
    proceed(&mut w, "1", 4);
    proceed(&mut w, "2", 4);
    assert_eq!(calls(&w), [["1", "2"]]);
}

#[test]
fn who_has_seen_less_is_not_answered_with_what_another_lacks() {
    let mut w = sharing("* b:1");
    let request =
        HttpRequest { method: "GET", uri: "http://a/x", headers: zhttp::Headers::EMPTY, body: b"" };
    for (id, last_id) in [(b"1", b"5"), (b"2", b"3"), (b"3", b"5")] {
        let session =
            zrpc::Session { rid: Rid { sender: CM, id }, out_credits: 100, ..Default::default() };
        let known = zrpc::inspect::Reply {
            sharing_key: Some(b"k"),
            last_ids: vec![("c", last_id)],
            ..Default::default()
        };
        let packet = retry::Packet {
            requests: vec![session],
            request,
            inspect: Some(known),
            route: None,
            retry_seq: None,
        };
        let mut payload = Vec::new();
        packet.write(&mut payload);
        w.engine.retry(0, &payload);
        w.pull();
    }
    let asked: Vec<bool> = ["last-id=5", "last-id=3"]
        .iter()
        .zip(&w.starts)
        .map(|(id, start)| String::from_utf8_lossy(&start.2.bytes).contains(id))
        .collect();
    assert_eq!((asked, w.starts.len()), (vec![true, true], 2));
}

/// A request of the handler.
fn internal(w: &mut World, id: &[u8], method: &str, auto_share: bool) {
    let mut passthrough = tnetstring::Writer::new();
    passthrough.map(|m| {
        m.str("route");
        m.str("r");
        m.str("prefer-internal");
        m.bool(true);
        m.str("auto-share");
        m.bool(auto_share);
    });
    let frame = passthrough.into_vec();
    let mut packet = Vec::new();
    let ids = [zhttp::Id { id, seq: Some(0) }];
    let head = zhttp::Head { from: b"handler_1", ids: &ids, ext: zhttp::Ext::OURS };
    zhttp::write(&mut packet, &head, |f| {
        f.method(method).uri("http://h/a").credits(8192).body(id);
        f.flag("router-resp", true).frame("passthrough", Some(&frame));
    });
    w.engine.internal_request(w.now, &packet);
    w.pull();
}

#[test]
fn requests_of_the_handler_share_only_if_they_say_so() {
    let mut w = sharing("*,id=r b:1");
    for (id, method, share) in [
        (b"1", "POST", false),
        (b"2", "POST", false),
        (b"3", "GET", false),
        (b"4", "GET", true),
        (b"5", "GET", true),
    ] {
        internal(&mut w, id, method, share);
    }
    assert_eq!(w.starts.len(), 4);
}

proptest! {
    #[test]
    fn any_order_of_events_leaves_no_session(
        steps in prop::collection::vec((0u8..10, 0usize..3, any::<bool>()), 0..60)
    ) {
        let mut w = sharing("* b:1 b:2");
        let ids = ["1", "2", "3"];
        let mut seqs = [1; 3];
        for (step, n, flag) in steps {
            let (id, seq) = (ids[n], seqs[n]);
            let mut spoken = true;
            match step {
                0 => credit(&mut w, id, seq, 50_000),
                1 => proceed(&mut w, id, seq),
                2 => w.client(id, seq, |f| { f.kind(Kind::Cancel); }),
                _ => spoken = false,
            }
            seqs[n] += u32::from(spoken);
            match step {
                3 | 4 => {
                    (seqs[n], w.sharing) = (1, Some(if flag { "k" } else { "j" }));
                    w.get(id, "http://h/");
                }
                _ if w.starts.is_empty() => {}
                5 => w.begin(200, if flag { &[("Grip-Hold", "stream")] } else { &[] }, None),
                6 => w.event(Event::Body(&[0; 50_000])),
                7 => w.event(Event::End),
                8 => w.event(Event::Failed(if flag { Error::Connect } else { Error::Closed })),
                _ => w.pass(1_000),
            }
            w.pull();
        }
        w.engine.peer_gone(w.now, CM, false);
        w.pull();
        w.pass(10_000);
        w.engine.peer_gone(w.now, CM, false);
        w.pull();
        prop_assert_eq!(w.engine.sessions(), 0);
    }
}

#[test]
fn what_is_shared_counts_once_towards_the_backend() {
    let counted = |ids: &[&str]| {
        let mut w = sharing("* b:1");
        get(&mut w, ids);
        w.respond(200, &[("A", "b")], b"hello");
        w.counters()
    };
    let (one, three) = (counted(&["1"]), counted(&["1", "2", "3"]));
    assert!(one.client_header_bytes_received > 0 && one.server_header_bytes_sent > 0);
    assert_eq!(three.of_server(), one.of_server());
    assert_eq!(three.client_header_bytes_received, 3 * one.client_header_bytes_received);
    assert_eq!(three.client_header_bytes_sent, 3 * one.client_header_bytes_sent);
    assert_eq!(three.client_content_bytes_sent, 15);
    // A request that is not shared counts the same.
    let mut w = world("* b:1");
    get(&mut w, &["1"]);
    w.respond(200, &[("A", "b")], b"hello");
    assert_eq!(w.counters(), one);
}
