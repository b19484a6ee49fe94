//! Scenarios of one worker on virtual time: requests, responses, bodies, keep-alive, errors.

mod kit;

use connmgr::Config;
use kit::{Bench, packet};
use zhttp::{Ext, Kind};

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: h:8\r\nX-One: 1\r\n\r\n";

#[test]
fn a_plain_request_takes_two_packets() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, GET.as_bytes());
    let sent = b.sent();
    assert_eq!(sent.len(), 1);
    let first = &sent[0];
    assert_eq!((first.to.as_str(), first.ids[0].clone()), ("", ("0-0-2a".into(), 0)));
    assert_eq!((first.method.as_str(), first.uri.as_str()), ("GET", "http://h:8/a?b"));
    assert_eq!((first.credits, first.more, first.peer.as_str()), (8192, false, "192.0.2.9"));
    b.peer("px", &[("0-0-2a", 0)], |f| {
        f.status(200, "Fine").headers([("X-R", "r"), ("Connection", "x")].into_iter()).body(b"hi");
    });
    assert_eq!(b.got(conn), "HTTP/1.1 200 Fine\r\nX-R: r\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(b.net.socks[&conn].writes, 1);
    assert!(b.sent().is_empty() && b.is_open(conn));
    // The same connection, the next id.
    assert_eq!(b.request(conn, GET), "0-0-2b");
}

#[test]
fn a_request_may_be_split_anywhere() {
    let text = "\r\nPOST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    for cut in 0..=text.len() {
        let mut b = Bench::new();
        let conn = b.connect();
        let (one, two) = text.as_bytes().split_at(cut);
        let mut body = Vec::new();
        let mut acked = false;
        for part in [one, two] {
            b.client(conn, part);
            for sent in b.sent() {
                body.extend(sent.body);
                if sent.to.is_empty() && !acked {
                    acked = true;
                    b.peer("px", &[("0-0-2a", 0)], |f| {
                        f.kind(Kind::Credit).credits(1000);
                    });
                }
            }
        }
        body.extend(b.sent().into_iter().flat_map(|sent| sent.body));
        assert_eq!(body, b"abcde", "{cut}");
        b.peer("px", &[("0-0-2a", 1)], |f| {
            f.status(204, "No");
        });
        assert_eq!(b.got(conn), "HTTP/1.1 204 No\r\n\r\n", "{cut}");
        let next: Vec<_> = b.sent().into_iter().map(|sent| sent.uri).collect();
        assert_eq!(next, ["http://h/next"], "{cut}");
    }
}

#[test]
fn request_bodies_follow_credits() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n");
    b.client(conn, &[b'x'; 20_000]);
    assert!(b.sent().is_empty(), "no credits yet");
    let mut total = 0;
    for (seq, credits) in [(0, 100), (1, 0), (2, 9000), (3, 11_000)] {
        b.peer("px", &[(&id, seq)], |f| {
            f.kind(Kind::Credit).credits(credits);
        });
        let sent = b.sent();
        let bytes: usize = sent.iter().map(|s| s.body.len()).sum();
        total += bytes;
        assert!(sent.iter().all(|s| s.body.len() <= 8192));
        assert_eq!(sent.last().is_some_and(|s| !s.more), total == 20_000, "{seq}");
        assert_eq!(bytes, if credits == 11_000 { 10_900 } else { credits as usize });
    }
}

#[test]
fn a_length_of_zero_is_no_body() {
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert!(!b.sent()[0].more);
    b.peer("px", &[("0-0-2a", 0)], |f| {
        f.status(200, "OK").body(b"x");
    });
    assert!(!b.got(conn).contains("close") && b.is_open(conn));
}

#[test]
fn continue_is_said_when_body_is_wanted() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, head);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(b.got(conn), "");
    b.peer("px", &[(&id, 1)], |f| {
        f.kind(Kind::Credit).credits(10);
    });
    assert_eq!(b.got(conn), "HTTP/1.1 100 Continue\r\n\r\n");
    b.client(conn, b"hi");
    assert_eq!(b.sent()[0].body, b"hi");
    // A response first: no 100, and the connection ends, for the body is not read.
    let conn = b.connect();
    let id = b.request(conn, head);
    b.peer("px", &[(&id, 0)], |f| {
        f.status(413, "No").body(b"x");
    });
    assert_eq!(b.got(conn), "HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
    assert!(b.net.socks[&conn].shut, "lingers");
    b.pass(2_100);
    assert!(!b.is_open(conn));
}

#[test]
fn pipelined_requests_are_served_in_turn() {
    let mut b = Bench::new();
    let conn = b.connect();
    let two = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(b.request(conn, two), "0-0-2a");
    b.peer("px", &[("0-0-2a", 0)], |f| {
        f.status(200, "OK").body(b"1");
    });
    assert_eq!(b.sent()[0].uri, "http://h/2");
    b.peer("px", &[("0-0-2b", 0)], |f| {
        f.status(200, "OK").body(b"2");
    });
    let got = b.got(conn);
    assert!(got.find("\r\n\r\n1") < got.find("\r\n\r\n2") && got.ends_with('2'), "{got}");
}

#[test]
fn responses_are_framed_for_each_client() {
    let of = |request: &str, more: bool, body: &[u8], headers: &[(&str, &str)]| {
        let mut b = Bench::new();
        let conn = b.connect();
        let id = b.request(conn, request);
        b.peer("px", &[(&id, 0)], |f| {
            f.status(200, "OK").headers(headers.iter().copied()).body(body).flag("more", more);
        });
        if more {
            b.peer("px", &[(&id, 1)], |f| {
                f.body(b"end");
            });
        }
        (b.got(conn), b.is_open(conn))
    };
    let v11 = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let v10 = "GET / HTTP/1.0\r\n\r\n";
    let keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\n\
                   Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n3\r\nend\r\n0\r\n\r\n";
    assert_eq!(of(v11, true, b"a", &[]), (chunked.into(), true));
    assert_eq!(of(v10, true, b"a", &[]), ("HTTP/1.0 200 OK\r\n\r\naend".into(), false));
    assert_eq!(of(keep, true, b"a", &[]), ("HTTP/1.0 200 OK\r\n\r\naend".into(), false));
    let kept = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na";
    assert_eq!(of(keep, false, b"a", &[]), (kept.into(), true));
    let no_body = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(of(head, true, b"a", &[("content-length", "4")]), (no_body.into(), true));
    // As for GET, which would be chunked; where more than the head never comes, nobody knows.
    let no_chunks = "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\n\
                     Transfer-Encoding: chunked\r\n\r\n";
    assert_eq!(of(head, true, b"a", &[]), (no_chunks.into(), true));
    assert_eq!(of(head, false, b"", &[]), ("HTTP/1.1 200 OK\r\n\r\n".into(), true));
    let old_head = "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let kept = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(of(old_head, true, b"a", &[]), (kept.into(), true));
    let exact = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\naend";
    assert_eq!(of(v11, true, b"a", &[("Content-Length", "4")]), (exact.into(), true));
    // Too short and too long: only the end of the connection is honest.
    let (text, open) = of(v11, true, b"a", &[("Content-Length", "9")]);
    assert!(text.ends_with("aend") && !open);
    let (text, open) = of(v11, true, b"a", &[("Content-Length", "2")]);
    assert!(text.ends_with("\r\n\r\nae") && !open);
    let (text, _) = of(v11, false, b"a", &[("Content-Length", "x")]);
    assert!(text.starts_with("HTTP/1.1 500 "));
}

#[test]
fn statuses_without_body_have_no_framing() {
    for code in [204, 304] {
        let mut b = Bench::new();
        let conn = b.connect();
        let id = b.request(conn, GET);
        b.peer("px", &[(&id, 0)], |f| {
            f.status(code, "R").body(b"ignored");
        });
        assert_eq!(b.got(conn), format!("HTTP/1.1 {code} R\r\n\r\n"));
        assert!(b.is_open(conn));
    }
}

#[test]
fn malformed_requests_get_400_and_are_read_to_the_end() {
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000));
    let cases = [
        (
            "GET / HTTP/1.9\r\n\r\n",
            "HTTP/1.0 400",
            "Failed to parse request: invalid HTTP version\n",
        ),
        (
            "G T / HTTP/1.1\r\n\r\n",
            "HTTP/1.0 400",
            "Failed to parse request: invalid HTTP version\n",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 400",
            "Failed to parse request: content length together with transfer encoding\n",
        ),
        (
            "GET x HTTP/1.1\r\n\r\n",
            "HTTP/1.1 400",
            "Failed to parse request: invalid request target\n",
        ),
        (long.as_str(), "HTTP/1.0 400", "Request header size exceeded limit of 8192 bytes.\n"),
        (
            "GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n",
            "HTTP/1.1 400",
            "the request was not a valid WebSocket request.\n",
        ),
    ];
    for (text, status, body) in cases {
        let mut b = Bench::new();
        let conn = b.connect();
        b.client(conn, text.as_bytes());
        let got = b.got(conn);
        assert!(got.starts_with(status) && got.ends_with(body), "{text:?}: {got}");
        assert!(b.sent().is_empty());
        b.client(conn, b"still sending");
        assert!(b.is_open(conn) && b.net.socks[&conn].shut);
        b.leave(conn);
        assert!(!b.is_open(conn) && b.worker.is_empty());
    }
}

#[test]
fn a_broken_chunk_gets_400_and_a_cancel() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::Credit).credits(1000);
    });
    b.client(conn, b"1\r\nab\r\n");
    assert!(b.got(conn).ends_with("Failed to parse request: invalid chunk suffix\n"));
    assert_eq!(b.sent().last().map(|s| s.kind.clone()).as_deref(), Some("cancel"));
}

#[test]
fn wrong_sequences_end_only_their_session() {
    let mut b = Bench::new();
    let (one, first) = b.held("hd");
    let (two, second) = b.held("hd");
    let (three, third) = b.held("hd");
    // Lost for one, doubled for two, unknown ids skipped.
    b.peer("hd", &[(&first, 2), (&second, 0), (&third, 1), ("0-99-1", 7), ("x", 0)], |f| {
        f.body(b"msg").flag("more", true);
    });
    assert!(!b.is_open(one) && !b.is_open(two));
    assert_eq!(b.got(three), "3\r\nmsg\r\n");
    assert_eq!((b.worker.counters().bad_seq, b.worker.counters().unknown), (2, 2));
    assert!(b.sent().is_empty(), "no cancel after a bad seq");
    // Before the response: an answer.
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("hd", &[(&id, 5)], |f| {
        f.kind(Kind::KeepAlive);
    });
    assert!(b.got(conn).ends_with("Failed to process request.\n"));
}

#[test]
fn malformed_packets_are_counted_and_touch_nothing() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    let wrong = [
        &b""[..],
        b"J{}",
        b"T5:abc",
        b"T0:}",
        b"T3:1:a,}",
        b"T12:4:from,2:hd,}",
        b"T20:4:from,2:hd,2:id,0:]}",
    ];
    for (bytes, count) in wrong.into_iter().zip(1..) {
        b.worker.packet(b.now, &mut b.net, bytes);
        assert_eq!(b.worker.counters().malformed, count, "{}", bytes.escape_ascii());
    }
    b.end();
    let many: Vec<String> = (0..129).map(|n| format!("0-{n}-1")).collect();
    let ids: Vec<(&str, u32)> = many.iter().map(|id| (id.as_str(), 0)).collect();
    let mut text = Vec::new();
    tnetstring_packet(&mut text, &ids);
    b.worker.packet(b.now, &mut b.net, &text);
    b.peer("hd", &[(&id, 1)], |f| {
        f.body(b"ok").flag("more", true);
    });
    assert_eq!(b.got(conn), "2\r\nok\r\n");
}

#[test]
fn sessions_that_nobody_has_are_counted() {
    let unknown = |workers, ids: &[&str]| {
        let mut b = Bench::with(Config { worker: 1, workers, ..Config::default() });
        let ids: Vec<(&str, u32)> = ids.iter().map(|id| (*id, 0)).collect();
        b.peer("hd", &ids, |f| {
            f.kind(Kind::KeepAlive);
        });
        b.worker.counters().unknown
    };
    assert_eq!(unknown(1, &["1-0-7", "0-0-7", "2-0-7", "junk", "1-junk", ""]), 6);
    // With several workers the others are counted where packets are handed out.
    assert_eq!(unknown(2, &["1-0-7", "0-0-7", "2-0-7", "junk", "1-junk", ""]), 2);
}

/// A packet with more ids than the writer allows.
fn tnetstring_packet(out: &mut Vec<u8>, ids: &[(&str, u32)]) {
    let mut w = tnetstring::Writer::new();
    w.map(|w| {
        w.str("from");
        w.str("hd");
        w.str("id");
        w.list(|w| {
            for (id, seq) in ids {
                w.map(|w| {
                    w.str("id");
                    w.str(id);
                    w.str("seq");
                    w.int((*seq).into());
                });
            }
        });
    });
    out.push(b'T');
    out.extend(w.into_vec());
}

#[test]
fn one_write_per_connection_and_turn() {
    let mut b = Bench::new();
    let streams: Vec<(u32, String)> = (0..200).map(|_| b.held("hd")).collect();
    let before: Vec<usize> = streams.iter().map(|(c, _)| b.net.socks[c].writes).collect();
    for seq in 1..=10 {
        for part in streams.chunks(100) {
            let ids: Vec<(&str, u32)> = part.iter().map(|(_, id)| (id.as_str(), seq)).collect();
            b.apply("hd", &ids, |f| {
                f.body(format!("m{seq}").as_bytes()).flag("more", true);
            });
        }
    }
    b.end();
    for ((conn, _), before) in streams.iter().zip(before) {
        assert_eq!(b.net.socks[conn].writes, before + 1);
        let got = b.got(*conn);
        assert!(got.starts_with("2\r\nm1\r\n2\r\nm2\r\n") && got.ends_with("3\r\nm10\r\n"));
    }
    assert!(b.sent().is_empty(), "credits are not worth a packet yet");
}

#[test]
fn slow_readers_are_queued_and_credited() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    let (other, other_id) = b.held("hd");
    b.net.socks.get_mut(&conn).unwrap().room = 10;
    let body = vec![b'x'; 4000];
    b.peer("hd", &[(&id, 1), (&other_id, 1)], |f| {
        f.body(&body).flag("more", true);
    });
    let sent = b.sent();
    assert_eq!(sent.len(), 1, "only the fast one's credits: {sent:?}");
    assert_eq!((sent[0].credits, sent[0].ids[0].0.clone()), (4000, other_id.clone()));
    assert_eq!(b.got(other).len(), 4007);
    b.peer("hd", &[(&id, 2)], |f| {
        f.body(b"tail").flag("more", true);
    });
    b.room(conn, 1000);
    b.room(conn, usize::MAX);
    let got = b.got(conn);
    assert_eq!(got, format!("fa0\r\n{}\r\n4\r\ntail\r\n", "x".repeat(4000)));
    let sent = b.sent();
    assert_eq!((sent.len(), sent[0].credits), (1, 4004));
    // More than the credits: the session ends and the peer is told.
    b.peer("hd", &[(&id, 3)], |f| {
        f.body(&vec![b'y'; 8193]).flag("more", true);
    });
    assert!(!b.is_open(conn));
    assert_eq!(b.sent()[0].kind, "cancel");
    assert_eq!(b.worker.counters().overruns, 1);
}

#[test]
fn a_response_may_end_while_the_client_is_slow() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.net.socks.get_mut(&conn).unwrap().room = 20;
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(&vec![b'z'; 5000]);
    });
    b.room(conn, usize::MAX);
    let got = b.got(conn);
    assert!(got.ends_with("zz") && got.contains("Content-Length: 5000") && b.is_open(conn));
    assert_eq!(b.request(conn, GET), "0-0-2b");
}

#[test]
fn equal_credits_share_a_packet() {
    let mut b = Bench::new();
    let streams: Vec<(u32, String)> = (0..150).map(|_| b.held("hd")).collect();
    for part in streams.chunks(128) {
        let ids: Vec<(&str, u32)> = part.iter().map(|(_, id)| (id.as_str(), 1)).collect();
        b.apply("hd", &ids, |f| {
            f.body(&[b'x'; 3000]).flag("more", true);
        });
    }
    b.end();
    let sent = b.sent();
    assert_eq!(sent.iter().map(|s| s.ids.len()).collect::<Vec<_>>(), [128, 22]);
    assert!(sent.iter().all(|s| s.kind == "credit" && s.credits == 3000));
}

#[test]
fn peers_without_multi_get_single_packets() {
    let mut b = Bench::new();
    let ids: Vec<String> = (0..2)
        .map(|_| {
            let conn = b.connect();
            b.request(conn, GET)
        })
        .collect();
    for id in &ids {
        let head = packet("old", &[(id, 0)], Ext::default(), |f| {
            f.status(200, "OK").body(&[b'x'; 3000]).flag("more", true);
        });
        b.worker.packet(b.now, &mut b.net, &head);
    }
    b.end();
    let sent = b.sent();
    assert!(sent.len() == 2 && sent.iter().all(|s| s.ids.len() == 1), "{sent:?}");
}
