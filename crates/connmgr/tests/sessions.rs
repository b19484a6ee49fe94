//! Scenarios of sessions on virtual time: clients and peers that leave, hand-off, keep-alives,
//! timeouts, stop.

mod kit;

use kit::{Bench, Sent};
use zhttp::Kind;

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn kinds(sent: &[Sent]) -> Vec<(&str, &str)> {
    sent.iter().map(|s| (s.to.as_str(), s.kind.as_str())).collect()
}

#[test]
fn a_client_that_leaves_is_cancelled() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    b.leave(conn);
    let sent = b.sent();
    assert_eq!(kinds(&sent), [("hd", "cancel")]);
    assert_eq!(sent[0].ids, [(id.clone(), 1)]);
    assert!(b.worker.is_empty());
    b.peer("hd", &[(&id, 1)], |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(b.worker.counters().unknown, 1);
}

#[test]
fn a_crowd_that_has_left_leaves_no_timers() {
    let mut b = Bench::new();
    let conns: Vec<u32> = (0..300).map(|_| b.held("hd").0).collect();
    conns.iter().for_each(|conn| b.leave(*conn));
    b.pass(1);
    assert!(b.worker.is_empty());
    assert_eq!(b.worker.next_deadline(), None);
    // Timers go on for those that come next.
    let conn = b.connect();
    b.pass(600_000);
    assert!(!b.is_open(conn));
}

#[test]
fn a_client_that_leaves_early_is_cancelled_at_whoever_takes_the_request() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.leave(conn);
    assert!(!b.is_open(conn) && b.sent().is_empty());
    assert_eq!(b.worker.len(), 1);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    let sent = b.sent();
    assert_eq!((kinds(&sent), sent[0].ids[0].1), (vec![("px", "cancel")], 1));
    assert!(b.worker.is_empty());
    // If nobody ever does, the session expires.
    let conn = b.connect();
    b.request(conn, GET);
    b.leave(conn);
    b.pass(60_200);
    assert!(b.worker.is_empty() && b.sent().is_empty());
}

#[test]
fn half_a_close_while_waiting_gets_an_answer() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.leave(conn);
    assert!(b.got(conn).starts_with("HTTP/1.1 500 "));
    assert!(!b.is_open(conn));
    assert_eq!(kinds(&b.sent()), [("px", "cancel")]);
}

#[test]
fn many_cancels_share_packets_and_none_is_lost() {
    let mut b = Bench::new();
    let streams: Vec<(u32, String)> = (0..300).map(|_| b.held("hd")).collect();
    for (conn, _) in &streams {
        b.net.socks.get_mut(conn).unwrap().eof = true;
        b.worker.readable(b.now, &mut b.net, *conn, true);
    }
    b.end();
    let sent = b.sent();
    assert_eq!(sent.iter().map(|s| s.ids.len()).collect::<Vec<_>>(), [128, 128, 44]);
    assert!(sent.iter().all(|s| s.kind == "cancel"));
}

#[test]
fn handoff_forgets_the_peer_until_the_next_owner_speaks() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::HandoffStart);
    });
    let sent = b.sent();
    assert_eq!((kinds(&sent), sent[0].ids[0].1), (vec![("px", "handoff-proceed")], 1));
    b.pass(50_000);
    assert!(b.sent().is_empty(), "no keep-alives without a peer");
    b.peer("hd", &[(&id, 1)], |f| {
        f.status(200, "OK").body(&[b'x'; 2500]).flag("more", true);
    });
    let sent = b.sent();
    assert_eq!((kinds(&sent), sent[0].ids[0].1), (vec![("hd", "credit")], 2));
    assert!(b.got(conn).contains("200 OK"));
    b.leave(conn);
    assert_eq!(kinds(&b.sent()), [("hd", "cancel")]);
}

#[test]
fn handoff_proceeds_at_once_for_a_blocked_client() {
    let mut b = Bench::new();
    let (conn, id) = b.held("px");
    b.net.socks.get_mut(&conn).unwrap().room = 0;
    b.apply("px", &[(&id, 1)], |f| {
        f.body(&[b'x'; 3000]).flag("more", true);
    });
    b.peer("px", &[(&id, 2)], |f| {
        f.kind(Kind::HandoffStart);
    });
    assert_eq!(kinds(&b.sent()), [("px", "handoff-proceed")]);
    b.room(conn, usize::MAX);
    assert!(b.sent().is_empty());
    b.peer("hd", &[(&id, 3)], |f| {
        f.kind(Kind::KeepAlive);
    });
    let sent = b.sent();
    assert_eq!((kinds(&sent), sent[0].credits), (vec![("hd", "credit")], 3000));
}

#[test]
fn credits_and_a_handoff_in_one_turn() {
    let mut b = Bench::new();
    let (_, id) = b.held("px");
    b.apply("px", &[(&id, 1)], |f| {
        f.body(&[b'x'; 3000]).flag("more", true);
    });
    b.peer("px", &[(&id, 2)], |f| {
        f.kind(Kind::HandoffStart);
    });
    assert_eq!(kinds(&b.sent()), [("px", "handoff-proceed")]);
    b.peer("hd", &[(&id, 3)], |f| {
        f.kind(Kind::KeepAlive);
    });
    let sent = b.sent();
    assert_eq!(
        (kinds(&sent), sent[0].credits, sent[0].ids[0].1),
        (vec![("hd", "credit")], 3000, 2)
    );
}

#[test]
fn the_first_packet_may_claim_answer_and_come_from_another() {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.peer("hd", &[(&id, 1)], |f| {
        f.status(200, "OK").body(b"x").flag("more", true);
    });
    b.leave(conn);
    assert_eq!(kinds(&b.sent()), [("hd", "cancel")]);
}

#[test]
fn keep_alives_name_every_session_once_in_45_seconds() {
    let mut b = Bench::new();
    let streams: Vec<(u32, String)> = (0..1000).map(|_| b.held("hd")).collect();
    let waiting = b.connect();
    b.request(waiting, GET);
    let mut named = std::collections::HashMap::new();
    b.pass(45_000);
    let sent = b.sent();
    assert!(sent.iter().all(|s| s.kind == "keep-alive" && s.to == "hd"));
    for (id, seq) in sent.iter().flat_map(|s| &s.ids) {
        assert!(named.insert(id.clone(), *seq).is_none(), "{id} twice");
    }
    assert_eq!(named.len(), streams.len());
    assert!(named.values().all(|seq| *seq == 1));
    // One for each two seconds of the round.
    assert!(sent.len() <= 24, "{}", sent.len());
}

#[test]
fn credits_take_the_place_of_a_keep_alive() {
    let mut b = Bench::new();
    let (_, id) = b.held("hd");
    b.peer("hd", &[(&id, 1)], |f| {
        f.body(b"small").flag("more", true);
    });
    b.pass(45_000);
    let sent = b.sent();
    assert_eq!((kinds(&sent), sent[0].credits), (vec![("hd", "credit")], 5));
}

#[test]
fn silence_ends_connections() {
    let mut b = Bench::new();
    let idle = b.connect();
    let (held, id) = b.held("hd");
    let waiting = b.connect();
    b.request(waiting, GET);
    b.pass(59_000);
    assert!(b.is_open(idle) && b.is_open(waiting) && b.is_open(held));
    b.peer("hd", &[(&id, 1)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.pass(1_200);
    assert!(!b.is_open(idle) && !b.is_open(waiting) && b.is_open(held));
    b.pass(59_000);
    assert!(!b.is_open(held));
    assert!(b.sent().iter().all(|s| s.kind == "keep-alive"), "no cancel");
    assert_eq!(b.worker.counters().session_timeouts, 2);
}

#[test]
fn a_client_that_never_moves_is_cancelled_after_the_stream_timeout() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    for seq in 1..=59 {
        b.pass(30_000);
        assert!(b.is_open(conn), "{seq}");
        b.peer("hd", &[(&id, seq)], |f| {
            f.kind(Kind::KeepAlive);
        });
    }
    b.pass(29_900);
    b.sent();
    b.pass(200);
    assert!(!b.is_open(conn));
    assert_eq!(kinds(&b.sent()), [("hd", "cancel")]);
}

#[test]
fn sessions_of_a_peer_that_left_end() {
    let mut b = Bench::new();
    let (held, _) = b.held("hd");
    let (other, _) = b.held("px");
    let waiting = b.connect();
    let id = b.request(waiting, GET);
    b.peer("hd", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.worker.peer_gone(b.now, b"hd");
    b.worker.peer_gone(b.now, b"nobody");
    b.end();
    assert!(!b.is_open(held) && b.is_open(other));
    assert!(b.got(waiting).starts_with("HTTP/1.1 500 "));
    assert!(b.sent().is_empty());
    assert_eq!(b.worker.counters().peer_gone, 2);
}

#[test]
fn requests_that_nobody_can_take_any_more_get_502_after_a_second() {
    let mut b = Bench::new();
    b.held("px");
    let waiting = b.connect();
    b.request(waiting, GET);
    b.worker.push_disconnected(b.now);
    b.pass(900);
    assert!(b.is_open(waiting) && b.got(waiting).is_empty());
    b.pass(300);
    assert!(b.got(waiting).starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
    // The next one does not wait longer either, until somebody answers.
    b.sent();
    let next = b.connect();
    let id = b.request(next, GET);
    b.pass(500);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.pass(5_000);
    assert!(b.is_open(next) && b.got(next).is_empty());
}

#[test]
fn with_old_peers_the_wait_is_as_before() {
    let mut b = Bench::new();
    let waiting = b.connect();
    b.request(waiting, GET);
    b.worker.push_disconnected(b.now);
    b.pass(50_000);
    assert!(b.is_open(waiting));
    // Unless the process knows better.
    b.worker.note_batch();
    b.worker.push_disconnected(b.now);
    b.pass(1_200);
    assert!(!b.is_open(waiting) || b.got(waiting).starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_probe_names_one_session_of_each_peer() {
    let mut b = Bench::new();
    for from in ["hd", "px", "hd", "hd"] {
        b.held(from);
    }
    b.worker.probe(b.now);
    b.end();
    let mut sent = b.sent();
    sent.sort_by(|a, b| a.to.cmp(&b.to));
    assert_eq!(kinds(&sent), [("hd", "keep-alive"), ("px", "keep-alive")]);
}

#[test]
fn unexpected_types_end_the_session() {
    for kind in [Kind::Ping, Kind::Pong, Kind::Close, Kind::HandoffProceed] {
        let mut b = Bench::new();
        let (conn, id) = b.held("hd");
        b.peer("hd", &[(&id, 1)], |f| {
            f.kind(kind);
        });
        assert!(!b.is_open(conn), "{kind:?}");
        assert!(b.sent().is_empty(), "{kind:?}");
    }
}

#[test]
fn a_cancel_answers_500_or_closes() {
    let mut b = Bench::new();
    let (conn, id) = b.held("hd");
    b.peer("hd", &[(&id, 1)], |f| {
        f.kind(Kind::Cancel);
    });
    assert!(!b.is_open(conn));
    assert_eq!(b.got(conn), "", "no last chunk: the response is not complete");
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("hd", &[(&id, 0)], |f| {
        f.kind(Kind::Error).condition("bad-request");
    });
    assert!(b.got(conn).ends_with("Failed to process request.\n"));
}

#[test]
fn stopping_cancels_everything() {
    let mut b = Bench::new();
    for _ in 0..130 {
        b.held("hd");
    }
    let idle = b.connect();
    b.worker.shutdown(b.now, &mut b.net);
    assert!(b.worker.is_empty() && !b.is_open(idle));
    let sent = b.sent();
    assert_eq!(sent.iter().map(|s| s.ids.len()).collect::<Vec<_>>(), [128, 2]);
    assert!(sent.iter().all(|s| s.kind == "cancel"));
}

#[test]
fn too_much_waiting_for_slow_clients_closes_them() {
    let mut b = Bench::with(connmgr::Config { pinned_max: 5_000, ..connmgr::Config::default() });
    let streams: Vec<(u32, String)> = (0..3).map(|_| b.held("hd")).collect();
    for (conn, _) in &streams {
        b.net.socks.get_mut(conn).unwrap().room = 0;
    }
    let ids: Vec<(&str, u32)> = streams.iter().map(|(_, id)| (id.as_str(), 1)).collect();
    b.peer("hd", &ids, |f| {
        f.body(&[b'x'; 2000]).flag("more", true);
    });
    assert_eq!(streams.iter().filter(|(conn, _)| b.is_open(*conn)).count(), 2);
    assert_eq!(b.worker.counters().pinned_limit, 1);
    assert_eq!(kinds(&b.sent()), [("hd", "cancel")]);
    for (conn, _) in &streams {
        b.room(*conn, usize::MAX);
    }
    assert_eq!(b.worker.len(), 2);
}
