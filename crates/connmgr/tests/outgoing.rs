//! Scenarios of client mode on virtual time: packets of requesters, events of backends.

use connmgr::{ClientConfig, Order, Outgo, Outgoing};
use evloop::arena::Key;
use origin::{Error, Event};
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

fn engine() -> Outgoing {
    Outgoing::new(ClientConfig {
        instance: b"us".to_vec(),
        buffer_size: 100,
        body_buffer_size: 100,
        stream_max: 200,
        req_max: 1,
        req_timeout_ms: 5_000,
        deny_internal: false,
        compression: false,
    })
}

fn bytes(id: &str, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) -> Vec<u8> {
    let ids = [Id { id: id.as_bytes(), seq: Some(seq) }];
    let mut out = Vec::new();
    let ext = Ext { multi: true, ..Ext::default() };
    zhttp::write(&mut out, &Head { from: b"me", ids: &ids, ext }, fill);
    out
}

fn first(e: &mut Outgoing, id: &str, method: &str, more: bool) {
    let packet = bytes(id, 0, |f| {
        f.method(method).uri("http://h/a").credits(50).flag("more", more);
    });
    e.first(0, &packet);
}

/// What came out: `kind ids` for packets, the name of each order, and the key of the last one.
fn outputs(e: &mut Outgoing) -> (Vec<String>, Option<Key>) {
    let mut key = None;
    let all = std::iter::from_fn(|| e.poll_output()).map(|output| match output {
        Outgo::Packet { message, .. } | Outgo::Reply { message, .. } => {
            let p = Packet::parse(&message).expect("a packet");
            format!("{:?} {} {}", p.kind, p.ids.len(), p.condition)
        }
        Outgo::Origin(k, order) => {
            key = Some(k);
            match order {
                Order::Start(..) => "start".into(),
                Order::Body(data, last) => format!("body {} {last}", data.len()),
                Order::Grant(n) => format!("grant {n}"),
                Order::Cancel => "cancel".into(),
                other => format!("{other:?}"),
            }
        }
    });
    (all.collect(), key)
}

#[test]
fn a_request_is_acknowledged_at_once_and_started() {
    let mut e = engine();
    first(&mut e, "a", "GET", false);
    let (out, key) = outputs(&mut e);
    assert_eq!(out, ["KeepAlive 1 ", "start"]);
    e.origin_event(1, key.unwrap(), Event::Failed(Error::Connect));
    assert_eq!(outputs(&mut e).0, ["Error 1 remote-connection-failed"]);
    assert!(e.is_empty());
}

#[test]
fn first_packets_that_begin_nothing() {
    let mut e = engine();
    e.first(0, &bytes("a", 1, |_| {}));
    e.first(0, b"nothing");
    first(&mut e, "a", "GET", false);
    first(&mut e, "a", "GET", false);
    assert_eq!((e.counters().bad_first, e.counters().malformed, e.len()), (2, 1, 1));
}

#[test]
fn credits_bound_the_body() {
    let mut e = engine();
    first(&mut e, "a", "POST", true);
    let key = outputs(&mut e).1.unwrap();
    e.origin_event(1, key, Event::Queued(0));
    assert_eq!(outputs(&mut e).0, ["Credit 1 "]);
    let body = |seq, n| {
        bytes("a", seq, |f| {
            f.body(&vec![b'x'; n]).flag("more", true).credits(7);
        })
    };
    e.packet(2, &body(1, 100));
    assert_eq!(outputs(&mut e).0, ["grant 7", "body 100 false"]);
    e.packet(3, &body(2, 1));
    assert_eq!(outputs(&mut e).0, ["grant 7", "cancel", "Error 1 bad-request"]);
    assert_eq!(e.counters().overruns, 1);
}

#[test]
fn a_gap_in_the_sequence_ends_the_session() {
    let mut e = engine();
    first(&mut e, "a", "GET", false);
    outputs(&mut e);
    e.packet(1, &bytes("a", 2, |_| {}));
    assert_eq!((outputs(&mut e).0, e.counters().bad_seq), (vec!["cancel".to_owned()], 1));
}

#[test]
fn keep_alives_go_together_and_silence_ends_all() {
    let mut e = engine();
    (0..130).for_each(|n| first(&mut e, &n.to_string(), "GET", false));
    outputs(&mut e);
    e.timeout(45_000);
    assert_eq!(outputs(&mut e).0, ["KeepAlive 128 ", "KeepAlive 2 "]);
    e.timeout(60_000);
    assert_eq!((e.len(), e.counters().expired), (0, 130));
}

#[test]
fn hand_off_and_the_end() {
    let mut e = engine();
    first(&mut e, "a", "GET", false);
    outputs(&mut e);
    e.packet(
        1,
        &bytes("a", 1, |f| {
            f.kind(Kind::HandoffStart);
        }),
    );
    assert_eq!(outputs(&mut e).0, ["HandoffProceed 1 "]);
    e.timeout(45_000);
    assert!(outputs(&mut e).0.is_empty());
    e.packet(
        46_000,
        &bytes("a", 2, |f| {
            f.kind(Kind::KeepAlive);
        }),
    );
    e.shutdown(47_000);
    assert_eq!(outputs(&mut e).0, ["Cancel 1 ", "cancel"]);
}

#[test]
fn req_mode_ends_in_time() {
    let mut e = engine();
    let packet = bytes("a", 0, |f| {
        f.method("GET").uri("http://h/");
    });
    e.request(0, vec![b"x".to_vec(), vec![]], &packet);
    assert!(!e.wants_req());
    outputs(&mut e);
    e.timeout(5_000);
    assert_eq!(outputs(&mut e).0, ["cancel", "Error 1 connection-timeout"]);
    assert!(e.wants_req());
}
