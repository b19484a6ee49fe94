//! Clients that go on sending a body which the answer did not wait for.

use super::*;

#[test]
fn get_the_answer_whole() {
    let mut b = Bench::new();
    let (conn, id) =
        taken(&mut b, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n", 100);
    b.client(conn, &[b'x'; 5_000]);
    b.peer("px", &[(&id, 1)], |f| {
        f.status(413, "Too Large").body(b"no").flag("more", true);
    });
    let before = b.taken(conn);
    b.client(conn, &[b'x'; 500_000]);
    assert!(b.taken(conn) - before <= BUFFER, "only as much as is kept for pipelining");
    b.peer("px", &[(&id, 2)], |f| {
        f.body(b"!");
    });
    let got = b.got(conn);
    assert!(
        got.contains("\r\nConnection: close\r\n")
            && got.ends_with("2\r\nno\r\n1\r\n!\r\n0\r\n\r\n")
    );
    assert!(b.net.socks[&conn].shut && b.net.socks[&conn].input.is_empty(), "thrown away");
    let sent = b.sent();
    assert_eq!(sent.iter().map(|s| s.body.len()).sum::<usize>(), 100, "as the credits were");
    closes_after(&mut b, conn, LINGER_MS);
    b.nothing_left();
}
