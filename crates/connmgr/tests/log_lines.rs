//! The lines that log readers look for (`spec/connmgr.md §12`, `spec/zhttp.md §12`).

mod kit;

use std::cell::RefCell;

use connmgr::Config;
use kit::{Bench, packet};
use log::{LevelFilter, Log, Metadata, Record};
use zhttp::{Ext, Kind};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps each thread's lines apart: a test has a thread of its own.
struct Keeper;

impl Log for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn flush(&self) {}
}

/// The lines so far.
fn lines() -> Vec<String> {
    LINES.take()
}

fn bench() -> Bench {
    // Another test may have been first.
    let _ = log::set_logger(&Keeper);
    log::set_max_level(LevelFilter::Trace);
    Bench::with(Config { first_counter: 0x2a, worker: 3, maxconn: (50, 5), ..Config::default() })
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn the_life_of_a_request() {
    let mut b = bench();
    let conn = b.connect();
    let id = b.request(conn, GET);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::KeepAlive);
    });
    b.peer("px", &[(&id, 1)], |f| {
        f.status(200, "OK").body(b"fine");
    });
    let expected = [
        "DEBUG server-worker 3: stream conn starting 0 1/50",
        "DEBUG server-conn 3-0-2a: assigning id",
        "DEBUG server-conn 3-0-2a: request: GET http://h/x",
        "DEBUG server-conn 3-0-2a: handle packet: keep-alive",
        "DEBUG server-worker 3: queued zmq message for 1 conns",
        "DEBUG server-conn 3-0-2a: handle packet: (data)",
        "DEBUG server-conn 3-0-2a: finished",
        "DEBUG server-worker 3: queued zmq message for 1 conns",
    ];
    assert_eq!(lines(), expected);
}

#[test]
fn one_message_for_many() {
    let mut b = bench();
    let streams: Vec<(u32, String)> = (0..3).map(|_| b.held("px")).collect();
    b.connect_to(true);
    assert_eq!(lines().last().unwrap(), "DEBUG server-worker 3: req conn starting 3 1/5");
    b.pass(45_000);
    let line = "DEBUG server-worker 3: sending keep alives for 1 sessions".to_string();
    assert!(lines().contains(&line));
    let ids: Vec<(&str, u32)> = streams.iter().map(|(_, id)| (id.as_str(), 1)).collect();
    b.peer("px", &[&ids[..], &[("3-9-1", 1), ("junk", 1)]].concat(), |f| {
        f.body(b"news").flag("more", true);
    });
    let line = "DEBUG server-worker 3: queued zmq message for 3 conns".to_string();
    assert!(lines().contains(&line));
    streams.iter().for_each(|(conn, _)| {
        if let Some(sock) = b.net.socks.get_mut(conn) {
            sock.eof = true;
            b.worker.readable(b.now, &mut b.net, *conn, true);
        }
    });
    b.end();
    assert!(lines().contains(&"DEBUG server-worker 3: sending cancels for 3 sessions".into()));
}

#[test]
fn what_goes_wrong_with_a_session() {
    let mut b = bench();
    let (_, id) = b.held("px");
    lines();
    b.peer("px", &[(&id, 7)], |f| {
        f.kind(Kind::KeepAlive);
    });
    let line = format!("WARN server-conn {id}: bad seq (expected 1, got 7), skipping");
    assert!(lines().contains(&line));
    let conn = b.connect();
    b.client(conn, b"GET / HTTP/3.0\r\n\r\n");
    let said = lines();
    let ending = "process error: Failed to parse request: invalid HTTP version";
    assert!(said.iter().any(|line| line.ends_with(ending)), "{said:?}");
    let (_, id) = b.websocket("px", 100);
    lines();
    b.peer("px", &[(&id, 1)], |f| {
        f.body(&[b'x'; 8_193]);
    });
    let line = "WARN received too much data from handler (size=8193, credits=8192)".to_string();
    assert!(lines().contains(&line));
}

/// A tnetstring map of fields that are written already.
fn map(fields: &str) -> String {
    format!("T{}:{fields}}}", fields.len())
}

#[test]
fn packets_that_are_none() {
    let mut b = bench();
    let good = "4:from,2:px,2:id,6:3-0-2a,";
    let headers = "7:headers,";
    let many = "7:1:a,0:,]".repeat(65);
    let too_many_ids = "13:2:id,5:3-0-1,}".repeat(129);
    let cases = [
        ("J{}".into(), "unrecognized data format"),
        ("T5:2:id,".into(), "unexpected eof"),
        ("Tx:}".into(), "invalid data"),
        (map("1:1#1:y,"), "map key must be a utf-8 string"),
        (map(&format!("{good}4:code,1:x,")), "code must be of type int"),
        (map("4:from,2:px,2:id,4:true!"), "id must be of type map or string"),
        (map(&format!("{good}7:credits,2:-1#")), "credits must not be negative"),
        (map(&format!("4:from,2:px,2:id,{}:{too_many_ids}]", too_many_ids.len())), "too many ids"),
        (map(&format!("{good}{headers}{}:{many}]", many.len())), "too many headers"),
        (map(&format!("{good}{headers}7:4:1:a,]]")), "header item must have size 2"),
    ];
    for (text, reason) in &cases {
        lines();
        b.worker.packet(b.now, &mut b.net, text.as_bytes());
        let expected = format!("WARN server-worker 3: zhttp parse error: {reason}");
        assert_eq!(lines(), [expected], "{text}");
    }
    let malformed = b.worker.counters().malformed;
    assert_eq!(malformed, cases.len() as u64);
    let unsigned = packet("", &[("3-0-2a", 0)], Ext::OURS, |f| {
        f.kind(Kind::KeepAlive);
    });
    b.worker.packet(b.now, &mut b.net, &unsigned);
    assert_eq!(lines(), ["WARN unable to determine packet address"]);
}
