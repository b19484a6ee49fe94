//! Clients that speak TLS, as the engine sees them: plain bytes, in records.

#![allow(clippy::unwrap_used, reason = "a test")]

mod kit;

use kit::Bench;
use zhttp::Kind;

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn requests_are_https() {
    let mut bench = Bench::new();
    let conn = bench.connect_as(true);
    bench.client(conn, GET.as_bytes());
    assert_eq!(bench.sent()[0].uri, "https://h/x");
    let conn = bench.connect();
    bench.client(conn, GET.as_bytes());
    assert_eq!(bench.sent()[0].uri, "http://h/x");
}

#[test]
fn a_short_read_is_not_the_last() {
    let mut bench = Bench::new();
    let conn = bench.connect_as(true);
    bench.net.socks.get_mut(&conn).unwrap().record = 5;
    let body = "x".repeat(1000);
    let text = format!("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{body}");
    let id = bench.request(conn, &text);
    bench.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::Credit).credits(2000);
    });
    let sent: Vec<u8> = bench.sent().into_iter().flat_map(|packet| packet.body).collect();
    assert_eq!(sent, body.as_bytes());
}

#[test]
fn an_end_in_the_same_event_is_noticed() {
    let mut bench = Bench::new();
    let conn = bench.connect_as(true);
    bench.net.socks.get_mut(&conn).unwrap().eof = true;
    let id = bench.request(conn, GET);
    assert!(!bench.is_open(conn));
    // Nobody has taken the request yet: who does is told.
    bench.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::Credit).credits(10);
    });
    assert_eq!(bench.sent()[0].kind, "cancel");
}

#[test]
fn only_a_regular_end_is_told_to_the_client() {
    let mut bench = Bench::new();
    let conn = bench.connect_as(true);
    let id = bench.request(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    bench.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(b"fine");
    });
    assert!(bench.got(conn).ends_with("fine"));
    assert_eq!(bench.net.ended, [conn]);

    let (held, id) = bench.held("px");
    bench.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Cancel);
    });
    assert!(!bench.is_open(held));
    let idle = bench.connect_as(true);
    bench.pass(61_000);
    assert!(!bench.is_open(idle));
    assert_eq!(bench.net.ended, [conn]);
}

#[test]
fn a_handshake_has_a_minute() {
    let mut bench = Bench::new();
    let conn = bench.connect_as(true);
    bench.pass(30_000);
    // Records come, but no plain text.
    bench.client(conn, b"");
    bench.pass(29_000);
    assert!(bench.is_open(conn));
    bench.pass(1_200);
    assert!(!bench.is_open(conn));
}

#[test]
fn plain_text_on_a_tls_port_gets_a_readable_answer() {
    let mut bench = Bench::new();
    let conn = bench.connect_as(true);
    bench.net.socks.get_mut(&conn).unwrap().is_plain = true;
    bench.client(conn, GET.as_bytes());
    let text = bench.got(conn);
    assert!(text.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{text}");
    assert!(
        text.ends_with("This port speaks TLS (https), the request came without it.\n"),
        "{text}"
    );
    assert_eq!(bench.worker.counters().plain_on_tls, 1);
    assert!(bench.sent().is_empty());
    bench.pass(2_100);
    assert!(!bench.is_open(conn));
}

#[test]
fn tls_on_a_plain_port_gets_a_readable_answer() {
    let mut bench = Bench::new();
    let conn = bench.connect();
    bench.client(conn, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let text = bench.got(conn);
    assert!(text.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{text}");
    assert!(text.contains("This port speaks plain HTTP"), "{text}");
    assert_eq!(bench.worker.counters().tls_on_plain, 1);
}
