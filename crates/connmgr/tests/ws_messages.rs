//! Scenarios of WebSocket messages: both ways, credits, fragments, compression, sharing.

mod kit;

use connmgr::Config;
use kit::{Bench, Sent, masked};
use websocket::{Decoder, Deflate, Deflater, Event, Role};
use zhttp::Kind;

fn compressing() -> Config {
    Config { compression: true, ..Config::default() }
}

/// A WebSocket with compression.
fn compressed(b: &mut Bench, credits: u32) -> (u32, String) {
    let conn = b.connect();
    let id = b.handshake(conn, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    b.peer("px", &[(&id, 0)], |f| {
        f.status(101, "S").credits(credits);
    });
    assert!(b.got(conn).contains("permessage-deflate"));
    (conn, id)
}

/// The messages in a client's bytes.
fn read(bytes: &[u8], deflate: bool) -> Vec<Vec<u8>> {
    let deflate = deflate.then(Deflate::default);
    let mut decoder = Decoder::new(Role::Client, deflate, u64::MAX);
    let (mut used, mut messages, mut message) = (0, Vec::new(), Vec::new());
    loop {
        let step = decoder.decode(&bytes[used..], usize::MAX >> 40, &mut message).expect("frames");
        used += step.consumed;
        match step.event {
            Some(Event::Piece { last: true, .. }) => messages.push(std::mem::take(&mut message)),
            Some(Event::Piece { .. }) => {}
            Some(_) => panic!("not a message"),
            None if step.consumed == 0 => break,
            None => {}
        }
    }
    assert_eq!(used, bytes.len());
    messages
}

fn bodies(sent: &[Sent]) -> Vec<(&str, &[u8], bool)> {
    sent.iter().map(|sent| (sent.content_type.as_str(), &sent.body[..], sent.more)).collect()
}

#[test]
fn messages_to_the_client() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.apply("px", &[(&id, 1)], |f| {
        f.content_type("binary").body(b"abc").flag("more", true);
    });
    b.apply("px", &[(&id, 2)], |f| {
        f.body(b"def");
    });
    b.apply("px", &[(&id, 3)], |f| {
        f.content_type("text").body(b"hi");
    });
    b.apply("px", &[(&id, 4)], |f| {
        f.content_type("binary");
    });
    b.peer("px", &[(&id, 5)], |f| {
        f.body(b"plain");
    });
    assert_eq!(b.got_bytes(conn), b"\x02\x03abc\x80\x03def\x81\x02hi\x82\x00\x81\x05plain");
    assert_eq!(b.net.socks[&conn].writes, 2, "one for the handshake, one for all of these");
}

#[test]
fn an_empty_piece_says_nothing_but_the_end() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    for (seq, body, more) in [(1, &b""[..], true), (2, b"a", true), (3, b"", true), (4, b"", false)]
    {
        b.peer("px", &[(&id, seq)], |f| {
            f.content_type("binary").body(body).flag("more", more);
        });
    }
    assert_eq!(b.got_bytes(conn), b"\x02\x01a\x80\x00");
}

#[test]
fn messages_from_the_client() {
    let mut b = Bench::new();
    let (conn, _) = b.websocket("px", 1000);
    let frames: [&[u8]; 7] = [
        &masked(0x81, b"hi"),
        &masked(0x82, b""),
        &masked(0x01, b"one "),
        &masked(0x89, b"ping"),
        &masked(0x00, b""),
        &masked(0x80, b"two"),
        &masked(0x8a, b"pong"),
    ];
    b.client(conn, &frames.concat());
    let sent = b.sent();
    let kinds: Vec<&str> = sent.iter().map(|sent| sent.kind.as_str()).collect();
    assert_eq!(kinds, ["data", "data", "data", "ping", "data", "pong"]);
    assert_eq!(
        bodies(&sent),
        [
            ("text", &b"hi"[..], false),
            ("binary", b"", false),
            ("text", b"one ", true),
            ("", b"ping", false),
            ("text", b"two", false),
            ("", b"pong", false),
        ]
    );
    assert!(b.net.socks[&conn].output.is_empty(), "the peer answers pings");
}

#[test]
fn frames_may_be_cut_anywhere() {
    let frames = [
        masked(0x01, b"first "),
        masked(0x89, b"?"),
        masked(0x80, "sécond".as_bytes()),
        masked(0x82, &[7; 300]),
    ]
    .concat();
    for cut in 0..frames.len() {
        let mut b = Bench::new();
        let (conn, _) = b.websocket("px", 1000);
        b.client(conn, &frames[..cut]);
        b.client(conn, &frames[cut..]);
        let sent = b.sent();
        let of = |kind: &str| -> Vec<u8> {
            let mine = sent.iter().filter(|sent| sent.content_type == kind);
            mine.flat_map(|sent| sent.body.clone()).collect()
        };
        assert_eq!((of("text"), of("binary")), ("first sécond".into(), vec![7; 300]), "{cut}");
        assert_eq!(sent.iter().filter(|sent| sent.kind == "ping").count(), 1);
        assert_eq!(sent.iter().filter(|sent| sent.kind == "data" && !sent.more).count(), 2);
    }
}

#[test]
fn credits_bound_what_the_peer_gets() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 10);
    b.client(conn, &masked(0x81, &[b'x'; 25]));
    assert_eq!(bodies(&b.sent()), [("text", &[b'x'; 10][..], true)]);
    // A ping is not cut: it waits until it fits.
    b.client(conn, &masked(0x89, b"12345678"));
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Credit).credits(20);
    });
    assert_eq!(bodies(&b.sent()), [("text", &[b'x'; 15][..], false)]);
    b.peer("px", &[(&id, 2)], |f| {
        f.kind(Kind::Credit).credits(3);
    });
    let sent = b.sent();
    assert_eq!((sent.len(), sent[0].kind.as_str()), (1, "ping"));
    // Without credits not even an empty message goes.
    b.client(conn, &masked(0x81, b""));
    assert!(b.sent().is_empty());
    b.peer("px", &[(&id, 3)], |f| {
        f.kind(Kind::Credit).credits(1);
    });
    assert_eq!(b.sent().len(), 1);
}

#[test]
fn no_credits_in_the_acceptance_mean_our_buffer() {
    let mut b = Bench::new();
    let (conn, _) = b.websocket("px", 0);
    b.client(conn, &masked(0x82, &vec![1; 9000]));
    assert_eq!(b.sent().iter().map(|sent| sent.body.len()).sum::<usize>(), 8192);
}

#[test]
fn credits_come_back_as_bytes_leave() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.net.socks.get_mut(&conn).expect("open").room = 1000;
    b.peer("px", &[(&id, 1)], |f| {
        f.body(&[b'x'; 5000]);
    });
    assert!(b.sent().is_empty());
    b.room(conn, 10_000);
    let sent = b.sent();
    assert_eq!((sent[0].kind.as_str(), sent[0].credits), ("credit", 5000));
    // Or along with a message to the peer.
    b.peer("px", &[(&id, 2)], |f| {
        f.body(&[b'x'; 100]);
    });
    b.client(conn, &masked(0x81, b"hi"));
    let sent = b.sent();
    assert_eq!((sent.len(), sent[0].kind.as_str(), sent[0].credits), (1, "data", 100));
}

#[test]
fn a_flood_of_empty_messages_lets_others_have_their_turn() {
    let mut b = Bench::new();
    let (conn, _) = b.websocket("px", 10);
    b.client(conn, &masked(0x81, b"").repeat(1000));
    assert_eq!(b.sent().len(), 100);
    for _ in 0..8 {
        b.pass(0);
    }
    assert_eq!(b.sent().len(), 900);
}

#[test]
fn a_peer_that_is_behind_gets_nothing_more() {
    let mut b = Bench::new();
    let (conn, _) = b.websocket("px", 100);
    let (other, _) = b.websocket("hd", 100);
    b.worker.peer_full(b"px", true);
    b.client(conn, &masked(0x81, b"waits"));
    b.client(other, &masked(0x81, b"goes"));
    let sent = b.sent();
    assert_eq!((sent.len(), &sent[0].body[..]), (1, &b"goes"[..]));
    b.worker.peer_full(b"px", false);
    b.pass(0);
    let sent = b.sent();
    assert_eq!((sent.len(), &sent[0].body[..]), (1, &b"waits"[..]));
}

#[test]
fn one_frame_for_many_sockets() {
    let mut b = Bench::with(compressing());
    let plain: Vec<_> = (0..3).map(|_| b.websocket("px", 100)).collect();
    let small: Vec<_> = (0..3).map(|_| compressed(&mut b, 100)).collect();
    b.sent();
    let all = [plain.clone(), small.clone()].concat();
    let ids: Vec<(&str, u32)> = all.iter().map(|(_, id)| (id.as_str(), 1)).collect();
    let text = "a message for all of them, ".repeat(20);
    b.peer("px", &ids, |f| {
        f.content_type("text").body(text.as_bytes());
    });
    for (conn, _) in &plain {
        assert_eq!(read(&b.got_bytes(*conn), false), [text.as_bytes()]);
    }
    let one = b.got_bytes(small[0].0);
    assert!(one.len() < 60 && one[0] == 0xc1, "{}", one.len());
    assert_eq!(read(&one, true), [text.as_bytes()]);
    for (conn, _) in &small[1..] {
        assert_eq!(b.got_bytes(*conn), one);
    }
}

#[test]
fn compression_to_the_client() {
    let mut b = Bench::with(compressing());
    let (conn, id) = compressed(&mut b, 100);
    let text = "squeeze ".repeat(100);
    // Whole, in pieces with an empty end, too short to gain, and not compressible.
    b.apply("px", &[(&id, 1)], |f| {
        f.body(text.as_bytes());
    });
    for (seq, body, more) in
        [(2, text.as_bytes(), true), (3, text.as_bytes(), true), (4, b"", false)]
    {
        b.apply("px", &[(&id, seq)], |f| {
            f.body(body).flag("more", more);
        });
    }
    b.apply("px", &[(&id, 5)], |f| {
        f.body(b"short");
    });
    let noise: Vec<u8> = (0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    b.peer("px", &[(&id, 6)], |f| {
        f.content_type("binary").body(&noise);
    });
    let bytes = b.got_bytes(conn);
    assert!(bytes.len() < 400, "{}", bytes.len());
    let twice = text.repeat(2);
    let wanted = [text.as_bytes(), twice.as_bytes(), b"short", &noise];
    assert_eq!(read(&bytes, true), wanted);
}

#[test]
fn compression_from_the_client() {
    let mut b = Bench::with(compressing());
    let (conn, id) = compressed(&mut b, 1000);
    let text = "squeeze ".repeat(1000);
    let mut deflated = Vec::new();
    Deflater::default().piece(&mut deflated, text.as_bytes(), true);
    let (one, two) = deflated.split_at(10);
    b.client(conn, &masked(0x41, one));
    b.client(conn, &masked(0x80, two));
    // A small frame may be large: credits still bound what the peer gets.
    let mut got = b.sent();
    assert_eq!(got.iter().map(|sent| sent.body.len()).sum::<usize>(), 1000);
    for seq in 1..10 {
        b.peer("px", &[(&id, seq)], |f| {
            f.kind(Kind::Credit).credits(1000);
        });
        got.extend(b.sent());
    }
    let body: Vec<u8> = got.iter().flat_map(|sent| sent.body.clone()).collect();
    assert!(body == text.as_bytes() && got.last().is_some_and(|sent| !sent.more));
    b.client(conn, &masked(0x81, b"plain too"));
    assert_eq!(b.sent()[0].body, b"plain too");
}

#[test]
fn a_hand_off_changes_the_peer_between_messages() {
    let mut b = Bench::new();
    let (conn, id) = b.websocket("px", 100);
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::HandoffStart);
    });
    let sent = b.sent();
    assert_eq!((sent[0].kind.as_str(), sent[0].to.as_str()), ("handoff-proceed", "px"));
    b.client(conn, &masked(0x81, b"while nobody has it"));
    assert!(b.sent().is_empty());
    b.peer("hd", &[(&id, 2)], |f| {
        f.kind(Kind::KeepAlive);
    });
    let sent = b.sent();
    assert_eq!((sent[0].to.as_str(), &sent[0].body[..]), ("hd", &b"while nobody has it"[..]));
    assert_eq!(sent[0].ids[0].1, 2);
}

#[test]
fn keep_alives_name_websockets_too() {
    let mut b = Bench::new();
    let (_, id) = b.websocket("px", 100);
    b.pass(45_000);
    let sent = b.sent();
    assert_eq!((sent[0].kind.as_str(), &sent[0].ids), ("keep-alive", &vec![(id, 1)]));
}
