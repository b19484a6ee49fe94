//! A WebSocket client that does not mask its frames (RFC 6455 §5.1).

use super::*;

#[test]
fn is_failed_whatever_the_frame() {
    for frame in [&b"\x81\x02hi"[..], b"\x89\x00", b"\x88\x02\x03\xe8", b"\x02\x00"] {
        let mut b = Bench::new();
        let (conn, _) = b.websocket("px", 100);
        b.client(conn, frame);
        assert_eq!(kinds(&b.sent()), ["cancel"], "nothing of it is passed on");
        assert_eq!(b.got_bytes(conn), b"\x88\x02\x03\xea");
        closes_after(&mut b, conn, LINGER_MS);
        b.nothing_left();
    }
}
