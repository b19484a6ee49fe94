//! Figures of what is published: deliveries in reports, subscriptions, the sequencing in the metrics.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, hold};

/// What the next report says of deliveries: all, those to response holds, and blocks.
fn sent(b: &mut Bench) -> (u64, u64, u64) {
    b.run_to(b.now / 1_000 * 1_000 + 1_100);
    let packets = b.stats();
    let report = packets.iter().rfind(|packet| bench::kind_of(packet) == "report").unwrap();
    let stats::Body::Report(report) = stats::Packet::parse(report).unwrap().body else {
        panic!("no report")
    };
    (report.sent, report.http_response_sent, report.blocks_sent)
}

#[test]
fn an_item_counts_as_sent_whatever_filters_make_of_it() {
    let mut b = Bench::with(|settings| {
        (settings.message_block_size, settings.stats_report_interval_ms) = (10, 1_000);
    });
    b.handler.stats_subscription(b.now, b"\x01report ");
    for mode in ["stream", "response"] {
        let call = hold(mode).channel("c; filter=skip-self").header("Grip-Set-Meta", "user=joe");
        b.accept(call.session(mode));
        b.accept(hold(mode).channel("c").session(&format!("{mode}-plain")));
    }
    b.here("1");
    b.grip("1", r#"{"type":"subscribe","channel":"c","filters":["skip-self"]}"#);
    b.grip("1", r#"{"type":"set-meta","name":"user","value":"joe"}"#);
    sent(&mut b);
    let (stream, ws) =
        (r#""http-stream":{"content":"123456789012345"}"#, r#""ws-message":{"content":"1"}"#);
    let from_joe =
        |format: &str| format!(r#"{{"channel":"c","meta":{{"sender":"joe"}},{format}}}"#);
    b.publish(&from_joe(stream));
    assert_eq!(sent(&mut b), (2, 0, 4));
    b.publish(&from_joe(ws));
    assert_eq!(sent(&mut b), (1, 0, 1));
    b.publish(r#"{"channel":"c","http-stream":{"content":"1","content-filters":["var-subst"]}}"#);
    assert_eq!(sent(&mut b), (2, 0, 2));
    b.publish(r#"{"channel":"c","ws-message":{"action":"hint"}}"#);
    assert_eq!(sent(&mut b), (1, 0, 0));
    b.publish(r#"{"channel":"c","http-response":{"action":"close"}}"#);
    assert_eq!(sent(&mut b), (2, 2, 0));
    b.publish(&from_joe(r#""http-response":{"body":"1234567890"}"#));
    assert_eq!(sent(&mut b), (2, 2, 2));
    // One of the response holds is over.
    b.publish(r#"{"channel":"c","http-response":{"body":"1234567890"}}"#);
    assert_eq!(sent(&mut b), (1, 1, 1));
    assert!(b.items().is_empty(), "a filtered message or a hint came to a WebSocket");
}

#[test]
fn items_that_wait_for_a_slow_stream_count_as_sent_once() {
    let mut b = Bench::with(|settings| settings.stats_report_interval_ms = 1_000);
    b.handler.stats_subscription(b.now, b"\x01report ");
    b.accept(hold("stream").session("1").credits(3));
    for content in ["abc", "def", "ghi"] {
        b.publish_stream("c", content);
    }
    assert_eq!(sent(&mut b), (3, 0, 0));
    b.credit("1", 1, 100);
    assert_eq!(sent(&mut b), (0, 0, 0));
}

#[test]
fn a_subscription_is_announced_within_its_life() {
    for (ttl_s, count) in [(1, 13), (2, 10), (60, 1)] {
        let mut b = Bench::with(|settings| settings.stats_subscription_ttl_s = ttl_s);
        b.handler.stats_subscription(b.now, b"\x01sub ");
        b.accept(hold("stream").session("1"));
        assert_eq!(b.stats().len(), 1);
        let start = b.now;
        let (mut last, mut seen) = (start, 0);
        while b.now < start + 10_000 {
            b.run_to(b.now + 50);
            let told = b.stats().len();
            if told > 0 {
                (last, seen) = (b.now, seen + told);
            }
            assert!(b.now - last < ttl_s * 1_000, "ttl {ttl_s}: silent for {}", b.now - last);
        }
        assert!((count - 1..=count).contains(&seen), "ttl {ttl_s}: {seen}");
    }
}

/// Whether the metrics have that line.
fn shows(b: &Bench, line: &str) -> bool {
    b.handler.hub().metrics("").lines().any(|l| l == line)
}

#[test]
fn the_metrics_tell_of_items_that_wait_and_of_gaps() {
    let waiting = |b: &Bench, count: usize| {
        shows(b, &format!("handler_queued{{what=\"sequenced_items\"}} {count}"))
    };
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    b.publish(&bench::sequenced("c", "1", ""));
    for (id, prev, count) in [("3", "2", 1), ("4", "3", 2), ("9", "8", 3), ("2", "1", 1)] {
        b.publish(&bench::sequenced("c", id, prev));
        assert!(waiting(&b, count), "after {id}");
    }
    assert!(shows(&b, "handler_sequence_gaps 0"));
    b.run_to(b.now + 6_100);
    assert!(waiting(&b, 0) && shows(&b, "handler_sequence_gaps 1"));
    // What waits in a channel goes with it.
    b.publish(&bench::sequenced("c", "20", "19"));
    assert!(waiting(&b, 1));
    b.packet("1", 1, |f| {
        f.kind(zhttp::Kind::Cancel);
    });
    assert!(waiting(&b, 0));
    b.run_to(b.now + 6_100);
    assert!(waiting(&b, 0) && shows(&b, "handler_sequence_gaps 1"));
}
