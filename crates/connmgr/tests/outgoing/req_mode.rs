//! One packet each way (`spec/zhttp.md §9.4`).

use evloop::arena::Key;
use origin::{Error, Event};
use zhttp::{Fields, Kind};

use crate::{BODY_BUFFER, REQ_MS, Rig, packet};

/// Asks.
fn ask(rig: &mut Rig, fill: impl FnOnce(&mut Fields<'_>)) {
    let request = packet("", &[("x", 0)], fill);
    rig.e.request(rig.now, vec![b"env".to_vec(), vec![]], &request);
}

fn get(rig: &mut Rig) -> Key {
    ask(rig, |f| {
        f.method("GET").uri("http://h/a");
    });
    assert_eq!(rig.out(), ["start h:80 GET /a"]);
    rig.key.expect("an order")
}

#[test]
fn the_answer_is_one_packet() {
    let mut rig = Rig::new();
    let key = get(&mut rig);
    assert_eq!((rig.e.req_len(), rig.e.stream_len()), (1, 0));
    rig.head_with(key, 200, &[("A", "1"), ("A", "2")]);
    rig.event(key, Event::Body(b"one "));
    rig.event(key, Event::Body(&[b'x'; BODY_BUFFER - 4]));
    assert!(rig.out().is_empty());
    rig.event(key, Event::End);
    let body = format!("one {}", "x".repeat(BODY_BUFFER - 4));
    assert_eq!(rig.out(), [format!("reply env data x 200 Why A=1 A=2 {body}")]);
    assert_eq!(rig.e.req_len(), 0);
}

#[test]
fn an_answer_that_is_too_long_is_none() {
    let mut rig = Rig::new();
    let key = get(&mut rig);
    // One byte more than allowed is taken, so that it shows.
    assert_eq!(rig.window, BODY_BUFFER + 1);
    rig.head(key, 200);
    rig.event(key, Event::Body(&[b'x'; BODY_BUFFER + 1]));
    assert_eq!(rig.out(), ["cancel", "reply env error x undefined-condition"]);
    assert!(rig.e.is_empty());
}

#[test]
fn it_ends_in_time_redirects_included() {
    let mut rig = Rig::new();
    ask(&mut rig, |f| {
        f.method("GET").uri("http://h/a").flag("follow-redirects", true);
    });
    rig.out();
    let key = rig.key.unwrap();
    rig.now = REQ_MS - 1;
    rig.head_with(key, 302, &[("Location", "/b")]);
    rig.event(key, Event::End);
    assert_eq!(rig.out(), ["start h:80 GET /b"]);
    rig.at(REQ_MS - 1);
    assert!(rig.out().is_empty());
    rig.at(REQ_MS + 1_000);
    assert_eq!(rig.out(), ["cancel", "reply env error x connection-timeout"]);
    assert!(rig.e.is_empty());
}

#[test]
fn failures_have_their_conditions_even_in_the_middle_of_the_answer() {
    let mut rig = Rig::new();
    let key = get(&mut rig);
    rig.event(key, Event::Failed(Error::Connect));
    assert_eq!(rig.out(), ["reply env error x remote-connection-failed"]);
    let key = get(&mut rig);
    rig.head(key, 200);
    rig.event(key, Event::Failed(Error::Closed));
    assert_eq!(rig.out(), ["reply env error x undefined-condition"]);
}

#[test]
fn requests_that_cannot_be_made() {
    let mut rig = Rig::new();
    let long = [b'x'; BODY_BUFFER + 1];
    let tries: [&dyn Fn(&mut Fields<'_>); 5] = [
        &|f| {
            f.method("GET").uri("ws://h/");
        },
        &|f| {
            f.method("GET").uri("nothing");
        },
        &|f| {
            f.uri("http://h/");
        },
        &|f| {
            f.method("POST").uri("http://h/").flag("more", true);
        },
        &|f| {
            f.kind(Kind::Credit).method("GET").uri("http://h/");
        },
    ];
    for fill in tries {
        ask(&mut rig, fill);
        assert_eq!(rig.out(), ["reply env error x bad-request"]);
    }
    ask(&mut rig, |f| {
        f.method("POST").uri("http://h/").body(&long);
    });
    assert_eq!(rig.out(), ["reply env error x undefined-condition"]);
    assert!(rig.e.is_empty());
}

#[test]
fn one_id_or_none() {
    let mut rig = Rig::new();
    let two = packet("", &[("x", 0), ("y", 0)], |f| {
        f.method("GET").uri("http://h/a");
    });
    rig.e.request(0, vec![vec![]], &two);
    rig.e.request(0, vec![vec![]], b"junk");
    assert_eq!((rig.counters().bad_first, rig.counters().malformed), (1, 1));
    assert!(rig.out().is_empty());
    let none = packet("", &[], |f| {
        f.method("GET").uri("http://h/a");
    });
    rig.e.request(0, vec![b"env".to_vec(), vec![]], &none);
    rig.out();
    rig.event(rig.key.unwrap(), Event::Failed(Error::Connect));
    // The answer has none either.
    assert_eq!(rig.out(), ["reply env error remote-connection-failed"]);
}

#[test]
fn there_are_no_keep_alives_and_no_word_at_the_end() {
    let mut rig = Rig::new();
    get(&mut rig);
    rig.e.probe(1);
    rig.e.peer_gone(1, b"");
    rig.e.shutdown(2);
    assert_eq!(rig.out(), ["cancel"]);
}
