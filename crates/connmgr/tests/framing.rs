//! The table of requests that readers could read differently (`tests/framing/cases.txt`), played
//! on the engine as a whole and split at every byte, with a responder that records what it sees.

mod kit;

use http1::{BodyKind, HeaderSlots};
use kit::{Bench, Sent};
use zhttp::Kind;

const TABLE: &str = include_str!("../../../tests/framing/cases.txt");

/// Requests longer than this are not split at every byte, but at about as many.
const SPLITS: usize = 300;

/// The request that an open connection must still serve.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n";

#[derive(Debug, Default)]
struct Case {
    name: String,
    bytes: Vec<u8>,
    answers: Vec<String>,
    /// `METHOD host target body`
    seen: Vec<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_end_matches(']').to_owned();
            cases.push(Case { name, ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a name first");
        let text = line[1..].strip_prefix(' ').unwrap_or_default();
        match line.as_bytes()[0] {
            b'>' => case.bytes.extend([unescaped(text), b"\r\n".to_vec()].concat()),
            b'|' => case.bytes.extend(unescaped(text)),
            b'<' => case.answers.push(text.to_owned()),
            b'=' => case.seen.push(unescaped(text)),
            _ => panic!("{line}"),
        }
    }
    cases
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let (kind, after) = escape.split_at(1);
        rest = after;
        match kind {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "\\" => out.push(b'\\'),
            "x" => {
                let (digits, after) = rest.split_at(2);
                out.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                rest = after;
            }
            "*" => {
                let (count, after) = rest.split_once('(').expect("a bracket");
                let (inner, after) = after.split_once(')').expect("its end");
                out.extend(unescaped(inner).repeat(count.parse().expect("a number")));
                rest = after;
            }
            _ => panic!("{text}"),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// One request that the responder knows.
#[derive(Debug, Default)]
struct Request {
    id: String,
    /// Next number of the responder.
    seq: u32,
    line: Vec<u8>,
    head: bool,
    has_body: bool,
}

/// A client, the engine, and a responder that answers each request once it is whole.
struct Play {
    bench: Bench,
    conn: u32,
    current: Request,
    heads: Vec<bool>,
    seen: Vec<Vec<u8>>,
}

impl Play {
    fn new() -> Self {
        let mut bench = Bench::new();
        let conn = bench.connect();
        let (current, heads, seen) = (Request::default(), Vec::new(), Vec::new());
        Self { bench, conn, current, heads, seen }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.bench.client(self.conn, bytes);
        self.respond();
    }

    fn respond(&mut self) {
        loop {
            let sent = self.bench.sent();
            if sent.is_empty() {
                break;
            }
            for packet in sent {
                self.packet(packet);
            }
        }
    }

    fn packet(&mut self, packet: Sent) {
        if packet.to.is_empty() {
            let uri = packet.uri.strip_prefix("http://").expect("a scheme");
            let (host, target) = uri.split_at(uri.find(['/', '*']).expect("a path"));
            let line = format!("{} {host} {target}", packet.method).into_bytes();
            let (id, head) = (packet.ids[0].0.clone(), packet.method == "HEAD");
            self.current = Request { id, line, head, ..Request::default() };
            if packet.more {
                self.grant();
            }
        } else if packet.kind != "data" {
            return;
        }
        if !packet.body.is_empty() {
            self.add_body(&packet.body);
        }
        if !packet.more {
            self.answer();
        }
    }

    fn add_body(&mut self, body: &[u8]) {
        if !std::mem::replace(&mut self.current.has_body, true) {
            self.current.line.push(b' ');
        }
        self.current.line.extend_from_slice(body);
    }

    fn grant(&mut self) {
        let (id, seq) = (self.current.id.clone(), self.current.seq);
        self.current.seq += 1;
        self.bench.peer("px", &[(&id, seq)], |f| {
            f.kind(Kind::Credit).credits(100_000);
        });
    }

    fn answer(&mut self) {
        let done = std::mem::take(&mut self.current);
        self.seen.push(done.line);
        self.heads.push(done.head);
        self.bench.peer("px", &[(&done.id, done.seq)], |f| {
            f.status(200, "OK");
            if done.head {
                f.headers([("Content-Length", "2")].into_iter());
            } else {
                f.body(b"ok");
            }
        });
    }

    fn is_over(&self) -> bool {
        self.bench.net.socks.get(&self.conn).is_none_or(|sock| sock.shut)
    }

    /// What the client got, as the table says it.
    fn answers(&mut self) -> Vec<String> {
        let text = self.bench.got(self.conn);
        let mut rest = text.as_bytes();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let to_head = self.heads.get(answers.len()).copied().unwrap_or(false);
            let mut slots = HeaderSlots::new();
            let head = http1::parse_response(rest, &mut slots, to_head);
            let head = head.expect("a response").expect("a whole head");
            let size = match head.body {
                BodyKind::Length(size) => size as usize,
                BodyKind::None => 0,
                other => panic!("{other:?}"),
            };
            let body = &rest[head.size..head.size + size];
            let told = String::from_utf8_lossy(body);
            let told = told.trim_end().trim_start_matches("Failed to parse request: ");
            match head.code {
                100 => {}
                200 => answers.push("200".to_owned()),
                code => answers.push(format!("{code} {told}")),
            }
            rest = &rest[head.size + size..];
        }
        answers
    }
}

/// Plays the case with the request in these pieces.
fn play(case: &Case, pieces: &[&[u8]]) {
    let told =
        || format!("[{}] in {:?}", case.name, pieces.iter().map(|p| p.len()).collect::<Vec<_>>());
    let mut play = Play::new();
    for piece in pieces {
        play.feed(piece);
    }
    let mut answers: Vec<String> = Vec::new();
    let mut wanted = case.answers.clone();
    let last = wanted.pop().expect("an answer");
    let mut seen = case.seen.clone();
    match last.as_str() {
        "nothing" | "cut" => {
            assert!(!play.is_over(), "{}", told());
            answers.extend(play.answers());
            play.bench.leave(play.conn);
            play.respond();
            if last == "cut" {
                wanted.push("500 Failed to process request.".to_owned());
            }
        }
        "200" => {
            wanted.extend(["200".to_owned(), "200".to_owned()]);
            seen.push(b"GET h /after".to_vec());
            assert!(!play.is_over(), "{}: {:?}", told(), play.answers());
            play.feed(AFTER);
            assert!(!play.is_over(), "{}", told());
        }
        _ => {
            assert!(play.is_over(), "{}: {:?}", told(), play.answers());
            play.feed(AFTER);
            wanted.push(last.trim_end_matches(" close").to_owned());
        }
    }
    answers.extend(play.answers());
    assert_eq!(answers, wanted, "{}", told());
    let text = |lines: &[Vec<u8>]| -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    };
    assert_eq!(text(&play.seen), text(&seen), "{}", told());
    play.bench.leave(play.conn);
    play.bench.pass(70_000);
    assert!(play.bench.worker.is_empty() && play.bench.worker.pinned() == 0, "{}", told());
}

#[test]
fn the_table_is_large_and_its_names_differ() {
    let cases = cases();
    let names: std::collections::HashSet<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    assert!(cases.len() >= 250 && names.len() == cases.len());
}

#[test]
fn whole_requests() {
    // All that fail, not only the first.
    let failed = |case: &Case| std::panic::catch_unwind(|| play(case, &[&case.bytes])).is_err();
    let names: Vec<String> = cases().into_iter().filter(failed).map(|case| case.name).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn requests_split_at_every_byte() {
    for case in cases() {
        let step = (case.bytes.len() / SPLITS).max(1);
        for cut in (1..case.bytes.len()).step_by(step) {
            let (one, two) = case.bytes.split_at(cut);
            play(&case, &[one, two]);
        }
    }
}

#[test]
fn requests_byte_by_byte() {
    for case in cases() {
        let pieces: Vec<&[u8]> = case.bytes.chunks(1).collect();
        play(&case, &pieces);
    }
}
