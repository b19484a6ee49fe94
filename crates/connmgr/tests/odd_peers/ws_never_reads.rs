//! A WebSocket client that takes nothing.

use super::*;

#[test]
fn holds_no_more_than_its_credits_and_messages() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.block(conn);
    let mut seq = 1;
    while b.is_open(conn) && b.worker.counters().messages_limit == 0 {
        b.peer("px", &[(&id, seq)], |f| {
            f.content_type("text").body(b"tick");
        });
        assert!(b.worker.pinned() <= 101 * 6);
        seq += 1;
    }
    assert_eq!(seq, 102, "--messages-max");
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.pass(LINGER_MS + 1_000);
    b.nothing_left();
}

#[test]
fn is_left_when_the_stream_timeout_is_over() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.block(conn);
    b.peer("px", &[(&id, 1)], |f| {
        f.content_type("text").body(b"tick");
    });
    kept_alive(&mut b, &id, 2, STREAM_MS - 10_000);
    assert!(b.is_open(conn));
    b.sent();
    b.pass(10_000 + 2 * LATE_MS);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.pass(LINGER_MS + 1_000);
    b.nothing_left();
}
