//! What each type of packet does in each state of a session, and who is told (`spec/zhttp.md §5`,
//! §8.6, §9, §10).

mod kit;

use kit::Bench;
use zhttp::{Fields, Kind};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// The types that end a session at once; the last is one that nobody knows.
const ENDS: [&str; 7] = ["cancel", "error", "handoff-proceed", "close", "ping", "pong", "odd"];

/// The types that do not.
const STAYS: [&str; 3] = ["credit", "keep-alive", "handoff-start"];

fn typed(kind: &str) -> impl Fn(&mut Fields<'_>) {
    move |f| {
        f.str("type", kind);
    }
}

/// Where a session of HTTP stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nobody has taken the request.
    Asked,
    /// Somebody has.
    Taken,
    /// Part of the response was given.
    Answered,
    /// It is between two owners.
    Adrift,
}

/// A session at that point: the connection, its id, and the peer's next sequence number.
fn session(b: &mut Bench, at: At) -> (u32, String, u32) {
    let conn = b.connect();
    let id = b.request(conn, GET);
    let mut seq = 0;
    if at != At::Asked {
        b.peer("px", &[(&id, 0)], typed("keep-alive"));
        seq += 1;
    }
    if at == At::Answered {
        b.peer("px", &[(&id, 1)], |f| {
            f.status(200, "OK").body(b"x").flag("more", true);
        });
        seq += 1;
    }
    if at == At::Adrift {
        b.peer("px", &[(&id, 1)], typed("handoff-start"));
        seq += 1;
    }
    b.got(conn);
    b.sent();
    (conn, id, seq)
}

/// What was sent to whom, in short.
fn sent(b: &mut Bench) -> Vec<String> {
    b.sent().into_iter().map(|sent| format!("{} {}", sent.to, sent.kind)).collect()
}

#[test]
fn what_ends_a_session_is_not_answered() {
    for at in [At::Asked, At::Taken, At::Answered, At::Adrift] {
        for kind in ENDS {
            let mut b = Bench::new();
            let (conn, id, seq) = session(&mut b, at);
            b.peer("hd", &[(&id, seq)], typed(kind));
            assert!(sent(&mut b).is_empty(), "{at:?} {kind}");
            let got = b.got(conn);
            if at == At::Answered {
                assert!(!b.is_open(conn) && got.is_empty(), "{kind}: {got}");
            } else {
                assert!(got.starts_with("HTTP/1.1 500 "), "{at:?} {kind}: {got}");
            }
            // Neither is what comes behind it, and it does no harm.
            for (kind, n) in ENDS.iter().chain(&STAYS).zip(0..) {
                b.peer("hd", &[(&id, seq + 1 + n)], typed(kind));
            }
            let unknown = (ENDS.len() + STAYS.len()) as u64;
            assert!(sent(&mut b).is_empty() && b.got(conn).is_empty(), "{at:?} {kind}");
            assert_eq!(b.worker.counters().unknown, unknown, "{at:?} {kind}");
            let (unexpected, ended) = match kind {
                "cancel" | "error" => (0, 1),
                _ => (1, 0),
            };
            assert_eq!(b.worker.counters().unexpected, unexpected, "{at:?} {kind}");
            assert_eq!(b.worker.counters().peer_cancels, ended, "{at:?} {kind}");
        }
    }
}

#[test]
fn what_does_not_end_it_lets_it_go_on() {
    for at in [At::Asked, At::Taken, At::Answered, At::Adrift] {
        for kind in STAYS {
            let mut b = Bench::new();
            let (conn, id, seq) = session(&mut b, at);
            b.peer("hd", &[(&id, seq)], typed(kind));
            let answer = if kind == "handoff-start" { vec!["hd handoff-proceed"] } else { vec![] };
            assert_eq!(sent(&mut b), answer, "{at:?} {kind}");
            assert!(b.got(conn).is_empty());
            b.peer("new", &[(&id, seq + 1)], |f| {
                f.status(200, "OK").body(b"end");
            });
            assert!(b.got(conn).contains("end"), "{at:?} {kind}");
            // Behind the last data packet nothing follows from either side.
            assert!(sent(&mut b).is_empty(), "{at:?} {kind}");
            b.peer("new", &[(&id, seq + 2)], typed("cancel"));
            assert!(b.is_open(conn) && sent(&mut b).is_empty());
        }
    }
}

#[test]
fn a_client_that_leaves_between_two_owners_is_told_to_the_next() {
    for (kind, answer) in [
        ("keep-alive", vec!["hd cancel"]),
        ("cancel", vec![]),
        ("handoff-start", vec!["hd cancel"]),
    ] {
        let mut b = Bench::new();
        let (conn, id, seq) = session(&mut b, At::Adrift);
        b.leave(conn);
        assert!(sent(&mut b).is_empty(), "nobody to tell");
        b.peer("hd", &[(&id, seq)], typed(kind));
        assert_eq!(sent(&mut b), answer, "{kind}");
        assert!(b.worker.is_empty());
    }
}

#[test]
fn a_gap_is_not_answered_whatever_the_type() {
    for at in [At::Asked, At::Taken, At::Answered, At::Adrift] {
        for kind in ENDS.iter().chain(&STAYS) {
            let mut b = Bench::new();
            let (conn, id, seq) = session(&mut b, at);
            b.peer("hd", &[(&id, seq + 1)], typed(kind));
            assert_eq!(b.worker.counters().bad_seq, 1, "{at:?} {kind}");
            let got = b.got(conn);
            assert!(at == At::Answered || got.starts_with("HTTP/1.1 500 "), "{at:?} {kind}");
            assert!(sent(&mut b).is_empty(), "{at:?} {kind}");
        }
    }
}

#[test]
fn what_our_side_ends_is_told_once() {
    // More than granted, a broken length, too many headers: the peer does not know of its end.
    let wrong: [&dyn Fn(&mut Fields<'_>); 3] = [
        &|f| {
            f.status(200, "OK").body(&[b'x'; 8_193]);
        },
        &|f| {
            f.status(200, "OK").headers([("Content-Length", "x")].into_iter());
        },
        &|f| {
            f.status(200, "OK").headers((0..65).map(|n| (format!("X-{n}"), "x")));
        },
    ];
    for (fill, n) in wrong.into_iter().zip(0..) {
        for more in [true, false] {
            let mut b = Bench::new();
            let (conn, id, seq) = session(&mut b, At::Taken);
            b.peer("px", &[(&id, seq)], |f| {
                fill(f);
                f.flag("more", more);
            });
            // Behind its last packet it has forgotten the session.
            let packet_is_read = n < 2;
            let expected = if more && packet_is_read { vec!["px cancel"] } else { vec![] };
            assert_eq!(sent(&mut b), expected, "{n} {more}");
            let got = b.got(conn);
            assert!(!packet_is_read || got.starts_with("HTTP/1.1 500 "), "{n}: {got}");
            b.peer("px", &[(&id, seq + 1)], typed("keep-alive"));
            assert!(sent(&mut b).is_empty(), "{n} {more}");
        }
    }
}

#[test]
fn behind_both_closes_of_a_websocket_nothing_follows() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close).code(1000);
    });
    // Credits and keep-alives still count between the two closes, and an end is an end.
    b.peer("px", &[(&id, 2)], typed("keep-alive"));
    b.peer("px", &[(&id, 3)], typed("credit"));
    assert!(b.is_open(conn));
    b.client(conn, &kit::masked(0x88, b""));
    assert_eq!(sent(&mut b), ["px close"]);
    for (kind, n) in ENDS.iter().chain(&STAYS).zip(4..) {
        b.peer("px", &[(&id, n)], typed(kind));
    }
    assert!(sent(&mut b).is_empty() && b.worker.is_empty());
    assert_eq!(b.worker.counters().unknown, 10);
}

#[test]
fn a_websocket_may_be_cancelled_between_the_closes() {
    for kind in ["cancel", "error"] {
        let mut b = Bench::new();
        let (conn, id) = b.websocket("px", 100);
        b.peer("px", &[(&id, 1)], |f| {
            f.kind(Kind::Close).code(1000);
        });
        b.got_bytes(conn);
        b.peer("px", &[(&id, 2)], typed(kind));
        assert!(!b.is_open(conn) && b.got_bytes(conn).is_empty(), "{kind}");
        assert!(sent(&mut b).is_empty(), "{kind}");
    }
}

#[test]
fn a_reason_without_a_code_is_not_looked_at() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close).body(b"why");
    });
    assert_eq!(b.got_bytes(conn), b"\x88\x02\x03\xe8");
}
