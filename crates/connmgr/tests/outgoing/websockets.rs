//! WebSockets both ways, and their ends (`spec/zhttp.md §9.3`).

use http1::Header;
use origin::{Error, Event, WebSocketEvent};
use websocket::Type;
use zhttp::Kind;

use crate::{BUFFER, Rig, config};

fn piece(rig: &mut Rig, key: evloop::arena::Key, kind: Type, data: &[u8], last: bool) {
    rig.event(key, Event::WebSocket(WebSocketEvent::Piece { kind, data, last }));
}

#[test]
fn the_handshake_names_where_and_how() {
    let mut rig = Rig::new();
    rig.first("a", |f| {
        f.uri("wss://h/a").str("connect-host", "front").int("connect-port", 8443);
        f.flag("trust-connect-host", true).flag("ignore-tls-errors", true);
        f.str("client-cert", "c").str("client-key", "k");
    });
    assert_eq!(rig.out(), ["keep-alive a/0", "open front:8443"]);
    assert_eq!(rig.window, 50);
    let tls = rig.endpoint.as_ref().and_then(|endpoint| endpoint.tls.clone()).expect("TLS");
    assert_eq!((tls.server_name.as_str(), tls.insecure), ("front", true));
    assert_eq!((&*tls.client_cert, &*tls.client_key), ("c", "k"));
}

#[test]
fn the_certificate_is_the_hosts_unless_the_other_is_trusted() {
    let mut rig = Rig::new();
    rig.first("a", |f| {
        f.uri("wss://h/a").str("connect-host", "front").int("connect-port", 8443);
    });
    rig.out();
    let tls = rig.endpoint.as_ref().and_then(|endpoint| endpoint.tls.clone()).expect("TLS");
    assert_eq!((tls.server_name.as_str(), tls.insecure), ("h", false));
}

#[test]
fn how_the_backend_compresses_is_not_told() {
    let mut rig = Rig::with(connmgr::ClientConfig { compression: true, ..config() });
    for (id, compressed, told) in [("a", true, ""), ("b", false, " Sec-WebSocket-Extensions=x")] {
        let key = rig.begun(id, |f| {
            f.uri("ws://h/a");
        });
        let headers = [
            Header { name: "Sec-WebSocket-Extensions", value: b"x" },
            Header { name: "Sec-WebSocket-Protocol", value: b"chat" },
        ];
        let open = WebSocketEvent::Open { reason: "Yes", headers: &headers, compressed };
        rig.event(key, Event::WebSocket(open));
        let wanted = format!("data {id}/1 101 Yes{told} Sec-WebSocket-Protocol=chat +100");
        assert_eq!(rig.out(), [wanted]);
    }
}

#[test]
fn messages_keep_their_bounds_both_ways() {
    let mut rig = Rig::new();
    let key = rig.socket("a");
    for (seq, kind, body, more) in
        [(1, "text", "he", true), (2, "text", "llo", false), (3, "binary", "", false)]
    {
        rig.packet("a", seq, |f| {
            f.content_type(kind).body(body.as_bytes()).flag("more", more);
        });
    }
    // Nothing is said by an empty part.
    rig.packet("a", 4, |f| {
        f.flag("more", true);
    });
    assert_eq!(rig.out(), ["message Text he more", "message Text llo", "message Binary"]);
    piece(&mut rig, key, Type::Text, b"he", false);
    piece(&mut rig, key, Type::Text, b"", false);
    piece(&mut rig, key, Type::Text, b"", true);
    piece(&mut rig, key, Type::Binary, &[b'x'; 150], true);
    assert_eq!(
        rig.out(),
        [
            "data a/2 text he more".to_owned(),
            "data a/3 text".to_owned(),
            format!("data a/4 binary {} more", "x".repeat(100)),
            format!("data a/5 binary {}", "x".repeat(50)),
        ]
    );
}

#[test]
fn a_type_is_text_unless_it_says_otherwise() {
    let mut rig = Rig::new();
    rig.socket("a");
    rig.packet("a", 1, |f| {
        f.body(b"x");
    });
    rig.packet("a", 2, |f| {
        f.content_type("odd").body(b"x");
    });
    assert_eq!(rig.out(), ["message Text x", "message Text x"]);
}

#[test]
fn control_frames_both_ways() {
    let mut rig = Rig::new();
    let key = rig.socket("a");
    rig.packet("a", 1, |f| {
        f.kind(Kind::Ping).body(b"p").credits(5);
    });
    rig.packet("a", 2, |f| {
        f.kind(Kind::Pong).body(b"q");
    });
    assert_eq!(rig.out(), ["grant 5", "ping p", "pong q"]);
    rig.event(key, Event::WebSocket(WebSocketEvent::Ping(b"r")));
    rig.event(key, Event::WebSocket(WebSocketEvent::Pong(b"s")));
    // None is answered here.
    assert_eq!(rig.out(), ["ping a/2 r", "pong a/3 s"]);
}

#[test]
fn a_control_frame_of_more_than_125_bytes_ends_the_session() {
    let mut rig = Rig::new();
    rig.socket("a");
    rig.packet("a", 1, |f| {
        f.kind(Kind::Ping).body(&[b'x'; 126]);
    });
    assert_eq!(rig.out(), ["cancel", "cancel a/2"]);
    assert_eq!((rig.counters().unexpected, rig.e.is_empty()), (1, true));
}

#[test]
fn credits_for_messages() {
    let mut rig = Rig::new();
    let key = rig.socket("a");
    rig.packet("a", 1, |f| {
        f.body(&[b'x'; 60]);
    });
    rig.packet("a", 2, |f| {
        f.kind(Kind::Ping).body(&[b'x'; 40]);
    });
    assert_eq!(rig.out().len(), 2);
    rig.event(key, Event::Queued(100));
    assert!(rig.out().is_empty());
    rig.event(key, Event::Queued(10));
    assert_eq!(rig.out(), ["credit a/2 +90"]);
    rig.packet("a", 3, |f| {
        f.body(&[b'x'; 91]);
    });
    assert_eq!(rig.out(), ["cancel", "cancel a/3"]);
    assert_eq!(rig.counters().overruns, 1);
}

#[test]
fn nothing_may_be_sent_before_it_is_open() {
    let mut rig = Rig::new();
    rig.begun("a", |f| {
        f.uri("ws://h/a");
    });
    rig.packet("a", 1, |f| {
        f.body(b"x");
    });
    assert_eq!(rig.out(), ["cancel", "error a/1 undefined-condition"]);
}

#[test]
fn each_side_closes_once() {
    let mut rig = Rig::new();
    let key = rig.socket("a");
    rig.packet("a", 1, |f| {
        f.kind(Kind::Close).code(1001).body(b"bye");
    });
    assert_eq!(rig.out(), ["close Some(1001) bye"]);
    let close = WebSocketEvent::Close { code: Some(1001), reason: "yes" };
    rig.event(key, Event::WebSocket(close));
    rig.event(key, Event::End);
    assert_eq!((rig.out(), rig.e.is_empty()), (vec!["close a/2 1001 yes".to_owned()], true));
    // From the backend, without a code; the answer without one is a normal close.
    let key = rig.socket("b");
    rig.event(key, Event::WebSocket(WebSocketEvent::Close { code: None, reason: "" }));
    assert_eq!(rig.out(), ["close b/2"]);
    rig.bare("b", 1, Kind::Close);
    rig.event(key, Event::End);
    assert_eq!((rig.out(), rig.e.is_empty()), (vec!["close Some(1000)".to_owned()], true));
}

#[test]
fn a_refusal_is_passed_on_whole() {
    let mut rig = Rig::new();
    let key = rig.begun("a", |f| {
        f.uri("ws://h/a");
    });
    let headers = [Header { name: "A", value: b"b" }];
    let refused =
        WebSocketEvent::Refused { code: 403, reason: "No", headers: &headers, body: b"why" };
    rig.event(key, Event::WebSocket(refused));
    assert_eq!(rig.out(), ["error a/1 403 No rejected A=b why"]);
    assert!(rig.e.is_empty());
}

#[test]
fn a_connection_that_ends_without_a_close_is_a_cancel() {
    for error in [Error::Closed, Error::Protocol, Error::Timeout] {
        let mut rig = Rig::new();
        let key = rig.socket("a");
        rig.event(key, Event::Failed(error));
        assert_eq!((rig.out(), rig.e.is_empty()), (vec!["cancel a/2".to_owned()], true));
    }
    let mut rig = Rig::new();
    rig.socket("a");
    rig.bare("a", 1, Kind::Cancel);
    assert_eq!(rig.out(), ["cancel"]);
}

#[test]
fn a_buffer_of_messages_is_all_that_may_wait() {
    let mut rig = Rig::new();
    rig.socket("a");
    rig.packet("a", 1, |f| {
        f.body(&[b'x'; BUFFER + 1]);
    });
    assert_eq!(rig.out(), ["cancel", "cancel a/2"]);
}
