//! Odd clients, a file for each kind, in each state of a connection, on virtual time. Behind each:
//! the deadline was kept, no session is left, no memory is held.

#[path = "../kit/mod.rs"]
mod kit;

mod blank_lines;
mod dripping;
mod early_answer;
mod endless_extension;
mod endless_trailers;
mod half_close;
mod huge_head;
mod never_reads;
mod pipelining;
mod resets;
mod sends_after_close;
mod slow_readers;
mod stalls;
mod ws_control_flood;
mod ws_data_after_close;
mod ws_endless_fragments;
mod ws_half_frame;
mod ws_never_reads;
mod ws_no_close_answer;
mod ws_unmasked;

use kit::{Bench, Sent};
use zhttp::Kind;

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

/// `--buffer-size` of the tests.
const BUFFER: usize = 8192;
/// A session or an idle connection ends after so much silence.
const EXPIRY_MS: u64 = 60_000;
/// `--stream-timeout`.
const STREAM_MS: u64 = 1_800_000;
/// How late a deadline may be noticed.
const LATE_MS: u64 = 200;
/// How long an answer waits for its client to close.
const LINGER_MS: u64 = 2_000;

/// A client that has sent this, which is no request.
fn begun(text: &str) -> (Bench, u32) {
    let mut b = Bench::new();
    let conn = b.connect();
    b.client(conn, text.as_bytes());
    (b, conn)
}

/// A client whose request nobody has taken, and the session's id.
fn asked(text: &str) -> (Bench, u32, String) {
    let mut b = Bench::new();
    let conn = b.connect();
    let id = b.request(conn, text);
    (b, conn, id)
}

/// A request that a peer has taken and answered with credits only; its next number is 1.
fn taken(b: &mut Bench, text: &str, credits: u32) -> (u32, String) {
    let conn = b.connect();
    let id = b.request(conn, text);
    b.peer("px", &[(&id, 0)], |f| {
        f.kind(Kind::Credit).credits(credits);
    });
    b.sent();
    (conn, id)
}

/// A connection that closes within this time, and not before; what is sent meanwhile is checked
/// by nobody.
fn closes_after(b: &mut Bench, conn: u32, ms: u64) {
    b.pass(ms - LATE_MS);
    assert!(b.is_open(conn), "too early");
    b.pass(2 * LATE_MS);
    assert!(!b.is_open(conn), "too late");
}

/// The peer keeps the session alive for so long, from this number on; gives the next number.
fn kept_alive(b: &mut Bench, id: &str, seq: u32, ms: u64) -> u32 {
    let rounds = ms.div_ceil(45_000) as u32;
    for n in 0..rounds {
        b.pass(45_000.min(ms - u64::from(n) * 45_000));
        b.peer("px", &[(id, seq + n)], |f| {
            f.kind(Kind::KeepAlive);
        });
    }
    seq + rounds
}

/// The kinds of the packets, without keep-alives.
fn kinds(sent: &[Sent]) -> Vec<&str> {
    sent.iter().map(|s| s.kind.as_str()).filter(|kind| *kind != "keep-alive").collect()
}
