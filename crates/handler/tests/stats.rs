//! What the handler tells of itself: stats packets, reports, conncheck and metrics.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, conn_max, hold};
use zhttp::Kind;

#[test]
fn nothing_is_built_for_stats_that_nobody_reads() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    b.publish_stream("c", "x");
    b.run_to(30_000);
    assert!(b.stats().is_empty());
}

#[test]
fn stats_tell_of_connections_subscriptions_messages_and_reports() {
    let mut b = Bench::new();
    b.handler.stats_subscription(b.now, b"\x01");
    b.accept(hold("stream").session("1"));
    b.publish_stream("c", "x");
    b.packet("1", 1, |f| {
        f.kind(Kind::Cancel);
    });
    let kinds: Vec<String> = b.stats().iter().map(|s| bench::kind_of(s)).collect();
    assert_eq!(kinds, ["conn", "sub", "message", "sub", "conn"]);
    b.run_to(10_100);
    let report = b.stats().into_iter().find(|s| bench::kind_of(s) == "report").unwrap();
    let packet = stats::Packet::parse(&report).unwrap();
    let stats::Body::Report(report) = packet.body else { panic!("no report") };
    assert_eq!((report.connections, report.received, report.sent, report.minutes), (1, 1, 1, 1));
}

#[test]
fn a_report_of_zeros_ends_the_reports() {
    let mut b = Bench::new();
    b.handler.stats_subscription(b.now, b"\x01report ");
    b.accept(hold("stream").session("1"));
    b.packet("1", 1, |f| {
        f.kind(Kind::Cancel);
    });
    b.run_to(60_000);
    assert_eq!(b.stats().len(), 2);
}

/// The connections and minutes of the next report.
fn next_report(b: &mut Bench) -> (u64, u64) {
    b.run_to(b.now / 10_000 * 10_000 + 10_100);
    let packets = b.stats();
    let report = packets.iter().rfind(|packet| bench::kind_of(packet) == "report").unwrap();
    let stats::Body::Report(report) = stats::Packet::parse(report).unwrap().body else {
        panic!("no report")
    };
    (report.connections, report.minutes)
}

#[test]
fn a_connection_is_counted_once_while_it_changes_hands() {
    let mut b = Bench::new();
    b.handler.stats_subscription(b.now, b"\x01report ");
    b.proxy_says(&conn_max(2));
    // The first comes with its minute, which the proxy has reported; the word of the proxy's own
    // socket is late.
    b.accept(hold("stream").session("1").maxima(&[1]).minute_counted());
    b.proxy_says(&conn_max(1));
    b.accept(hold("stream").session("2").maxima(&[0]));
    assert_eq!(next_report(&mut b), (2, 1));
}

#[test]
fn a_proxy_that_keeps_all_minutes_says_so_by_two_maxima() {
    let mut b = Bench::new();
    b.handler.stats_subscription(b.now, b"\x01report ");
    b.accept(hold("stream").session("1").maxima(&[3, 2]));
    assert_eq!(next_report(&mut b), (3, 0));
}

#[test]
fn minutes_of_requests_that_the_proxy_answers_come_from_its_reports() {
    let mut b = Bench::new();
    b.handler.stats_subscription(b.now, b"\x01report ");
    let report = stats::Report { minutes: 3, ..stats::Report::default() };
    let report = stats::Packet { from: "proxy_1", route: None, body: stats::Body::Report(report) };
    // One that was never heard of may tell of each connection besides: not counted twice.
    b.proxy_says(&report);
    assert_eq!(next_report(&mut b), (0, 0));
    b.proxy_says(&conn_max(0));
    b.proxy_says(&report);
    assert_eq!(next_report(&mut b), (0, 3));
    // A minute later nothing of its maxima is in force, and it is known all the same.
    b.run_to(90_000);
    b.proxy_says(&report);
    assert_eq!(next_report(&mut b), (0, 3));
}

#[test]
fn a_proxy_of_ours_is_never_asked_for_single_connections_that_nobody_wants() {
    let mut b = Bench::new();
    for n in 0..20 {
        b.proxy_says(&conn_max(0));
        let body = stats::Body::Activity { count: n };
        b.proxy_says(&stats::Packet { from: "proxy_1", route: None, body });
    }
    assert!(!b.listens_to_conn);
    for n in 0..4 {
        let body = stats::Body::Activity { count: n };
        b.proxy_says(&stats::Packet { from: "pushpin-proxy_2", route: None, body });
    }
    assert!(b.listens_to_conn, "an old one tells nothing else");
}

#[test]
fn conncheck_asks_shards_first_and_the_proxy_for_the_rest() {
    let mut b = Bench::with(|settings| settings.workers = 2);
    b.accept_at(1, hold("stream").session("1"));
    b.conncheck(&["cm:1", "cm:2", "cm:3"]);
    assert!(b.command_replies().is_empty());
    let (call, asked) = b.asked_of_proxy().unwrap();
    assert_eq!(asked, ["cm:2", "cm:3"]);
    b.proxy_knows(call, &["cm:3"]);
    let mut known = b.command_replies().remove(0).unwrap();
    known.sort();
    assert_eq!(known, ["cm:1", "cm:3"]);
    b.conncheck(&["cm:1"]);
    assert_eq!(b.command_replies(), [Ok(vec!["cm:1".to_owned()])]);
    b.conncheck(&["cm:9"]);
    b.run_to(b.now + 10_100);
    assert_eq!(b.command_replies(), [Err("proxy-request-failed".to_owned())]);
}

#[test]
fn metrics_tell_of_what_is_held_delivered_and_dropped() {
    let mut b = Bench::with(|settings| settings.workers = 2);
    b.accept(hold("stream").session("1"));
    b.accept_at(1, hold("response").session("2"));
    b.here("3");
    b.subscribe("3", "c");
    b.publish(&bench::sequenced("c", "1", ""));
    b.publish(&bench::sequenced("c", "1", ""));
    let text = b.handler.hub().metrics("pp_");
    for line in [
        "# TYPE pp_message_received counter",
        "pp_message_received 1",
        "pp_message_sent 1",
        "pp_connection_connected 2",
        "pp_handler_sessions{kind=\"response\"} 1",
        "pp_handler_sessions{kind=\"stream\"} 1",
        "pp_handler_sessions{kind=\"ws\"} 1",
        "pp_handler_subscriptions{kind=\"stream\"} 1",
        "pp_handler_subscriptions{kind=\"ws\"} 1",
        "pp_handler_publish_seconds_bucket{le=\"0.001\"} 1",
        "pp_handler_publish_seconds_count 1",
        "pp_handler_channels 1",
        "pp_handler_dropped{cause=\"duplicate_item\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
