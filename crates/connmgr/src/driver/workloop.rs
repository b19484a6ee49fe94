//! The loop of one worker: clients' sockets and listeners under mio, the engine between them and
//! the ZeroMQ side, which is either here ([`Direct`]) or in a thread of its own (`between`).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evloop::clock::Clock;
use mio::{Events, Poll, Token};

use super::inspect::{Inspection, Inspector};
use super::limit::{Limits, Share};
use super::listen::Listener;
use super::sockets::{FIRST_CLIENT, Sockets};
use super::tlsport::Context;
use super::zmqside::{self, ZmqSide};
use crate::{Client, Output, Session, Worker};

/// Token of everything that needs no look-up: wakers, ZeroMQ sockets that are asked in every turn.
pub(crate) const WAKE: Token = Token(0);
/// Token of the first listener; those before it belong to the exchange.
const FIRST_LISTENER: usize = 8;
const _: () = assert!(FIRST_LISTENER > zmqside::LAST_TOKEN);

/// Connections accepted from one listener in one turn.
const ACCEPTS_MAX: usize = 128;

/// ZeroMQ messages applied before the clients are written to. A burst is merged up to here.
const MESSAGES_MAX: usize = 500;

/// Rounds in which peers may turn out to be gone before the loop looks at other events.
const GONE_MAX: usize = 8;

/// How long to wait when accepting fails, as for want of files.
const NO_FILES_MS: u64 = 100;

/// How a worker reaches the ZeroMQ sockets.
pub(crate) trait Exchange {
    /// The loop has reported an event of this token; before everything else of the turn.
    fn edge(&mut self, _token: Token) {}
    /// Gives waiting messages and news of peers to the engine.
    fn receive(&mut self, now: u64, worker: &mut Worker, sockets: &mut Sockets);
    /// Takes what the engine wants to send. True: a peer turned out to be gone, so that the
    /// engine's turn is to be ended once more.
    fn send(&mut self, now: u64, worker: &mut Worker) -> bool;
    /// When it wants a turn without an event.
    fn next_deadline(&self, now: u64) -> Option<u64>;
    /// Whether a turn would find something at once.
    fn is_ready(&self) -> bool;
    /// Whether the process is to end.
    fn stops(&mut self) -> bool;
    /// Messages that wait here.
    fn parked(&self) -> usize {
        0
    }
    /// Sees to it that what was sent last leaves.
    fn finish(&mut self) {}
}

/// One worker's loop.
pub(crate) struct WorkLoop<E> {
    poll: Poll,
    worker: Worker,
    sockets: Sockets,
    listeners: Vec<Acceptor>,
    stream: Share,
    req: Share,
    inspection: Inspection,
    exchange: E,
    clock: Clock,
    no_files_until: u64,
}

#[derive(Debug)]
struct Acceptor {
    listener: Listener,
    req: bool,
    tls: Option<Arc<Context>>,
    /// The kernel may have connections that were not accepted.
    ready: bool,
}

impl<E: Exchange> WorkLoop<E> {
    /// `poll` has the exchange's sources and wakers already.
    pub(crate) fn new(
        poll: Poll,
        worker: Worker,
        listeners: Vec<(Listener, bool)>,
        limits: Limits,
        inspection: Inspection,
        exchange: E,
    ) -> io::Result<Self> {
        let mut acceptors = Vec::new();
        for (n, (mut listener, req)) in listeners.into_iter().enumerate() {
            listener.register(poll.registry(), Token(FIRST_LISTENER + n))?;
            let tls = listener.tls().map(|port| Context::new(port.clone()).map(Arc::new));
            acceptors.push(Acceptor { tls: tls.transpose()?, listener, req, ready: true });
        }
        Ok(Self {
            poll,
            worker,
            sockets: Sockets::default(),
            listeners: acceptors,
            stream: Share::new(limits.stream),
            req: Share::new(limits.req),
            inspection,
            exchange,
            clock: Clock::new(),
            no_files_until: 0,
        })
    }

    /// Runs until the exchange says stop; the last cancels have been sent then.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.exchange.stops() {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let since = Instant::now();
            self.turn(&events);
            self.inspection.turn_took(since);
        }
        let now = self.clock.now_ms();
        self.worker.shutdown(now, &mut self.sockets);
        self.exchange.send(now, &mut self.worker);
        self.exchange.finish();
        log::debug!("{:?}", self.worker.counters());
        Ok(())
    }

    fn turn(&mut self, events: &Events) {
        let now = self.clock.now_ms();
        for conn in self.sockets.start_turn() {
            self.worker.readable(now, &mut self.sockets, conn, false);
        }
        for event in events {
            match event.token().0 {
                token if token >= FIRST_CLIENT => self.client(now, token - FIRST_CLIENT, event),
                token if token < FIRST_LISTENER => {
                    self.exchange.edge(event.token());
                    (self.stream.full, self.req.full) = (false, false);
                }
                token => {
                    if let Some(acceptor) =
                        self.listeners.get_mut(token.wrapping_sub(FIRST_LISTENER))
                    {
                        acceptor.ready = true;
                    }
                }
            }
        }
        self.accept(now);
        self.exchange.receive(now, &mut self.worker, &mut self.sockets);
        self.worker.timeout(now, &mut self.sockets);
        self.worker.end_turn(now, &mut self.sockets);
        for _ in 0..GONE_MAX {
            if !self.exchange.send(now, &mut self.worker) {
                break;
            }
            self.worker.end_turn(now, &mut self.sockets);
        }
        let req = self.worker.len_req();
        self.stream.settle(self.worker.len() - req);
        self.req.settle(req);
        self.inspection.step(now, &self.worker, self.exchange.parked());
    }

    fn share(&mut self, req: bool) -> &mut Share {
        if req { &mut self.req } else { &mut self.stream }
    }

    /// Whether a listener may have connections that there is room for.
    fn accepts(&self, acceptor: &Acceptor) -> bool {
        acceptor.ready && !(if acceptor.req { self.req.full } else { self.stream.full })
    }

    fn client(&mut self, now: u64, place: usize, event: &mio::event::Event) {
        let conn = place as u32;
        let closed = event.is_read_closed() || event.is_error();
        if event.is_readable() || closed {
            self.sockets.arrived(conn, closed);
            self.worker.readable(now, &mut self.sockets, conn, closed);
        }
        if event.is_writable() {
            self.sockets.has_room(conn);
            self.worker.writable(now, &mut self.sockets, conn);
        }
    }

    /// How long to sleep.
    fn timeout(&mut self) -> Option<Duration> {
        let now = self.clock.now_ms();
        let accepting = self.listeners.iter().any(|acceptor| self.accepts(acceptor));
        let pause = accepting.then_some(self.no_files_until);
        let ready = self.exchange.is_ready() || self.sockets.is_ready();
        if ready || self.inspection.is_running() {
            return Some(Duration::ZERO);
        }
        let deadlines = [self.worker.next_deadline(), self.exchange.next_deadline(now), pause];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    fn accept(&mut self, now: u64) {
        if now < self.no_files_until {
            return;
        }
        for n in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_MAX {
                if !self.accepts(&self.listeners[n]) || !self.accept_one(now, n) {
                    break;
                }
            }
        }
    }

    /// Accepts one connection. False: no more now.
    fn accept_one(&mut self, now: u64, n: usize) -> bool {
        let req = self.listeners[n].req;
        let share = self.share(req);
        if !share.take() {
            if share.limit.is_full_news() {
                let max = share.limit.max();
                log::warn!("{max} clients are the limit: others wait until one of them leaves");
            }
            return false;
        }
        let result = self.listeners[n].listener.accept();
        let tls = self.listeners[n].tls.as_ref();
        let result = result.and_then(|(stream, address)| Ok((stream.with_tls(tls)?, address)));
        let (stream, address) = match result {
            Ok(accepted) => accepted,
            Err(error) => {
                self.share(req).put_back();
                self.accept_failed(now, n, &error);
                return false;
            }
        };
        match address {
            Some(address) => log::debug!("accepted connection from {address}"),
            None => log::debug!("accepted connection from a Unix socket"),
        }
        let secure = tls.is_some();
        // Listeners beyond the last number share it.
        let listener = u8::try_from(n).unwrap_or(u8::MAX);
        let client = Client { address, secure, req, listener };
        let conn = self.worker.accept(now, client);
        if let Err(error) = self.sockets.add(self.poll.registry(), conn, stream) {
            log::error!("accept error: {error}");
            self.worker.readable(now, &mut self.sockets, conn, true);
        }
        true
    }

    fn accept_failed(&mut self, now: u64, n: usize, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.listeners[n].ready = false,
            // That client is gone again; the next one is not.
            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
            _ => {
                self.no_files_until = now + NO_FILES_MS;
                let req = self.listeners[n].req;
                if !is_shortage(error) {
                    log::error!("accept error: {error}");
                } else if self.share(req).limit.out_of_files() {
                    log::error!("accept error: {error}; accepting goes on as connections close");
                }
            }
        }
    }
}

/// Whether the system is out of something that comes back.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    short.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The exchange of an only worker: it owns the ZeroMQ sockets.
pub(crate) struct Direct<S> {
    pub(crate) zmq: ZmqSide,
    pub(crate) stops: S,
    pub(crate) inspector: Arc<Inspector>,
    /// Number of the last question that was answered.
    pub(crate) asked: u64,
}

impl<S: FnMut() -> bool> Exchange for Direct<S> {
    fn edge(&mut self, token: Token) {
        self.zmq.edge(token);
    }

    fn receive(&mut self, now: u64, worker: &mut Worker, sockets: &mut Sockets) {
        self.inspector.note_queues(&mut self.asked, || self.zmq.queues());
        self.zmq.receive(MESSAGES_MAX, |message| worker.packet(now, sockets, message));
        if let Some(req) = &mut self.zmq.req {
            req.receive(MESSAGES_MAX, |message| worker.req_packet(now, sockets, message));
        }
        let left = self.zmq.left(now);
        if left.push {
            worker.push_disconnected(now);
        }
        if left.probe {
            worker.probe(now);
        }
        for peer in self.zmq.retry(now) {
            worker.peer_gone(now, &peer);
        }
        for peer in self.zmq.emptied() {
            worker.peer_full(&peer, false);
        }
    }

    fn send(&mut self, now: u64, worker: &mut Worker) -> bool {
        let mut gone = false;
        self.zmq.send_waiting(now, |session: Session| worker.is_waiting(session));
        while let Some(output) = worker.poll_output() {
            match output {
                Output::First { session, packet } => self.zmq.first(now, session, packet),
                Output::Req { session, packet } => self.zmq.request(now, session, packet),
                Output::To { peer, packet } => {
                    if !self.zmq.to(now, &peer, packet) {
                        gone = true;
                        worker.peer_gone(now, &peer);
                    } else if self.zmq.filled(&peer) {
                        worker.peer_full(&peer, true);
                    }
                }
            }
        }
        gone
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        self.zmq.next_deadline(now)
    }

    fn is_ready(&self) -> bool {
        self.zmq.is_ready()
    }

    fn stops(&mut self) -> bool {
        (self.stops)()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Instant;

    use mio::Waker;

    use super::*;
    use crate::driver::listen::{ListenSpec, TcpOptions};
    use crate::{Blocks, Config};

    /// No wait of these tests is longer.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Nobody to talk to: counts turns, and stops when told.
    #[derive(Clone, Default)]
    struct Alone {
        turns: Arc<AtomicUsize>,
        clients: Arc<AtomicUsize>,
        stop: Arc<AtomicBool>,
    }

    impl Exchange for Alone {
        fn receive(&mut self, _: u64, worker: &mut Worker, _: &mut Sockets) {
            self.turns.fetch_add(1, Ordering::Relaxed);
            self.clients.store(worker.len(), Ordering::Relaxed);
        }

        fn send(&mut self, _: u64, _: &mut Worker) -> bool {
            false
        }

        fn next_deadline(&self, _: u64) -> Option<u64> {
            None
        }

        fn is_ready(&self) -> bool {
            false
        }

        fn stops(&mut self) -> bool {
            self.stop.load(Ordering::Relaxed)
        }
    }

    fn make(max: usize) -> (WorkLoop<Alone>, Arc<Waker>, u16, Alone) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
        let limits = Limits::new(max, max);
        limits.join(&waker);
        let inspection = Inspector::new(Blocks::default(), None).join(waker.clone());
        let spec: ListenSpec = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&spec, &TcpOptions::default()).unwrap();
        let port = listener.describe(&spec).rsplit(':').next().unwrap().parse().unwrap();
        let (worker, alone) = (Worker::new(Config::default()), Alone::default());
        let listeners = vec![(listener, false)];
        let work = WorkLoop::new(poll, worker, listeners, limits, inspection, alone.clone());
        let work = work.unwrap();
        (work, waker, port, alone)
    }

    #[test]
    fn waits_without_turning_when_the_limit_is_reached() {
        let (work, waker, port, alone) = make(2);
        let thread = std::thread::spawn(move || work.run());
        let mut clients: Vec<TcpStream> =
            (0..4).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let start = Instant::now();
        let wait = |count| {
            while alone.clients.load(Ordering::Relaxed) != count {
                assert!(start.elapsed() < PATIENCE);
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait(2);
        let before = alone.turns.load(Ordering::Relaxed);
        // Ample time for thousands of turns, if it did turn.
        std::thread::sleep(Duration::from_millis(300));
        let turns = alone.turns.load(Ordering::Relaxed) - before;
        assert!(turns < 10, "{turns} turns with nothing to do");
        // The room of those that leave is for those that wait.
        clients.drain(..2);
        let two = clients.len();
        wait(two);
        clients.clear();
        wait(0);
        alone.stop.store(true, Ordering::Relaxed);
        waker.wake().unwrap();
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_shortage_of_files_pauses_accepting() {
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NOBUFS, rustix::io::Errno::PERM]
        {
            let (mut work, _waker, port, _alone) = make(10);
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let now = work.clock.now_ms() + 1_000;
            work.accept_failed(now, 0, &errno.into());
            work.accept(now + NO_FILES_MS - 1);
            assert_eq!(work.worker.len(), 0);
            let timeout = work.timeout().unwrap();
            assert!(timeout > Duration::from_millis(NO_FILES_MS / 2), "{timeout:?}");
            work.accept(now + NO_FILES_MS);
            assert_eq!(work.worker.len(), 1);
        }
    }
}
