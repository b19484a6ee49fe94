//! A client that takes nothing of its answer.

use super::*;

#[test]
fn holds_no_more_than_its_credits() {
    let mut b = Bench::new();
    let (conn, id) = b.held("px");
    b.block(conn);
    let mut seq = 1;
    for _ in 0..BUFFER {
        b.peer("px", &[(&id, seq)], |f| {
            f.body(b"x").flag("more", true);
        });
        seq += 1;
    }
    // The smallest chunks: six bytes for one.
    assert!(b.worker.pinned() <= 6 * BUFFER, "{}", b.worker.pinned());
    assert!(kinds(&b.sent()).is_empty(), "no credits for what was not written");
    b.peer("px", &[(&id, seq)], |f| {
        f.body(b"x").flag("more", true);
    });
    assert_eq!(kinds(&b.sent()), ["cancel"], "more than its credits");
    assert_eq!(b.worker.counters().overruns, 1);
    b.nothing_left();
}

#[test]
fn is_left_when_the_stream_timeout_is_over() {
    let mut b = Bench::new();
    let (conn, id) = b.held("px");
    b.block(conn);
    b.peer("px", &[(&id, 1)], |f| {
        f.body(b"hello").flag("more", true);
    });
    let seq = kept_alive(&mut b, &id, 2, STREAM_MS - 10_000);
    assert!(b.is_open(conn) && seq > 30);
    b.sent();
    closes_after(&mut b, conn, 10_000);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    assert_eq!(b.worker.counters().stream_timeouts, 1);
    b.nothing_left();
}

#[test]
fn does_not_keep_a_finished_answer_for_ever() {
    let (mut b, conn, id) = asked(GET);
    b.block(conn);
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(&[b'x'; 5_000]);
    });
    assert!(b.worker.pinned() > 5_000);
    closes_after(&mut b, conn, EXPIRY_MS);
    b.nothing_left();
}

#[test]
fn not_even_a_refusal() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.block(conn);
    b.client(conn, b"nonsense\r\n\r\n");
    closes_after(&mut b, conn, EXPIRY_MS);
    b.nothing_left();
}
