//! How sessions of stream mode begin and end (`spec/zhttp.md §4`, §5, §9.2).

use origin::{Error, Event};
use zhttp::Kind;

use crate::{Rig, packet};

#[test]
fn a_request_is_acknowledged_at_once_and_started() {
    let mut rig = Rig::new();
    rig.first("a", |f| {
        f.method("GET").uri("http://h:81/a?b#c").headers([("X-One", "1")].iter().copied());
    });
    assert_eq!(rig.out(), ["keep-alive a/0", "start h:81 GET /a?b"]);
    assert_eq!(rig.request, "GET /a?b HTTP/1.1\r\nHost: h:81\r\nX-One: 1\r\n\r\n");
    let key = rig.key.unwrap();
    rig.head_with(key, 200, &[("X-A", "b")]);
    rig.event(key, Event::Body(b"hello"));
    rig.event(key, Event::End);
    assert_eq!(rig.out(), ["data a/1 200 Why X-A=b more", "data a/2 hello more", "data a/3"]);
    assert!(rig.e.is_empty());
}

#[test]
fn every_failure_has_its_condition() {
    for (error, condition) in [
        (Error::Connect, "remote-connection-failed"),
        (Error::Timeout, "connection-timeout"),
        (Error::Tls, "tls-error"),
        (Error::Policy, "policy-violation"),
        (Error::RejectionTooLarge, "rejection-too-large"),
        (Error::Name, "undefined-condition"),
        (Error::Unreachable, "undefined-condition"),
        (Error::Closed, "undefined-condition"),
        (Error::BadResponse, "undefined-condition"),
        (Error::Overload, "undefined-condition"),
    ] {
        let mut rig = Rig::new();
        let key = rig.get("a");
        rig.event(key, Event::Failed(error));
        assert_eq!(rig.out(), [format!("error a/1 {condition}")]);
        assert!(rig.e.is_empty() && rig.counters().failed == 1);
    }
}

#[test]
fn after_the_head_a_failure_is_a_cancel() {
    let mut rig = Rig::new();
    let key = rig.get("a");
    rig.head(key, 200);
    rig.event(key, Event::Failed(Error::Closed));
    assert_eq!(rig.out(), ["data a/1 200 Why more", "cancel a/2"]);
    assert!(rig.e.is_empty());
}

#[test]
fn requests_that_cannot_be_made_are_told_so() {
    for (method, uri) in
        [("GET", "gopher://h/"), ("GET", "/a"), ("GET", ""), ("", "http://h/"), ("A B", "http://h")]
    {
        let mut rig = Rig::new();
        rig.first("a", |f| {
            f.method(method).uri(uri);
        });
        assert_eq!(rig.out(), ["keep-alive a/0", "error a/1 bad-request"], "{method} {uri}");
        assert!(rig.e.is_empty());
    }
    let mut rig = Rig::new();
    rig.first("a", |f| {
        f.method("GET").uri("http://h/").headers(std::iter::repeat_n(("A", "b"), 64));
    });
    assert_eq!(rig.out(), ["keep-alive a/0", "error a/1 bad-request"]);
    // Host and what belongs to the connection is not passed on.
    let dropped = [("Host", "h"), ("Connection", "close")];
    let headers = std::iter::repeat_n(("A", "b"), 62).chain(dropped);
    rig.first("b", |f| {
        f.method("GET").uri("http://h/").headers(headers);
    });
    assert_eq!(rig.out(), ["keep-alive b/0", "start h:80 GET /"]);
}

#[test]
fn first_packets_that_begin_nothing() {
    let mut rig = Rig::new();
    let get = |ids: &[(&str, u32)]| {
        packet("me", ids, |f| {
            f.method("GET").uri("http://h/");
        })
    };
    rig.e.first(0, &get(&[("a", 1)]));
    rig.e.first(0, &get(&[("a", 0), ("b", 0)]));
    rig.e.first(0, &get(&[]));
    rig.e.first(0, &packet("", &[("a", 0)], |_| {}));
    let credit = packet("me", &[("a", 0)], |f| {
        f.kind(Kind::Credit);
    });
    rig.e.first(0, &credit);
    assert_eq!((rig.counters().bad_first, rig.out().len()), (5, 0));
    for malformed in [&b"nothing"[..], b"", b"J{}", b"T3:abc}"] {
        rig.e.first(0, malformed);
    }
    rig.e.first(0, &packet(&"x".repeat(65), &[("a", 0)], |_| {}));
    rig.e.first(0, &packet("me", &[(&"x".repeat(65), 0)], |_| {}));
    assert_eq!((rig.counters().malformed, rig.out().len()), (6, 0));
    rig.get("a");
    rig.e.first(0, &get(&[("a", 0)]));
    // The session that has the id goes on.
    assert_eq!((rig.counters().bad_first, rig.e.stream_len(), rig.out().len()), (6, 1, 0));
}

#[test]
fn the_same_id_of_another_requester_is_another_session() {
    let mut rig = Rig::new();
    let key = rig.get("a");
    let first = packet("other", &[("a", 0)], |f| {
        f.method("GET").uri("http://h/a");
    });
    rig.e.first(0, &first);
    assert_eq!(rig.out(), ["pub other keep-alive a/0", "start h:80 GET /a"]);
    rig.event(key, Event::Failed(Error::Connect));
    assert_eq!(rig.out(), ["error a/1 remote-connection-failed"]);
    rig.event(rig.key.unwrap(), Event::Failed(Error::Connect));
    assert_eq!(rig.out(), ["pub other error a/1 remote-connection-failed"]);
}

#[test]
fn a_gap_in_the_sequence_ends_the_session() {
    for kind in [Kind::KeepAlive, Kind::Cancel, Kind::Error, Kind::Data] {
        let mut rig = Rig::new();
        rig.get("a");
        rig.bare("a", 2, kind);
        assert_eq!((rig.out(), rig.counters().bad_seq), (vec!["cancel".to_owned()], 1));
        assert!(rig.e.is_empty());
    }
}

#[test]
fn the_requester_may_leave_at_any_time() {
    for kind in [Kind::Cancel, Kind::Error] {
        let mut rig = Rig::new();
        rig.get("a");
        rig.bare("a", 1, kind);
        assert_eq!((rig.out(), rig.e.is_empty()), (vec!["cancel".to_owned()], true));
        let key = rig.get("b");
        rig.head(key, 200);
        rig.bare("b", 1, kind);
        assert_eq!(rig.out(), ["data b/1 200 Why more", "cancel"]);
        assert_eq!(rig.counters().cancelled, 2);
    }
}

#[test]
fn types_that_do_not_belong_here_end_the_session() {
    for kind in [Kind::Close, Kind::Ping, Kind::Pong, Kind::HandoffProceed] {
        let mut rig = Rig::new();
        rig.get("a");
        rig.bare("a", 1, kind);
        assert_eq!((rig.out(), rig.e.is_empty()), (vec!["cancel".to_owned()], true), "{kind:?}");
        assert_eq!(rig.counters().unexpected, 1);
    }
    let mut rig = Rig::new();
    rig.get("a");
    rig.packet("a", 1, |f| {
        f.str("type", "odd");
    });
    assert_eq!(rig.out(), ["cancel"]);
}

#[test]
fn what_cannot_be_read_touches_no_session() {
    let mut rig = Rig::new();
    rig.get("a");
    rig.e.packet(0, b"T3:abc}");
    rig.e.packet(0, b"");
    rig.e.packet(0, &packet("me", &[], |_| {}));
    rig.e.packet(0, &packet("", &[("a", 1)], |_| {}));
    assert_eq!((rig.counters().malformed, rig.e.stream_len()), (4, 1));
    let ids: Vec<String> = (0..129).map(|n| n.to_string()).collect();
    let mut many = Vec::new();
    for id in &ids {
        many.extend_from_slice(
            format!("{}:2:id,{}:{id},3:seq,1:1#}}", 16 + id.len(), id.len()).as_bytes(),
        );
    }
    let list = format!(
        "4:from,2:me,2:id,{}:{}]4:type,6:cancel,",
        many.len(),
        String::from_utf8(many).unwrap()
    );
    rig.e.packet(0, format!("T{}:{list}}}", list.len()).as_bytes());
    assert_eq!((rig.counters().malformed, rig.e.stream_len()), (5, 1));
}

#[test]
fn one_packet_for_many_sessions() {
    let mut rig = Rig::new();
    for id in ["a", "b", "c"] {
        rig.get(id);
    }
    // The wrong number is the affair of one session, an unknown one of none.
    rig.e.packet(
        0,
        &packet("me", &[("a", 1), ("b", 7), ("x", 7), ("c", 1)], |f| {
            f.kind(Kind::Credit).credits(9);
        }),
    );
    assert_eq!(rig.out(), ["grant 9", "cancel", "grant 9"]);
    assert_eq!((rig.counters().bad_seq, rig.counters().unknown, rig.e.stream_len()), (1, 1, 2));
}
