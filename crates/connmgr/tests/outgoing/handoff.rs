//! A requester that passes its role on (`spec/zhttp.md §10`, the other way round).

use origin::{Error, Event};
use zhttp::Kind;

use crate::Rig;

/// A request whose requester `me` has begun to pass it on; its key.
fn adrift(rig: &mut Rig) -> evloop::arena::Key {
    let key = rig.get("a");
    rig.bare("a", 1, Kind::HandoffStart);
    assert_eq!(rig.out(), ["handoff-proceed a/1"]);
    key
}

#[test]
fn nothing_is_sent_until_the_next_owner_is_known() {
    let mut rig = Rig::new();
    let key = adrift(&mut rig);
    rig.head(key, 200);
    rig.event(key, Event::Body(b"one"));
    rig.at(45_000);
    assert!(rig.out().is_empty());
    rig.packet_of("next", "a", 2, |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(rig.out(), ["next data a/2 200 Why more", "next data a/3 one more"]);
    // The old owner is a stranger now, and the new one is kept alive.
    rig.bare("a", 3, Kind::Cancel);
    assert_eq!(rig.e.stream_len(), 1);
    rig.at(91_000);
    assert_eq!(rig.out(), ["next keep-alive a/4"]);
}

#[test]
fn the_old_owner_may_take_it_back() {
    let mut rig = Rig::new();
    let key = adrift(&mut rig);
    rig.bare("a", 2, Kind::KeepAlive);
    rig.head(key, 200);
    assert_eq!(rig.out(), ["data a/2 200 Why more"]);
    // Once it has, others cannot.
    rig.packet_of("next", "a", 3, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((rig.e.stream_len(), rig.out().len()), (1, 0));
}

#[test]
fn a_stranger_with_another_number_takes_nothing() {
    let mut rig = Rig::new();
    adrift(&mut rig);
    rig.packet_of("stranger", "a", 9, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!((rig.e.stream_len(), rig.counters().bad_seq, rig.counters().unknown), (1, 0, 1));
}

#[test]
fn the_next_owner_learns_that_the_request_ended_meanwhile() {
    for (fails, packets) in [
        (false, vec!["next data a/2 200 Why more", "next data a/3"]),
        (true, vec!["next error a/2 remote-connection-failed"]),
    ] {
        let mut rig = Rig::new();
        let key = adrift(&mut rig);
        if fails {
            rig.event(key, Event::Failed(Error::Connect));
        } else {
            rig.head(key, 200);
            rig.event(key, Event::End);
        }
        assert_eq!((rig.out().len(), rig.e.stream_len()), (0, 1));
        rig.packet_of("next", "a", 2, |f| {
            f.kind(Kind::KeepAlive);
        });
        assert_eq!(
            (rig.out(), rig.e.is_empty()),
            (packets.iter().map(|p| p.to_string()).collect(), true)
        );
    }
}

#[test]
fn nobody_takes_it() {
    let mut rig = Rig::new();
    let key = adrift(&mut rig);
    rig.event(key, Event::Failed(Error::Connect));
    rig.at(60_000);
    assert_eq!((rig.e.is_empty(), rig.counters().expired), (true, 1));
    rig.out();
    // Nor is anything left of it.
    rig.packet_of("next", "a", 2, |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(rig.counters().unknown, 1);
}

#[test]
fn two_of_the_same_id_are_told_apart_by_their_numbers() {
    let mut rig = Rig::new();
    adrift(&mut rig);
    let first = crate::packet("other", &[("a", 0)], |f| {
        f.method("GET").uri("http://h/a").flag("router-resp", true);
    });
    rig.e.first(0, &first);
    for (seq, kind) in [(1, Kind::KeepAlive), (2, Kind::HandoffStart)] {
        rig.packet_of("other", "a", seq, |f| {
            f.kind(kind);
        });
    }
    rig.out();
    rig.packet_of("next", "a", 3, |f| {
        f.kind(Kind::HandoffStart);
    });
    assert_eq!(rig.out(), ["next handoff-proceed a/2"]);
    rig.packet_of("new", "a", 2, |f| {
        f.kind(Kind::HandoffStart);
    });
    assert_eq!(rig.out(), ["new handoff-proceed a/2"]);
}

#[test]
fn the_end_of_the_process_is_told_to_known_owners_only() {
    let mut rig = Rig::new();
    adrift(&mut rig);
    rig.get("b");
    rig.e.shutdown(1);
    let mut out = rig.out();
    out.sort();
    assert_eq!(out, ["cancel", "cancel", "cancel b/1"]);
}
