//! A WebSocket client that begins a frame and falls silent.

use super::*;
use kit::masked;

#[test]
fn is_left_when_the_stream_timeout_is_over() {
    let ping = masked(0x89, &[b'p'; 100]);
    let text = masked(0x81, &[b't'; 300]);
    for (part, passed_on) in [(&ping[..1], 0), (&ping[..50], 0), (&text[..3], 0), (&text[..100], 1)]
    {
        let mut b = Bench::new();
        let (conn, id) = b.websocket("px", 1_000);
        b.client(conn, part);
        assert_eq!(kinds(&b.sent()).len(), passed_on);
        kept_alive(&mut b, &id, 1, STREAM_MS - 10_000);
        assert!(b.is_open(conn));
        b.sent();
        b.pass(10_000 + LATE_MS);
        assert_eq!(kinds(&b.sent()), ["cancel"]);
        assert_eq!(b.got_bytes(conn), b"\x88\x02\x03\xe9");
        b.leave(conn);
        b.nothing_left();
    }
}
