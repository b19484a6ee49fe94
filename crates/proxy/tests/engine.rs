//! The engine alone: packets and backend events in, outputs out, on a clock of the test's own.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

mod world;

use origin::{Error, Event};
use proptest::prelude::*;
use proxy::Settings;
use tnetstring::Writer;
use world::*;
use zhttp::{HeaderBuf, Kind, Packet};
use zrpc::accept::Reply;
use zrpc::{HttpRequest, HttpResponse, Rid, accept, retry};

#[test]
fn a_plain_request_is_two_messages() {
    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/a?q");
    assert_eq!(w.messages, 0);
    let (_, port, request) = w.starts[0].clone();
    let head = String::from_utf8(request.bytes).unwrap();
    assert_eq!(port, 1);
    assert!(head.starts_with("GET /a?q HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n"), "{head}");
    w.respond(200, &[("A", "b"), ("Connection", "close")], b"hello");
    assert_eq!((w.sent(), w.messages, w.cancels), (vec!["0 200 hello".to_owned()], 1, 0));
    let packet = Packet::parse(&w.packets[0]).unwrap();
    assert_eq!(packet.headers.iter().collect::<Vec<_>>(), [("A", &b"b"[..])]);
    assert_eq!((packet.from, w.engine.sessions()), (&b"px"[..], 0));
}

#[test]
fn a_slow_backend_is_acknowledged_once() {
    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/");
    assert_eq!(w.engine.next_deadline(), Some(50));
    w.pass(49);
    assert_eq!(w.messages, 0);
    w.pass(1);
    w.pass(49);
    assert_eq!(w.sent(), ["0 keep-alive "]);
    w.respond(204, &[], b"");
    assert_eq!(w.sent()[1..], ["1 204 "]);
}

#[test]
fn a_head_waits_a_moment_for_its_body() {
    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/");
    w.begin(200, &[], None);
    w.pull();
    w.pass(2);
    assert_eq!(w.messages, 0);
    w.event(Event::Body(b"one"));
    w.pass(1);
    assert_eq!(w.sent(), ["0 200 one..."]);
    w.event(Event::Body(b"two"));
    w.pull();
    w.event(Event::End);
    w.pull();
    assert_eq!(w.sent()[1..], ["1 - two...", "2 - "]);
}

#[test]
fn responses_follow_the_credits() {
    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/");
    w.begin(200, &[], Some(300_000));
    w.event(Event::Body(&[1; 150_000]));
    w.pull();
    assert_eq!((w.sent(), w.pauses.clone()), (vec!["0 200 8192B...".to_owned()], vec![true]));
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Credit).credits(135_000);
    });
    // A packet has at most 100,000 bytes.
    assert_eq!(w.sent()[1..], ["1 - 100000B...", "2 - 35000B..."]);
    assert_eq!(w.pauses, [true, false]);
    w.event(Event::Body(&[1; 150_000]));
    w.event(Event::End);
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::Credit).credits(1_000_000);
    });
    assert_eq!(w.sent()[3..], ["3 - 100000B...", "4 - 56808B"]);
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn a_hold_goes_over_at_once_without_hand_off_packets() {
    let mut w = world("a,id=r,prefix=p- b:1,sub=s");
    w.get("0-0-7", "http://a/x");
    w.respond(200, &[("Grip-Hold", "stream"), ("Connection", "close")], b"first");
    assert_eq!(w.messages, 0);
    let (_, payload) = w.accepts[0].clone();
    let call = zrpc::Request::parse(&payload).unwrap();
    assert_eq!((call.method, call.from), ("accept", Some(&b"px"[..])));
    let args = accept::Args::parse(call.args).unwrap();
    let s = args.requests[0];
    assert_eq!((s.rid.sender, s.rid.id), (CM, &b"0-0-7"[..]));
    assert_eq!((s.in_seq, s.out_seq, s.out_credits), (1, 0, 8192));
    assert!(s.router_resp && s.multi && s.batch && !s.is_retry);
    assert_eq!((s.peer_address, s.logical_peer_address), ("192.0.2.1", "192.0.2.1"));
    assert_eq!((args.route, args.separate_stats), (Some("r"), true));
    assert_eq!((args.channel_prefix, args.channels), (Some("p-"), vec!["s"]));
    assert_eq!((args.response.code, args.response.body), (200, &b"first"[..]));
    assert_eq!(args.response.headers.get("connection"), Some(&b"close"[..]));
    assert_eq!((args.orig_request.uri, args.request.uri), ("http://a/x", "http://a/x"));
    assert!(args.trusted && !args.response_sent);
    // Nobody but the handler may speak now.
    w.pass(60);
    assert_eq!(w.messages, 0);
    w.reply(&Reply::Accepted);
    assert_eq!((w.messages, w.engine.sessions()), (0, 0));
}

#[test]
fn an_acknowledged_hold_is_handed_off_by_the_book() {
    let mut w = world("* b:1");
    w.get("0-0-7", "http://a/x");
    w.pass(50);
    w.respond(200, &[("Grip-Hold", "response")], b"");
    assert_eq!(
        (w.sent(), w.accepts.len()),
        (vec!["0 keep-alive ".into(), "1 handoff-start ".into()], 0)
    );
    w.pass(45_000);
    assert_eq!(w.messages, 2, "nothing is sent while the client's side is paused");
    w.client("0-0-7", 1, |f| {
        f.kind(Kind::HandoffProceed);
    });
    let call = zrpc::Request::parse(&w.accepts[0].1).unwrap();
    let args = accept::Args::parse(call.args).unwrap();
    assert_eq!((args.requests[0].in_seq, args.requests[0].out_seq), (2, 2));
    // The handler makes a response of it: the session goes on here.
    let mut headers = HeaderBuf::new();
    headers.push("X", b"y");
    let headers = headers.as_headers();
    w.reply(&Reply::Response(HttpResponse { code: 404, reason: "No", headers, body: b"gone" }));
    assert_eq!(w.sent()[2..], ["2 404 gone"]);
}

#[test]
fn answers_when_the_handler_does_not_take_a_hold() {
    let hold = |w: &mut World| {
        w.get("0-0-7", "http://a/x");
        w.respond(200, &[("Grip-Hold", "stream")], b"");
    };
    let mut w = world("* b:1");
    hold(&mut w);
    let key = w.accepts[0].0;
    w.engine.accept_failed(w.now, key);
    w.pull();
    assert_eq!(w.sent(), ["0 500 Accept service unavailable.|"]);
    let mut w = world("* b:1");
    hold(&mut w);
    w.pass(7_999);
    assert_eq!(w.messages, 0);
    w.pass(1);
    assert_eq!(w.sent(), ["0 500 Accept service unavailable.|"]);
    let mut w = world("* b:1");
    hold(&mut w);
    w.engine.handler_gone(w.now, 1_000);
    w.pass(1_000);
    assert_eq!(w.sent(), ["0 500 Accept service unavailable.|"]);
    for (lines, text) in [
        ("* b:1", "0 502 Error while proxying to origin.|"),
        ("*,debug b:1", "0 502 Failed to parse accept instructions: bad|"),
    ] {
        let mut w = world(lines);
        hold(&mut w);
        let call = w.accepts[0].1.clone();
        let mut out = Vec::new();
        let id = zrpc::Request::parse(&call).unwrap().id;
        zrpc::write_error(&mut out, id, "bad-format", Some(b"bad"));
        w.engine.accept_reply(w.now, &out);
        w.pull();
        assert_eq!(w.sent(), [text]);
    }
    let mut w = world("* b:1");
    hold(&mut w);
    w.reply(&Reply::Nothing);
    assert_eq!(w.sent(), ["0 500 Accept service unavailable.|"]);
}

#[test]
fn targets_are_tried_in_order() {
    let mut w = world("*,debug b:1 b:2 b:3");
    w.get("0-0-0", "http://h/");
    w.event(Event::Failed(Error::Connect));
    w.pull();
    w.event(Event::Failed(Error::Timeout));
    w.pull();
    assert_eq!(w.starts.iter().map(|s| s.1).collect::<Vec<_>>(), [1, 2, 3]);
    w.event(Event::Failed(Error::Tls));
    w.pull();
    let text = "Unable to connect to any targets. Tried: b:1, b:2, b:3\n";
    assert_eq!(Packet::parse(&w.packets[0]).unwrap().body, text.as_bytes());
    // What is no failure to connect ends the attempts.
    let mut w = world("* b:1 b:2");
    w.get("0-0-0", "http://h/");
    w.event(Event::Failed(Error::Closed));
    w.pull();
    assert_eq!(
        (w.starts.len(), w.sent()),
        (1, vec!["0 502 Error while proxying to origin.|".into()])
    );
}

#[test]
fn without_a_route_the_answer_is_502() {
    let mut w = world("a b:1");
    w.get("0-0-0", "http://other/");
    assert_eq!(w.sent(), ["0 502 Route not found|"]);
    w.get("0-0-1", "ws://other/");
    assert_eq!(w.sent()[1..], ["0 error rejected 502 Route not found|"]);
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn the_test_target_answers_and_holds() {
    let mut w = world("* test");
    w.get("0-0-0", "http://h/");
    assert_eq!(w.sent(), ["0 200 Hello from the Pushpin test handler!|"]);
    w.get("0-0-1", "http://h/stream?channel=c");
    let call = zrpc::Request::parse(&w.accepts[0].1).unwrap();
    let args = accept::Args::parse(call.args).unwrap();
    assert_eq!(args.response.headers.get("Grip-Channel"), Some(&b"c"[..]));
}

#[test]
fn cross_origin_answers() {
    let mut w = world("a,aco b:1\nb b:1");
    w.get("0-0-0", "http://a/x");
    w.respond(200, &[("X-Own", "1")], b"hi");
    let packet = Packet::parse(&w.packets[0]).unwrap();
    assert_eq!(packet.headers.get("access-control-allow-origin"), Some(&b"*"[..]));
    assert_eq!(packet.headers.get("access-control-expose-headers"), Some(&b"X-Own"[..]));
    w.get("0-0-1", "http://b/x?callback=f");
    w.respond(200, &[], b"hi");
    assert_eq!(w.sent()[1..], ["0 200 hi"]);
    w.get("0-0-2", "http://a/x?callback=f&_method=PUT&_body=b&k=1");
    let head = String::from_utf8(w.starts.last().unwrap().2.bytes.clone()).unwrap();
    assert!(head.starts_with("PUT /x?k=1 HTTP/1.1\r\nHost: a\r\n") && head.ends_with("\r\n\r\nb"));
    w.begin(201, &[], None);
    w.event(Event::Body(b"\"hi"));
    w.pull();
    w.event(Event::End);
    w.pull();
    let bodies: Vec<u8> = w.packets[2..]
        .iter()
        .flat_map(|packet| Packet::parse(packet).unwrap().body.to_vec())
        .collect();
    assert_eq!(
        String::from_utf8(bodies).unwrap(),
        "/**/f({\"code\": 201, \"reason\": \"OK\", \"headers\": {}, \"body\": \"\\\"hi\"});\n"
    );
    w.get("0-0-3", "http://a/x?callback=alert(1)");
    assert_eq!(w.sent().last().unwrap(), "0 400 Invalid callback parameter.|");
    w.get("0-0-4", "http://a/x?callback=f");
    w.respond(200, &[("Grip-Hold", "response")], b"");
    let args = zrpc::Request::parse(&w.accepts[0].1).unwrap().args;
    let args = accept::Args::parse(args).unwrap();
    let session = args.requests[0];
    assert!(session.auto_cross_origin && session.jsonp_extended_response);
    assert_eq!((session.jsonp_callback, args.orig_request.uri), (Some(&b"f"[..]), "http://a/x"));
}

fn post(w: &mut World, length: Option<&str>) {
    w.request("0-0-0", |f| {
        let headers = length.map(|length| ("Content-Length", length));
        f.method("POST").uri("http://h/").headers(headers.into_iter()).credits(8192);
        f.flag("more", true).flag("stream", true).flag("router-resp", true);
    });
}

#[test]
fn request_bodies_stream_with_lazy_credits() {
    let mut w = world("* b:1");
    post(&mut w, None);
    assert_eq!(w.sent(), ["0 credit 200000 "]);
    let head = String::from_utf8(w.starts[0].2.bytes.clone()).unwrap();
    assert!(head.contains("Transfer-Encoding: chunked") && w.starts[0].2.chunked, "{head}");
    w.client("0-0-0", 1, |f| {
        f.body(&[1; 20_000]).flag("more", true);
    });
    w.event(Event::Queued(0));
    w.pull();
    assert_eq!(w.messages, 1, "credits go back in steps");
    w.client("0-0-0", 2, |f| {
        f.body(&[1; 40_000]).flag("more", true);
    });
    w.event(Event::Queued(10_000));
    w.pull();
    assert_eq!(w.sent()[1..], ["1 credit 50000 "]);
    w.client("0-0-0", 3, |_| {});
    assert_eq!(
        w.bodies.iter().map(|(d, last)| (d.len(), *last)).collect::<Vec<_>>(),
        [(20_000, false), (40_000, false), (0, true)]
    );
    w.respond(200, &[], b"ok");
    assert_eq!(w.sent()[2..], ["2 200 ok"]);
}

#[test]
fn a_body_of_known_length_is_announced_and_an_early_answer_ends_it() {
    let mut w = world("* b:1");
    post(&mut w, Some("10"));
    let head = String::from_utf8(w.starts[0].2.bytes.clone()).unwrap();
    assert!(head.contains("Content-Length: 10\r\n"), "{head}");
    w.begin(403, &[], Some(2));
    w.client("0-0-0", 1, |f| {
        f.body(b"late");
    });
    assert_eq!(w.bodies.len(), 0);
    w.event(Event::Body(b"no"));
    w.event(Event::End);
    w.pull();
    assert_eq!(w.sent()[1..], ["1 403 no"]);
}

#[test]
fn a_request_too_large_for_a_hold_is_told_so() {
    let mut w = world("* b:1");
    post(&mut w, None);
    w.client("0-0-0", 1, |f| {
        f.body(&[1; 100_001]);
    });
    w.respond(200, &[("Grip-Hold", "stream")], b"");
    assert_eq!(w.sent()[1..], ["1 400 Request too large to accept GRIP instruct.|"]);
}

#[test]
fn large_instructions_are_refused_or_sent_first() {
    let mut w = world("*,debug b:1");
    w.get("0-0-0", "http://h/");
    w.begin(200, &[("Grip-Hold", "response")], None);
    w.event(Event::Body(&[1; 100_001]));
    w.pull();
    assert_eq!(w.sent(), ["0 502 GRIP instruct response too large from b:1|"]);
    assert_eq!(w.cancels, 1);

    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/");
    w.begin(200, &[("Grip-Hold", "stream"), ("Grip-Status", "201 Made")], None);
    w.event(Event::Body(&[1; 100_001]));
    w.pull();
    assert_eq!(w.sent(), ["0 201 8192B..."]);
    w.event(Event::End);
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Credit).credits(200_000);
    });
    assert_eq!(w.sent()[1..], ["1 - 91809B...", "2 handoff-start "]);
    w.client("0-0-0", 2, |f| {
        f.kind(Kind::HandoffProceed);
    });
    let call = zrpc::Request::parse(&w.accepts[0].1).unwrap();
    let args = accept::Args::parse(call.args).unwrap();
    assert!(args.response_sent);
    assert_eq!(args.requests[0].response_code, Some(201));
    assert_eq!(args.response.headers.get("grip-hold"), Some(&b"stream"[..]));
}

/// Lets a large stream as JSON-P be sent first, and answers the call that follows.
fn sent_first_as_jsonp(reply: &Reply<'_>) -> String {
    let mut w = world("*,aco b:1");
    w.request("0-0-0", |f| {
        f.method("GET").uri("http://h/?callback=f").credits(1_000_000);
        f.flag("stream", true).flag("router-resp", true);
    });
    w.begin(200, &[("Grip-Hold", "stream")], None);
    w.event(Event::Body(&[b'x'; 100_001]));
    w.event(Event::Body(b"\n"));
    w.event(Event::End);
    w.pull();
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::HandoffProceed);
    });
    w.reply(reply);
    let bodies = w.packets.iter().map(|packet| Packet::parse(packet).unwrap().body.to_vec());
    let text = String::from_utf8(bodies.flatten().collect()).unwrap();
    let start = "/**/f({\"code\": 200, \"reason\": \"OK\", \"headers\": {}, \"body\": \"";
    let body = text.strip_prefix(start).expect("the call");
    body.trim_start_matches('x').to_owned()
}

#[test]
fn a_call_of_jsonp_stays_open_for_the_handler() {
    assert_eq!(sent_first_as_jsonp(&Reply::Accepted), "\\n");
    assert_eq!(sent_first_as_jsonp(&Reply::Nothing), "\\n\"});\n");
    let response =
        HttpResponse { code: 200, reason: "OK", headers: zhttp::Headers::EMPTY, body: b"\"end\"" };
    let response = sent_first_as_jsonp(&Reply::Response(response));
    assert_eq!(response, "\\n\\\"end\\\"\"});\n");
}

#[test]
fn what_is_cut_off_ends_uncleanly() {
    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/");
    w.begin(200, &[], Some(10));
    w.event(Event::Body(b"12345"));
    w.event(Event::Failed(Error::Closed));
    w.pull();
    assert_eq!(w.sent(), ["0 200 12345...", "1 cancel "]);
    assert_eq!(w.engine.sessions(), 0);
}

#[test]
fn clients_that_leave_and_gaps_end_the_session() {
    let mut w = world("* b:1");
    w.get("0-0-0", "http://h/");
    w.client("0-0-0", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((w.messages, w.cancels, w.engine.sessions()), (0, 1, 0));
    w.get("0-0-1", "http://h/");
    w.client("0-0-1", 5, |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!((w.sent(), w.engine.sessions()), (vec!["0 cancel ".to_owned()], 0));
    w.get("0-0-2", "http://h/");
    w.engine.peer_gone(w.now, CM, false);
    w.pull();
    assert_eq!((w.messages, w.cancels, w.engine.sessions()), (1, 3, 0));
    // Packets for what is not here are late ones.
    w.client("0-0-9", 3, |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(w.messages, 1);
}

#[test]
fn waiting_sessions_are_kept_alive_in_groups_and_expire() {
    let mut w = world("* b:1");
    for n in 0..300 {
        w.get(&format!("0-{n}-0"), "http://h/");
    }
    w.pass(50);
    let (packets, messages) = (w.packets.len(), w.messages);
    assert_eq!(packets, 300);
    assert!(messages < 5, "acknowledgements share messages: {messages}");
    w.packets.clear();
    for _ in 0..450 {
        w.pass(100);
    }
    let ids: usize = w.packets.iter().map(|p| Packet::parse(p).unwrap().ids.len()).sum();
    assert_eq!(ids, 300, "each session once in 45 s");
    for _ in 0..250 {
        w.pass(100);
    }
    assert_eq!(w.engine.sessions(), 0, "60 s of silence end a session");
}

/// What the handler gives back: a response hold on route `r`.
fn given_back(id: &str, unreported_time_ms: Option<i64>) -> Vec<u8> {
    let mut headers = HeaderBuf::new();
    headers.push("Host", b"a");
    let packet = retry::Packet {
        requests: vec![zrpc::Session {
            rid: Rid { sender: CM, id: id.as_bytes() },
            in_seq: 4,
            out_seq: 6,
            out_credits: 100,
            router_resp: true,
            unreported_time_ms,
            ..zrpc::Session::default()
        }],
        request: HttpRequest {
            method: "GET",
            uri: "http://a/x",
            headers: headers.as_headers(),
            body: b"",
        },
        inspect: Some(zrpc::inspect::Reply {
            last_ids: vec![("c", b"9")],
            ..zrpc::inspect::Reply::default()
        }),
        route: Some("r"),
        retry_seq: Some(0),
    };
    let mut payload = Vec::new();
    packet.write(&mut payload);
    payload
}

#[test]
fn a_session_that_comes_back_is_claimed_and_asked_again() {
    let mut w = world("a,id=r b:1");
    let payload = given_back("0-0-3", None);
    w.engine.retry(0, &payload);
    w.pull();
    assert_eq!(w.sent(), ["6 keep-alive "]);
    let head = String::from_utf8(w.starts[0].2.bytes.clone()).unwrap();
    assert!(head.contains("Grip-Last: c; last-id=9\r\n"), "{head}");
    w.respond(200, &[("Grip-Hold", "response")], b"");
    w.proceed("0-0-3", 4);
    let call = zrpc::Request::parse(&w.accepts[0].1).unwrap();
    let session = accept::Args::parse(call.args).unwrap().requests[0];
    assert!(session.is_retry);
    assert_eq!((session.in_seq, session.out_seq), (5, 8));
}

#[test]
fn a_session_with_an_id_that_no_packet_can_have_is_not_taken_back() {
    let mut w = world("a,id=r b:1");
    w.engine.retry(0, &given_back(&"x".repeat(zhttp::MAX_ID_BYTES + 1), None));
    w.pull();
    assert_eq!((w.engine.sessions(), w.starts.len(), w.engine.drops().malformed), (0, 0, 1));
    w.engine.retry(0, &given_back(&"x".repeat(zhttp::MAX_ID_BYTES), None));
    w.pull();
    assert_eq!((w.engine.sessions(), w.starts.len()), (1, 1));
}

#[test]
fn a_check_is_answered_without_a_route() {
    let mut w = world("a b:1");
    for host in ["a", "nowhere"] {
        w.request(host, |f| {
            f.method("GET").uri(&format!("http://{host}/")).credits(8192);
            f.headers([("Pushpin-Check", "")].into_iter()).flag("router-resp", true);
        });
    }
    assert!(w.sent().iter().all(|packet| packet.starts_with("0 200 ")), "{:?}", w.sent());
    assert_eq!(w.starts.len(), 0);
}

#[test]
fn sums_go_to_the_handler() {
    let mut w = world("a,id=r b:1");
    w.engine.stats_listeners(false, true);
    for n in 0..3 {
        w.get(&format!("0-{n}-0"), "http://a/");
        w.respond(200, &[], b"ok");
    }
    w.pass(100);
    w.stats.sort();
    let kinds: Vec<_> = w.stats.iter().map(|s| s.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["activity", "conn-max", "counts"]);
    assert!(w.stats[0].contains("5:count,1:3#") && w.stats[0].contains("5:route,1:r,"));
    assert!(w.stats[2].contains("17:requests-received,1:3#"));
    w.stats.clear();
    w.engine.stats_listeners(true, false);
    w.get("0-9-0", "http://a/");
    w.respond(200, &[], b"ok");
    assert!(w.stats[0].starts_with("conn T") && w.stats[0].contains("connmgr:0-9-0"));
    assert!(w.stats[1].starts_with("conn T") && w.stats[1].contains("unavailable"));
}

/// The session of the last accept call, as much of it as is about stats: unreported time, and how
/// many maxima came along.
fn told_with_call(w: &World) -> (Option<i64>, usize) {
    let call = zrpc::Request::parse(&w.accepts.last().unwrap().1).unwrap();
    let args = accept::Args::parse(call.args).unwrap();
    let maxima = args.conn_max.and_then(|list| list.as_list().map(|list| list.iter().count()));
    (args.requests[0].unreported_time_ms, maxima.unwrap_or_default())
}

/// All minutes of reports so far.
fn minutes(w: &World) -> u64 {
    let reports = w.stats.iter().filter_map(|text| match stats::Packet::parse(text.as_bytes()) {
        Ok(stats::Packet { body: stats::Body::Report(report), .. }) => Some(report.minutes),
        _ => None,
    });
    reports.sum()
}

#[test]
fn a_minute_is_counted_by_one_of_both() {
    let hold = [("Grip-Hold", "response"), ("Grip-Channel", "c")];
    let mut w = world("* b:1");
    w.engine.stats_listeners(false, true);
    // At once: the handler counts it anew, and nothing was told.
    w.get("0-0-0", "http://a/");
    w.respond(200, &hold, b"");
    assert_eq!(told_with_call(&w), (None, 0));
    w.reply(&Reply::Accepted);
    // After the connection was told, before its minute was.
    w.get("0-1-0", "http://a/");
    w.pass(1_000);
    w.respond(200, &hold, b"");
    w.proceed("0-1-0", 1);
    assert_eq!(told_with_call(&w), (None, 1));
    w.reply(&Reply::Accepted);
    // After its minute was reported, and after another one.
    for (id, wait_s, counted) in [("0-2-0", 10, 1), ("0-3-0", 70, 3)] {
        w.get(id, "http://a/");
        (0..wait_s * 5).for_each(|_| w.pass(100));
        w.client(id, 1, |f| {
            f.kind(Kind::KeepAlive);
        });
        (0..wait_s * 5).for_each(|_| w.pass(100));
        w.respond(200, &hold, b"");
        w.proceed(id, 2);
        let (unreported, _) = told_with_call(&w);
        assert_eq!(unreported, Some(wait_s * 1_000 % 60_000), "{id}");
        w.reply(&Reply::Accepted);
        (0..101).for_each(|_| w.pass(100));
        assert_eq!(minutes(&w), counted, "{id}");
    }
    // Refused: it is the proxy's after all.
    w.get("0-4-0", "http://a/");
    w.respond(200, &hold, b"");
    w.reply(&Reply::Nothing);
    (0..101).for_each(|_| w.pass(100));
    assert_eq!(minutes(&w), 4);
}

#[test]
fn a_session_that_came_back_goes_on_with_its_minute() {
    let mut w = world("a,id=r b:1");
    let packet = given_back("0-0-3", Some(42_000));
    w.now = 100_000;
    w.engine.retry(w.now, &packet);
    w.pull();
    w.pass(1_000);
    w.respond(200, &[("Grip-Hold", "response")], b"");
    w.proceed("0-0-3", 4);
    assert_eq!(told_with_call(&w).0, Some(43_000));
    w.reply(&Reply::Accepted);
    (0..200).for_each(|_| w.pass(100));
    assert_eq!(minutes(&w), 0);
}

#[test]
fn connections_are_announced_again_in_time() {
    let settings = Settings { connection_ttl_s: 4, ..Settings::default() };
    let mut w = world_with("* b:1", settings);
    w.engine.stats_listeners(true, false);
    w.get("0-0-0", "http://a/");
    w.respond(200, &[], b"");
    w.get("0-1-0", "http://a/");
    w.stats.clear();
    (0..120).for_each(|_| w.pass(100));
    let again = w.stats.iter().filter(|text| text.starts_with("conn T")).count();
    assert_eq!(again, 4, "every three of twelve seconds: {:?}", w.stats);
    let quiet = Settings { connection_ttl_s: 4, connection_send: false, ..Settings::default() };
    w.engine.set_settings(w.now, quiet);
    w.stats.clear();
    (0..120).for_each(|_| w.pass(100));
    assert!(!w.stats.iter().any(|text| text.starts_with("conn T")), "{:?}", w.stats);
}

#[test]
fn reports_come_at_the_interval_of_other_settings() {
    let mut w = world("* b:1");
    w.engine.stats_listeners(false, true);
    let newer = Settings { report_interval_ms: 1_000, ..Settings::default() };
    w.engine.set_settings(w.now, newer);
    w.get("0-0-0", "http://a/");
    w.respond(200, &[], b"");
    (0..10).for_each(|_| w.pass(100));
    let place = |kind: &str| w.stats.iter().position(|text| text.starts_with(kind));
    assert_eq!(minutes(&w), 1);
    assert!(place("conn-max ") < place("report "), "{:?}", w.stats);
}

#[test]
fn requests_of_the_handler_pass_through() {
    let mut w = world("a,id=r,path_beg=/in b:1");
    let mut frame = Writer::new();
    frame.map(|m| {
        m.str("route");
        m.str("r");
    });
    let frame = frame.into_vec();
    let packet = from_client("x", 0, |f| {
        let headers = [("Grip-Last", "c; last-id=1")];
        f.method("GET").uri("http://other:81/next").headers(headers.into_iter());
        f.credits(8192).flag("router-resp", true).frame("passthrough", Some(&frame));
    });
    w.engine.internal_request(0, &packet);
    w.pull();
    assert_eq!(w.starts[0].1, 81);
    let head = String::from_utf8(w.starts[0].2.bytes.clone()).unwrap();
    assert!(
        head.contains("Grip-Last: c; last-id=1\r\n") && head.contains("Host: other:81"),
        "{head}"
    );
    w.respond(200, &[("Grip-Hold", "stream")], b"next");
    assert_eq!((w.sent(), w.accepts.len()), (vec!["0 200 next".to_owned()], 0));
}

proptest! {
    #[test]
    fn no_bytes_panic(inputs in prop::collection::vec((0u8..6, prop::collection::vec(any::<u8>(), 0..80)), 0..20)) {
        let mut w = world("* b:1");
        w.get("0-0-0", "http://h/");
        for (kind, bytes) in inputs {
            match kind {
                0 => w.engine.request(w.now, &bytes),
                1 => w.engine.client_packet(w.now, &bytes),
                2 => w.engine.accept_reply(w.now, &bytes),
                3 => w.engine.retry(w.now, &bytes),
                4 => w.engine.inspect_reply(w.now, &bytes),
                _ => drop(w.engine.command(w.now, &bytes)),
            }
            w.pull();
        }
    }

    #[test]
    fn any_order_of_events_leaves_no_session(steps in prop::collection::vec((0u8..8, 0u32..4, any::<bool>()), 0..60)) {
        let mut w = world("* b:1 b:2");
        w.get("0-0-0", "http://h/");
        for (step, seq, flag) in steps {
            match step {
                0 => w.client("0-0-0", seq, |f| { f.kind(Kind::Credit).credits(100); }),
                1 => w.client("0-0-0", seq, |f| { f.body(b"x").flag("more", flag); }),
                2 => w.client("0-0-0", seq, |f| { f.kind(Kind::HandoffProceed); }),
                3 => w.begin(200, if flag { &[("Grip-Hold", "stream")] } else { &[] }, None),
                4 => w.event(Event::Body(&[0; 50_000])),
                5 => w.event(Event::End),
                6 => w.event(Event::Failed(if flag { Error::Connect } else { Error::Closed })),
                _ => w.pass(1_000),
            }
            w.pull();
        }
        w.engine.peer_gone(w.now, CM, false);
        w.pull();
        w.pass(10_000);
        w.engine.peer_gone(w.now, CM, false);
        prop_assert_eq!(w.engine.sessions(), 0);
    }
}
