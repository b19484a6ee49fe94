//! Many requests at once.

use super::*;

#[test]
fn are_served_one_by_one_from_a_small_buffer() {
    let total = 3_000;
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, &GET.as_bytes().repeat(total));
    for n in 0..total {
        let sent = b.sent();
        assert_eq!(sent.len(), 1, "one at a time: {n}");
        let unanswered = b.taken(conn) - n * GET.len();
        assert!(unanswered <= BUFFER + GET.len(), "{unanswered} bytes are kept");
        let id = sent[0].ids[0].0.clone();
        b.peer("px", &[(&id, 0)], |f| {
            f.status(200, "OK").body(n.to_string().as_bytes());
        });
        assert!(b.got(conn).ends_with(&format!("\r\n\r\n{n}")));
    }
    assert!(b.sent().is_empty());
    b.leave(conn);
    b.nothing_left();
}

#[test]
fn behind_a_close_are_not_served() {
    let mut b = Bench::new();
    let conn = b.connect();
    let first = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let id = b.request(conn, &[first, GET, GET].concat());
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(b"x");
    });
    assert!(b.sent().is_empty() && b.got(conn).ends_with("\r\n\r\nx"));
    assert!(b.net.socks[&conn].shut, "read on, so that the answer is not lost");
    closes_after(&mut b, conn, LINGER_MS);
    b.nothing_left();
}

#[test]
fn behind_a_malformed_one_are_not_served() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, &[b"G@T / HTTP/1.1\r\n\r\n", GET.as_bytes()].concat());
    assert!(b.sent().is_empty() && b.got(conn).starts_with("HTTP/1.0 400"));
    closes_after(&mut b, conn, LINGER_MS);
    b.nothing_left();
}
