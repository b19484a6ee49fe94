//! Scenarios of `--blocks-max` and `--connection-blocks-max` (`spec/connmgr.md §8`).

mod kit;

use connmgr::{Blocks, Config};
use kit::Bench;
use zhttp::Kind;

fn bench(connection_blocks_max: u8, spare: usize) -> (Bench, Blocks) {
    let blocks = Blocks::new(spare);
    let config = Config {
        first_counter: 0x2a,
        buffer_size: 1000,
        connection_blocks_max,
        blocks: blocks.clone(),
        ..Config::default()
    };
    (Bench::with(config), blocks)
}

fn head(size: usize) -> String {
    let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4))
}

#[test]
fn a_head_may_take_spare_blocks_and_gives_them_back() {
    let (mut b, blocks) = bench(4, 2);
    let conn = b.connect();
    b.request(conn, &head(2_900));
    assert_eq!(blocks.left(), 2);
    let conn = b.connect();
    let text = head(3_001);
    b.client(conn, &text.as_bytes()[..2_500]);
    assert_eq!(blocks.left(), 0);
    // Nothing is left for a second one meanwhile.
    let other = b.connect();
    b.client(other, head(1_500).as_bytes());
    assert!(b.got(other).ends_with("Request header size exceeded limit of 1000 bytes.\n"));
    b.client(conn, &text.as_bytes()[2_500..]);
    assert!(b.got(conn).ends_with("Request header size exceeded limit of 3000 bytes.\n"));
    b.leave(conn);
    assert_eq!(blocks.left(), 2);
}

#[test]
fn without_spare_blocks_nothing_grows() {
    for (of_one, spare) in [(2, 5), (4, 0)] {
        let (mut b, _) = bench(of_one, spare);
        let conn = b.connect();
        b.client(conn, head(1_001).as_bytes());
        assert!(b.got(conn).ends_with("Request header size exceeded limit of 1000 bytes.\n"));
    }
}

#[test]
fn a_peer_that_used_its_credits_gets_one_more_block() {
    let (mut b, blocks) = bench(3, 1);
    let conn = b.connect();
    let id = b.request(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    b.net.socks.get_mut(&conn).unwrap().room = 0;
    b.peer("px", &[(&id, 0)], |f| {
        f.status(200, "OK").body(&[b'x'; 1_000]).flag("more", true);
    });
    let sent = b.sent();
    assert_eq!((sent.len(), sent[0].kind.as_str(), sent[0].credits), (1, "credit", 1_000));
    assert_eq!(blocks.left(), 0);
    b.peer("px", &[(&id, 1)], |f| {
        f.body(&[b'y'; 1_000]).flag("more", true);
    });
    assert!(b.sent().is_empty(), "no further block");
    b.peer("px", &[(&id, 2)], |f| {
        f.kind(Kind::Cancel);
    });
    assert!(!b.is_open(conn));
    assert_eq!(blocks.left(), 1);
}
