//! Whole conversations.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]

use proptest::prelude::*;
use wsoverhttp::{Event, Failure, Kind, Link, Outcome, Reply, Trouble};

const TYPE: (&str, &[u8]) = ("Content-Type", b"application/websocket-events");

/// A conversation and its clock.
struct Talk {
    link: Link,
    now: u64,
}

fn talk(one_event: bool) -> Talk {
    Talk { link: Link::new(one_event), now: 0 }
}

fn opened(headers: &[(&str, &[u8])]) -> Talk {
    let mut talk = talk(false);
    assert_eq!(talk.ask(), "OPEN|");
    assert!(talk.answer(headers, b"OPEN\r\n").unwrap().opened);
    talk
}

impl Talk {
    /// The body of the request that is due.
    fn ask(&mut self) -> String {
        assert!(self.link.is_due(self.now, true), "no request is due");
        String::from_utf8_lossy(&self.link.request().body).replace("\r\n", "|")
    }

    fn is_due(&self) -> bool {
        self.link.is_due(self.now, true)
    }

    fn answer<'a>(
        &mut self,
        headers: &[(&str, &[u8])],
        body: &'a [u8],
    ) -> Result<Reply<'a>, Failure> {
        let headers: Vec<_> = [TYPE].into_iter().chain(headers.iter().copied()).collect();
        self.link.response(self.now, 200, &headers, body)
    }

    fn text(&mut self, text: &str) {
        self.link.push(Kind::Text, text.as_bytes(), false).unwrap();
    }
}

fn broken(result: Result<Reply<'_>, Failure>) -> bool {
    matches!(result, Err(Failure::Broken(_)))
}

#[test]
fn messages_both_ways() {
    let mut t = opened(&[]);
    assert!(!t.is_due() && t.link.next_deadline().is_none());
    t.text("a");
    t.text("b");
    assert!(!t.link.is_due(0, false));
    assert_eq!(t.ask(), "TEXT 1|a|TEXT 1|b|");
    t.text("c");
    assert!(!t.is_due(), "one request at a time");
    let reply = t.answer(&[], b"TEXT 2\r\nhi\r\nPING\r\n").unwrap();
    assert_eq!(reply.accepted, 2);
    assert_eq!(
        reply.events,
        [Event { kind: Kind::Text, content: b"hi" }, Event { kind: Kind::Ping, content: b"" }]
    );
    assert_eq!(t.ask(), "TEXT 1|c|");
}

#[test]
fn what_refuses_and_breaks() {
    let mut t = talk(false);
    t.ask();
    assert_eq!(t.link.response(0, 401, &[TYPE], b"no"), Err(Failure::Refused));
    let mut t = talk(false);
    t.ask();
    let plain: [(&str, &[u8]); 1] = [("Content-Type", b"text/plain")];
    assert_eq!(t.link.response(0, 200, &plain, b"OPEN\r\n"), Err(Failure::Refused));
    for body in [&b""[..], b"TEXT\r\n", b"OPEN", b"OPEN\r\nOPEN\r\n"] {
        let mut t = talk(false);
        t.ask();
        assert!(broken(t.answer(&[], body)), "{body:?}");
    }
    for (code, body) in [(500, &b""[..]), (200, b"DISCONNECT\r\n"), (200, b"OPEN\r\n")] {
        let mut t = opened(&[]);
        t.text("x");
        t.ask();
        assert!(broken(t.link.response(0, code, &[TYPE], body)));
    }
    let mut t = talk(false);
    t.ask();
    let with_charset: [(&str, &[u8]); 1] =
        [("content-type", b"Application/WebSocket-Events; charset=utf-8")];
    assert!(t.link.response(0, 200, &with_charset, b"OPEN\r\n").unwrap().opened);
}

#[test]
fn keep_alive_polls_and_repeats_open() {
    let mut t = talk(false);
    t.ask();
    assert!(!t.answer(&[("Keep-Alive-Interval", b"5")], b"").unwrap().opened);
    assert_eq!((t.is_due(), t.link.next_deadline()), (false, Some(20_000)));
    t.now = 20_000;
    assert_eq!(t.ask(), "OPEN|");
    t.answer(&[("keep-alive-interval", b"30")], b"OPEN\r\n").unwrap();
    assert_eq!(t.link.next_deadline(), Some(50_000));
    t.now = 50_000;
    assert_eq!(t.ask(), "");
    t.answer(&[], b"").unwrap();
    assert_eq!(t.link.next_deadline(), Some(80_000));
    t.link.refresh();
    assert_eq!(t.ask(), "");
    t.answer(&[("Keep-Alive-Interval", b"0")], b"").unwrap();
    assert_eq!(t.link.next_deadline(), None);
}

#[test]
fn meta_is_stored_replaced_and_removed() {
    let mut t = opened(&[("Set-Meta-User", b"alice"), ("set-meta-N", b"1")]);
    assert_eq!(t.link.meta().len(), 2);
    t.text("x");
    t.ask();
    t.answer(&[("SET-META-USER", b"bob"), ("Set-Meta-n", b"")], b"").unwrap();
    assert_eq!(t.link.meta(), [("USER".to_owned(), b"bob".to_vec())]);
}

#[test]
fn bytes_not_accepted_are_offered_again() {
    let mut t = opened(&[]);
    t.text("aaa");
    t.ask();
    assert_eq!(t.answer(&[("Content-Bytes-Accepted", b"1")], b"").unwrap().accepted, 1);
    assert!(!t.is_due(), "only new data, a refresh or a keep-alive sends it again");
    t.text("bb");
    let request = t.link.request();
    assert_eq!((request.body, request.replayed), (b"TEXT 2\r\naa\r\nTEXT 2\r\nbb\r\n".to_vec(), 2));
    assert_eq!(t.answer(&[], b"").unwrap().accepted, 4);
    t.text("c");
    t.link.request();
    assert!(broken(t.answer(&[("Content-Bytes-Accepted", b"2")], b"")));
    let mut t = opened(&[]);
    t.text("c");
    t.link.request();
    assert!(broken(t.answer(&[("Content-Bytes-Accepted", b"x")], b"")));
}

#[test]
fn a_close_of_the_client() {
    let mut t = opened(&[]);
    t.text("last");
    t.link.push_close(b"\x03\xe8");
    let mut body = b"TEXT 4\r\nlast\r\nCLOSE 2\r\n".to_vec();
    body.extend_from_slice(b"\x03\xe8\r\n");
    assert_eq!(t.link.request().body, body);
}

#[test]
fn closes_are_answered() {
    let mut t = opened(&[]);
    t.link.push_close(b"");
    assert_eq!(t.ask(), "CLOSE|");
    let reply = t.answer(&[], b"TEXT 1\r\nx\r\nCLOSE\r\nTEXT 1\r\ny\r\n").unwrap();
    assert_eq!((reply.events.len(), reply.finished), (2, true));
    assert!(t.link.disconnect().is_none());

    let mut t = opened(&[]);
    t.link.push_close(b"");
    t.ask();
    assert!(broken(t.answer(&[], b"")), "without keep-alives a close must be answered");

    let mut t = opened(&[("Keep-Alive-Interval", b"20")]);
    t.link.push_close(b"");
    t.ask();
    assert!(!t.answer(&[], b"").unwrap().finished);
    t.now = 20_000;
    t.ask();
    assert!(t.answer(&[], b"CLOSE\r\n").unwrap().finished);

    let mut t = opened(&[]);
    t.text("x");
    t.ask();
    let reply = t.answer(&[], b"CLOSE 2\r\n\x0f\xa4\r\n").unwrap();
    assert_eq!(reply.events[0].close(), (Some(4004), &b""[..]));
    t.link.push_close(b"\x0f\xa4");
    t.link.request();
    assert!(t.answer(&[], b"").unwrap().finished);
}

#[test]
fn a_close_behind_data_that_is_never_taken_gives_up() {
    let mut t = opened(&[]);
    t.text("x");
    t.link.push_close(b"");
    for round in 0..6 {
        t.now = t.link.next_deadline().unwrap_or(t.now);
        assert_eq!(t.ask(), "TEXT 1|x|CLOSE|");
        let answer = t.answer(&[("Content-Bytes-Accepted", b"0")], b"");
        assert_eq!(broken(answer), round == 5, "{round}");
        if round == 5 {
            return;
        }
    }
}

#[test]
fn one_event_a_request() {
    let mut t = talk(true);
    t.ask();
    t.answer(&[], b"OPEN\r\n").unwrap();
    t.text("a");
    t.text("b");
    t.link.push_close(b"");
    for body in ["TEXT 1|a|", "TEXT 1|b|"] {
        assert_eq!(t.ask(), body);
        t.answer(&[], b"").unwrap();
    }
    assert_eq!(t.ask(), "CLOSE|");
}

#[test]
fn failures_are_repeated_only_when_nothing_was_seen() {
    let mut t = talk(false);
    t.ask();
    assert_eq!(t.link.failed(0, Trouble::NotSent, 0), Outcome::GiveUp, "never the first");
    let mut t = opened(&[]);
    t.text("x");
    for k in 0..5 {
        assert_eq!(t.ask(), "TEXT 1|x|");
        assert_eq!(t.link.failed(t.now, Trouble::NotSent, 7), Outcome::Repeat);
        t.now += (1_000 << k) + 6;
        assert!(!t.is_due());
        t.now += 1;
    }
    t.ask();
    assert_eq!(t.link.failed(t.now, Trouble::NotSent, 0), Outcome::GiveUp);
    let mut t = opened(&[]);
    t.text("x");
    t.ask();
    assert_eq!(t.link.failed(0, Trouble::Unclear, 0), Outcome::GiveUp);
    assert_eq!(t.link.disconnect().unwrap(), b"DISCONNECT\r\n");
}

proptest! {
    /// Whatever a backend accepts, every byte arrives once and in order.
    #[test]
    fn nothing_is_lost_or_doubled(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..20),
        accepts in prop::collection::vec(0usize..30, 0..40),
    ) {
        let mut t = opened(&[("Keep-Alive-Interval", b"20")]);
        let (mut got, mut waiting) = (Vec::new(), messages.iter());
        let mut accepts = accepts.into_iter();
        for _ in 0..200 {
            if let Some(message) = waiting.next() {
                t.link.push(Kind::Binary, message, false).unwrap();
            }
            if !t.is_due() {
                t.now += 20_000;
            }
            let request = t.link.request();
            let content: Vec<u8> = wsoverhttp::events::parse(&request.body)
                .unwrap().iter().flat_map(|event| event.content.to_vec()).collect();
            let taken = accepts.next().unwrap_or(usize::MAX).min(content.len());
            got.extend_from_slice(&content[..taken]);
            let number = taken.to_string();
            let reply = t.answer(&[("Content-Bytes-Accepted", number.as_bytes())], b"").unwrap();
            prop_assert_eq!(reply.accepted, taken);
        }
        prop_assert_eq!(got, messages.concat());
    }
}
