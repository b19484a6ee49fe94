//! Requests of the handler: filters that ask, links that are followed together, updates in
//! batches.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, hold};
use zhttp::Kind;

fn with_filter(session: &str, filter: &str) -> bench::Call {
    let call = hold("stream").session(session).channel(&format!("c; filter={filter}"));
    call.header("Grip-Set-Meta", r#"url="/check", user="ann""#)
}

#[test]
fn a_filter_asks_its_backend_and_later_items_wait_for_it() {
    let mut b = Bench::new();
    b.accept(with_filter("1", "http-modify"));
    b.accept(hold("stream").session("2"));
    b.packets();
    b.publish(r#"{"channel":"c","meta":{"m":"v"},"http-stream":{"content":"a"}}"#);
    b.publish_stream("c", "b");
    // Nobody else waits.
    let bodies: String = b.packets().iter().map(|p| p.body.as_str()).collect();
    assert_eq!(bodies, "ab");
    let (id, request) = b.requests().remove(0);
    assert_eq!(
        request,
        "POST http://api.example/check Sub-Meta={\"url\":\"/check\",\"user\":\"ann\"} \
         Pub-Meta={\"m\":\"v\"} body=a"
    );
    b.respond(&id, 0, 200, &[], "A", false);
    assert_eq!(b.packets()[0].body, "A");
    b.run_to(30);
    let (id, request) = b.requests().remove(0);
    assert!(request.ends_with("body=b"), "{request}");
    b.respond(&id, 0, 204, &[], "", false);
    assert_eq!(b.packets()[0].body, "b");
}

#[test]
fn a_filter_may_drop_fail_or_never_answer() {
    let mut b = Bench::new();
    b.accept(with_filter("1", "http-check"));
    b.packets();
    let ask = |b: &mut Bench| {
        b.publish_stream("c", "x");
        b.run_to(b.now + 100);
        let (id, request) = b.requests().remove(0);
        assert!(!request.contains("body="));
        id
    };
    let id = ask(&mut b);
    b.respond(&id, 0, 200, &[("Action", "drop")], "", false);
    let id = ask(&mut b);
    b.respond(&id, 0, 500, &[], "", false);
    let id = ask(&mut b);
    b.respond(&id, 0, 200, &[], &"x".repeat(100_001), false);
    ask(&mut b);
    b.run_to(b.now + 10_200);
    assert!(b.packets().iter().all(|p| p.body.is_empty()));
    assert_eq!(b.handler.shards()[0].drops().filter_failed, 3);
    let id = ask(&mut b);
    b.respond(&id, 0, 200, &[], "not looked at", false);
    assert_eq!(b.packets().last().unwrap().body, "x");
}

#[test]
fn a_filter_without_a_url_fails_and_says_so_with_debug() {
    let mut b = Bench::with(|settings| settings.debug = true);
    b.accept(hold("stream").session("1").channel("c; filter=http-check"));
    b.packets();
    b.publish_stream("c", "x");
    let got = b.packets();
    assert_eq!(got[0].body, "\n\nfilter error: http-check: missing url value\n");
    assert!(!got[0].more);
}

#[test]
fn filters_of_response_holds_and_of_sockets_ask_too() {
    let mut b = Bench::new();
    b.accept({
        let call = hold("response").session("1").channel("c; filter=http-check; filter=var-subst");
        call.header("Grip-Set-Meta", r#"url="/check", user="ann""#)
    });
    b.here("s");
    b.grip("s", r#"{"type":"set-meta","name":"url","value":"http://f.example/"}"#);
    b.grip("s", r#"{"type":"subscribe","channel":"c","filters":["http-modify"]}"#);
    b.packets();
    b.items();
    b.publish_response("c", "for %(user)s");
    b.publish_ws("c", "w");
    b.publish_ws("c", "later");
    let requests = b.requests();
    assert_eq!(requests.len(), 2);
    assert!(b.items().is_empty());
    for (id, request) in requests {
        match request.starts_with("POST http://f.example/") {
            true => b.respond(&id, 0, 200, &[], "W", false),
            false => b.respond(&id, 0, 200, &[], "", false),
        }
    }
    assert_eq!(b.packets().last().unwrap().body, "for ann");
    assert_eq!(b.items(), ["s send text:W"]);
    // The socket leaves while its next item is asked about.
    b.run_to(b.now + 100);
    assert_eq!(b.requests().len(), 1);
    b.control(&[zrpc::control::Item::new(b"s", zrpc::control::Kind::Gone)]);
    assert_eq!(b.handler.sockets(), 0);
}

#[test]
fn questions_go_at_a_limited_rate() {
    let mut b = Bench::new();
    for n in 0..20 {
        b.accept(with_filter(&n.to_string(), "http-check"));
    }
    b.publish_stream("c", "x");
    assert_eq!(b.requests().len(), 3);
    b.run_to(74);
    assert_eq!(b.requests().len(), 6);
    b.run_to(1_000);
    assert_eq!(b.requests().len(), 11);
}

const LINK: &str = "</next>; rel=next; timeout=100";

fn linked(session: usize) -> bench::Call {
    let call = hold("stream").session(&session.to_string()).channel("c; prev-id=a");
    call.header("Grip-Link", LINK)
}

#[test]
fn thousands_of_streams_that_missed_something_ask_once() {
    let mut b = Bench::new();
    for n in 0..2_000 {
        b.accept(linked(n));
    }
    b.accept(hold("stream").session("other"));
    b.packets();
    // The item before this one was missed by all.
    b.publish(&bench::sequenced("c", "c", "b"));
    let got = b.packets();
    assert_eq!((got.len(), got[0].ids.len()), (1, 1));
    assert!(b.requests().is_empty());
    b.run_to(350);
    let requests = b.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].1, "GET http://api.example/next Grip-Last=c; last-id=a");
    let held = [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=c"), ("Grip-Link", LINK)];
    b.respond(&requests[0].0, 0, 200, &held, "missed", false);
    let got: Vec<_> = b.packets().into_iter().filter(|p| p.body == "missed").collect();
    assert_eq!(got.iter().map(|p| p.ids.len()).sum::<usize>(), 2_000);
    assert_eq!(got.len(), 16);
    b.publish(&bench::sequenced("c", "d", "c"));
    let ids: usize = b.packets().iter().map(|p| p.ids.len()).sum();
    assert_eq!(ids, 2_001);
}

#[test]
fn requests_to_one_backend_wait_for_each_other() {
    let mut b = Bench::new();
    for n in 0..250 {
        let link = format!("</next/{n}>; rel=next");
        let call = hold("stream").session(&n.to_string()).channel("c; prev-id=a");
        b.accept(call.header("Grip-Link", &link));
    }
    b.publish(&bench::sequenced("c", "c", "b"));
    b.run_to(400);
    let first = b.requests();
    assert_eq!(first.len(), 100);
    // Some sessions that wait for their turn leave.
    for n in 100..150 {
        b.packet(&n.to_string(), 1, |f| {
            f.kind(Kind::Cancel);
        });
    }
    for (id, _) in &first {
        b.respond(id, 0, 200, &[("Grip-Hold", "stream"), ("Grip-Channel", "c")], "", false);
    }
    assert_eq!(b.requests().len(), 100);
}

#[test]
fn a_stream_whose_channels_all_sent_something_skips_its_next_link_once() {
    let mut b = Bench::new();
    let link = "</next>; rel=next; timeout=10";
    b.accept(hold("stream").session("1").channel("c, d").header("Grip-Link", link));
    b.run_to(8_000);
    b.publish_stream("c", "x");
    b.publish_stream("d", "y");
    b.run_to(10_500);
    assert!(b.requests().is_empty());
    // One of two is not enough.
    b.publish_stream("c", "x");
    b.run_to(20_500);
    assert_eq!(b.requests().len(), 1);
}

#[test]
fn a_response_that_has_begun_is_not_joined() {
    let mut b = Bench::new();
    b.accept(linked(1));
    b.accept(linked(2));
    b.packets();
    let hint = bench::action_item("c", "http-stream", "hint");
    b.handler.publish(b.now, vec![hint]);
    b.settle();
    // Neither follows the id: both ask, together, a little later.
    b.run_to(400);
    let requests = b.requests();
    assert_eq!(requests.len(), 1);
    let held = [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=a"), ("Grip-Link", LINK)];
    b.respond(&requests[0].0, 0, 200, &held, "1", true);
    b.accept(linked(3));
    b.handler.recover(b.now);
    b.run_to(b.now + 400);
    assert_eq!(b.requests().len(), 1);
}

#[test]
fn a_client_that_takes_nothing_stops_the_fetch_of_its_link() {
    let mut b = Bench::new();
    b.accept(linked(1).credits(100));
    b.packets();
    b.handler.recover(b.now);
    b.run_to(400);
    let (id, _) = b.requests().remove(0);
    let held = [("Grip-Hold", "stream"), ("Grip-Channel", "c"), ("Grip-Link", LINK)];
    b.respond(&id, 0, 200, &held, &"x".repeat(150), true);
    assert!(b.credits_given().is_empty());
    b.credit("1", 1, 1_000);
    assert_eq!(b.credits_given(), [150]);
}

#[test]
fn recovery_of_response_holds_is_spread() {
    let mut b = Bench::new();
    for n in 0..450 {
        b.accept(hold("response").session(&n.to_string()));
    }
    b.packets();
    b.handler.recover(b.now);
    b.settle();
    assert!(b.packets().is_empty());
    b.run_to(360);
    let handed: usize =
        b.packets().iter().filter(|p| p.kind == Kind::HandoffStart).map(|p| p.ids.len()).sum();
    assert!((200..=300).contains(&handed), "{handed}");
    b.run_to(700);
    let rest = b.packets().iter().filter(|p| p.kind == Kind::HandoffStart).count();
    assert_eq!(handed + rest, 450);
}

/// A stream that asks for what comes next every ten seconds.
fn timed(session: &str, link: &str) -> bench::Call {
    let link = format!("<{link}>; rel=next; timeout=10");
    hold("stream").session(session).channel("c; prev-id=a").header("Grip-Link", &link)
}

const TIMED: [(&str, &str); 3] = [
    ("Grip-Hold", "stream"),
    ("Grip-Channel", "c; prev-id=a"),
    ("Grip-Link", "</next>; rel=next; timeout=10"),
];

#[test]
fn streams_with_the_same_link_share_their_timer() {
    let mut b = Bench::new();
    for (at, session) in [(0, "1"), (4_000, "2"), (9_000, "3")] {
        b.run_to(at);
        b.accept(timed(session, "/next"));
        b.accept(timed(&format!("own {session}"), &format!("/next?of={session}")));
    }
    b.packets();
    b.run_to(10_500);
    let requests = b.requests();
    let urls: Vec<&str> = requests.iter().map(|(_, r)| r.split(' ').nth(1).unwrap()).collect();
    assert_eq!(urls, ["http://api.example/next", "http://api.example/next?of=1"]);
    b.respond(&requests[0].0, 0, 200, &TIMED, "x", false);
    let got: Vec<_> = b.packets().into_iter().filter(|p| p.body == "x").collect();
    assert_eq!((got.len(), got[0].ids.len()), (1, 3));
    // One leaves; the others go on together.
    b.packet("2", 1, |f| {
        f.kind(Kind::Cancel);
    });
    b.run_to(19_900);
    b.requests();
    b.run_to(20_600);
    let requests = b.requests();
    assert_eq!(requests.len(), 1);
    b.respond(&requests[0].0, 0, 200, &TIMED, "y", false);
    assert_eq!(b.packets().last().unwrap().ids.len(), 2);
}

#[test]
fn streams_whose_request_failed_try_again_together() {
    let mut b = Bench::new();
    for n in 0..300 {
        b.accept(timed(&n.to_string(), "/next"));
    }
    b.packets();
    b.run_to(10_500);
    for wait in [2_000, 3_000] {
        let requests = b.requests();
        assert_eq!(requests.len(), 1);
        b.respond(&requests[0].0, 0, 500, &[], "", false);
        b.run_to(b.now + wait);
    }
    let requests = b.requests();
    assert_eq!(requests.len(), 1);
    b.respond(&requests[0].0, 0, 200, &TIMED, "x", false);
    let got: usize = b.packets().iter().filter(|p| p.body == "x").map(|p| p.ids.len()).sum();
    assert_eq!(got, 300);
}

#[test]
fn marks_in_the_next_part_are_rewritten_as_it_comes() {
    let mut b = Bench::new();
    for n in 0..2 {
        b.accept(linked(n).credits(500_000));
    }
    b.packets();
    b.handler.recover(b.now);
    b.run_to(400);
    let (id, _) = b.requests().remove(0);
    let held = [
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "c; filter=build-id"),
        ("Grip-Set-Meta", r#"id_format=x, id_encoding=hex"#),
        ("Grip-Link", LINK),
    ];
    let large = "y".repeat(150_000);
    b.respond(&id, 0, 200, &held, &format!("{large}%(a"), true);
    b.respond_more(&id, 1, "b)", true);
    b.respond_more(&id, 2, "I %%", true);
    b.respond_more(&id, 3, "!", false);
    let got: Vec<_> = b.packets().into_iter().filter(|p| p.kind == Kind::Data).collect();
    assert!(got.iter().all(|p| p.ids.len() == 2));
    let text: String = got.iter().map(|p| p.body.as_str()).collect();
    assert_eq!(text, format!("{large}6162 %!"));
}

#[test]
fn a_hold_that_goes_back_waits_until_its_end_was_told() {
    let mut b = Bench::new();
    for session in ["1", "2"] {
        b.accept(hold("response").session(session).header("Grip-Link", "</gone>; rel=gone"));
    }
    let hint = bench::action_item("c", "http-response", "hint");
    b.handler.publish(b.now, vec![hint]);
    b.settle();
    for session in ["1", "2"] {
        b.packet(session, 1, |f| {
            f.kind(Kind::HandoffProceed);
        });
    }
    let requests = b.requests();
    assert_eq!(requests[0].1, "POST http://api.example/gone");
    assert!(b.retries().is_empty());
    b.respond(&requests[0].0, 0, 200, &[], "", false);
    assert_eq!(b.retries().len(), 1);
    // The other one is not answered at all.
    b.run_to(9_900);
    assert!(b.retries().is_empty());
    b.run_to(10_200);
    assert_eq!(b.retries().len(), 1);
    b.respond(&requests[1].0, 0, 200, &[], "", false);
    assert!(b.retries().is_empty());
}

#[test]
fn a_request_that_takes_long_is_kept_alive() {
    let mut b = Bench::new();
    let link = "</next>; rel=next; timeout=5";
    b.accept(hold("stream").session("1").header("Grip-Link", link));
    b.run_to(5_100);
    let (id, _) = b.requests().remove(0);
    b.proxy_has(&id, 0);
    b.run_to(48_000);
    b.hear("1", 1);
    b.proxy_has(&id, 1);
    assert_eq!(b.requests_kept_alive(), [""; 0]);
    for seq in [2, 3] {
        b.run_to(b.now + 45_000);
        b.hear("1", seq);
        b.proxy_has(&id, seq);
        assert_eq!(b.requests_kept_alive(), [id.as_str()], "the proxy gives up after 60 s");
    }
    b.packets();
    b.respond(&id, 4, 200, &[("Grip-Hold", "stream")], "late", false);
    assert_eq!(b.packets()[0].body, "late");
    b.run_to(b.now + 50_000);
    assert_eq!(b.requests_kept_alive(), [""; 0]);
}
