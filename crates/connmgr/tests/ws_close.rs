//! Scenarios of how a WebSocket ends: closes in either order, errors, silence, limits.

mod kit;

use connmgr::Config;
use kit::{Bench, masked};
use zhttp::{Fields, Kind};

/// The kinds of what was sent, without the keep-alives.
fn kinds(b: &mut Bench) -> Vec<String> {
    b.sent().into_iter().map(|sent| sent.kind).filter(|kind| kind != "keep-alive").collect()
}

/// A close frame of the server with this code and no reason.
fn close(code: u16) -> Vec<u8> {
    [&[0x88, 2][..], &code.to_be_bytes()].concat()
}

#[test]
fn the_client_closes_first() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.client(conn, &[masked(0x88, b"\x03\xe9bye"), masked(0x81, b"too late")].concat());
    let sent = b.sent();
    assert_eq!((sent.len(), sent[0].kind.as_str()), (1, "close"));
    assert_eq!((sent[0].code, &sent[0].body[..]), (Some(1001), &b"bye"[..]));
    // The peer may still send.
    b.peer("px", &[(&id, 1)], |f| {
        f.body(b"last");
    });
    assert!(b.is_open(conn));
    b.peer("px", &[(&id, 2)], |f| {
        f.kind(Kind::Close).code(1001).body(b"ok");
    });
    assert_eq!(b.got_bytes(conn), b"\x81\x04last\x88\x04\x03\xe9ok");
    assert!(!b.is_open(conn) && b.sent().is_empty() && b.worker.is_empty());
    assert_eq!(b.worker.counters().completed, 1);
}

#[test]
fn the_peer_closes_first() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close).code(4001).body(b"origin says");
    });
    assert_eq!(b.got_bytes(conn), b"\x88\x0d\x0f\xa1origin says");
    b.peer("px", &[(&id, 2)], |f| {
        f.body(b"ignored");
    });
    b.client(conn, &masked(0x81, b"still read"));
    b.client(conn, &masked(0x88, b""));
    let sent = b.sent();
    assert_eq!((&sent[0].body[..], sent[1].kind.as_str()), (&b"still read"[..], "close"));
    assert_eq!((sent[1].code, sent.len()), (None, 2));
    assert!(b.got_bytes(conn).is_empty() && b.worker.is_empty());
    assert_eq!((b.worker.counters().after_close, b.worker.counters().completed), (1, 1));
}

#[test]
fn codes_that_must_not_be_sent() {
    let long = "x".repeat(200);
    let cases: [(Option<u16>, &str, Vec<u8>); 5] = [
        (None, "", close(1000)),
        (Some(1005), "", vec![0x88, 0]),
        (Some(1006), "", close(1011)),
        (Some(2000), "", close(1011)),
        (Some(1000), &long, [&[0x88, 125, 3, 0xe8][..], &[b'x'; 123]].concat()),
    ];
    for (code, reason, wanted) in cases {
        let mut b = Bench::new();
        let (conn, id) = b.websocket("px", 100);
        b.peer("px", &[(&id, 1)], |f| {
            f.kind(Kind::Close);
            if let Some(code) = code {
                f.code(code).body(reason.as_bytes());
            }
        });
        assert_eq!(b.got_bytes(conn), wanted, "{code:?}");
    }
}

#[test]
fn a_close_that_is_not_answered() {
    // By the client.
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close);
    });
    b.pass(10_000);
    b.client(conn, &masked(0x81, b"more"));
    assert_eq!(kinds(&mut b), ["data"]);
    b.pass(6_000);
    assert_eq!(kinds(&mut b), ["cancel"]);
    assert_eq!(b.got_bytes(conn), close(1000));
    assert!(b.worker.is_empty());
    // By the peer, which is alive otherwise.
    let (conn, id) = b.websocket("px", 100);
    b.client(conn, &masked(0x88, b""));
    for seq in 1..8 {
        b.pass(10_000);
        b.peer("px", &[(&id, seq)], |f| {
            f.kind(Kind::KeepAlive);
        });
    }
    let sent = kinds(&mut b);
    assert_eq!((sent[0].as_str(), sent.last().map(String::as_str)), ("close", Some("cancel")));
    assert_eq!(b.got_bytes(conn), close(1000));
    assert_eq!(b.worker.counters().close_timeouts, 2);
}

#[test]
fn a_close_behind_a_client_that_does_not_read_is_not_timed_yet() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.room(conn, 2);
    b.apply("px", &[(&id, 1)], |f| {
        f.body(b"hello");
    });
    b.peer("px", &[(&id, 2)], |f| {
        f.kind(Kind::Close);
    });
    b.pass(30_000);
    assert!(b.is_open(conn));
    b.room(conn, 100);
    assert_eq!(b.got_bytes(conn), [&b"\x81\x05hello"[..], &close(1000)].concat());
    b.pass(16_000);
    assert!(!b.is_open(conn));
}

#[test]
fn what_breaks_a_rule_is_told_to_both_sides() {
    let large = masked(0x82, &[0; 2001]);
    let cases: [(&[u8], u16); 10] = [
        (b"\x81\x02hi", 1002),
        (&masked(0x83, b"x"), 1002),
        (&masked(0xc1, b"x"), 1002),
        (&masked(0x91, b"x"), 1002),
        (&masked(0x80, b"x"), 1002),
        (&masked(0x09, b"x"), 1002),
        (&masked(0x88, b"\x03"), 1002),
        (&masked(0x88, b"\x03\xed"), 1002),
        (&masked(0x81, b"\xff"), 1007),
        (&large, 1009),
    ];
    for (bytes, code) in cases {
        let mut b = Bench::with(Config { message_size_max: 2000, ..Config::default() });
        let (conn, _) = b.websocket("px", 10_000);
        b.client(conn, &[&masked(0x81, b"good"), bytes, &masked(0x81, b"not read")].concat());
        assert_eq!(kinds(&mut b), ["data", "cancel"], "{bytes:x?}");
        assert_eq!(b.got_bytes(conn), close(code), "{bytes:x?}");
        assert_eq!(b.worker.counters().ws_violations, 1);
        // Read on a while, so that the frame is not lost to a reset.
        assert!(b.net.socks[&conn].shut);
        b.pass(2_200);
        assert!(b.worker.is_empty());
    }
}

#[test]
fn clients_that_just_leave() {
    let mut b = Bench::new();
    let (conn, _) = b.websocket("px", 100);
    if let Some(sock) = b.net.socks.get_mut(&conn) {
        sock.input.extend(masked(0x81, b"last words"));
    }
    b.leave(conn);
    assert_eq!(kinds(&mut b), ["data", "cancel"]);
    assert!(b.worker.is_empty() && b.got_bytes(conn).is_empty());
}

#[test]
fn peers_that_give_up_close_without_a_frame() {
    let cases: [fn(&mut Fields<'_>); 2] =
        [|f| _ = f.kind(Kind::Cancel), |f| _ = f.kind(Kind::Error).condition("x")];
    for fill in cases {
        let mut b = Bench::new();
        let (conn, id) = b.websocket("px", 100);
        b.apply("px", &[(&id, 1)], |f| {
            f.body(b"before");
        });
        b.peer("px", &[(&id, 2)], fill);
        assert_eq!(b.got_bytes(conn), b"\x81\x06before");
        assert!(b.worker.is_empty() && b.sent().is_empty());
    }
}

#[test]
fn peers_that_break_a_rule() {
    type Fill = fn(&mut Fields<'_>);
    let cases: [(Fill, bool); 5] = [
        (|f| _ = f.body(&[0; 8193]), true),
        (|f| _ = f.kind(Kind::Ping).body(&[0; 126]), true),
        (|f| _ = f.kind(Kind::Pong).body(&[0; 8193]), true),
        (|f| _ = f.kind(Kind::HandoffProceed), false),
        (|f| _ = f.str("type", "what"), false),
    ];
    for (fill, cancelled) in cases {
        let mut b = Bench::new();
        let (conn, id) = b.websocket("px", 100);
        b.peer("px", &[(&id, 1)], fill);
        assert_eq!(b.got_bytes(conn), close(1011));
        assert_eq!(kinds(&mut b), if cancelled { vec!["cancel"] } else { vec![] });
    }
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.peer("px", &[(&id, 7)], |f| {
        f.body(b"x");
    });
    assert_eq!(b.got_bytes(conn), close(1011));
    assert!(b.sent().is_empty());
}

#[test]
fn a_peer_that_vanishes_or_falls_silent() {
    let mut b = Bench::new();
    let (conn, _) = b.websocket("px", 100);
    b.worker.peer_gone(b.now, b"px");
    b.end();
    assert_eq!(b.got_bytes(conn), close(1011));
    b.leave(conn);
    assert!(b.sent().is_empty() && b.worker.is_empty());
    let (conn, _) = b.websocket("px", 100);
    b.pass(60_200);
    assert_eq!(b.got_bytes(conn), close(1011));
    assert!(kinds(&mut b).is_empty());
}

#[test]
fn a_client_that_is_silent_for_too_long() {
    let mut b = Bench::with(Config { stream_timeout_ms: 50_000, ..Config::default() });
    let (conn, id) = b.websocket("px", 100);
    b.pass(30_000);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.pass(20_200);
    assert_eq!(b.got_bytes(conn), close(1001));
    assert_eq!(kinds(&mut b), ["cancel"]);
}

#[test]
fn messages_that_wait_are_counted() {
    let mut b = Bench::with(Config { messages_max: 3, ..Config::default() });
    let (conn, id) = b.websocket("px", 100);
    b.room(conn, 0);
    for seq in 1..5 {
        b.peer("px", &[(&id, seq)], |f| {
            f.body(b"x");
        });
        assert!(b.sent().is_empty() || seq == 4);
    }
    assert_eq!(b.worker.counters().messages_limit, 1);
    b.pass(3_000);
    assert!(!b.is_open(conn) && b.worker.pinned() == 0);
}

#[test]
fn the_end_of_the_process_says_good_bye() {
    let mut b = Bench::new();
    let (open, _) = b.websocket("px", 100);
    let (closing, id) = b.websocket("px", 100);
    let (full, _) = b.websocket("px", 100);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Close).code(1000);
    });
    b.got_bytes(closing);
    b.room(full, 0);
    b.sent();
    b.worker.shutdown(b.now, &mut b.net);
    assert_eq!(b.got_bytes(open), close(1001));
    assert!(b.got_bytes(closing).is_empty() && b.got_bytes(full).is_empty());
    let sent = b.sent();
    assert_eq!((sent.len(), sent[0].kind.as_str(), sent[0].ids.len()), (1, "cancel", 3));
    assert!(b.worker.is_empty());
}
