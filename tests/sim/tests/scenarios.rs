//! Whole scenarios over the three engines: what a client sees, and what it costs on the wire.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use sim::{Link, World, backend};

/// A backend with a page, streams, long polls and slow answers.
fn world(workers: usize) -> World {
    World::new(workers, |target| match target.split('?').next().unwrap() {
        "/stream" => backend::hold(1, "stream", channel(target), &[]),
        "/kept" => backend::hold(
            1,
            "stream",
            channel(target),
            &[("Grip-Keep-Alive", "ping\\n; format=cstring; timeout=20; mode=interval")],
        ),
        "/poll" => backend::hold(1, "response", channel(target), &[("Grip-Timeout", "20")]),
        "/slow-stream" => backend::hold(200, "stream", channel(target), &[]),
        "/slow" => backend::plain(200, "late\n"),
        "/down" => vec![(1, sim::Act::Fail(origin::Error::Connect))],
        _ => backend::plain(1, "hello\n"),
    })
}

fn channel(target: &str) -> &'static str {
    if target.ends_with("b") { "b" } else { "a" }
}

/// Opens so many streams and lets them come to rest.
fn streams(world: &mut World, n: usize) -> Vec<u32> {
    let conns: Vec<u32> = (0..n).map(|_| world.get("/stream")).collect();
    world.run(100);
    for conn in &conns {
        let text = world.received(*conn);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n7\r\nopened\n\r\n"), "{text}");
        assert!(!text.to_lowercase().contains("grip"), "{text}");
    }
    conns
}

#[test]
fn a_plain_request_costs_two_messages() {
    let mut w = world(1);
    let conn = w.get("/");
    w.run(20);
    let text = w.received(conn);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nhello\n"), "{text}");
    assert!(!w.is_closed(conn));
    assert_eq!((w.count(Link::Push).messages, w.count(Link::FromProxy).messages), (1, 1));
    assert_eq!(w.messages(), 2);
    assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0);

    // The connection goes on.
    w.send(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
    w.run(20);
    assert!(w.received(conn).ends_with("hello\n"));
    assert_eq!(w.messages(), 4);
}

#[test]
fn an_open_costs_at_most_five_messages() {
    for workers in [1, 4] {
        for path in ["/stream", "/poll"] {
            let mut w = world(workers);
            let conn = w.get(path);
            w.run(30);
            assert_eq!(w.handler.as_ref().unwrap().sessions(), 1);
            assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0);
            assert_eq!(w.received(conn).is_empty(), path == "/poll");
            assert!(w.messages() <= 5, "{path}: {:?}", w.counts);
            assert_eq!(w.count(Link::ToProxy).messages, 0, "no hand-off packets");
        }
    }
}

#[test]
fn a_publish_costs_one_packet_for_128_streams() {
    for n in [1, 128, 129, 300] {
        let mut w = world(1);
        let conns = streams(&mut w, n);
        let before = w.count(Link::FromHandler);
        w.publish("a", "news");
        w.settle();
        let after = w.count(Link::FromHandler);
        assert_eq!(after.packets - before.packets, n.div_ceil(128));
        assert_eq!(after.ids - before.ids, n);
        for conn in conns {
            assert_eq!(w.received(conn), "4\r\nnews\r\n");
        }
    }
}

#[test]
fn a_burst_is_one_write_per_client() {
    let mut w = world(1);
    let conns = streams(&mut w, 200);
    let writes: usize = w.clients.pipes.values().map(|pipe| pipe.writes).sum();
    for n in 0..10 {
        w.publish("a", &format!("item {n};"));
    }
    w.settle();
    let expected: String = (0..10).map(|n| format!("item {n};")).collect();
    for conn in conns {
        let text = w.received(conn);
        let joined: String = text.split("\r\n").filter(|part| part.starts_with("item")).collect();
        assert_eq!(joined, expected);
    }
    let now: usize = w.clients.pipes.values().map(|pipe| pipe.writes).sum();
    assert_eq!(now - writes, 200);
}

#[test]
fn only_the_channel_gets_it() {
    let mut w = world(4);
    let (a, b) = (w.get("/stream?a"), w.get("/stream?b"));
    w.run(50);
    w.received(a);
    w.received(b);
    w.publish("b", "for b");
    w.settle();
    assert_eq!((w.received(a).as_str(), w.received(b).as_str()), ("", "5\r\nfor b\r\n"));
}

#[test]
fn a_long_poll_is_answered_by_a_publish_and_by_its_timeout() {
    let mut w = world(1);
    let (first, second) = (w.get("/poll?a"), w.get("/poll?b"));
    w.run(50);
    w.publish("a", "answer");
    w.settle();
    let text = w.received(first);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nanswer"), "{text}");
    assert_eq!(w.received(second), "");
    w.run(21_000);
    let text = w.received(second);
    assert!(text.ends_with("\r\n\r\nopened\n"), "{text}");
    assert_eq!(w.handler.as_ref().unwrap().sessions(), 0);
}

#[test]
fn keep_alives_come_and_are_shared() {
    let mut w = world(1);
    let conns: Vec<u32> = (0..100).map(|_| w.get("/kept")).collect();
    w.run(1_000);
    for conn in &conns {
        w.received(*conn);
    }
    let before = w.count(Link::FromHandler);
    w.run(20_000);
    for conn in &conns {
        let text = w.received(*conn);
        assert!(text.contains("5\r\nping\n\r\n"), "{text:?}");
    }
    // They are spread over a second, so each tick of the wheel has about ten of them.
    let packets = w.count(Link::FromHandler).bodies - before.bodies;
    assert!(packets < 20, "{packets} packets");
}

#[test]
fn a_session_lives_on_keep_alives_between_the_processes() {
    let mut w = world(2);
    let conns = streams(&mut w, 150);
    w.run(200_000);
    assert_eq!(w.handler.as_ref().unwrap().sessions(), 150);
    w.publish("a", "still here");
    w.settle();
    for conn in conns {
        assert_eq!(w.received(conn), "a\r\nstill here\r\n");
    }
}

#[test]
fn a_slow_backend_is_acknowledged_and_handed_over_in_full() {
    let mut w = world(1);
    let conn = w.get("/slow-stream");
    w.run(100);
    assert_eq!(w.count(Link::FromProxy).messages, 1, "the acknowledgement after 50 ms");
    w.run(200);
    assert_eq!(w.count(Link::ToProxy).messages, 1, "the answer to the hand-off");
    assert!(w.received(conn).ends_with("opened\n\r\n"));
    w.publish("a", "x");
    w.settle();
    assert_eq!(w.received(conn), "1\r\nx\r\n");
    assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0);

    let conn = w.get("/slow");
    w.run(300);
    assert!(w.received(conn).ends_with("late\n"));
}

#[test]
fn a_client_that_leaves_is_forgotten_everywhere() {
    let mut w = world(1);
    let conns = streams(&mut w, 300);
    let before = w.count(Link::ToHandler);
    for conn in conns {
        w.leave(conn);
    }
    w.settle();
    assert_eq!(w.handler.as_ref().unwrap().sessions(), 0);
    assert!(w.connmgr.as_ref().unwrap().is_empty());
    let cancels = w.count(Link::ToHandler).packets - before.packets;
    assert_eq!(cancels, 300_usize.div_ceil(128), "cancels leave together");
}

#[test]
fn a_client_that_leaves_early_is_forgotten_too() {
    for wait in [0, 1, 2, 3, 4, 5, 6] {
        let mut w = world(1);
        let conn = w.get("/stream");
        w.run(wait);
        w.leave(conn);
        w.run(70_000);
        assert_eq!(w.handler.as_ref().unwrap().sessions(), 0, "left after {wait} ms");
        assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0, "left after {wait} ms");
        assert!(w.connmgr.as_ref().unwrap().is_empty(), "left after {wait} ms");
    }
}

#[test]
fn a_slow_reader_bounds_itself_and_gets_everything_it_can() {
    let mut w = world(1);
    let conns = streams(&mut w, 2);
    w.clients.pipes.get_mut(&conns[0]).unwrap().room = 5;
    for n in 0..50 {
        w.publish("a", &format!("{n:0200}"));
        w.settle();
    }
    let fast = w.received(conns[1]);
    assert_eq!(fast.matches("c8\r\n").count(), 50);
    for _ in 0..200 {
        w.drain(conns[0], 1_000);
        w.settle();
    }
    let slow: String = unchunk(&w.received(conns[0]));
    // All of it: 50 items are fewer than the 100 that may wait. Nothing twice, nothing out of turn.
    let expected: String = (0..50).map(|n| format!("{n:0200}")).collect();
    assert_eq!(slow, expected);
}

/// The data of a chunked body.
fn unchunk(mut text: &str) -> String {
    let mut data = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        data.push_str(&rest[..size]);
        text = rest[size..].strip_prefix("\r\n").unwrap();
    }
    assert!(text.is_empty(), "{text:?} is left over");
    data
}

#[test]
fn a_lost_data_packet_ends_its_sessions_and_no_others() {
    let mut w = world(1);
    let conns = streams(&mut w, 130);
    w.lose(Link::FromHandler, 0);
    w.publish("a", "one");
    w.settle();
    w.publish("a", "two");
    w.settle();
    let closed = conns.iter().filter(|conn| w.is_closed(**conn)).count();
    let whole = conns.iter().filter(|conn| !w.is_closed(**conn)).copied().collect::<Vec<_>>();
    assert!(closed >= 1 && closed + whole.len() == 130, "{closed} closed");
    for conn in whole {
        assert_eq!(w.received(conn), "3\r\none\r\n3\r\ntwo\r\n");
    }
}

#[test]
fn a_lost_accept_reply_or_claim_leaves_nobody_waiting_for_ever() {
    for link in [Link::Push, Link::Accept, Link::AcceptReply, Link::FromHandler] {
        let mut w = world(1);
        w.lose(link, 0);
        let conn = w.get("/stream");
        w.run(130_000);
        let closed = w.is_closed(conn) || !w.received(conn).is_empty();
        assert!(closed, "{link:?} lost: neither an answer nor a close");
        w.run(70_000);
        assert_eq!(w.proxy.as_ref().unwrap().sessions(), 0, "{link:?}");
    }
}

#[test]
fn a_dead_handler_ends_what_it_held_and_nothing_else() {
    let mut w = world(1);
    let conns = streams(&mut w, 10);
    w.kill_handler();
    w.settle();
    assert!(conns.iter().all(|conn| w.is_closed(*conn)));
    let conn = w.get("/");
    w.run(20);
    assert!(w.received(conn).ends_with("hello\n"));
}

#[test]
fn no_held_stream_is_lost_with_the_proxy_and_others_get_an_answer() {
    let mut w = world(1);
    let conns = streams(&mut w, 10);
    let (waiting, acknowledged) = (w.get("/slow"), w.get("/slow"));
    w.run(100);
    w.kill_proxy();
    let fresh = w.get("/");
    w.run(2_000);
    for conn in [waiting, acknowledged, fresh] {
        let text = w.received(conn);
        assert!(w.is_closed(conn) || text.starts_with("HTTP/1.1 50"), "{text:?}");
    }
    w.publish("a", "alive");
    w.settle();
    for conn in conns {
        assert_eq!(w.received(conn), "5\r\nalive\r\n");
    }
}

#[test]
fn a_backend_that_is_down_is_a_502() {
    let mut w = world(1);
    let conn = w.get("/down");
    w.run(20);
    let text = w.received(conn);
    assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{text}");
    assert!(text.ends_with("Error while proxying to origin.\n"), "{text}");
}
