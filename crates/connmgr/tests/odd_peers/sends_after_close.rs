//! Clients that go on sending behind the last answer.

use super::*;

#[test]
fn are_read_up_to_a_limit_and_then_held_up() {
    let (mut b, conn) = begun("nonsense\r\n\r\n");
    let before = b.taken(conn);
    b.client(conn, &vec![b'x'; 3 << 20]);
    let read = b.taken(conn) - before;
    assert!((1 << 20..(1 << 20) + BUFFER).contains(&read), "{read}");
    assert!(b.is_open(conn), "not reset before the answer was read");
    b.client(conn, b"more");
    assert_eq!(b.taken(conn) - before, read);
    closes_after(&mut b, conn, LINGER_MS);
    b.nothing_left();
}

#[test]
fn are_gone_once_they_close() {
    let (mut b, conn) = begun("nonsense\r\n\r\n");
    b.client(conn, &vec![b'x'; 3 << 20]);
    b.leave(conn);
    b.nothing_left();
}

#[test]
fn do_not_put_the_end_off() {
    let (mut b, conn) = begun("nonsense\r\n\r\n");
    for _ in 0..18 {
        b.client(conn, b"x");
        b.pass(100);
    }
    closes_after(&mut b, conn, LINGER_MS - 1_800);
    b.nothing_left();
}
