use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn sub(subscribers: u64) -> Packet<'static> {
    let body = Body::Sub { mode: Mode::Ws, channel: "lobby", ttl: 60, subscribers };
    Packet { from: "handler_417", route: None, body }
}

#[test]
fn the_json_example_of_the_spec() {
    let wire =
        br#"sub J{"channel":"lobby","from":"handler_417","mode":"ws","subscribers":3,"ttl":60}"#;
    assert_eq!(sub(3).encode(Format::Json), wire);
}

#[test]
fn the_tnetstring_example_of_the_spec() {
    let wire = b"sub T63:4:mode,2:ws,7:channel,5:lobby,4:from,11:handler_417,3:ttl,2:60#}";
    assert_eq!(Packet::parse(wire), Ok(sub(0)));
}

#[test]
fn unset_fields_are_left_out() {
    let body = Body::Conn {
        id: "cm:0-1-2",
        kind: ConnKind::Http,
        peer_address: None,
        ssl: false,
        ttl: 120,
    };
    let packet = Packet { from: "h", route: None, body };
    let text = String::from_utf8(packet.encode(Format::Json)).unwrap();
    assert_eq!(text, r#"conn J{"from":"h","id":"cm:0-1-2","ttl":120,"type":"http"}"#);
}

#[test]
fn the_seven_fields_that_tools_need_are_always_there() {
    let packet = Packet { from: "h", route: None, body: Body::Report(Report::default()) };
    let wire = packet.encode(Format::Tnetstring);
    let (root, _) = tnetstring::parse(&wire["report T".len()..]).unwrap();
    let map = root.as_map().unwrap();
    let names =
        ["from", "minutes", "http-response-sent", "sent", "connections", "duration", "received"];
    for name in names {
        assert!(map.get(name).unwrap().is_some(), "{name}");
    }
    assert!(map.get("blocks-sent").unwrap().is_none());
    assert!(map.get("route").unwrap().is_none());
}

#[test]
fn bad_packets_are_refused() {
    for (wire, error) in [
        (&b"sub"[..], Error::Format),
        (b"sub J{}", Error::Format),
        (b"odd T0:}", Error::Type),
        (b"sub T0:}", Error::Field("mode")),
        (b"activity T0:}", Error::Field("count")),
        (b"activity T14:5:count,2:-1#}", Error::Field("count")),
        (b"conn T7:2:id,1:x,}", Error::Field("type")),
    ] {
        let found = Packet::parse(wire);
        assert!(found == Err(error) || matches!(found, Err(Error::Frame(_))), "{found:?}");
    }
}

#[test]
fn a_report_covers_the_peak_and_ends_with_zeros() {
    let mut reports = Reports::new(0, 10_000);
    assert_eq!(reports.due(), None);
    reports.connections(500, &None, 5);
    reports.connections(600, &None, -2);
    reports.count(700, &None, |r| r.sent += 1);
    let first = reports.take(10_000);
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].1.connections, first[0].1.sent), (5, 1));
    assert_eq!(first[0].1.duration_ms, 9_500);
    reports.connections(11_000, &None, -3);
    assert_eq!(reports.take(20_000)[0].1.connections, 3);
    assert_eq!(reports.take(30_000), [(None, Report { duration_ms: 10_000, ..Report::default() })]);
    assert_eq!(reports.due(), None);
    assert_eq!(reports.take(40_000), []);
    // The interval goes on from the start, also while there is silence.
    reports.count(65_000, &None, |r| r.sent += 1);
    assert_eq!(reports.due(), Some(70_000));
}

#[test]
fn activity_is_summed_for_100_ms() {
    let route: Route = Some(Arc::from("r"));
    let mut activity = Activity::default();
    activity.add(1_000, &route, 2);
    activity.add(1_050, &route, 1);
    activity.add_requests(1_060, 4);
    assert_eq!(activity.take(1_099), None);
    assert_eq!(activity.take(1_100), Some(([(route, 3)].into(), 4)));
    assert_eq!(activity.due(), None);
}

#[test]
fn maxima_are_sums_of_changes_and_expire() {
    let mut maxima = Maxima::default();
    assert_eq!(maxima.set(0, "p1", &None, 5, 60), 5);
    assert_eq!(maxima.set(10, "p1", &None, 3, 60), -2);
    assert!(maxima.knows("p1") && !maxima.knows("p"));
    assert!(maxima.expire(60_009).is_empty());
    assert_eq!(maxima.expire(60_010), [(None, -3)]);
    assert!(maxima.knows("p1"), "who told maxima once is known for it");
}

fn bodies() -> impl Strategy<Value = (String, String, u64, bool)> {
    ("[ -~]{0,20}", any::<String>(), 0..i64::MAX as u64, any::<bool>())
}

proptest! {
    #[test]
    fn what_is_written_is_read((id, channel, n, flag) in bodies()) {
        let some = flag.then_some(id.as_str());
        for body in [
            Body::Activity { count: n },
            Body::Message { channel: &channel, item_id: some, count: n, blocks: flag.then_some(n), transport: Transport::HttpStream },
            Body::Conn { id: &id, kind: ConnKind::Ws, peer_address: some, ssl: flag, ttl: n },
            Body::ConnGone { id: &id },
            Body::Sub { mode: Mode::Stream, channel: &channel, ttl: n, subscribers: n },
            Body::SubGone { mode: Mode::Response, channel: &channel },
            Body::Report(Report { sent: n, blocks_sent: n, ..Report::default() }),
            Body::Counts { requests_received: n },
            Body::ConnMax { max: n, ttl: n, retry_seq: flag.then_some(n) },
        ] {
            let packet = Packet { from: "f", route: some, body };
            let wire = packet.encode(Format::Tnetstring);
            prop_assert_eq!(Packet::parse(&wire), Ok(packet.clone()));
            let json = packet.encode(Format::Json);
            let at = json.iter().position(|b| *b == b'J').unwrap();
            let tree: serde_json::Value = serde_json::from_slice(&json[at + 1..]).unwrap();
            prop_assert_eq!(serde_json::to_vec(&tree).unwrap(), &json[at + 1..]);
        }
    }

    #[test]
    fn no_bytes_panic(name in "(conn|sub|report|message|counts|activity|conn-max)", bytes in any::<Vec<u8>>()) {
        let _ = Packet::parse(&bytes);
        let _ = Packet::parse(&[name.as_bytes(), b" T", &bytes].concat());
    }
}

#[test]
fn a_minute_is_taken_back_as_long_as_it_was_not_reported() {
    let mut reports = Reports::new(0, 1_000);
    let route: Route = None;
    reports.count(5, &route, |report| report.minutes += 2);
    assert!(reports.take_back_minute(&route, 5));
    assert_eq!(reports.take(1_000)[0].1.minutes, 1);
    reports.count(1_001, &route, |report| report.minutes += 1);
    assert!(!reports.take_back_minute(&route, 5));
    assert_eq!(reports.take(2_000)[0].1.minutes, 1);
}

#[test]
fn the_interval_of_reports_may_change() {
    let mut reports = Reports::new(0, 0);
    let route: Route = None;
    reports.connections(5, &route, 2);
    reports.count(5, &route, |report| report.sent += 1);
    assert_eq!((reports.due(), reports.current()), (None, 2));
    reports.set_interval(100, 1_000);
    assert_eq!(reports.due(), Some(1_100));
    reports.connections(200, &route, 1);
    let report = reports.take(1_100)[0].1;
    assert_eq!((report.connections, report.sent, report.duration_ms), (3, 0, 1_000));
    reports.set_interval(1_200, 0);
    reports.connections(1_300, &route, -3);
    assert_eq!((reports.due(), reports.current()), (None, 0));
    reports.set_interval(1_400, 1_000);
    assert_eq!(reports.due(), None);
}
