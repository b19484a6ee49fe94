//! Scenarios of the engine on virtual time: a backend's accept call in, packets out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, Got, hold};
use zhttp::Kind;

#[test]
fn a_stream_hold_is_answered_claimed_and_acknowledged_in_one_packet() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").body("hello"));
    assert_eq!(b.replies(), ["accepted"]);
    let got = b.packets();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].ids[0].0.as_str(), got[0].ids[0].1), ("1", 0));
    assert_eq!((got[0].code, got[0].body.as_str(), got[0].more), (Some(200), "hello", true));
    assert!(got[0].multi && got[0].batch);
}

#[test]
fn a_response_hold_is_claimed_by_a_keep_alive_and_answered_at_its_timeout() {
    let mut b = Bench::new();
    b.accept(hold("response").session("1").body("late"));
    assert_eq!(b.packets()[0].kind, Kind::KeepAlive);
    b.run_to(54_900);
    assert!(b.packets().iter().all(|p| p.kind == Kind::KeepAlive));
    b.hear("1", 1);
    b.run_to(56_000);
    let answer: Vec<Got> = b.packets().into_iter().filter(|p| p.kind == Kind::Data).collect();
    assert_eq!(answer.len(), 1);
    assert_eq!((answer[0].body.as_str(), answer[0].more), ("late", false));
    assert!(answer[0].headers.contains(&("Content-Length".to_owned(), "4".to_owned())));
    assert_eq!(b.handler.sessions(), 0);
}

#[test]
fn a_stream_of_which_only_the_head_is_wanted_ends_with_it() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").method("HEAD").body("hello"));
    let got = b.packets();
    // The first says that a body would follow: that is how it would be framed.
    let of = |p: &Got| (p.code, p.body.clone(), p.more);
    let expected = [(Some(200), String::new(), true), (None, String::new(), false)];
    assert_eq!(got.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!((b.handler.sessions(), b.replies()), (0, vec!["accepted".to_owned()]));
    b.accept(hold("response").session("2").method("HEAD"));
    assert_eq!(b.handler.sessions(), 1);
}

#[test]
fn a_publish_to_n_streams_takes_a_packet_for_each_128() {
    for count in [1usize, 127, 128, 129, 1000] {
        let mut b = Bench::new();
        for n in 0..count {
            b.accept(hold("stream").session(&n.to_string()));
        }
        b.packets();
        b.publish_stream("c", "x");
        let got = b.packets();
        assert_eq!(got.len(), count.div_ceil(128));
        let mut ids: Vec<&str> =
            got.iter().flat_map(|p| &p.ids).map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(got.iter().all(|p| p.ids.iter().all(|(_, seq)| *seq == 1)));
        assert!(got.iter().all(|p| p.body == "x" && p.more));
    }
}

#[test]
fn items_on_their_way_together_go_as_one_body() {
    let mut b = Bench::new();
    for n in 0..300 {
        b.accept(hold("stream").session(&n.to_string()));
    }
    b.packets();
    let items = ["a", "b", "c"].iter().map(|text| bench::stream_item("c", text)).collect();
    b.handler.publish(b.now, items);
    b.settle();
    let got = b.packets();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|p| p.body == "abc"));
}

#[test]
fn a_peer_that_never_said_multi_gets_single_ids_and_no_batches() {
    let mut b = Bench::new();
    for n in 0..3 {
        b.accept(hold("stream").session(&n.to_string()).old_peer());
    }
    b.packets();
    b.publish_stream("c", "x");
    assert!(b.messages.iter().all(|(_, message)| zhttp::split(message).count() == 1));
    let got = b.packets();
    assert_eq!(got.len(), 3);
    // A keep-alive that says multi changes it.
    b.hear("0", 1);
    b.publish_stream("c", "y");
    assert_eq!(b.packets().len(), 1);
}

#[test]
fn credits_are_respected_and_what_waits_follows() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").credits(10).body("0123456789abc"));
    assert_eq!(b.packets()[0].body, "0123456789");
    b.publish_stream("c", "XY");
    b.publish_stream("c", "Z");
    assert!(b.packets().is_empty());
    b.credit("1", 1, 2);
    assert_eq!(b.packets()[0].body, "ab");
    b.credit("1", 2, 100);
    let bodies: String = b.packets().iter().map(|p| p.body.as_str()).collect();
    assert_eq!(bodies, "cXYZ");
}

#[test]
fn a_stuck_client_loses_items_beyond_its_queue_and_holds_up_nobody() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("stuck").credits(0));
    b.accept(hold("stream").session("free").credits(1_000_000));
    b.packets();
    for n in 0..150 {
        b.publish_stream("c", &format!("{n};"));
    }
    let got = b.packets();
    assert_eq!(got.len(), 150);
    assert!(got.iter().all(|p| p.ids[0].0 == "free"));
    assert_eq!(b.handler.shards()[0].drops().queue_full, 50);
}

#[test]
fn a_close_ends_the_response_after_what_came_before() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    b.accept(hold("stream").session("2"));
    b.packets();
    let items =
        vec![bench::stream_item("c", "bye"), bench::action_item("c", "http-stream", "close")];
    b.handler.publish(b.now, items);
    b.settle();
    let got = b.packets();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].body.as_str(), got[0].more, got[0].ids.len()), ("bye", false, 2));
    assert_eq!(b.handler.sessions(), 0);
}

#[test]
fn response_holds_of_equal_headers_are_answered_together() {
    let mut b = Bench::new();
    for n in 0..200 {
        b.accept(hold("response").session(&n.to_string()).header("X-A", "1"));
    }
    b.packets();
    b.publish_response("c", "answer");
    let got = b.packets();
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|p| p.body == "answer" && !p.more && p.code == Some(200)));
    assert!(got[0].headers.contains(&("X-A".to_owned(), "1".to_owned())));
    assert_eq!(b.handler.sessions(), 0);
    b.publish_response("c", "again");
    assert!(b.packets().is_empty());
}

#[test]
fn a_wrong_sequence_number_ends_the_session_with_a_cancel() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    b.packets();
    b.hear("1", 7);
    assert_eq!(b.packets()[0].kind, Kind::Cancel);
    assert_eq!(b.handler.sessions(), 0);
}

#[test]
fn packets_that_are_dropped_are_counted_by_cause() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    for bytes in [&b""[..], b"J{}", b"T0:}", b"T12:4:from,2:cm,}", b"T9:2:id,1:1,}"] {
        b.handler.client_message(b.now, 0, bytes);
    }
    b.handler.bad_envelope(0, "unable to determine packet address");
    assert_eq!(b.handler.shards()[0].drops().bad_packets, 6);
    b.hear("2", 1);
    // A connection manager that has no session here, and an answer that nobody waits for.
    b.handler.client_message(b.now, 0, b"T24:4:from,5:other,2:id,1:1,}");
    b.handler.internal_message(b.now, 0, b"T21:4:from,2:px,2:id,1:x,}");
    let drops = b.handler.shards()[0].drops();
    assert_eq!((drops.unknown, drops.unexpected, b.handler.sessions()), (3, 0, 1));
    b.packets();
    b.packet("1", 1, |f| {
        f.str("type", "odd");
    });
    assert_eq!(b.packets().last().map(|p| p.kind), Some(Kind::Cancel));
    assert_eq!((b.handler.shards()[0].drops().unexpected, b.handler.sessions()), (1, 0));
}

#[test]
fn a_vanished_connection_manager_takes_its_sessions_along() {
    let mut b = Bench::new();
    for n in 0..5 {
        b.accept(hold("stream").session(&n.to_string()));
    }
    b.handler.peer_gone(b.now, b"cm");
    b.settle();
    assert_eq!(b.handler.sessions(), 0);
    b.publish_stream("c", "x");
    assert!(b.packets().iter().all(|p| p.body != "x"));
}

#[test]
fn bad_instructions_are_refused_with_their_text() {
    let mut b = Bench::new();
    b.accept(hold("sometimes").session("1"));
    assert_eq!(b.replies(), ["bad-format: Grip-Hold must be set to either 'response' or 'stream'"]);
    b.accept(hold("stream").session("1").channel(&format!("c{}", "; filter=b".repeat(6))));
    assert_eq!(b.replies(), ["bad-format: too many filters for channel 'c'"]);
    assert_eq!(b.handler.sessions(), 0);
    b.handler.call(b.now, 0, vec![], b"nonsense");
    assert_eq!(b.handler.shards()[0].drops().bad_calls, 1);
}

#[test]
fn duplicates_are_dropped_and_order_is_kept() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    b.packets();
    for (id, prev) in [("1", ""), ("3", "2"), ("1", ""), ("2", "1")] {
        b.publish(&bench::sequenced("c", id, prev));
    }
    let bodies: String = b.packets().iter().map(|p| p.body.as_str()).collect();
    assert_eq!(bodies, "123");
    b.publish(&bench::sequenced("c", "9", "8"));
    assert!(b.packets().is_empty());
    b.hear("1", 1);
    b.run_to(b.now + 6_000);
    let bodies: String = b.packets().iter().map(|p| p.body.as_str()).collect();
    assert_eq!(bodies, "9");
}

#[test]
fn a_conflict_at_accept_sends_the_session_back_unclaimed() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("s"));
    b.publish(&bench::sequenced("c", "b", ""));
    b.packets();
    b.accept(hold("response").session("1").channel("c; prev-id=a"));
    assert!(b.packets().is_empty());
    let retries = b.retries();
    assert_eq!(retries.len(), 1);
    let packet = zrpc::retry::Packet::parse(&retries[0]).unwrap();
    assert_eq!((packet.requests[0].in_seq, packet.requests[0].out_seq), (1, 0));
    assert_eq!(packet.request.uri, "http://api.example/stream");
    assert_eq!(packet.inspect.unwrap().last_ids, [("c", &b"a"[..])]);
    assert_eq!(b.handler.sessions(), 1);
}

#[test]
fn a_hint_sends_a_response_hold_back_through_a_hand_off() {
    let mut b = Bench::new();
    b.accept(hold("response").session("1"));
    b.packets();
    b.handler.publish(b.now, vec![bench::action_item("c", "http-response", "hint")]);
    b.settle();
    assert_eq!(b.packets()[0].kind, Kind::HandoffStart);
    b.packet("1", 1, |f| {
        f.kind(Kind::HandoffProceed);
    });
    let retries = b.retries();
    let packet = zrpc::retry::Packet::parse(&retries[0]).unwrap();
    assert_eq!((packet.requests[0].in_seq, packet.requests[0].out_seq), (2, 2));
    assert_eq!(b.handler.sessions(), 0);
}

#[test]
fn filters_are_looked_at_for_each_session() {
    let mut b = Bench::new();
    for (session, user) in [("1", "ann"), ("2", "bob")] {
        let call = hold("stream").session(session).channel("c; filter=skip-self");
        b.accept(call.header("Grip-Set-Meta", &format!("user=\"{user}\"")));
    }
    b.packets();
    b.publish(r#"{"channel":"c","meta":{"sender":"ann"},"http-stream":{"content":"x"}}"#);
    let got = b.packets();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].ids[0].0, "2");
}

/// Pushpin 1.36 ends every subscriber's response for one item that cannot be rewritten.
#[test]
fn an_item_that_a_filter_fails_on_is_left_out_and_with_debug_ends_the_response() {
    for debug in [false, true] {
        let mut b = Bench::with(|settings| settings.debug = debug);
        for mode in ["stream", "response"] {
            b.accept(hold(mode).session(mode).channel("c; filter=var-subst"));
        }
        b.packets();
        b.publish_stream("c", "a %(none)s");
        b.publish_response("c", "b %(none)s");
        let text = "filter error: var-subst: No such variable 'none' at position";
        let bodies: String = b.packets().iter().map(|p| p.body.clone()).collect();
        assert_eq!(bodies.matches(text).count(), if debug { 2 } else { 0 });
        assert_eq!(b.handler.sessions(), if debug { 0 } else { 2 });
        assert_eq!(b.handler.shards()[0].drops().filter_failed, if debug { 0 } else { 2 });
        b.publish_stream("c", "a %%");
        b.publish_response("c", "b %%");
        let bodies: Vec<String> = b.packets().iter().map(|p| p.body.clone()).collect();
        assert_eq!(bodies, if debug { vec![] } else { vec!["a %", "b %"] });
    }
}

/// The id of a message is where a client goes on that has got it.
#[test]
fn marks_in_a_message_have_the_id_of_the_message() {
    let mut b = Bench::new();
    let call = hold("stream").session("1").channel("c; prev-id=a; filter=build-id");
    let call = call.header("Grip-Set-Meta", "id_format=<%(c)s>");
    b.accept(call.header("Grip-Link", "</next>; rel=next; timeout=100"));
    b.packets();
    for (id, prev) in [("b", "a"), ("c", "b")] {
        b.publish(&format!(
            r#"{{"channel":"c","id":"{id}","prev-id":"{prev}","http-stream":{{"content":"%I"}}}}"#
        ));
    }
    let bodies: String = b.packets().iter().map(|p| p.body.clone()).collect();
    assert_eq!(bodies, "<b><c>");
    // WebSockets have no ids, so there a mark needs its own.
    b.here("s");
    b.grip("s", r#"{"type":"set-meta","name":"id_format","value":"x"}"#);
    b.grip("s", r#"{"type":"subscribe","channel":"w","filters":["build-id"]}"#);
    b.items();
    for content in ["%I", "%(own)I", "plain"] {
        b.publish_ws("w", content);
    }
    assert_eq!(b.items(), ["s send text:own", "s send text:plain"]);
}

#[test]
fn a_next_instruction_with_ids_needs_a_next_link_too() {
    let mut b = Bench::with(|settings| settings.debug = true);
    b.accept(hold("stream").session("1").header("Grip-Link", "</next>; rel=next; timeout=5"));
    b.packets();
    b.run_to(5_200);
    let (id, _) = b.requests().remove(0);
    let held = [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=a")];
    b.respond(&id, 0, 200, &held, "more", false);
    let bodies: String = b.packets().iter().map(|p| p.body.clone()).collect();
    assert_eq!(bodies, "more\n\nchannel 'c' specifies prev-id, but no next link found\n");
    assert_eq!(b.handler.sessions(), 0);
}

#[test]
fn several_shards_lose_and_double_nothing() {
    let mut b = Bench::with(|settings| settings.workers = 4);
    for n in 0..400 {
        b.accept_at(n % 4, hold("stream").session(&n.to_string()));
    }
    b.packets();
    b.publish_stream("c", "x");
    let got = b.packets();
    assert_eq!(got.len(), 4);
    assert_eq!(got.iter().map(|p| p.ids.len()).sum::<usize>(), 400);
    let froms: std::collections::BTreeSet<_> = got.iter().map(|p| p.from.clone()).collect();
    assert_eq!(froms.len(), 4);
}

#[test]
fn a_next_link_is_followed_and_its_instruction_replaces_the_first() {
    let mut b = Bench::new();
    let link = "</next>; rel=next; timeout=5";
    b.accept(hold("stream").session("1").channel("c; prev-id=a").header("Grip-Link", link));
    b.packets();
    b.run_to(5_100);
    let (id, request) = b.requests().remove(0);
    assert_eq!(request, "GET http://api.example/next Grip-Last=c; last-id=a");
    // What is published meanwhile is examined afterwards.
    b.publish(&bench::sequenced("c", "b", "a"));
    b.publish(&bench::sequenced("c", "c", "b"));
    let held = [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=b"), ("Grip-Link", link)];
    b.respond(&id, 0, 200, &held, "next;", false);
    let bodies: String = b.packets().iter().map(|p| p.body.as_str()).collect();
    assert_eq!(bodies, "next;c");
    b.publish(&bench::sequenced("c", "d", "c"));
    assert_eq!(b.packets()[0].body, "d");
}

#[test]
fn a_next_link_that_fails_is_tried_again_and_then_given_up() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").header("Grip-Link", "</n>; rel=next; timeout=0"));
    b.packets();
    let mut tries = 0;
    for second in 1..60 {
        b.run_to(second * 1000);
        for (id, _) in b.requests() {
            tries += 1;
            b.respond(&id, 0, 500, &[], "", false);
        }
    }
    assert_eq!(tries, 6);
    assert_eq!(b.handler.sessions(), 0);
    assert!(!b.packets().last().unwrap().more);
}

#[test]
fn a_gone_link_is_told_when_the_client_leaves() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").header("Grip-Link", "</gone>; rel=gone"));
    b.packet("1", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(b.requests()[0].1, "POST http://api.example/gone");
}

#[test]
fn deliveries_above_the_rate_wait_and_above_the_mark_are_dropped() {
    for workers in [1, 4] {
        let mut b = Bench::with(|settings| {
            settings.workers = workers;
            settings.limits = handler::limiter::Limits::new(2_000, 120);
        });
        for n in 0..100 {
            b.accept_at(n % workers, hold("stream").session(&n.to_string()));
        }
        b.packets();
        let received = |b: &mut Bench| {
            let got = b.packets();
            got.iter().filter(|p| !p.body.is_empty()).map(|p| p.ids.len()).sum::<usize>()
        };
        b.publish_stream("c", "x");
        b.publish_stream("c", "y");
        // 120 may wait; what goes at once is taken from them only afterwards.
        let at_once = received(&mut b);
        b.run_to(b.now + 200);
        let all = at_once + received(&mut b);
        let dropped: u64 = b.handler.shards().iter().map(|shard| shard.drops().over_hwm).sum();
        assert!((50..=110).contains(&at_once), "{at_once}");
        assert_eq!(all as u64 + dropped, 200);
        assert!(dropped > 0 && all >= 120, "{all} of 200");
    }
}

#[test]
fn limited_items_keep_their_order_with_holds_of_every_kind() {
    let mut b = Bench::with(|settings| settings.limits = handler::limiter::Limits::new(1_000, -1));
    b.accept(hold("stream").session("1"));
    b.accept(hold("response").session("2"));
    b.here("3");
    b.subscribe("3", "c");
    b.packets();
    for n in 0..40 {
        b.publish(&format!(
            r#"{{"channel":"c","http-stream":{{"content":"{n},"}},"ws-message":{{"content":"{n}"}},
                "http-response":{{"body":"first of {n}"}}}}"#
        ));
    }
    b.run_to(3_000);
    let got = b.packets();
    let stream: String =
        got.iter().filter(|p| p.ids[0].0 == "1").map(|p| p.body.as_str()).collect();
    let expected: String = (0..40).map(|n| format!("{n},")).collect();
    assert_eq!(stream, expected);
    assert!(got.iter().any(|p| p.ids[0].0 == "2" && p.body == "first of 0"));
    let items = b.items();
    assert_eq!(items.len(), 40);
    assert_eq!(items[39], "3 send text:39");
}

#[test]
fn a_slow_client_is_ended_where_the_operator_wants_it() {
    let mut b = Bench::with(|settings| settings.close_slow = true);
    b.accept(hold("stream").session("stuck").credits(0));
    b.packets();
    for n in 0..101 {
        b.publish_stream("c", &n.to_string());
    }
    let drops = b.handler.shards()[0].drops();
    assert_eq!((drops.queue_full, drops.slow_closed, b.handler.sessions()), (1, 1, 0));
    assert_eq!(b.packets().last().unwrap().kind, Kind::Cancel);
}

#[test]
fn a_stop_ends_everybody_in_order_and_in_parts() {
    let mut b = Bench::new();
    for n in 0..20 {
        b.accept(hold("stream").session(&format!("s{n}")));
    }
    b.accept(hold("response").session("r").body("nothing new"));
    b.accept(hold("stream").session("stuck").credits(0).body("never sent"));
    b.here("w");
    b.packets();
    b.handler.begin_stop();
    b.accept(hold("stream").session("late"));
    assert_eq!(b.replies().last().unwrap(), "service-unavailable: ");
    b.handler.end_part(b.now, 2);
    b.settle();
    let ended = b.packets();
    assert!(ended.iter().all(|p| p.kind == Kind::Data && !p.more));
    assert_eq!(b.handler.sessions(), 11);
    b.handler.end_part(b.now, 1);
    b.settle();
    let got = b.packets();
    assert!(got.iter().any(|p| p.ids[0].0 == "r" && p.body == "nothing new" && !p.more));
    assert!(got.iter().any(|p| p.ids[0].0 == "stuck" && p.kind == Kind::Cancel));
    assert_eq!(b.items(), ["w close 1001"]);
    assert_eq!((b.handler.sessions(), b.handler.sockets()), (0, 0));
}

#[test]
fn a_body_that_cannot_be_filtered_shows_in_the_stream() {
    for (debug, text) in [
        (false, ""),
        (
            true,
            "\n\nfilter error: build-id: No ID specified and no default ID in context at \
            position 1\n",
        ),
    ] {
        let mut b = Bench::with(|settings| settings.debug = debug);
        let call = hold("stream").session("1").channel("c; filter=build-id").body("%I");
        b.accept(call.header("Grip-Set-Meta", "id_format=x"));
        assert_eq!(b.replies(), ["accepted"]);
        let got = b.packets();
        assert_eq!(got[0].code, Some(200));
        let body: String = got.iter().map(|packet| packet.body.as_str()).collect();
        assert_eq!((body.as_str(), got.last().unwrap().more), (text, false));
        assert_eq!(b.handler.sessions(), 0);
    }
}

/// A long poll that continues after `id`.
fn poll_after(session: &str, id: &str) -> bench::Call {
    hold("response").session(session).channel(&format!("c; prev-id={id}"))
}

#[test]
fn an_id_that_led_to_a_conflict_is_forgotten_by_all_shards() {
    for recover in [false, true] {
        let mut b = Bench::with(|settings| settings.workers = 2);
        b.accept(hold("stream").session("1"));
        b.accept_at(1, hold("stream").session("2"));
        b.publish(&bench::sequenced("c", "b", ""));
        if recover {
            b.handler.recover(b.now);
            b.settle();
        } else {
            b.accept(poll_after("3", "a"));
            assert_eq!(b.retries().len(), 1);
        }
        b.accept_at(1, poll_after("4", "a"));
        b.accept(poll_after("5", "a"));
        assert!(b.retries().is_empty(), "recover: {recover}");
        assert_eq!(b.handler.sessions(), 4);
    }
}

#[test]
fn other_settings_count_for_what_comes_after_them() {
    let mut b = Bench::with(|settings| settings.workers = 2);
    b.handler.stats_subscription(b.now, b"\x01sub ");
    let mut settings = b.handler.settings().clone();
    let id = settings.instance_id.clone();
    settings.stats_subscription_ttl_s = 7;
    settings.stats_format = stats::Format::Json;
    settings.stats_report_interval_ms = 1_000;
    settings.workers = 1;
    settings.instance_id = "other".into();
    b.handler.set_settings(b.now, settings);
    b.accept_at(1, hold("stream").session("1"));
    let packets = b.stats();
    let text = std::str::from_utf8(&packets[0]).unwrap();
    assert!(text.starts_with("sub J{") && text.contains("\"ttl\":7"), "{text}");
    assert!(text.contains(&format!("\"from\":\"{id}\"")), "{text}");
    assert_eq!((packets.len(), b.handler.settings().workers), (1, 2));
    b.handler.stats_subscription(b.now, b"\x01report ");
    b.run_to(1_100);
    assert_eq!(b.stats().len(), 1, "the report of the new interval");
}
