//! What is published around the requests that holds make: nothing of it may be lost for anybody
//! (spec/grip.md §7.4, §8.2, §8.3).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, Call, action_item, hold, sequenced};

const LINK: &str = "</next>; rel=next; timeout=100";

/// A stream whose content ends with `id`.
fn linked(session: &str, id: &str) -> Call {
    let call = hold("stream").session(session).channel(&format!("c; prev-id={id}"));
    call.header("Grip-Link", LINK)
}

/// What a next link gives: a hold on channels that end with these ids.
fn held(channels: &str) -> [(&str, &str); 3] {
    [("Grip-Hold", "stream"), ("Grip-Channel", channels), ("Grip-Link", LINK)]
}

/// What a client got.
fn text(b: &mut Bench, session: &str) -> String {
    let is = |p: &&bench::Got| p.ids.iter().any(|(id, _)| id == session);
    b.packets().iter().filter(is).map(|p| p.body.as_str()).collect()
}

fn hint(b: &mut Bench) {
    b.handler.publish(b.now, vec![action_item("c", "http-stream", "hint")]);
    b.settle();
}

#[test]
fn all_clients_of_a_call_that_is_behind_go_back() {
    for others in [false, true] {
        let mut b = Bench::new();
        let anyone = if others { "stream" } else { "response" };
        b.accept(hold(anyone).session("s"));
        // With a long poll, it is answered and nobody is left; the channel lingers.
        b.publish(
            r#"{"channel":"c","id":"b","http-stream":{"content":""},"http-response":{"body":""}}"#,
        );
        b.accept(hold("response").session("1").also("2").also("3").channel("c; prev-id=a"));
        assert_eq!(b.retries().len(), 3, "others: {others}");
        assert_eq!(b.handler.sessions(), usize::from(others));
        // The id is forgotten then.
        b.accept(hold("response").session("4").channel("c; prev-id=a"));
        assert!(b.retries().is_empty(), "others: {others}");
    }
}

/// Their backend may have answered before it knew what the hint is about.
#[test]
fn a_request_that_went_before_a_hint_does_not_bring_what_it_is_about() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").header("Grip-Link", "</next>; rel=next; timeout=10"));
    b.accept(hold("stream").session("2").header("Grip-Link", "</next>; rel=next; timeout=99"));
    b.packets();
    b.run_to(10_500);
    let first = b.requests();
    assert_eq!(first.len(), 1);
    hint(&mut b);
    let second = b.requests();
    assert_eq!(second.len(), 1, "the one that does not ask yet");
    b.respond(&first[0].0, 0, 200, &held("c"), "old;", false);
    assert_eq!(text(&mut b, "1"), "old;");
    // The first one learns of the hint now, and joins.
    assert!(b.requests().is_empty());
    b.respond(&second[0].0, 0, 200, &held("c"), "new;", false);
    let got = b.packets();
    assert_eq!((got[0].body.as_str(), got[0].ids.len()), ("new;", 2));
}

#[test]
fn an_item_that_comes_while_a_link_is_followed_again_is_not_lost() {
    let mut b = Bench::new();
    b.accept(linked("1", "a"));
    b.packets();
    b.handler.recover(b.now);
    b.run_to(400);
    let (id, _) = b.requests().remove(0);
    // Something else asks for an update meanwhile.
    b.handler.recover(b.now);
    b.run_to(800);
    b.publish(&sequenced("c", "b", "a"));
    b.publish(&sequenced("c", "c", "b"));
    b.respond(&id, 0, 200, &held("c; prev-id=b"), "ab;", false);
    assert_eq!(text(&mut b, "1"), "ab;c");
    let (id, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next Grip-Last=c; last-id=c");
    b.publish(&sequenced("c", "d", "c"));
    b.respond(&id, 0, 200, &held("c; prev-id=c"), "", false);
    assert_eq!(text(&mut b, "1"), "d");
    assert!(b.requests().is_empty());
}

#[test]
fn what_a_stream_missed_before_its_first_body_was_sent_is_fetched_then() {
    let mut b = Bench::new();
    b.accept(linked("1", "a").body("first;").credits(3));
    b.publish(&sequenced("c", "c", "b"));
    b.run_to(1_000);
    assert!(b.requests().is_empty());
    b.publish(&sequenced("c", "d", "c"));
    b.credit("1", 1, 1_000);
    assert_eq!(text(&mut b, "1"), "first;");
    let (id, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next Grip-Last=c; last-id=a");
    b.respond(&id, 0, 200, &held("c; prev-id=c"), "bc;", false);
    assert_eq!(text(&mut b, "1"), "bc;d");
}

#[test]
fn items_beyond_what_may_wait_for_a_client_are_fetched_later() {
    let mut b = Bench::new();
    b.accept(linked("1", "0").credits(0));
    b.packets();
    for n in 1..=120 {
        b.publish(&sequenced("c", &n.to_string(), &(n - 1).to_string()));
    }
    b.run_to(1_000);
    assert!(b.requests().is_empty(), "the client takes nothing");
    b.credit("1", 1, 100_000);
    let sent: String = (1..=100).map(|n| n.to_string()).collect();
    assert_eq!(text(&mut b, "1"), sent);
    let (id, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next Grip-Last=c; last-id=100");
    b.respond(&id, 0, 200, &held("c; prev-id=119"), "-119;", false);
    assert_eq!(text(&mut b, "1"), "-119;120");
    assert_eq!(b.handler.shards()[0].drops().queue_full, 1);
}

#[test]
fn the_next_page_waits_until_the_client_has_taken_the_last() {
    let mut b = Bench::new();
    let page = |n: u32| format!("</page/{n}>; rel=next");
    let call = bench::no_hold().session("1").header("Grip-Link", &page(1));
    b.accept(call.credits(10));
    for n in 1..4 {
        let requests = b.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].1, format!("GET http://api.example/page/{n}"));
        b.respond(
            &requests[0].0,
            0,
            200,
            &[("Grip-Link", &page(n + 1))],
            "twenty bytes of page",
            false,
        );
        b.run_to(b.now + 500);
        assert!(b.requests().is_empty(), "page {n}");
        b.credit("1", n, 20);
    }
}

#[test]
fn hints_for_a_client_that_takes_nothing_load_nothing() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").header("Grip-Link", LINK).credits(10));
    b.publish_stream("c", "twenty bytes of item");
    for _ in 0..3 {
        hint(&mut b);
        b.run_to(b.now + 200);
    }
    assert!(b.requests().is_empty());
    b.publish_stream("c", "later");
    b.credit("1", 1, 1_000);
    let requests = b.requests();
    assert_eq!(requests.len(), 1);
    b.respond(&requests[0].0, 0, 200, &held("c"), "fetched;", false);
    assert_eq!(text(&mut b, "1"), "twenty bytes of itemfetched;later");
}

#[test]
fn an_item_before_the_subscription_that_a_next_link_makes_is_noticed_at_once() {
    for known in [false, true] {
        let mut b = Bench::new();
        for session in ["1", "2"] {
            b.accept(linked(session, "a"));
        }
        if known {
            b.accept(hold("stream").session("other").channel("d"));
        } else {
            // Nobody is on it any more, but its last id is remembered for a while.
            b.accept(hold("response").session("other").channel("d"));
        }
        let both =
            r#"{"channel":"d","id":"2","http-stream":{"content":""},"http-response":{"body":""}}"#;
        b.handler.recover(b.now);
        b.run_to(400);
        let (id, _) = b.requests().remove(0);
        b.publish(both);
        b.respond(&id, 0, 200, &held("c; prev-id=a, d; prev-id=1"), "", false);
        b.run_to(b.now + 400);
        let requests = b.requests();
        assert_eq!(requests.len(), 1, "known: {known}");
        assert!(requests[0].1.ends_with("Grip-Last=d; last-id=1"), "{}", requests[0].1);
        b.respond(&requests[0].0, 0, 200, &held("c; prev-id=a, d; prev-id=2"), "two;", false);
        let got = b.packets();
        let ids: usize = got.iter().filter(|p| p.body == "two;").map(|p| p.ids.len()).sum();
        assert_eq!(ids, 2);
        b.run_to(b.now + 400);
        assert!(b.requests().is_empty());
    }
}

#[test]
fn timers_are_off_while_the_client_takes_nothing_and_begin_anew_then() {
    let mut b = Bench::new();
    let call = hold("stream").session("1").channel("c, d").credits(10);
    let call = call.header("Grip-Keep-Alive", "k; timeout=10; mode=interval");
    b.accept(call.header("Grip-Link", "</next>; rel=next; timeout=12"));
    b.run_to(5_000);
    b.publish_stream("c", "twenty bytes of item");
    b.run_to(8_000);
    b.credit("1", 1, 1_000);
    assert_eq!(text(&mut b, "1"), "twenty bytes of item");
    b.run_to(16_800);
    assert_eq!((text(&mut b, "1").as_str(), b.requests().len()), ("", 0));
    b.run_to(18_100);
    assert_eq!((text(&mut b, "1").as_str(), b.requests().len()), ("k", 0));
    b.run_to(20_100);
    assert_eq!(b.requests().len(), 1);
}

/// Else its content would end up inside the next part.
#[test]
fn a_link_is_followed_when_a_filter_has_answered() {
    let mut b = Bench::new();
    let call = hold("stream").session("1").channel("c; filter=http-check");
    let call = call.header("Grip-Set-Meta", r#"url="/check""#);
    b.accept(call.header("Grip-Link", "</next>; rel=next; timeout=1"));
    b.packets();
    b.publish_stream("c", "checked;");
    let (check, request) = b.requests().remove(0);
    assert!(request.starts_with("POST http://api.example/check"), "{request}");
    b.run_to(1_500);
    assert!(b.requests().is_empty());
    b.respond(&check, 0, 200, &[], "", false);
    let (next, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next");
    b.respond(&next, 0, 200, &held("c"), "fetched;", false);
    assert_eq!(text(&mut b, "1"), "checked;fetched;");
}

#[test]
fn items_beyond_what_may_wait_for_a_fetch_are_fetched_after_it() {
    let mut b = Bench::new();
    b.accept(linked("1", "0").credits(100_000));
    b.packets();
    b.handler.recover(b.now);
    b.run_to(400);
    let (id, _) = b.requests().remove(0);
    for n in 1..=120 {
        b.publish(&sequenced("c", &n.to_string(), &(n - 1).to_string()));
    }
    b.respond(&id, 0, 200, &held("c; prev-id=10"), "-10;", false);
    let kept: String = (11..=100).map(|n| n.to_string()).collect();
    assert_eq!(text(&mut b, "1"), format!("-10;{kept}"));
    let (id, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next Grip-Last=c; last-id=100");
    b.respond(&id, 0, 200, &held("c; prev-id=120"), "-120;", false);
    b.publish(&sequenced("c", "121", "120"));
    assert_eq!(text(&mut b, "1"), "-120;121");
    assert!(b.requests().is_empty());
}

#[test]
fn an_item_that_the_answer_does_not_reach_is_fetched_once_more() {
    let mut b = Bench::new();
    b.accept(linked("1", "a"));
    b.packets();
    b.handler.recover(b.now);
    b.run_to(400);
    let (id, _) = b.requests().remove(0);
    // The one before it was lost, and the backend answered before both.
    b.publish(&sequenced("c", "c", "b"));
    b.respond(&id, 0, 200, &held("c; prev-id=a"), "", false);
    b.run_to(b.now + 400);
    let (id, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next Grip-Last=c; last-id=a");
    b.respond(&id, 0, 200, &held("c; prev-id=c"), "bc;", false);
    assert_eq!(text(&mut b, "1"), "bc;");
    b.run_to(b.now + 400);
    assert!(b.requests().is_empty());
}
