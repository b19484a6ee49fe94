//! The thread between several workers of the client side and the ZeroMQ sockets, which one thread
//! must own. A session's worker follows from its id; requests of req mode go round.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use evloop::clock::Clock;
use mio::{Events, Poll, Waker};

use super::reports::{Reports, SocketDrops};
use super::sockets::{Arrival, Room, Sockets};
use super::work::Exchange;
use crate::client::{Message, Outgoing, worker_of};
use crate::driver::between::{each_id, why_unread};
use crate::driver::queues::{BUDGET, Outlet, QUEUE_MAX, RETRY_MS, STOP_MS, WAITING_MAX};

/// What a worker is told.
#[derive(Clone, Debug)]
enum News {
    First(Bytes),
    Further(Bytes),
    Request(Vec<Vec<u8>>, Bytes),
    Probe,
    PeerGone(Arc<[u8]>),
}

/// Sessions that were given to workers and have not ended, over all workers: the limits are of
/// the process.
#[derive(Debug, Default)]
struct Tally {
    stream: AtomicUsize,
    req: AtomicUsize,
}

/// The worker's end.
pub(super) struct WorkerEnd {
    inbox: Receiver<News>,
    outbox: Outlet<Message>,
    tally: Arc<Tally>,
    /// This worker's part of the tally.
    counted: Room,
    stop: Arc<AtomicBool>,
    more: bool,
}

impl WorkerEnd {
    fn take(&mut self, now: u64, news: News, engine: &mut Outgoing) {
        match news {
            News::First(packet) => {
                self.counted.stream += 1;
                engine.first(now, &packet);
            }
            News::Further(message) => engine.packet(now, &message),
            News::Request(envelope, packet) => {
                self.counted.req += 1;
                engine.request(now, envelope, &packet);
            }
            News::Probe => engine.probe(now),
            News::PeerGone(peer) => engine.peer_gone(now, &peer),
        }
    }
}

impl Exchange for WorkerEnd {
    fn receive(&mut self, now: u64, engine: &mut Outgoing) {
        self.more = true;
        for _ in 0..BUDGET {
            match self.inbox.try_recv() {
                Ok(news) => self.take(now, news, engine),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    self.more = false;
                    return;
                }
            }
        }
    }

    fn send(&mut self, _: u64, message: Message) -> Option<Arc<[u8]>> {
        self.outbox.send(message);
        None
    }

    fn end_turn(&mut self, engine: &Outgoing) {
        let live = Room { stream: engine.stream_len(), req: engine.req_len() };
        let ended =
            Room { stream: self.counted.stream - live.stream, req: self.counted.req - live.req };
        self.counted = live;
        self.outbox.pass();
        if ended == Room::NONE {
            return self.outbox.wake();
        }
        self.tally.stream.fetch_sub(ended.stream, Ordering::Relaxed);
        self.tally.req.fetch_sub(ended.req, Ordering::Relaxed);
        // There is room again, which requests may wait for.
        self.outbox.wake_anyway();
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        (self.outbox.waiting() > 0).then_some(now + RETRY_MS)
    }

    fn is_ready(&self, _: &Outgoing) -> bool {
        self.more
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The last cancels may wait: the thread between takes them until every worker has ended.
    fn finish(&mut self) {
        self.outbox.finish();
    }
}

/// The thread's state.
pub(super) struct Middle {
    sockets: Sockets,
    /// To each worker.
    seats: Vec<Outlet<News>>,
    /// Whose turn it is to get a request of req mode.
    next_seat: usize,
    outputs: Receiver<Message>,
    sender: Option<SyncSender<Message>>,
    waker: Arc<Waker>,
    tally: Arc<Tally>,
    max: Room,
    stop: Arc<AtomicBool>,
    reports: Arc<Reports>,
    more: bool,
}

impl Middle {
    /// `waker` wakes the poll that [`Middle::run`] gets, which has the sockets already. `max`: most
    /// sessions of each mode.
    pub(super) fn new(
        sockets: Sockets,
        waker: Arc<Waker>,
        max: Room,
        stop: Arc<AtomicBool>,
        reports: Arc<Reports>,
    ) -> Self {
        let (sender, outputs) = sync_channel(QUEUE_MAX);
        Self {
            sockets,
            seats: Vec::new(),
            next_seat: 0,
            outputs,
            sender: Some(sender),
            waker,
            tally: Arc::default(),
            max,
            stop,
            reports,
            more: false,
        }
    }

    /// The end for one more worker, which `waker` wakes. `None` once the thread runs.
    pub(super) fn seat(&mut self, waker: Arc<Waker>) -> Option<WorkerEnd> {
        let outbox = self.sender.clone()?;
        let (sender, inbox) = sync_channel(QUEUE_MAX);
        self.seats.push(Outlet::new(sender, waker));
        Some(WorkerEnd {
            inbox,
            outbox: Outlet::new(outbox, self.waker.clone()),
            tally: self.tally.clone(),
            counted: Room::NONE,
            stop: self.stop.clone(),
            more: false,
        })
    }

    /// Runs until it is to stop and every worker has ended, or does not end.
    pub(super) fn run(mut self, mut poll: Poll) -> io::Result<()> {
        self.sender = None;
        let clock = Clock::new();
        let mut stop_at = None;
        let mut events = Events::with_capacity(64);
        loop {
            let timeout = self.timeout(clock.now_ms());
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = clock.now_ms();
            if stop_at.is_none() && self.stop.load(Ordering::Relaxed) {
                stop_at = Some(now + STOP_MS);
                self.seats.iter().for_each(Outlet::wake_anyway);
            }
            if !self.turn(now) || stop_at.is_some_and(|at| at <= now) {
                return Ok(());
            }
        }
    }

    fn timeout(&self, now: u64) -> Option<Duration> {
        if self.more || (!self.is_full() && self.sockets.is_ready(self.room())) {
            return Some(Duration::ZERO);
        }
        let waiting = self.seats.iter().any(|seat| seat.waiting() > 0);
        // The end of the last worker wakes nobody.
        let retry = waiting || self.stop.load(Ordering::Relaxed);
        let retry = retry.then_some(now + RETRY_MS);
        let next = [retry, self.sockets.next_deadline(now)].into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// For how many more sessions there is room.
    fn room(&self) -> Room {
        let left =
            |max: usize, tally: &AtomicUsize| max.saturating_sub(tally.load(Ordering::Relaxed));
        Room {
            stream: left(self.max.stream, &self.tally.stream),
            req: left(self.max.req, &self.tally.req),
        }
    }

    /// Whether a worker is so far behind that no more is taken from the sockets.
    fn is_full(&self) -> bool {
        self.seats.iter().any(|seat| seat.waiting() >= WAITING_MAX)
    }

    /// One turn. False: every worker has ended.
    fn turn(&mut self, now: u64) -> bool {
        let running = self.send(now);
        self.seats.iter_mut().for_each(Outlet::pass);
        if !self.is_full() {
            self.receive();
        }
        if self.sockets.is_probe_due(now) {
            self.tell_all(&News::Probe);
        }
        for peer in self.sockets.retry(now) {
            self.tell_all(&News::PeerGone(peer.into()));
        }
        self.seats.iter_mut().for_each(Outlet::wake);
        running
    }

    /// Sends what the workers want sent. False: none of them is left.
    fn send(&mut self, now: u64) -> bool {
        self.more = true;
        for _ in 0..BUDGET {
            match self.outputs.try_recv() {
                Ok(message) => {
                    if let Some(peer) = self.sockets.send(now, message) {
                        self.tell_all(&News::PeerGone(peer));
                    }
                }
                Err(error) => {
                    self.more = false;
                    return error == TryRecvError::Empty;
                }
            }
        }
        true
    }

    /// Gives what came to the workers.
    fn receive(&mut self) {
        let room = self.room();
        let Self { sockets, seats, next_seat, tally, reports, .. } = self;
        sockets.receive(room, &mut |arrival| match arrival {
            Arrival::First(packet) => {
                tally.stream.fetch_add(1, Ordering::Relaxed);
                let owner = owner(packet, seats.len());
                seats[owner].send(News::First(Bytes::copy_from_slice(packet)));
            }
            Arrival::Further(message) => hand_out(seats, message, &reports.drops),
            Arrival::Request(envelope, packet) => {
                tally.req.fetch_add(1, Ordering::Relaxed);
                *next_seat = (*next_seat + 1) % seats.len();
                seats[*next_seat].send(News::Request(envelope, Bytes::copy_from_slice(packet)));
            }
        });
    }

    fn tell_all(&mut self, news: &News) {
        self.seats.iter_mut().for_each(|seat| seat.send(news.clone()));
    }
}

/// Which of so many workers a first packet is for; the first one says what is wrong with a packet
/// that cannot be read.
fn owner(packet: &[u8], workers: usize) -> usize {
    let mut owner = 0;
    each_id(packet, |id| owner = worker_of(id, workers as u16));
    owner.into()
}

/// Gives a message to each worker that may have a session of it.
fn hand_out(seats: &mut [Outlet<News>], message: &[u8], drops: &SocketDrops) {
    let workers = seats.len() as u16;
    let mut named = vec![false; seats.len()];
    for packet in zhttp::split(message) {
        let read = each_id(packet, |id| named[usize::from(worker_of(id, workers))] = true);
        if read.is_none() {
            drops.malformed();
            log::warn!("unable to determine packet id(s): {}", why_unread(packet));
        }
    }
    let shared = Bytes::copy_from_slice(message);
    for (seat, _) in seats.iter_mut().zip(named).filter(|(_, named)| *named) {
        seat.send(News::Further(shared.clone()));
    }
}

#[cfg(test)]
mod tests {
    use mio::Token;
    use zhttp::{Ext, Head, Id};

    use super::*;

    #[test]
    fn packets_go_to_the_workers_of_their_sessions() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (mut seats, inboxes): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (sender, inbox) = sync_channel(4);
                (Outlet::new(sender, waker.clone()), inbox)
            })
            .unzip();
        let ids: Vec<String> = (0..30).map(|n| format!("r{n}")).collect();
        let reports = Reports::new(3);
        for count in [1, 2, 30] {
            let named: Vec<Id<'_>> =
                ids[..count].iter().map(|id| Id { id: id.as_bytes(), seq: Some(1) }).collect();
            let mut packet = Vec::new();
            let head = Head { from: b"px", ids: &named, ext: Ext::default() };
            zhttp::write(&mut packet, &head, |_| {});
            hand_out(&mut seats, &packet, &reports.drops);
            for (seat, inbox) in (0..3).zip(&inboxes) {
                let meant = named.iter().any(|id| worker_of(id.id, 3) == seat);
                let got = matches!(inbox.try_recv(), Ok(News::Further(got)) if got == packet);
                assert_eq!(got, meant, "{count} sessions, worker {seat}");
                assert!(inbox.try_recv().is_err());
            }
            if count == 1 {
                assert_eq!(owner(&packet, 3), usize::from(worker_of(named[0].id, 3)));
            }
        }
        // Nobody is bothered with what cannot be read, but somebody says so of a first packet.
        assert_eq!(reports.overview().malformed, 0);
        hand_out(&mut seats, b"junk", &reports.drops);
        assert_eq!(reports.overview().malformed, 1);
        assert!(inboxes.iter().all(|inbox| inbox.try_recv().is_err()));
        assert_eq!(owner(b"junk", 3), 0);
    }
}
