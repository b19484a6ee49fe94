//! A worker process of `hold`: the connections themselves, in plain epoll loops.

use super::seen::Seen;
use super::tls::{self, Tls};
use super::{HoldArgs, Kind, WS_ACCEPT, WS_KEY, expand};
use crate::http::{self, Body};
use crate::marker;
use crate::stats::cause_of;
use crate::sys::{self, Epoll};
use rustls::ClientConfig;
use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub(super) fn work(args: HoldArgs, index: u64, count: u64) -> io::Result<()> {
    sys::raise_nofile();
    let targets: Vec<SocketAddrV4> =
        args.target.iter().map(|t| sys::resolve(t)).collect::<Result<_, _>>()?;
    let tls = args.tls.then(tls::config);
    let stop = Arc::new(AtomicBool::new(false));
    let mut shared = Vec::new();
    let mut threads = Vec::new();
    let parts = count * args.threads;
    for t in 0..args.threads {
        let part = index * args.threads + t;
        let uids: Vec<u64> = (0..args.connections).filter(|u| u % parts == part).collect();
        let seen = Arc::new(Mutex::new(Seen::new()));
        shared.push(seen.clone());
        let mut holder = Holder {
            rate: args.rate / parts as f64,
            pending_max: (args.pending / parts as usize).max(1),
            timeout_ns: (args.timeout * 1e9) as u64,
            args: args.clone(),
            targets: targets.clone(),
            tls: tls.clone(),
            uids,
            conns: Vec::new(),
            pending: 0,
            epoll: Epoll::new(1024)?,
        };
        let stop = stop.clone();
        threads.push(std::thread::spawn(move || holder.run(&seen, &stop)));
    }
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line == "snap" {
            let mut sum = Seen::new();
            for s in &shared {
                sum.add(&s.lock().expect("no panic").take());
            }
            println!("{}", sum.take());
            io::stdout().flush()?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    // The kernel closes the sockets; waiting for the threads would only add time.
    Ok(())
}

const MAX_WAIT_NS: u64 = 100_000_000;

enum State {
    Connecting,
    Head,
    Body(Body),
    Gone,
}

struct Conn {
    fd: i32,
    state: State,
    due_ns: u64,
    start_ns: u64,
    sent_ns: u64,
    seq: u32,
    run: u16,
    /// The response head until it is whole; then a marker cut by a read.
    tail: Vec<u8>,
    tls: Option<Tls>,
}

impl Conn {
    /// An empty pong with a zero mask; servers ping without payload.
    fn pong(&mut self) {
        let frame = [0x8a, 0x80, 0, 0, 0, 0];
        // A pong that the socket does not take is not worth a wait.
        let _ = match &mut self.tls {
            Some(tls) => tls.send(self.fd, &frame),
            None => sys::write(self.fd, &frame).map(|_| ()),
        };
    }
}

struct Holder {
    args: HoldArgs,
    rate: f64,
    pending_max: usize,
    timeout_ns: u64,
    targets: Vec<SocketAddrV4>,
    tls: Option<Arc<ClientConfig>>,
    uids: Vec<u64>,
    conns: Vec<Conn>,
    pending: usize,
    epoll: Epoll,
}

impl Holder {
    fn run(&mut self, seen: &Mutex<Seen>, stop: &AtomicBool) {
        let start = sys::now_ns();
        let mut buf = vec![0u8; 256 * 1024];
        let mut waiting: VecDeque<usize> = VecDeque::new();
        while !stop.load(Ordering::Relaxed) {
            let mut timeout = MAX_WAIT_NS;
            if self.conns.len() < self.uids.len() {
                let mut s = seen.lock().expect("no panic");
                // A bounded batch, so that answers are not left waiting.
                for _ in 0..32 {
                    if self.conns.len() >= self.uids.len() || self.pending >= self.pending_max {
                        break;
                    }
                    let now = sys::now_ns();
                    let due = match self.rate {
                        r if r > 0.0 => start + (self.conns.len() as f64 / r * 1e9) as u64,
                        _ => now,
                    };
                    if due > now {
                        timeout = (due - now).min(MAX_WAIT_NS);
                        break;
                    }
                    waiting.push_back(self.conns.len());
                    self.open(due, &mut s);
                    timeout = 0;
                }
            }
            let n = self.epoll.wait(Some(timeout));
            if n > 0 {
                let mut s = seen.lock().expect("no panic");
                for i in 0..n {
                    let (token, events) = self.epoll.event(i);
                    self.handle(token as usize, events, &mut buf, &mut s);
                }
            }
            let now = sys::now_ns();
            while let Some(&i) = waiting.front() {
                let c = &self.conns[i];
                if matches!(c.state, State::Connecting | State::Head) {
                    if c.start_ns + self.timeout_ns > now {
                        break;
                    }
                    self.fail(i, "no response in time", &mut seen.lock().expect("no panic"));
                }
                waiting.pop_front();
            }
        }
    }

    fn open(&mut self, due_ns: u64, seen: &mut Seen) {
        let i = self.conns.len();
        let uid = self.uids[i];
        let target = self.targets[uid as usize % self.targets.len()];
        let source = (self.args.sources > 0).then(|| {
            Ipv4Addr::from(u32::from(self.args.source) + (uid % self.args.sources as u64) as u32)
        });
        let start_ns = sys::now_ns();
        let mut conn = Conn {
            fd: -1,
            state: State::Connecting,
            due_ns,
            start_ns,
            sent_ns: 0,
            seq: 0,
            run: 0,
            tail: Vec::new(),
            tls: None,
        };
        seen.opened += 1;
        seen.started.see(start_ns);
        let made = sys::connect(source, target).and_then(|fd| {
            conn.fd = fd;
            self.epoll.add(
                fd,
                sys::EPOLLIN | sys::EPOLLOUT | sys::EPOLLRDHUP | sys::EPOLLET,
                i as u64,
            )
        });
        self.conns.push(conn);
        self.pending += 1;
        if let Err(e) = made {
            self.fail(i, &cause_of(&e), seen);
        }
    }

    /// Ends a connection that never got as far as being established.
    fn fail(&mut self, i: usize, cause: &str, seen: &mut Seen) {
        seen.failed.bump(cause);
        seen.settled += 1;
        self.pending -= 1;
        self.drop_conn(i);
    }

    fn drop_conn(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.fd >= 0 {
            sys::close(c.fd);
        }
        c.fd = -1;
        c.state = State::Gone;
        c.tail = Vec::new();
        c.tls = None;
    }

    fn request(&self, i: usize) -> Vec<u8> {
        let uid = self.uids[i] + self.args.first_uid;
        let target = &self.args.target[self.uids[i] as usize % self.targets.len()];
        let mut text =
            format!("GET {} HTTP/1.1\r\nHost: {target}\r\n", expand(&self.args.path, uid));
        match self.args.kind {
            Kind::Sse => text.push_str("Accept: text/event-stream\r\n"),
            Kind::Ws => {
                text.push_str("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
                text.push_str(WS_KEY);
                text.push_str("\r\n");
                if self.args.deflate {
                    text.push_str("Sec-WebSocket-Extensions: permessage-deflate\r\n");
                }
            }
        }
        for h in &self.args.header {
            text.push_str(h);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// Sends the request. A fresh socket takes a whole small one, so a short write is a failure.
    fn ask(&mut self, i: usize, seen: &mut Seen) -> io::Result<()> {
        let request = self.request(i);
        let tls = self.tls.clone();
        let c = &mut self.conns[i];
        c.sent_ns = sys::now_ns();
        seen.connect.record_ns(c.sent_ns - c.start_ns);
        c.state = State::Head;
        if let Some(config) = tls {
            return c.tls.insert(Tls::new(config)?).send(c.fd, &request);
        }
        match sys::write(c.fd, &request)? {
            n if n == request.len() => Ok(()),
            _ => Err(io::Error::other("short write")),
        }
    }

    /// Takes what was read from the socket, through TLS where it is spoken.
    fn take(&mut self, i: usize, data: &[u8], seen: &mut Seen) {
        let c = &mut self.conns[i];
        let Some(tls) = &mut c.tls else { return self.feed(i, data, seen) };
        match tls.receive(c.fd, data) {
            Ok(plain) if plain.is_empty() => {}
            Ok(plain) => self.feed(i, &plain, seen),
            Err(e) => self.lost(i, &e.to_string(), seen),
        }
    }

    fn handle(&mut self, i: usize, events: i32, buf: &mut [u8], seen: &mut Seen) {
        if matches!(self.conns[i].state, State::Gone) {
            return;
        }
        if matches!(self.conns[i].state, State::Connecting) {
            if events & (sys::EPOLLERR | sys::EPOLLHUP) != 0 {
                let cause = sys::take_error(self.conns[i].fd)
                    .map_or("closed at connect".into(), |e| cause_of(&e));
                return self.fail(i, &cause, seen);
            }
            if events & sys::EPOLLOUT == 0 {
                return;
            }
            if let Err(e) = self.ask(i, seen) {
                return self.fail(i, &cause_of(&e), seen);
            }
        }
        if events & (sys::EPOLLIN | sys::EPOLLRDHUP | sys::EPOLLHUP | sys::EPOLLERR) == 0 {
            return;
        }
        loop {
            let fd = self.conns[i].fd;
            if fd < 0 {
                return;
            }
            match sys::read(fd, buf) {
                Ok(0) => return self.lost(i, "closed by server", seen),
                Ok(n) => {
                    self.take(i, &buf[..n], seen);
                    if n < buf.len() && events & (sys::EPOLLRDHUP | sys::EPOLLHUP) == 0 {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.lost(i, &cause_of(&e), seen),
            }
        }
    }

    fn lost(&mut self, i: usize, cause: &str, seen: &mut Seen) {
        if let State::Body(_) = self.conns[i].state {
            seen.closed.bump(cause);
            seen.live -= 1;
            self.drop_conn(i);
        } else {
            self.fail(i, cause, seen);
        }
    }

    fn feed(&mut self, i: usize, data: &[u8], seen: &mut Seen) {
        seen.bytes += data.len() as u64;
        let now = sys::now_ns();
        let c = &mut self.conns[i];
        match &c.state {
            State::Body(_) => return self.feed_body(i, data, now, seen),
            State::Head => {}
            _ => return,
        }
        if c.tail.is_empty() {
            seen.first_byte.record_ns(now - c.sent_ns);
        }
        c.tail.extend_from_slice(data);
        let Some(end) = http::head_end(&c.tail) else { return };
        let whole = std::mem::take(&mut c.tail);
        let (head, rest) = whole.split_at(end);
        let status = http::status(head).unwrap_or(0);
        let ok = match self.args.kind {
            Kind::Sse => status == 200,
            Kind::Ws => status == 101,
        };
        if !ok {
            return self.fail(i, &format!("status {status}"), seen);
        }
        if self.args.kind == Kind::Ws
            && http::header(head, "sec-websocket-accept") != Some(WS_ACCEPT.as_bytes())
        {
            return self.fail(i, "bad websocket accept", seen);
        }
        if self.args.deflate && !compresses(head) {
            return self.fail(i, "no compression", seen);
        }
        let c = &mut self.conns[i];
        c.state = State::Body(Body::of_response(head));
        seen.established.record_ns(now - c.due_ns);
        seen.ready.see(now);
        seen.settled += 1;
        seen.live += 1;
        self.pending -= 1;
        if !rest.is_empty() {
            self.feed_body(i, rest, now, seen);
        }
    }

    fn feed_body(&mut self, i: usize, data: &[u8], now: u64, seen: &mut Seen) {
        let c = &mut self.conns[i];
        let mut pings = 0;
        let (mut seq, mut run) = (c.seq, c.run);
        let mut tail = std::mem::take(&mut c.tail);
        let mut content = |piece: &[u8], seen: &mut Seen| {
            if piece.first() == Some(&b':') {
                seen.keepalives += 1;
            }
            marker::scan(&mut tail, piece, |m| {
                seen.messages += 1;
                seen.latency.record_ns(now.saturating_sub(m.sent_ns));
                seen.received.see(now);
                // Numbers are checked within one run of one publisher.
                if m.run != run {
                    run = m.run;
                    seq = m.seq;
                } else if m.seq <= seq {
                    seen.repeats += 1;
                } else {
                    seen.gaps += (m.seq - seq - 1) as u64;
                    seq = m.seq;
                }
            });
        };
        let State::Body(body) = &mut c.state else { return };
        let mut over: Option<&str> = None;
        match body {
            Body::Chunked(chunked) => {
                chunked.feed(data, |d| content(d, seen));
                if chunked.done() {
                    over = Some("response ended");
                }
            }
            Body::Frames(frames) => frames.feed(data, |op, d| match op {
                8 => over = Some("websocket close"),
                9 => {
                    seen.keepalives += 1;
                    pings += 1;
                }
                _ => content(d, seen),
            }),
            Body::Length(left) => {
                content(data, seen);
                *left = left.saturating_sub(data.len());
                if *left == 0 {
                    over = Some("response ended");
                }
            }
            Body::UntilClose => content(data, seen),
        }
        let c = &mut self.conns[i];
        (c.seq, c.run, c.tail) = (seq, run, tail);
        for _ in 0..pings {
            c.pong();
        }
        if let Some(cause) = over {
            self.lost(i, cause, seen);
        }
    }
}

/// Whether the answer to an upgrade has permessage-deflate.
fn compresses(head: &[u8]) -> bool {
    http::header(head, "sec-websocket-extensions")
        .is_some_and(|value| memchr::memmem::find(value, b"permessage-deflate").is_some())
}
