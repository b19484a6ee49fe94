//! Keep-alives, and requesters that fall silent or leave (`spec/zhttp.md §7`).

use origin::Event;
use zhttp::Kind;

use crate::{Rig, packet};

#[test]
fn keep_alives_go_together_by_requester_and_way() {
    let mut rig = Rig::new();
    for n in 0..130 {
        rig.get(&n.to_string());
    }
    for (from, id, router) in [("other", "x", true), ("me", "y", false)] {
        let first = packet(from, &[(id, 0)], |f| {
            f.method("GET").uri("http://h/").flag("router-resp", router);
        });
        rig.e.first(0, &first);
    }
    rig.out();
    rig.at(44_000);
    assert!(rig.out().is_empty());
    rig.at(45_000);
    let mut out = rig.out();
    out.sort();
    assert_eq!(
        out,
        [
            "keep-alive 128 sessions",
            "keep-alive 128/1 129/1",
            "other keep-alive x/1",
            "pub keep-alive y/1",
        ]
    );
    // Each has its next number.
    rig.at(46_000);
    assert!(rig.out().is_empty());
}

#[test]
fn those_who_do_not_know_packets_for_many_get_single_ones() {
    let mut rig = Rig::new();
    let mut plain = Vec::new();
    for id in ["a", "b"] {
        let ids = [zhttp::Id { id: id.as_bytes(), seq: Some(0) }];
        plain.clear();
        let head = zhttp::Head { from: b"me", ids: &ids, ext: zhttp::Ext::default() };
        zhttp::write(&mut plain, &head, |f| {
            f.method("GET").uri("http://h/").flag("router-resp", true);
        });
        rig.e.first(0, &plain);
    }
    rig.out();
    rig.at(45_000);
    let mut out = rig.out();
    out.sort();
    assert_eq!(out, ["keep-alive a/1", "keep-alive b/1"]);
    // One that says so later gets them from then on; the other may be among them if it says so too.
    for id in ["a", "b"] {
        rig.bare(id, 1, Kind::KeepAlive);
    }
    rig.at(90_000);
    assert_eq!(rig.out(), ["keep-alive a/2 b/2"]);
}

#[test]
fn silence_ends_a_session_without_a_word() {
    let mut rig = Rig::new();
    rig.get("a");
    let key = rig.get("b");
    rig.now = 30_000;
    rig.bare("b", 1, Kind::KeepAlive);
    rig.at(59_000);
    rig.out();
    rig.at(60_000);
    assert_eq!(
        (rig.out(), rig.e.stream_len(), rig.counters().expired),
        (vec!["cancel".into()], 1, 1)
    );
    // What the backend says does not count for the requester.
    rig.head(key, 200);
    rig.out();
    rig.at(90_000);
    assert_eq!((rig.out(), rig.e.is_empty()), (vec!["cancel".to_owned()], true));
}

#[test]
fn sessions_of_a_requester_that_left_end() {
    let mut rig = Rig::new();
    rig.get("a");
    let key = rig.get("b");
    rig.head(key, 200);
    rig.e.first(
        0,
        &packet("other", &[("a", 0)], |f| {
            f.method("GET").uri("http://h/");
        }),
    );
    rig.out();
    rig.e.peer_gone(1, b"me");
    assert_eq!((rig.out(), rig.e.stream_len()), (vec!["cancel".into(), "cancel".into()], 1));
    assert_eq!(rig.counters().peer_gone, 2);
    // Events that were under way find nothing.
    rig.event(key, Event::End);
    assert!(rig.out().is_empty());
}

#[test]
fn a_probe_is_one_keep_alive_for_each_requester_that_can_be_missed() {
    let mut rig = Rig::new();
    for id in ["a", "b", "c"] {
        rig.get(id);
    }
    rig.bare("c", 1, Kind::HandoffStart);
    rig.e.first(
        0,
        &packet("published", &[("a", 0)], |f| {
            f.method("GET").uri("http://h/");
        }),
    );
    rig.out();
    rig.e.probe(1);
    assert_eq!(rig.out(), ["keep-alive a/1"]);
    // Its number was used, the next packet has the next one.
    rig.e.shutdown(2);
    let mut out = rig.out();
    out.retain(|packet| packet != "cancel");
    out.sort();
    assert_eq!(out, ["cancel a/2 b/1", "pub published cancel a/1"]);
}

#[test]
fn the_end_of_the_process_is_told_in_few_packets() {
    let mut rig = Rig::new();
    for n in 0..200 {
        rig.get(&n.to_string());
    }
    rig.e.shutdown(1);
    let out = rig.out();
    let told: Vec<&String> = out.iter().filter(|packet| packet.as_str() != "cancel").collect();
    assert_eq!(told, ["cancel 128 sessions", "cancel 72 sessions"]);
    assert_eq!((out.len(), rig.e.is_empty()), (202, true));
}

#[test]
fn the_number_of_sessions_is_there_for_the_limit() {
    let mut rig = Rig::new();
    rig.get("a");
    let key = rig.get("b");
    assert_eq!((rig.e.stream_len(), rig.e.req_len()), (2, 0));
    rig.event(key, Event::Failed(origin::Error::Connect));
    rig.bare("a", 1, Kind::Cancel);
    assert_eq!(rig.e.stream_len(), 0);
}
