//! Heads of any size.

use super::*;

#[test]
fn is_read_as_far_as_the_buffer_goes() {
    for size in [BUFFER, 20_000, 500_000] {
        for piece in [1_000, size] {
            let mut b = Bench::new();
            let conn = b.connect();
            b.client(conn, b"GET / HTTP/1.1\r\nX: ");
            let mut rest = size;
            while rest > 0 && !b.net.socks[&conn].shut {
                b.client(conn, &vec![b'x'; piece.min(rest)]);
                rest -= piece.min(rest);
            }
            assert!(b.got(conn).ends_with("Request header size exceeded limit of 8192 bytes.\n"));
            assert!(b.sent().is_empty());
            closes_after(&mut b, conn, LINGER_MS);
            b.nothing_left();
        }
    }
}

#[test]
fn of_many_lines_is_refused_by_their_number() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, b"GET / HTTP/1.1\r\n");
    while !b.net.socks[&conn].shut {
        b.client(conn, b"A: b\r\n");
    }
    assert!(b.got(conn).ends_with("too many headers\n"));
    assert!(b.taken(conn) < 16 + 66 * 6 + 6);
    b.leave(conn);
    b.nothing_left();
}
