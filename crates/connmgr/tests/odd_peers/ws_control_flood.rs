//! A WebSocket client that sends nothing but pings and pongs.

use super::*;
use kit::masked;

#[test]
fn is_held_up_by_the_credits_of_its_peer() {
    for opcode in [0x89, 0x8a] {
        let mut b = Bench::new();
        let (conn, id) = b.websocket("px", 1_250);
        b.client(conn, &masked(opcode, &[b'x'; 125]).repeat(10_000));
        let turns = 20;
        (0..turns).for_each(|_| b.pass(0));
        assert_eq!(b.sent().len(), 10);
        assert!(b.taken(conn) < 1_250 + 3 * BUFFER, "{}", b.taken(conn));
        b.peer("px", &[(&id, 1)], |f| {
            f.kind(Kind::Cancel);
        });
        b.pass(LINGER_MS + LATE_MS);
        b.nothing_left();
    }
}

#[test]
fn leaves_others_their_turn() {
    let mut b = Bench::new();
    let (flood, id) = b.websocket("px", 10);
    let (other, _) = b.websocket("px", 10);
    if let Some(sock) = b.net.socks.get_mut(&flood) {
        sock.input.extend(masked(0x89, b"").repeat(10_000));
        b.worker.readable(b.now, &mut b.net, flood, false);
    }
    b.client(other, &masked(0x81, b"me too"));
    let sent = b.sent();
    assert!(sent.len() <= 101, "{} packets in one turn", sent.len());
    assert!(sent.iter().any(|packet| packet.body == b"me too"));
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Cancel);
    });
    b.pass(LINGER_MS + LATE_MS);
    b.leave(other);
    b.nothing_left();
}
