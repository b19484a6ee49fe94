//! Credits both ways, and bodies of requests (`spec/zhttp.md §6`).

use origin::Event;
use zhttp::Kind;

use crate::{BUFFER, Rig};
use evloop::arena::Key;

fn post(rig: &mut Rig) -> Key {
    let key = rig.begun("a", |f| {
        f.method("POST").uri("http://h/a").flag("more", true);
    });
    rig.event(key, Event::Queued(0));
    assert_eq!(rig.out(), ["credit a/1 +100"]);
    key
}

#[test]
fn a_whole_body_goes_with_its_length() {
    let mut rig = Rig::new();
    // The first packet needs no credits, however long it is.
    let body = "x".repeat(3 * BUFFER);
    rig.begun("a", |f| {
        f.method("POST").uri("http://h/a").body(body.as_bytes());
    });
    assert!(rig.request.ends_with(&format!("Content-Length: 300\r\n\r\n{body}")));
    rig.begun("b", |f| {
        f.method("POST").uri("http://h/a");
    });
    assert!(rig.request.ends_with("Content-Length: 0\r\n\r\n"), "{}", rig.request);
}

#[test]
fn a_streamed_body_goes_in_chunks_or_by_its_length() {
    let mut rig = Rig::new();
    rig.begun("a", |f| {
        f.method("POST").uri("http://h/a").body(b"one").flag("more", true);
    });
    assert!(rig.request.ends_with("Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n"));
    rig.begun("b", |f| {
        let headers = [("content-length", "7"), ("Transfer-Encoding", "x"), ("Connection", "y")];
        f.method("POST").uri("http://h/a").headers(headers.into_iter());
        f.body(b"one").flag("more", true);
    });
    assert!(rig.request.ends_with("Host: h\r\nContent-Length: 7\r\n\r\none"), "{}", rig.request);
    rig.first("c", |f| {
        let headers = [("content-length", "7x")];
        f.method("POST").uri("http://h/a").headers(headers.into_iter()).flag("more", true);
    });
    assert_eq!(rig.out(), ["keep-alive c/0", "error c/1 bad-request"]);
}

#[test]
fn credits_for_the_body_come_as_it_leaves() {
    let mut rig = Rig::new();
    let key = post(&mut rig);
    rig.packet("a", 1, |f| {
        f.body(&[b'x'; BUFFER]).flag("more", true);
    });
    assert_eq!(rig.out().len(), 1);
    // Not worth a packet yet.
    rig.event(key, Event::Queued(90));
    assert!(rig.out().is_empty());
    rig.event(key, Event::Queued(40));
    assert_eq!(rig.out(), ["credit a/2 +60"]);
    rig.packet("a", 2, |f| {
        f.body(&[b'x'; 60]);
    });
    rig.event(key, Event::Queued(0));
    // The body is complete: no more is wanted.
    assert_eq!(rig.out(), [format!("body {}", "x".repeat(60))]);
}

#[test]
fn more_body_than_granted_ends_the_session() {
    let mut rig = Rig::new();
    post(&mut rig);
    rig.packet("a", 1, |f| {
        f.body(&[b'x'; BUFFER]).flag("more", true);
    });
    assert_eq!(rig.out().len(), 1);
    rig.packet("a", 2, |f| {
        f.body(b"x").flag("more", true);
    });
    assert_eq!(rig.out(), ["cancel", "error a/2 undefined-condition"]);
    assert_eq!((rig.counters().overruns, rig.e.is_empty()), (1, true));
}

#[test]
fn an_empty_end_of_the_body_needs_no_credits() {
    let mut rig = Rig::new();
    rig.begun("a", |f| {
        f.method("POST").uri("http://h/a").body(b"one").flag("more", true);
    });
    rig.packet("a", 1, |_| {});
    assert_eq!(rig.out(), ["body"]);
}

#[test]
fn an_early_response_leaves_the_rest_of_the_body_to_nobody() {
    let mut rig = Rig::new();
    let key = post(&mut rig);
    rig.packet("a", 1, |f| {
        f.body(b"some").flag("more", true);
    });
    rig.head(key, 413);
    assert_eq!(rig.out(), ["body some more", "data a/2 413 Why more"]);
    // What was under way meanwhile is no fault, and its credits are not missed.
    rig.packet("a", 2, |f| {
        f.body(&[b'x'; BUFFER]).flag("more", true).credits(9);
    });
    rig.packet("a", 3, |_| {});
    rig.packet("a", 4, |f| {
        f.kind(Kind::Credit).credits(9);
    });
    assert_eq!(rig.out(), ["grant 9", "grant 9"]);
    rig.event(key, Event::Body(b"no"));
    rig.event(key, Event::End);
    assert_eq!(rig.out(), ["data a/3 no more", "data a/4"]);
    assert!(rig.e.is_empty());
}

#[test]
fn the_window_of_the_response_is_what_the_requester_granted() {
    let mut rig = Rig::new();
    let key = rig.get("a");
    assert_eq!(rig.window, 50);
    rig.packet("a", 1, |f| {
        f.kind(Kind::Credit).credits(30);
    });
    rig.packet("a", 2, |f| {
        f.kind(Kind::KeepAlive).credits(1);
    });
    assert_eq!(rig.out(), ["grant 30", "grant 1"]);
    rig.head(key, 200);
    // No packet has more body than a buffer holds.
    rig.event(key, Event::Body(&[b'x'; 250]));
    let sizes: Vec<usize> = rig.out().iter().map(|packet| packet.matches('x').count()).collect();
    assert_eq!(sizes, [0, 100, 100, 50]);
}
