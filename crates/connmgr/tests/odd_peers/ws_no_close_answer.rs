//! A WebSocket client that does not answer our close, and sends on instead.

use super::*;
use kit::masked;

/// How long a client may take to answer our close.
const CLOSE_MS: u64 = 15_000;

#[test]
fn is_left_when_its_time_is_over_however_busy_it_is() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100_000);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close).code(1000);
    });
    assert_eq!(b.got_bytes(conn), b"\x88\x02\x03\xe8");
    for _ in 0..14 {
        b.pass(1_000);
        b.client(conn, &masked(0x81, b"still here"));
    }
    assert_eq!(kinds(&b.sent()), ["data"; 14], "passed on meanwhile");
    closes_after(&mut b, conn, CLOSE_MS - 14_000);
    assert_eq!(kinds(&b.sent()), ["cancel"]);
    assert_eq!(b.worker.counters().close_timeouts, 1);
    b.nothing_left();
}
