//! Scenarios of how large a response's window gets: enlarged for clients that take everything at
//! once, paid back by those that do not, bounded for one and for all.

mod kit;

use connmgr::Config;
use kit::{Bench, packet};
use zhttp::{Ext, Kind};

const BUFFER: u32 = 1_000;

/// With windows of at most 8 buffers, and so many to lend to all.
fn bench(lent_max: usize) -> Bench {
    Bench::with(Config {
        first_counter: 0x2a,
        buffer_size: BUFFER,
        window_max: 8 * BUFFER,
        lent_max: lent_max * BUFFER as usize,
        ..Config::default()
    })
}

/// A download as its peer sees it.
struct Download {
    conn: u32,
    id: String,
    seq: u32,
    window: u32,
}

impl Download {
    fn new(b: &mut Bench) -> Self {
        let conn = b.connect();
        let id = b.request(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        b.peer("px", &[(&id, 0)], |f| {
            let headers = [("Content-Length", "1000000")];
            f.status(200, "OK").headers(headers.into_iter()).flag("more", true);
        });
        b.got(conn);
        Self { conn, id, seq: 1, window: BUFFER }
    }

    /// Sends so much, and notes the credits that come back.
    fn send(&mut self, b: &mut Bench, size: u32) {
        self.window -= size;
        b.peer("px", &[(&self.id, self.seq)], |f| {
            f.body(&vec![b'x'; size as usize]).flag("more", true);
        });
        self.seq += 1;
        self.credits(b);
    }

    fn credits(&mut self, b: &mut Bench) {
        self.window += b.sent().iter().map(|sent| sent.credits).sum::<u32>();
    }

    /// Uses all credits, several times.
    fn pour(&mut self, b: &mut Bench, times: usize) -> Vec<u32> {
        (0..times)
            .map(|_| {
                self.send(b, self.window);
                self.window
            })
            .collect()
    }
}

#[test]
fn doubles_while_the_client_takes_all_and_the_peer_uses_all() {
    let mut b = bench(100);
    let mut one = Download::new(&mut b);
    assert_eq!(one.pour(&mut b, 5), [2_000, 4_000, 8_000, 8_000, 8_000]);
    assert_eq!(b.worker.lent(), 7_000);
    b.leave(one.conn);
    assert_eq!(b.worker.lent(), 0);
}

#[test]
fn stays_for_a_peer_that_has_credits_left() {
    let mut b = bench(100);
    let mut one = Download::new(&mut b);
    for _ in 0..20 {
        one.send(&mut b, 700);
        assert_eq!((one.window, b.worker.lent()), (BUFFER, 0));
    }
}

#[test]
fn is_paid_back_by_a_client_that_is_slow() {
    let mut b = bench(100);
    let mut one = Download::new(&mut b);
    one.pour(&mut b, 3);
    b.block(one.conn);
    // In pieces, of which each is given back when it is through.
    for _ in 0..8 {
        one.send(&mut b, 1_000);
    }
    assert_eq!((one.window, b.worker.pinned()), (0, 8_000));
    for left in (0..7_000).step_by(1_000).rev() {
        b.room(one.conn, 1_000);
        one.credits(&mut b);
        assert_eq!((one.window, b.worker.lent()), (0, left));
    }
    b.room(one.conn, 500);
    one.credits(&mut b);
    assert_eq!((one.window, b.worker.pinned()), (0, 500));
    b.room(one.conn, usize::MAX);
    one.credits(&mut b);
    assert_eq!((one.window, b.worker.pinned()), (BUFFER, 0));
}

#[test]
fn stays_if_the_client_took_all_when_it_could() {
    let mut b = bench(100);
    let mut one = Download::new(&mut b);
    one.pour(&mut b, 3);
    b.block(one.conn);
    one.send(&mut b, 8_000);
    assert_eq!(one.window, 0);
    b.room(one.conn, usize::MAX);
    one.credits(&mut b);
    assert_eq!((one.window, b.worker.lent()), (8_000, 7_000));
}

#[test]
fn all_together_have_a_limit() {
    let mut b = bench(10);
    let mut all: Vec<Download> = (0..5).map(|_| Download::new(&mut b)).collect();
    let windows: Vec<u32> = all.iter_mut().map(|one| one.pour(&mut b, 4)[3]).collect();
    assert_eq!(windows, [8_000, 4_000, 1_000, 1_000, 1_000]);
    assert_eq!(b.worker.lent(), 10_000);
    b.leave(all[0].conn);
    assert_eq!(all[4].pour(&mut b, 4)[3], 8_000);
    assert_eq!(b.worker.lent(), 10_000);
}

#[test]
fn ends_with_the_request() {
    let mut b = bench(100);
    let mut one = Download::new(&mut b);
    one.pour(&mut b, 3);
    b.leave(one.conn);
    b.sent();
    let conn = b.connect();
    let id = b.request(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    b.peer("px", &[(&id, 0)], |f| {
        let headers = [("Content-Length", "2000")];
        f.status(200, "OK").headers(headers.into_iter());
        f.body(&[b'x'; 1_000]).flag("more", true);
    });
    assert_eq!((b.sent()[0].credits, b.worker.lent()), (2_000, 1_000));
    b.peer("px", &[(&id, 1)], |f| {
        f.body(&[b'x'; 1_000]);
    });
    assert_eq!(b.worker.lent(), 0, "the connection lives, the request is over");
    let id = b.request(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(&[b'x'; 1_001]).flag("more", true);
    });
    assert!(b.got(conn).ends_with("Failed to process request.\n"), "one buffer again");
}

#[test]
fn a_peer_that_sends_more_than_it_was_lent_loses_its_session() {
    let mut b = bench(100);
    let mut one = Download::new(&mut b);
    one.pour(&mut b, 3);
    b.peer("px", &[(&one.id, one.seq)], |f| {
        f.body(&[b'x'; 8_001]).flag("more", true);
    });
    assert!(!b.is_open(one.conn));
    assert_eq!((b.worker.counters().overruns, b.worker.lent()), (1, 0));
}

#[test]
fn request_bodies_go_in_pieces_that_the_peer_understands() {
    for (ext, most) in [(Ext::OURS, 30_000), (Ext::default(), BUFFER as usize)] {
        let mut b = bench(0);
        let conn = b.connect();
        let id = b.request(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n");
        b.client(conn, &[b'x'; 30_000]);
        let credit = packet("px", &[(&id, 0)], ext, |f| {
            f.kind(Kind::Credit).credits(50_000);
        });
        b.worker.packet(b.now, &mut b.net, &credit);
        b.end();
        let sizes: Vec<usize> = b.sent().iter().map(|sent| sent.body.len()).collect();
        assert_eq!((sizes.iter().sum::<usize>(), sizes.iter().max()), (30_000, Some(&most)));
    }
}

#[test]
fn ciphertext_that_waits_counts_as_unsent() {
    let mut b = Bench::with(Config { pinned_max: 10_000, ..Config::default() });
    let conn = b.connect();
    let id = b.request(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    b.net.unsent = 6_000;
    b.block(conn);
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(&[b'x'; 1_000]).flag("more", true);
    });
    assert!(b.is_open(conn) && b.worker.pinned() > 7_000);
    b.peer("px", &[(&id, 1)], |f| {
        f.body(&[b'x'; 5_000]).flag("more", true);
    });
    assert!(!b.is_open(conn));
    assert_eq!(b.worker.counters().pinned_limit, 1);
}

#[test]
fn a_chunk_has_at_most_65535_bytes_however_large_the_window() {
    let mut b = Bench::with(Config { buffer_size: 100_000, ..Config::default() });
    let (conn, id) = b.held("px");
    let (other, other_id) = b.held("px");
    let old = b.connect();
    let old_id = b.request(old, "GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    b.peer("px", &[(&old_id, 0)], |f| {
        f.status(200, "OK").flag("more", true);
    });
    b.got(old);
    let body = vec![b'x'; 70_000];
    b.peer("px", &[(&id, 1), (&old_id, 1), (&other_id, 1)], |f| {
        f.body(&body).flag("more", true);
    });
    let (first, second) = ("x".repeat(65_535), "x".repeat(4_465));
    let expected = format!("ffff\r\n{first}\r\n1171\r\n{second}\r\n");
    assert!(b.got(conn) == expected && b.got(other) == expected);
    assert!(b.got_bytes(old) == body);
    let credits: Vec<(usize, u32)> =
        b.sent().iter().map(|sent| (sent.ids.len(), sent.credits)).collect();
    assert_eq!(credits, [(3, 70_000)], "chunk heads cost nothing");
}
