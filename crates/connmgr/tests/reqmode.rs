//! Scenarios of req mode on virtual time: one packet for a request, one for its response.

mod kit;

use connmgr::{Config, Output};
use kit::{Bench, packet};
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\nX-One: 1\r\n\r\n";

fn bench(body_buffer_size: u32) -> Bench {
    let first_counter = 0x2a;
    Bench::with(Config { first_counter, body_buffer_size, ..Config::default() })
}

/// The requests that the worker sent since the last call.
fn requests(b: &mut Bench) -> Vec<Vec<u8>> {
    let outputs = std::iter::from_fn(|| b.worker.poll_output());
    let packet = |output| match output {
        Output::Req { packet, .. } => packet,
        other => panic!("{other:?}"),
    };
    outputs.map(packet).collect()
}

/// The only request since the last call: session id and body.
fn request(b: &mut Bench) -> (String, Vec<u8>) {
    let packets = requests(b);
    assert_eq!(packets.len(), 1);
    let packet = Packet::parse(&packets[0]).expect("a packet");
    let id = packet.ids.only().expect("one id");
    (String::from_utf8_lossy(id.id).into_owned(), packet.body.to_vec())
}

fn respond(b: &mut Bench, id: &str, fill: impl FnOnce(&mut Fields<'_>)) {
    let ids = [Id { id: id.as_bytes(), seq: None }];
    let mut packet = Vec::new();
    zhttp::write(&mut packet, &Head { from: b"", ids: &ids, ext: Ext::default() }, fill);
    b.worker.req_packet(b.now, &mut b.net, &packet);
    b.end();
}

#[test]
fn one_packet_each_way() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    b.client(conn, GET.as_bytes());
    let packets = requests(&mut b);
    // As the example of spec/zhttp.md §11 H: no sender, no sequence, no credits.
    let wanted = "T176:2:id,6:0-0-2a,3:ext,15:5:multi,4:true!}6:method,3:GET,3:uri,10:http://h/a,\
                  7:headers,31:11:4:Host,1:h,]12:5:X-One,1:1,]]12:peer-address,9:192.0.2.9,\
                  9:peer-port,5:40312#}";
    let text = String::from_utf8(packets.concat()).unwrap();
    assert_eq!(text.split_once(':').unwrap().1, wanted.split_once(':').unwrap().1);
    respond(&mut b, "0-0-2a", |f| {
        f.status(200, "Fine").headers([("X-R", "r")].into_iter()).body(b"hi");
    });
    assert_eq!(b.got(conn), "HTTP/1.1 200 Fine\r\nX-R: r\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((b.net.socks[&conn].writes, b.is_open(conn)), (1, true));
    // The same connection, the next id.
    b.client(conn, GET.as_bytes());
    assert_eq!(request(&mut b).0, "0-0-2b");
}

#[test]
fn bodies_are_collected_however_they_come() {
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let counted = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde";
    for text in [chunked, counted] {
        for cut in 0..=text.len() {
            let mut b = bench(5);
            let conn = b.connect_to(true);
            let (one, two) = text.as_bytes().split_at(cut);
            b.client(conn, one);
            b.client(conn, two);
            let (id, body) = request(&mut b);
            assert_eq!(body, b"abcde", "{cut}");
            // A pipelined request waits for the response to this one.
            b.client(conn, GET.as_bytes());
            assert!(requests(&mut b).is_empty());
            respond(&mut b, &id, |f| {
                f.status(204, "No");
            });
            assert_eq!(b.got(conn), "HTTP/1.1 204 No\r\n\r\n");
            assert_eq!(request(&mut b).0, "0-0-2b");
        }
    }
}

#[test]
fn bodies_above_the_limit_are_refused() {
    let counted = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabcdef";
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n3\r\ndef\r\n";
    for text in [counted, chunked] {
        let mut b = bench(5);
        let conn = b.connect_to(true);
        b.client(conn, text.as_bytes());
        assert!(requests(&mut b).is_empty());
        let got = b.got(conn);
        assert!(got.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{got}");
        assert!(got.ends_with("\r\n\r\nFailed to process request.\n"), "{got}");
        b.leave(conn);
        assert!(!b.is_open(conn));
    }
    let mut b = bench(5);
    let conn = b.connect_to(true);
    b.client(conn, GET.as_bytes());
    let (id, _) = request(&mut b);
    respond(&mut b, &id, |f| {
        f.status(200, "OK").body(b"sixsix");
    });
    assert!(b.got(conn).starts_with("HTTP/1.1 500 "));
}

#[test]
fn a_broken_body_is_answered() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    b.client(conn, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert!(requests(&mut b).is_empty());
    assert!(b.got(conn).ends_with("Failed to parse request: invalid chunk size\n"));
}

#[test]
fn continue_is_said_when_the_body_is_wanted() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    b.client(conn, head.as_bytes());
    assert_eq!(b.got(conn), "HTTP/1.1 100 Continue\r\n\r\n");
    b.client(conn, b"ab");
    assert_eq!(request(&mut b).1, b"ab");
}

#[test]
fn only_the_first_data_packet_of_the_session_counts() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    b.client(conn, GET.as_bytes());
    let (id, _) = request(&mut b);
    for kind in [Kind::Error, Kind::Cancel, Kind::KeepAlive, Kind::HandoffStart] {
        respond(&mut b, &id, |f| {
            f.kind(kind);
        });
    }
    respond(&mut b, "0-0-99", |f| {
        f.status(200, "OK");
    });
    respond(&mut b, "junk", |f| {
        f.status(200, "OK");
    });
    assert_eq!((b.got(conn).as_str(), b.is_open(conn)), ("", true));
    assert_eq!((b.worker.counters().req_ignored, b.worker.counters().unknown), (4, 2));
    // Part of a response is taken for all of it: there is no other packet to come.
    respond(&mut b, &id, |f| {
        f.status(200, "OK")
            .headers([("Content-Length", "9")].into_iter())
            .body(b"x")
            .flag("more", true);
    });
    assert_eq!(b.got(conn), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    respond(&mut b, &id, |f| {
        f.status(200, "OK");
    });
    assert_eq!((b.got(conn).as_str(), b.worker.counters().unknown), ("", 3));
}

#[test]
fn the_modes_do_not_mix() {
    let mut b = bench(100);
    let (req, stream) = (b.connect_to(true), b.connect());
    b.client(req, GET.as_bytes());
    let (id, _) = request(&mut b);
    let stream_id = b.request(stream, GET);
    // A stream packet for the req session, and the reverse.
    let wrong = packet("px", &[(&id, 0)], Ext::OURS, |f| {
        f.status(200, "OK");
    });
    b.worker.packet(b.now, &mut b.net, &wrong);
    respond(&mut b, &stream_id, |f| {
        f.status(200, "OK");
    });
    assert_eq!((b.got(req), b.got(stream)), (String::new(), String::new()));
    assert_eq!((b.worker.len(), b.worker.len_req(), b.worker.counters().unknown), (2, 1, 2));
}

#[test]
fn one_deadline_for_the_whole_exchange() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    b.pass(20_000);
    b.client(conn, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
    b.pass(9_000);
    b.client(conn, b"ab");
    assert!(b.is_open(conn));
    b.pass(1_200);
    assert_eq!((b.is_open(conn), b.got(conn).as_str()), (false, ""));
    assert_eq!(b.worker.counters().req_timeouts, 1);
    // A response starts the time of the next request.
    let conn = b.connect_to(true);
    b.client(conn, GET.as_bytes());
    let (id, _) = request(&mut b);
    b.pass(29_000);
    respond(&mut b, &id, |f| {
        f.status(200, "OK");
    });
    b.pass(29_000);
    assert!(b.is_open(conn));
    b.pass(1_200);
    assert!(!b.is_open(conn) && b.worker.is_empty());
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let mut b = bench(100);
    for text in [GET, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab"] {
        let conn = b.connect_to(true);
        b.client(conn, text.as_bytes());
        let id = requests(&mut b).first().map(|_| "0-0-2a");
        b.leave(conn);
        assert!(!b.is_open(conn) && b.worker.is_empty() && b.worker.len_req() == 0);
        if let Some(id) = id {
            respond(&mut b, id, |f| {
                f.status(200, "OK");
            });
            assert_eq!(b.worker.counters().unknown, 1);
        }
    }
    assert_eq!(b.worker.counters().clients_left, 2);
}

#[test]
fn no_websockets() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    b.client(
        conn,
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let got = b.got(conn);
    assert!(got.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\nWebSockets not supported on req mode interface.\n"), "{got}");
    assert!(requests(&mut b).is_empty());
}

#[test]
fn head_requests_get_no_body() {
    let mut b = bench(100);
    let conn = b.connect_to(true);
    b.client(conn, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    let (id, _) = request(&mut b);
    respond(&mut b, &id, |f| {
        f.status(200, "OK").headers([("Content-Length", "9")].into_iter());
    });
    assert_eq!(b.got(conn), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    assert!(b.is_open(conn));
}

#[test]
fn a_slow_reader_gets_all_of_it() {
    let mut b = bench(100_000);
    let conn = b.connect_to(true);
    b.client(conn, GET.as_bytes());
    let (id, _) = request(&mut b);
    b.net.socks.get_mut(&conn).unwrap().room = 10;
    respond(&mut b, &id, |f| {
        f.status(200, "OK").body(&[b'x'; 100_000]);
    });
    while b.worker.pinned() > 0 {
        b.room(conn, 7_000);
    }
    let got = b.got(conn);
    assert!(got.ends_with("xxx") && got.len() > 100_000);
    b.net.socks.get_mut(&conn).unwrap().room = usize::MAX;
    b.client(conn, GET.as_bytes());
    assert_eq!(request(&mut b).0, "0-0-2b");
}
