//! Packets that overtake the first one of their session.

use zhttp::Kind;

use crate::{BUFFER, Rig, config, packet};

#[test]
fn packets_that_overtook_the_first_are_applied_in_order() {
    let mut rig = Rig::new();
    rig.packet("a", 1, |f| {
        f.kind(Kind::Credit).credits(7);
    });
    rig.packet("a", 2, |f| {
        f.kind(Kind::Credit).credits(8);
    });
    assert!(rig.out().is_empty());
    rig.first("a", |f| {
        f.method("GET").uri("http://h/a");
    });
    assert_eq!(rig.out(), ["keep-alive a/0", "start h:80 GET /a", "grant 7", "grant 8"]);
    // And the session goes on from there.
    rig.packet("a", 3, |f| {
        f.kind(Kind::Credit).credits(9);
    });
    assert_eq!(rig.out(), ["grant 9"]);
    assert_eq!((rig.counters().early, rig.counters().unknown), (2, 0));
}

#[test]
fn a_cancel_that_overtook_its_request_ends_it() {
    let mut rig = Rig::new();
    rig.bare("a", 1, Kind::Cancel);
    rig.bare("a", 2, Kind::KeepAlive);
    rig.first("a", |f| {
        f.method("GET").uri("http://h/a");
    });
    assert_eq!(rig.out(), ["keep-alive a/0", "start h:80 GET /a", "cancel"]);
    assert!(rig.e.is_empty());
    assert_eq!((rig.counters().early, rig.counters().unknown), (1, 1));
}

#[test]
fn one_packet_may_be_early_for_some_of_its_sessions() {
    let mut rig = Rig::new();
    rig.get("a");
    rig.e.packet(
        0,
        &packet("me", &[("a", 1), ("b", 1)], |f| {
            f.kind(Kind::Credit).credits(7);
        }),
    );
    assert_eq!(rig.out(), ["grant 7"]);
    rig.first("b", |f| {
        f.method("GET").uri("http://h/a");
    });
    assert_eq!(rig.out(), ["keep-alive b/0", "start h:80 GET /a", "grant 7"]);
}

#[test]
fn late_packets_and_those_of_others_do_not_wait() {
    let mut rig = Rig::new();
    rig.bare("a", 5, Kind::KeepAlive);
    assert_eq!(rig.counters().unknown, 1);
    rig.packet_of("other", "a", 1, |f| {
        f.kind(Kind::Cancel);
    });
    rig.get("a");
    assert_eq!((rig.e.stream_len(), rig.counters().early), (1, 0));
}

#[test]
fn what_waits_too_long_is_dropped_and_counted() {
    let mut rig = Rig::new();
    rig.bare("a", 1, Kind::Cancel);
    let deadline = rig.e.next_deadline();
    assert!(deadline.is_some());
    rig.at(10_000);
    assert_eq!((rig.counters().unknown, rig.e.next_deadline()), (1, None));
    rig.get("a");
    assert_eq!(rig.e.stream_len(), 1);
}

#[test]
fn a_flood_of_strangers_is_bounded() {
    let mut rig = Rig::new();
    for n in 0..100_000 {
        rig.packet(&n.to_string(), 1, |f| {
            f.body(&[b'x'; BUFFER]);
        });
    }
    let unknown = rig.counters().unknown;
    assert!((99_000..100_000).contains(&unknown), "{unknown}");
}

#[test]
fn sessions_of_another_worker_are_not_for_this_one() {
    let mut rigs: Vec<Rig> =
        (0..2).map(|n| Rig::with(connmgr::ClientConfig { worker: (n, 2), ..config() })).collect();
    let ids: Vec<String> = (0..10).map(|n| format!("r{n}")).collect();
    let named: Vec<(&str, u32)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    for rig in &mut rigs {
        rig.e.packet(
            0,
            &packet("me", &named, |f| {
                f.kind(Kind::Cancel);
            }),
        );
        rig.at(10_000);
    }
    // Each of them has waited in one place only.
    assert_eq!(rigs.iter().map(|rig| rig.counters().unknown).sum::<u64>(), 10);
}
