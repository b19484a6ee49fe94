//! A gigabyte each way through one connection at constant memory: bytes from the client are read
//! only as credits allow, bytes for it are held only as its credits allow.

use std::io::{self, ErrorKind, IoSlice};

use connmgr::{Client, Config, Net, Output, Worker};
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

const TOTAL: u64 = 1 << 30;
const BUFFER: u64 = 8192;
/// Most of one piece to a peer that announced `batch`.
const PIECE: u64 = 64 * 1024;
/// Head and chunk framing that may be held beside the body.
const FRAMING: u64 = 200;

/// One client that sends and takes bytes without end, of which none is looked at.
#[derive(Default)]
struct Pipe {
    head: Vec<u8>,
    /// Body bytes that it still has to send.
    to_send: u64,
    read: u64,
    /// Bytes that it takes before it is blocked.
    room: u64,
    written: u64,
    blocked: bool,
    last: Vec<u8>,
}

impl Net for Pipe {
    fn read(&mut self, _conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        if !self.head.is_empty() {
            let head = std::mem::take(&mut self.head);
            buf[..head.len()].copy_from_slice(&head);
            return Ok(head.len());
        }
        let n = self.to_send.min(buf.len() as u64);
        self.to_send -= n;
        self.read += n;
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n as usize) }
    }

    fn write(&mut self, _conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        let n = all.min(self.room);
        self.room -= n;
        self.written += n;
        self.last = bufs.last().map(|buf| buf.to_vec()).unwrap_or_default();
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n as usize) }
    }

    fn want_write(&mut self, _conn: u32, on: bool) {
        self.blocked = on;
    }

    fn shutdown(&mut self, _conn: u32) {}

    fn close(&mut self, _conn: u32) {}
}

struct Flow {
    worker: Worker,
    pipe: Pipe,
    conn: u32,
    id: String,
    seq: u32,
    /// Of the packets sent since the last look.
    body: u64,
    credits: u64,
    more: bool,
}

impl Flow {
    fn new(head: &str, to_send: u64) -> Self {
        let mut worker = Worker::new(Config::default());
        let conn = worker.accept(0, Client::default());
        let pipe =
            Pipe { head: head.as_bytes().to_vec(), to_send, room: u64::MAX, ..Pipe::default() };
        let id = String::new();
        let mut flow = Self { worker, pipe, conn, id, seq: 0, body: 0, credits: 0, more: false };
        flow.worker.readable(0, &mut flow.pipe, conn, false);
        flow.end();
        assert!(!flow.id.is_empty());
        // The body follows the head.
        flow.worker.readable(0, &mut flow.pipe, conn, false);
        flow
    }

    fn end(&mut self) {
        self.worker.end_turn(0, &mut self.pipe);
        while let Some(output) = self.worker.poll_output() {
            let packet = match output {
                Output::First { session, packet } => {
                    self.id = String::from_utf8(session.text().to_vec()).expect("text");
                    packet
                }
                Output::To { packet, .. } => packet,
                other => panic!("{other:?}"),
            };
            for bytes in zhttp::split(&packet) {
                let packet = Packet::parse(bytes).expect("a packet");
                assert!(matches!(packet.kind, Kind::Data | Kind::Credit), "{:?}", packet.kind);
                assert!(packet.body.len() as u64 <= PIECE);
                self.body += packet.body.len() as u64;
                self.credits += u64::from(packet.credits);
                self.more = packet.more;
            }
        }
    }

    fn peer(&mut self, fill: impl FnOnce(&mut Fields<'_>)) {
        let ids = [Id { id: self.id.as_bytes(), seq: Some(self.seq) }];
        self.seq += 1;
        let mut out = Vec::new();
        zhttp::write(&mut out, &Head { from: b"px", ids: &ids, ext: Ext::OURS }, fill);
        self.worker.packet(0, &mut self.pipe, &out);
        self.end();
    }
}

#[test]
fn an_upload_follows_its_credits() {
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {TOTAL}\r\n\r\n");
    let mut flow = Flow::new(&head, TOTAL);
    assert_eq!(flow.pipe.read, 0, "nothing is read before there are credits");
    let mut granted = 0;
    // Uneven grants, as of a backend that is sometimes slow.
    for grant in [100_000, 1, 8_192, 65_536, 3].into_iter().cycle() {
        granted += grant;
        flow.peer(|f| {
            f.kind(Kind::Credit).credits(grant as u32);
        });
        assert_eq!(flow.body, granted.min(TOTAL));
        assert!(flow.pipe.read <= granted + BUFFER, "read ahead of the credits");
        if flow.body == TOTAL {
            break;
        }
        assert!(flow.more);
    }
    assert!(!flow.more);
    flow.peer(|f| {
        f.status(200, "OK").body(b"thanks");
    });
    assert!(flow.pipe.last.ends_with(b"thanks"));
    assert_eq!(flow.worker.pinned(), 0);
}

#[test]
fn a_download_follows_its_reader() {
    let mut flow = Flow::new("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 0);
    let body = [b'x'; BUFFER as usize];
    let window_max = u64::from(Config::default().window_max);
    let mut window = std::mem::take(&mut flow.credits);
    assert_eq!(window, BUFFER);
    flow.peer(|f| {
        f.status(200, "OK").flag("more", true);
        f.headers([("Content-Length", TOTAL.to_string())].into_iter());
    });
    let head = flow.pipe.written;
    let mut sent = 0;
    for room in [1, 100_000, 100, 0, 7_000, 100_000].into_iter().cycle() {
        let n = window.min(TOTAL - sent).min(5_000);
        if n > 0 {
            window -= n;
            sent += n;
            flow.peer(|f| {
                f.body(&body[..n as usize]).flag("more", sent < TOTAL);
            });
        }
        assert!(flow.worker.pinned() as u64 <= window_max + FRAMING);
        assert!(sent <= flow.pipe.written - head + window_max, "more than a window on its way");
        flow.pipe.room = room;
        if flow.pipe.blocked {
            flow.worker.writable(0, &mut flow.pipe, flow.conn);
            flow.end();
        }
        window += std::mem::take(&mut flow.credits);
        if flow.pipe.written - head == TOTAL {
            break;
        }
    }
    assert_eq!((sent, flow.worker.pinned()), (TOTAL, 0));
}
