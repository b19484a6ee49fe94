//! Scenarios of the WebSocket handshake: what is asked of the peer, accepted, refused.

mod kit;

use connmgr::Config;
use kit::{Bench, HANDSHAKE, masked};
use zhttp::Kind;

const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn accepted_with_the_headers_of_the_peer() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, format!("{HANDSHAKE}X-One: 1\r\n\r\n").as_bytes());
    let first = b.sent().remove(0);
    assert_eq!((first.method.as_str(), first.uri.as_str()), ("GET", "ws://h/ws"));
    assert_eq!((first.credits, first.more, first.stream), (8192, false, false));
    b.peer("px", &[(&first.ids[0].0, 0)], |f| {
        let headers = [
            ("X-R", "r"),
            ("Connection", "x"),
            ("Upgrade", "x"),
            ("Sec-WebSocket-Accept", "x"),
            ("Sec-WebSocket-Extensions", "x"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Content-Length", "0"),
        ];
        f.status(101, "Go").headers(headers.into_iter()).credits(100);
    });
    let wanted = format!(
        "HTTP/1.1 101 Go\r\nX-R: r\r\nSec-WebSocket-Protocol: chat\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\n{ACCEPT}\r\n"
    );
    assert_eq!(b.got(conn), wanted);
    assert!(b.sent().is_empty() && b.is_open(conn));
}

#[test]
fn what_is_no_handshake_gets_400() {
    let bad = [
        HANDSHAKE.replace("GET", "POST"),
        HANDSHAKE.replace("Version: 13", "Version: 8"),
        HANDSHAKE.replace("Version: 13", "X: 13"),
        HANDSHAKE.replace("Sec-WebSocket-Key", "X"),
        format!("{HANDSHAKE}Content-Length: 1\r\n"),
        format!("{HANDSHAKE}Transfer-Encoding: chunked\r\n"),
        format!("{HANDSHAKE}Sec-WebSocket-Extensions: a b\r\n"),
        format!("{HANDSHAKE}Sec-WebSocket-Key: {}\r\n", "x".repeat(221)),
    ];
    for head in bad {
        let mut b = Bench::new();
        let conn = b.connect();
        b.client(conn, format!("{head}\r\n").as_bytes());
        let got = b.got(conn);
        assert!(got.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}: {got}");
        assert!(got.ends_with("the request was not a valid WebSocket request.\n"), "{head}");
        assert!(b.sent().is_empty());
    }
}

#[test]
fn what_is_needed_for_a_handshake_is_little() {
    // No Connection header, a length of zero, the last of two keys.
    let head = HANDSHAKE.replace("Connection: Upgrade\r\n", "Content-Length: 0\r\n");
    let head = head.replace("Sec-WebSocket-Key", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Key");
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, &format!("{head}\r\n"));
    b.peer("px", &[(&id, 0)], |f| {
        f.status(101, "S");
    });
    assert!(b.got(conn).contains(ACCEPT));
}

#[test]
fn a_refusal_is_passed_on() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.handshake(conn, "");
    b.client(conn, b"early");
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::Error).condition("rejected").status(403, "No");
        f.headers([("X-Why", "w"), ("Upgrade", "x"), ("Content-Length", "9")].into_iter());
        f.body(b"not you");
    });
    assert_eq!(
        b.got(conn),
        "HTTP/1.1 403 No\r\nX-Why: w\r\nConnection: close\r\nContent-Length: 7\r\n\r\nnot you"
    );
    assert!(b.sent().is_empty() && b.net.socks[&conn].shut, "lingers, for bytes were sent");
    b.leave(conn);
    assert!(b.worker.is_empty());
    assert_eq!(b.worker.counters().completed, 1);
}

#[test]
fn refusals_that_cannot_be_passed_on() {
    let large = vec![b'x'; 8193];
    for (code, body, text) in [
        (None, &b""[..], "Failed to process request.\n"),
        (Some(101), b"", "Failed to process request.\n"),
        (Some(403), &large, "Non-101 response body size exceeded limit of 8192 bytes.\n"),
    ] {
        let mut b = Bench::new();
        let conn = b.connect();
        let id = b.handshake(conn, "");
        b.peer("px", &[(&id, 0)], |f| {
            f.kind(Kind::Error).condition("rejected").body(body);
            if let Some(code) = code {
                f.status(code, "X");
            }
        });
        let got = b.got(conn);
        assert!(got.starts_with("HTTP/1.1 500 ") && got.ends_with(text), "{got}");
        assert!(b.sent().is_empty(), "the peer has ended the session");
    }
}

#[test]
fn peers_that_give_up_or_answer_something_else() {
    type Fill = fn(&mut zhttp::Fields<'_>);
    let cases: [(bool, Fill); 9] = [
        (false, |f| _ = f.kind(Kind::Cancel)),
        (false, |f| _ = f.kind(Kind::Error).condition("bad-request")),
        (true, |f| _ = f.status(200, "OK").body(b"x")),
        (true, |f| _ = f.body(b"x")),
        (false, |f| _ = f.kind(Kind::Close)),
        (false, |f| _ = f.kind(Kind::Ping)),
        (false, |f| _ = f.kind(Kind::HandoffProceed)),
        (false, |f| _ = f.str("type", "odd")),
        (true, |f| {
            let many = (0..62).map(|n| (format!("X-{n}"), "x"));
            f.status(101, "S").headers(many);
        }),
    ];
    for (cancelled, fill) in cases {
        let mut b = Bench::new();
        let conn = b.connect();
        let id = b.handshake(conn, "");
        b.peer("px", &[(&id, 0)], fill);
        assert!(b.got(conn).starts_with("HTTP/1.1 500 "));
        let kinds: Vec<String> = b.sent().into_iter().map(|sent| sent.kind).collect();
        assert_eq!(kinds, if cancelled { vec!["cancel"] } else { vec![] });
    }
}

#[test]
fn frames_right_behind_the_handshake_are_kept() {
    let mut b = Bench::new();
    let conn = b.connect();
    let mut bytes = format!("{HANDSHAKE}\r\n").into_bytes();
    bytes.extend(masked(0x81, b"one"));
    b.client(conn, &bytes);
    b.client(conn, &masked(0x82, &vec![b'2'; 9000]));
    let first = b.sent().remove(0);
    let id = first.ids[0].0.clone();
    b.peer("px", &[(&id, 0)], |f| {
        f.status(101, "S").credits(100_000);
    });
    let sent = b.sent();
    assert_eq!((sent[0].body.as_slice(), sent[0].content_type.as_str()), (&b"one"[..], "text"));
    let rest: Vec<u8> = sent[1..].iter().flat_map(|sent| sent.body.clone()).collect();
    assert_eq!(rest, vec![b'2'; 9000]);
    assert!(sent.last().is_some_and(|sent| !sent.more && sent.content_type == "binary"));
}

#[test]
fn a_client_that_leaves_before_the_answer() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.handshake(conn, "");
    b.leave(conn);
    assert!(!b.is_open(conn) && b.sent().is_empty(), "nobody to tell yet");
    b.peer("px", &[(&id, 0)], |f| {
        f.status(101, "S").credits(1);
    });
    assert_eq!(b.sent()[0].kind, "cancel");
    assert!(b.worker.is_empty());
}

#[test]
fn compression_is_agreed_upon_only_if_allowed() {
    let answer = |compression, compression_takeover, offer: &str| {
        let config = Config { compression, compression_takeover, ..Config::default() };
        let mut b = Bench::with(config);
        let conn = b.connect();
        let id = b.handshake(conn, &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        b.peer("px", &[(&id, 0)], |f| {
            f.status(101, "S");
        });
        let head = b.got(conn);
        let line = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        line.map(str::to_string)
    };
    let offer = "permessage-deflate; client_max_window_bits";
    let both = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
    assert_eq!(answer(false, false, offer), None);
    assert_eq!(answer(true, false, offer).as_deref(), Some(both));
    let one = "permessage-deflate; server_no_context_takeover";
    assert_eq!(answer(true, true, offer).as_deref(), Some(one));
    assert_eq!(answer(true, true, both).as_deref(), Some(both));
    assert_eq!(answer(true, false, "x-unknown"), None);
}
