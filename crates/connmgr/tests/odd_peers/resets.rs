//! Connections that are reset, in every state.

use super::*;

#[test]
fn before_and_inside_a_head() {
    for text in ["", "GET / HT"] {
        let (mut b, conn) = begun(text);
        b.reset(conn);
        b.nothing_left();
    }
}

#[test]
fn while_a_request_waits() {
    let (mut b, conn, id) = asked(GET);
    b.reset(conn);
    assert!(!b.is_open(conn));
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(b"late");
    });
    assert!(b.sent().is_empty(), "it was over anyway");
    b.nothing_left();
}

#[test]
fn inside_a_body() {
    let mut b = Bench::new();
    let (conn, _) = taken(&mut b, POST, 1000);
    b.client(conn, b"half");
    b.sent();
    b.reset(conn);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn noticed_when_a_message_is_written() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    b.net.socks.get_mut(&conn).unwrap().reset = true;
    b.peer("hd", &[(&id, 1)], |f| {
        f.body(b"hello").flag("more", true);
    });
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn noticed_when_the_rest_is_written() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    b.block(conn);
    b.peer("hd", &[(&id, 1)], |f| {
        f.body(&[b'x'; 3_000]).flag("more", true);
    });
    b.net.socks.get_mut(&conn).unwrap().reset = true;
    b.room(conn, usize::MAX);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn behind_a_refusal() {
    let (mut b, conn) = begun("nonsense\r\n\r\n");
    b.reset(conn);
    b.nothing_left();
}
