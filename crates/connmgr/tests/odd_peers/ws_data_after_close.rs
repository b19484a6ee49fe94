//! A WebSocket client that sends on behind its own close.

use super::*;
use kit::masked;

#[test]
fn is_not_listened_to_and_costs_nothing() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100_000);
    b.client(conn, &masked(0x88, b"\x03\xe8"));
    assert_eq!(kinds(&b.sent()), ["close"]);
    for _ in 0..10 {
        b.client(conn, &masked(0x82, &[b'x'; 10_000]));
    }
    assert!(b.sent().is_empty());
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close).code(1000);
    });
    assert!(b.sent().is_empty());
    b.pass(LINGER_MS + LATE_MS);
    assert_eq!(b.got_bytes(conn), b"\x88\x02\x03\xe8");
    b.nothing_left();
}
