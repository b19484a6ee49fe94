//! Blank lines without end, which a server skips before a request.

use super::*;

#[test]
fn are_skipped_up_to_a_limit() {
    let mut b = Bench::new();
    let conn = b.connect();
    for _ in 0..8 {
        b.client(conn, &b"\r\n".repeat(512));
        assert!(b.is_open(conn) && !b.net.socks[&conn].shut);
    }
    assert_eq!(b.request(conn, GET), "0-0-2a", "as many as a head may have");
    b.peer("px", &[("0-0-2a", 0)], |f| {
        f.status(200, "OK");
    });
    // The next request has its own.
    b.client(conn, &b"\n".repeat(8192));
    assert!(b.got(conn).starts_with("HTTP/1.1 200"));
    b.client(conn, &b"\n".repeat(100_000));
    assert!(b.got(conn).starts_with("HTTP/1.0 400"));
    b.leave(conn);
    b.nothing_left();
}

#[test]
fn do_not_put_the_deadline_off() {
    let mut b = Bench::new();
    let conn = b.connect();
    for _ in 0..59 {
        b.client(conn, b"\r\n");
        b.pass(1_000);
    }
    closes_after(&mut b, conn, 1_000);
    b.nothing_left();
}
