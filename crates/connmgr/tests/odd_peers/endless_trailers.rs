//! Trailers without end.

use super::*;

fn fed(piece: &[u8]) -> String {
    let mut b = Bench::new();
    let (conn, _) = taken(&mut b, CHUNKED, 1000);
    b.client(conn, b"0\r\n");
    while !b.net.socks[&conn].shut {
        b.client(conn, piece);
    }
    assert_eq!(kinds(&b.sent()).last(), Some(&"cancel"));
    assert!(b.taken(conn) < 10_000);
    let got = b.got(conn);
    b.leave(conn);
    b.nothing_left();
    got
}

#[test]
fn are_bounded_in_number_and_size() {
    assert!(fed(b"A: b\r\n").ends_with("too many headers\n"));
    assert!(fed(b"A").ends_with("invalid header name\n"));
    let long = [&b"A: "[..], &[b'x'; 500], b"\r\n"].concat();
    assert!(fed(&long).ends_with("invalid header value\n"));
}
