//! Many slow clients beside fast ones: each bounds its own memory, all together have a limit.

use super::*;
use connmgr::Config;

/// Streams of each kind.
const STREAMS: usize = 60;

struct Stream {
    conn: u32,
    id: String,
    window: usize,
    got: usize,
}

fn streams(b: &mut Bench) -> Vec<Stream> {
    let held = |b: &mut Bench| {
        let (conn, id) = b.held("hd");
        Stream { conn, id, window: BUFFER, got: 0 }
    };
    (0..STREAMS).map(|_| held(b)).collect()
}

/// Notes credits; gives the ids that were cancelled.
fn take_credits(b: &mut Bench, streams: &mut [Stream]) -> usize {
    let mut cancelled = 0;
    for sent in b.sent() {
        cancelled += if sent.kind == "cancel" { sent.ids.len() } else { 0 };
        for (id, _) in &sent.ids {
            if let Some(stream) = streams.iter_mut().find(|stream| stream.id == *id) {
                stream.window += sent.credits as usize;
            }
        }
    }
    cancelled
}

fn publish(b: &mut Bench, streams: &[Stream], seq: u32, body: &[u8]) {
    let ids: Vec<(&str, u32)> = streams.iter().map(|s| (s.id.as_str(), seq)).collect();
    for part in ids.chunks(zhttp::MAX_IDS) {
        b.peer("hd", part, |f| {
            f.body(body).flag("more", true);
        });
    }
}

#[test]
fn do_not_hold_the_fast_ones_up() {
    let mut b = Bench::new();
    let (mut slow, mut fast) = (streams(&mut b), streams(&mut b));
    slow.iter().for_each(|s| b.block(s.conn));
    let body = [b'x'; 1000];
    publish(&mut b, &slow, 1, &[b'y'; 8000]);
    assert!(b.worker.pinned() <= STREAMS * (BUFFER + 100));
    for seq in 1..=200 {
        publish(&mut b, &fast, seq, &body);
        assert_eq!(take_credits(&mut b, &mut fast), 0);
        for s in &mut fast {
            s.window -= body.len();
            s.got += b.got(s.conn).matches('x').count();
            assert_eq!(s.got, seq as usize * body.len());
        }
    }
    assert!(b.worker.pinned() <= STREAMS * (BUFFER + 100), "nothing more for the slow");
    for s in &mut slow {
        b.room(s.conn, usize::MAX);
        assert_eq!(b.got(s.conn).matches('y').count(), 8000);
    }
    assert_eq!(take_credits(&mut b, &mut slow), 0);
    assert!(slow.iter().all(|s| s.window == BUFFER + 8000), "what was written comes back");
    assert_eq!(b.worker.pinned(), 0);
    slow.iter().chain(&fast).for_each(|s| b.leave(s.conn));
    b.nothing_left();
}

#[test]
fn are_closed_above_the_common_limit() {
    let limit = 100_000;
    let mut b = Bench::with(Config { pinned_max: limit, first_counter: 0x2a, ..Config::default() });
    let (mut slow, fast) = (streams(&mut b), streams(&mut b));
    slow.iter().for_each(|s| b.block(s.conn));
    publish(&mut b, &slow, 1, &[b'y'; 8000]);
    let left = slow.iter().filter(|s| b.is_open(s.conn)).count();
    assert_eq!(left, limit / 8006);
    assert!(b.worker.pinned() <= limit);
    assert_eq!(take_credits(&mut b, &mut slow), STREAMS - left, "their owner is told");
    assert_eq!(b.worker.counters().pinned_limit as usize, STREAMS - left);
    publish(&mut b, &fast, 1, b"hello");
    assert!(fast.iter().all(|s| b.got(s.conn) == "5\r\nhello\r\n"));
    slow.iter().chain(&fast).for_each(|s| b.leave(s.conn));
    b.nothing_left();
}
