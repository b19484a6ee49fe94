//! Clients, and peers, that fall silent, in every state.

use super::*;

#[test]
fn before_and_inside_a_head() {
    for text in ["", "GET / HT", "\r\n", "GET / HTTP/1.1\r\nHost: h\r\n"] {
        let (mut b, conn) = begun(text);
        closes_after(&mut b, conn, EXPIRY_MS);
        assert_eq!(b.got(conn), "");
        b.nothing_left();
    }
}

#[test]
fn nobody_takes_the_request() {
    let (mut b, conn, _) = asked(GET);
    closes_after(&mut b, conn, EXPIRY_MS);
    assert_eq!(b.got(conn), "");
    assert!(b.sent().is_empty());
    b.nothing_left();
}

#[test]
fn the_peer_falls_silent() {
    let mut b = Bench::new();
    let (conn, _) = b.held("hd");
    closes_after(&mut b, conn, EXPIRY_MS);
    assert!(kinds(&b.sent()).is_empty(), "no cancel to one who is not there");
    assert_eq!(b.worker.counters().session_timeouts, 1);
    b.nothing_left();
}

#[test]
fn the_client_falls_silent_inside_a_body() {
    let mut b = Bench::new();
    let (conn, id) = taken(&mut b, POST, 1000);
    b.client(conn, b"half");
    b.sent();
    kept_alive(&mut b, &id, 1, STREAM_MS - 20_000);
    assert!(b.is_open(conn));
    b.sent();
    closes_after(&mut b, conn, 20_000);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn a_hand_off_that_nobody_finishes() {
    let mut b = Bench::new();
    let (conn, id) = b.held("px");
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::HandoffStart);
    });
    assert_eq!(kinds(&b.sent()), ["handoff-proceed"]);
    closes_after(&mut b, conn, EXPIRY_MS);
    b.nothing_left();
}

#[test]
fn between_requests() {
    let (mut b, conn, id) = asked(GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(b"x");
    });
    closes_after(&mut b, conn, EXPIRY_MS);
    b.nothing_left();
}

#[test]
fn behind_a_refusal() {
    let (mut b, conn) = begun("nonsense\r\n\r\n");
    closes_after(&mut b, conn, LINGER_MS);
    b.nothing_left();
}
