//! Every answer that the connection manager gives by itself, byte for byte, and the situations in
//! which it gives none (`spec/connmgr.md §4.5`).

mod kit;

use connmgr::Config;
use kit::{Bench, HANDSHAKE};
use zhttp::{Fields, Kind};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const FAILED: &str = "Failed to process request.\n";

/// An answer; `lines` are header lines behind the type, before the length.
fn answer(status: &str, close: bool, text: &str) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    let length = text.len();
    format!("{status}\r\nContent-Type: text/plain\r\n{close}Content-Length: {length}\r\n\r\n{text}")
}

/// What a client gets for these bytes while nobody takes requests; its connection ends.
fn refused(b: &mut Bench, conn: u32, bytes: &[u8]) -> String {
    b.client(conn, bytes);
    let got = b.got(conn);
    assert!(b.sent().is_empty(), "{}", bytes.escape_ascii());
    b.leave(conn);
    assert!(!b.is_open(conn));
    got
}

#[test]
fn heads_that_cannot_be_read() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    for (text, reason) in [
        ("GET / HTTP/1.1\r\nA b: c\r\n\r\n", "invalid header name"),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", "invalid header name"),
        ("GET / HTTP/1.1\r\n b: c\r\n\r\n", "invalid header name"),
        ("GET / HTTP/1.1\r\nA: \x01\r\n\r\n", "invalid header value"),
        ("GET / HTTP/1.1\rX: y\r\n\r\n", "invalid new line"),
        ("\x01 / HTTP/1.1\r\n\r\n", "invalid token"),
        ("GET / HTTP/2.0\r\n\r\n", "invalid HTTP version"),
        (&many, "too many headers"),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "invalid content length"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "invalid content length",
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "unsupported transfer encoding"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "content length together with transfer encoding",
        ),
    ] {
        let mut b = Bench::new();
        let conn = b.connect();
        let got = refused(&mut b, conn, text.as_bytes());
        let text = format!("Failed to parse request: {reason}\n");
        assert_eq!(got, answer("HTTP/1.0 400 Bad Request", false, &text));
        assert_eq!(b.worker.counters().bad_requests, 1);
    }
}

#[test]
fn heads_that_make_no_request() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(4_096));
    let no_websocket = "Request contained an Upgrade header with value \"websocket\" but the \
                        request was not a valid WebSocket request.\n";
    for (text, status, body) in [
        ("GET x HTTP/1.1\r\n\r\n", 400, "Failed to parse request: invalid request target\n"),
        (
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            400,
            "Failed to parse request: invalid host header\n",
        ),
        ("GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n", 400, no_websocket),
        (&long, 500, FAILED),
    ] {
        let mut b = Bench::new();
        let conn = b.connect();
        let got = refused(&mut b, conn, text.as_bytes());
        let reason = if status == 400 { "Bad Request" } else { "Internal Server Error" };
        assert_eq!(got, answer(&format!("HTTP/1.1 {status} {reason}"), true, body), "{text}");
        let conn = b.connect();
        let old = refused(&mut b, conn, text.replace("HTTP/1.1", "HTTP/1.0").as_bytes());
        assert_eq!(old, answer(&format!("HTTP/1.0 {status} {reason}"), false, body), "{text}");
    }
}

#[test]
fn heads_that_do_not_fit() {
    let mut b = Bench::with(Config { buffer_size: 500, ..Config::default() });
    let conn = b.connect();
    let got = refused(&mut b, conn, &[b"GET / HTTP/1.1\r\nA: ", &[b'x'; 500][..]].concat());
    let text = "Request header size exceeded limit of 500 bytes.\n";
    assert_eq!(got, answer("HTTP/1.0 400 Bad Request", false, text));
}

#[test]
fn clients_of_the_other_protocol() {
    let mut b = Bench::new();
    let conn = b.connect_as(true);
    b.net.socks.get_mut(&conn).unwrap().is_plain = true;
    let text = "This port speaks TLS (https), the request came without it.\n";
    let got = refused(&mut b, conn, GET.as_bytes());
    assert_eq!(got, answer("HTTP/1.0 400 Bad Request", false, text));
    let conn = b.connect();
    let text = "This port speaks plain HTTP, the request came with TLS (https).\n";
    let got = refused(&mut b, conn, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!(got, answer("HTTP/1.0 400 Bad Request", false, text));
}

#[test]
fn chunks_that_cannot_be_read() {
    for (chunk, reason) in [
        ("x\r\n", "invalid chunk size"),
        ("100000000\r\n", "chunk too large"),
        ("1\r\nab\r\n", "invalid chunk suffix"),
    ] {
        let mut b = Bench::new();
        let conn = b.connect();
        let id =
            b.request(conn, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        b.peer("px", &[(&id, 0)], |f| {
            f.kind(Kind::Credit).credits(100);
        });
        b.client(conn, chunk.as_bytes());
        let text = format!("Failed to parse request: {reason}\n");
        assert_eq!(b.got(conn), answer("HTTP/1.1 400 Bad Request", true, &text));
        assert_eq!(b.sent().last().map(|sent| sent.kind.clone()), Some("cancel".into()));
    }
}

/// What a client of such a request gets once its peer has sent that.
fn answered(request: &str, fill: impl FnOnce(&mut Fields<'_>)) -> String {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, request);
    b.peer("px", &[(&id, 0)], fill);
    b.got(conn)
}

#[test]
fn peers_that_fail() {
    let fills: [&dyn Fn(&mut Fields<'_>); 7] = [
        &|f| {
            f.kind(Kind::Cancel);
        },
        &|f| {
            f.kind(Kind::Error).condition("undefined-condition");
        },
        &|f| {
            f.kind(Kind::Ping);
        },
        &|f| {
            f.body(b"no code");
        },
        &|f| {
            f.status(200, "OK").body(&[b'x'; 8_193]);
        },
        &|f| {
            f.status(200, "OK").headers([("Content-Length", "-1")].into_iter());
        },
        &|f| {
            f.status(200, "two\r\nlines");
        },
    ];
    for fill in fills {
        let got = answered(GET, fill);
        assert_eq!(got, answer("HTTP/1.1 500 Internal Server Error", true, FAILED));
        let got = answered(&GET.replace("HTTP/1.1", "HTTP/1.0"), fill);
        assert_eq!(got, answer("HTTP/1.0 500 Internal Server Error", false, FAILED));
        let got = answered(&GET.replace("GET", "HEAD"), fill);
        let whole = answer("HTTP/1.1 500 Internal Server Error", true, FAILED);
        assert_eq!(got, whole.strip_suffix(FAILED).unwrap(), "to HEAD without the body");
    }
}

#[test]
fn refusals_of_websockets_that_cannot_be_passed_on() {
    let handshake = format!("{HANDSHAKE}\r\n");
    let got = answered(&handshake, |f| {
        f.kind(Kind::Error).condition("rejected").status(403, "No").body(&[b'x'; 8_193]);
    });
    let text = "Non-101 response body size exceeded limit of 8192 bytes.\n";
    assert_eq!(got, answer("HTTP/1.1 500 Internal Server Error", true, text));
    let got = answered(&handshake, |f| {
        f.status(101, "Yes").headers((0..62).map(|n| (format!("X-{n}"), "x")));
    });
    let text = "The number of response headers exceeded the limit of 64.\n";
    assert_eq!(got, answer("HTTP/1.1 500 Internal Server Error", true, text));
}

#[test]
fn nobody_is_there() {
    let mut b = Bench::new();
    // A peer of this release answers at once, so short patience is enough.
    let (held, _) = b.held("px");
    b.leave(held);
    b.sent();
    let conn = b.connect();
    b.request(conn, GET);
    b.worker.push_disconnected(b.now);
    b.pass(1_100);
    let text = "No proxy process took the request.\n";
    assert_eq!(b.got(conn), answer("HTTP/1.1 502 Bad Gateway", true, text));
    // The one that had taken it is gone.
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.worker.peer_gone(b.now, b"px");
    b.end();
    assert_eq!(b.got(conn), answer("HTTP/1.1 500 Internal Server Error", true, FAILED));
}

#[test]
fn half_a_close_while_the_answer_is_awaited() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.leave(conn);
    assert_eq!(b.got(conn), answer("HTTP/1.1 500 Internal Server Error", true, FAILED));
}

#[test]
fn req_mode() {
    let mut b = Bench::with(Config { body_buffer_size: 3, ..Config::default() });
    let conn = b.connect_to(true);
    b.client(conn, format!("{HANDSHAKE}\r\n").as_bytes());
    let text = "WebSockets not supported on req mode interface.\n";
    assert_eq!(b.got(conn), answer("HTTP/1.1 400 Bad Request", true, text));
    for body in ["Content-Length: 4\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"] {
        let conn = b.connect_to(true);
        b.client(conn, format!("POST / HTTP/1.1\r\nHost: h\r\n{body}").as_bytes());
        assert_eq!(b.got(conn), answer("HTTP/1.1 500 Internal Server Error", true, FAILED));
    }
}

#[test]
fn no_answer_to_silence_nor_behind_a_response() {
    // Nothing, or part of a head; 60 s later, or at an end.
    for part in ["", "GET / HTTP/1.1\r\nHo"] {
        for leaves in [false, true] {
            let mut b = Bench::new();
            let conn = b.connect();
            b.client(conn, part.as_bytes());
            if leaves {
                b.leave(conn);
            } else {
                b.pass(60_200);
            }
            assert!(!b.is_open(conn) && b.got(conn).is_empty());
        }
    }
    // Nobody says anything about the request for a minute.
    let mut b = Bench::new();
    let conn = b.connect();
    b.request(conn, GET);
    b.pass(60_200);
    assert!(!b.is_open(conn) && b.got(conn).is_empty());
    // The response has begun.
    let (conn, id) = b.held("px");
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Error).condition("undefined-condition");
    });
    assert!(!b.is_open(conn) && b.got(conn).is_empty());
}
