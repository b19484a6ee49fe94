//! A WebSocket client whose message never ends.

use super::*;
use connmgr::Config;
use kit::masked;

#[test]
fn is_passed_on_as_it_comes() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 1_000);
    b.client(conn, &masked(0x01, &[b'x'; 100]));
    for seq in 1..2_000 {
        b.client(conn, &masked(0x00, &[b'x'; 100]));
        b.peer("px", &[(&id, seq)], |f| {
            f.kind(Kind::Credit).credits(100);
        });
        let sent = b.sent();
        assert!(sent.iter().all(|packet| packet.more));
    }
    assert!(b.is_open(conn));
    b.leave(conn);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    b.nothing_left();
}

#[test]
fn is_not_read_without_credits() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 1_000);
    b.client(conn, &masked(0x01, &[b'x'; 100]));
    b.client(conn, &masked(0x00, &[b'x'; 100]).repeat(10_000));
    assert!(b.taken(conn) < 1_000 + 3 * BUFFER, "{}", b.taken(conn));
    let size: usize = b.sent().iter().map(|packet| packet.body.len()).sum();
    assert_eq!(size, 1_000);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Cancel);
    });
    b.pass(LINGER_MS + LATE_MS);
    b.nothing_left();
}

#[test]
fn is_failed_at_the_limit() {
    let mut b = Bench::with(Config { message_size_max: 5_000, ..Config::default() });
    let (conn, _) = b.websocket("px", 100_000);
    b.client(conn, &masked(0x01, &[b'x'; 100]));
    b.client(conn, &masked(0x00, &[b'x'; 100]).repeat(49));
    assert!(b.sent().iter().all(|packet| packet.kind == "data"));
    b.client(conn, &masked(0x00, b"x"));
    assert_eq!(kinds(&b.sent()).last(), Some(&"cancel"));
    assert_eq!(b.got_bytes(conn), b"\x88\x02\x03\xf1");
    closes_after(&mut b, conn, LINGER_MS);
    b.nothing_left();
}
