//! Clients that end their sending side, in every state. Behind a request that is a client that
//! left (`spec/connmgr.md §4.6`).

use super::*;

#[test]
fn before_and_inside_a_head() {
    for text in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\n"] {
        let (mut b, conn) = begun(text);
        b.leave(conn);
        assert_eq!(b.got(conn), "");
        assert!(b.sent().is_empty());
        b.nothing_left();
    }
}

#[test]
fn before_anybody_took_the_request() {
    let (mut b, conn, id) = asked(GET);
    b.leave(conn);
    assert!(!b.is_open(conn) && b.worker.len() == 1, "the session waits for its owner");
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").flag("more", true);
    });
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
    // Nobody ever takes it.
    let conn = b.connect();
    b.request(conn, GET);
    b.leave(conn);
    b.pass(EXPIRY_MS + LATE_MS);
    assert!(b.sent().is_empty());
    b.nothing_left();
}

#[test]
fn with_a_request_behind_it() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.net.socks.get_mut(&conn).unwrap().eof = true;
    b.client(conn, GET.as_bytes());
    b.leave(conn);
    assert!(!b.is_open(conn));
    b.pass(EXPIRY_MS + LATE_MS);
    b.nothing_left();
}

#[test]
fn while_the_answer_is_awaited() {
    let mut b = Bench::new();
    let (conn, _) = taken(&mut b, GET, 0);
    b.leave(conn);
    assert!(b.got(conn).ends_with("Failed to process request.\n"));
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn inside_a_body() {
    let mut b = Bench::new();
    let (conn, _) = taken(&mut b, POST, 1000);
    b.client(conn, b"half");
    assert_eq!(b.sent()[0].body, b"half");
    b.leave(conn);
    assert!(b.got(conn).ends_with("Failed to process request.\n"));
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn while_the_answer_streams() {
    let mut b = Bench::new();
    let (conn, _) = b.held("hd");
    b.leave(conn);
    assert_eq!(b.got(conn), "", "an answer that was begun cannot become another one");
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn while_the_rest_of_an_answer_waits() {
    let (mut b, conn, id) = asked(GET);
    b.block(conn);
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(b"all of it");
    });
    b.leave(conn);
    assert!(b.is_open(conn), "it may still read");
    b.room(conn, usize::MAX);
    assert!(b.got(conn).ends_with("all of it"));
    assert!(b.sent().is_empty());
    b.nothing_left();
}

#[test]
fn behind_a_refusal() {
    let (mut b, conn) = begun("nonsense\r\n\r\n");
    assert!(b.is_open(conn) && b.net.socks[&conn].shut);
    b.leave(conn);
    b.nothing_left();
}
