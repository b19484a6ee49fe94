//! A chunk line without end, and many long ones with a byte of data each.

use super::*;

fn refused(b: &mut Bench, conn: u32, read_max: usize) {
    assert!(b.got(conn).ends_with("Failed to parse request: chunk header too long\n"));
    assert_eq!(kinds(&b.sent()).last(), Some(&"cancel"));
    assert!(b.taken(conn) <= read_max, "{}", b.taken(conn));
    b.leave(conn);
    b.nothing_left();
}

#[test]
fn one_line_without_end() {
    let mut b = Bench::new();
    let (conn, _) = taken(&mut b, CHUNKED, 1000);
    b.client(conn, b"5;");
    while !b.net.socks[&conn].shut {
        b.client(conn, &[b'x'; 100]);
    }
    refused(&mut b, conn, 10_000);
}

#[test]
fn a_long_line_for_each_byte() {
    let mut b = Bench::new();
    let (conn, _) = taken(&mut b, CHUNKED, 1000);
    let chunk = format!("1;{}\r\nx\r\n", "y".repeat(1_000));
    while !b.net.socks[&conn].shut {
        b.client(conn, chunk.as_bytes());
    }
    refused(&mut b, conn, 25_000);
}
