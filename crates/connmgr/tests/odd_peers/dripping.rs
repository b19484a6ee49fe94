//! Clients that send a byte now and then.

use super::*;

#[test]
fn a_head_that_drips_ends_with_the_minute() {
    for text in
        [GET, "GET / HTTP/1.1\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"]
    {
        let mut b = Bench::new();
        let conn = b.connect();
        for byte in text.as_bytes().iter().take(20) {
            b.client(conn, &[*byte]);
            b.pass(2_950);
        }
        closes_after(&mut b, conn, EXPIRY_MS - 20 * 2_950);
        assert_eq!(b.got(conn), "", "there is nobody to answer");
        b.nothing_left();
    }
}

#[test]
fn the_minute_counts_anew_behind_each_answer() {
    let mut b = Bench::new();
    let conn = b.connect();
    for n in 0..3 {
        for byte in GET.as_bytes() {
            b.client(conn, &[*byte]);
            b.pass(1_500);
        }
        let id = b.sent()[0].ids[0].0.clone();
        b.peer("px", &[(&id, 0)], |f| {
            f.status(200, "OK").body(b"x");
        });
        assert!(b.got(conn).ends_with("\r\n\r\nx"), "{n}");
    }
    closes_after(&mut b, conn, EXPIRY_MS);
    b.nothing_left();
}

#[test]
fn a_body_that_drips_is_passed_on_and_cut_by_its_peer() {
    let mut b = Bench::new();
    let (conn, id) = taken(&mut b, POST, 1000);
    let mut seq = 1;
    for _ in 0..50 {
        b.client(conn, b"x");
        assert_eq!(b.sent().iter().filter(|s| s.body == b"x").count(), 1);
        seq = kept_alive(&mut b, &id, seq, 50_000);
    }
    assert!(b.is_open(conn), "half an hour of progress");
    b.sent();
    b.client(conn, b"x");
    closes_after(&mut b, conn, EXPIRY_MS);
    b.nothing_left();
}
