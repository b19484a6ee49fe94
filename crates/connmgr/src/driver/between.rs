//! The thread between several workers and the ZeroMQ sockets, which one thread must own. Packets
//! go to the workers whose sessions they name, by the first part of the session id; the queues are
//! bounded, and what does not fit waits on its own side and holds up nobody else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use bytes::Bytes;
use evloop::clock::Clock;
use mio::{Events, Poll, Waker};
use std::time::Duration;
use tnetstring::Value;

use super::inspect::Inspector;
use super::queues::{BUDGET, Outlet, QUEUE_MAX, RETRY_MS, STOP_MS, WAITING_MAX};
use super::sockets::Sockets;
use super::workloop::Exchange;
use super::zmqside::{Queues, ZmqSide};
use crate::session::worker_of;
use crate::{Output, Worker};

/// What a worker is told.
#[derive(Clone, Debug)]
enum News {
    Message(Bytes),
    Response(Bytes),
    PushLeft,
    Probe,
    PeerGone(Arc<[u8]>),
    PeerFull(Arc<[u8]>, bool),
}

/// The worker's end.
pub(crate) struct WorkerEnd {
    inbox: Receiver<News>,
    outbox: Outlet<Output>,
    stop: Arc<AtomicBool>,
    /// Some worker's peers announced what only ours do.
    ours: Arc<AtomicBool>,
    more: bool,
}

impl Exchange for WorkerEnd {
    fn receive(&mut self, now: u64, worker: &mut Worker, sockets: &mut Sockets) {
        self.more = true;
        for _ in 0..BUDGET {
            match self.inbox.try_recv() {
                Ok(News::Message(message)) => worker.packet(now, sockets, &message),
                Ok(News::Response(message)) => worker.req_packet(now, sockets, &message),
                Ok(News::PushLeft) => {
                    if self.ours.load(Ordering::Relaxed) {
                        worker.note_batch();
                    }
                    worker.push_disconnected(now);
                }
                Ok(News::Probe) => worker.probe(now),
                Ok(News::PeerGone(peer)) => worker.peer_gone(now, &peer),
                Ok(News::PeerFull(peer, full)) => worker.peer_full(&peer, full),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    self.more = false;
                    break;
                }
            }
        }
        if worker.peers_batch() {
            self.ours.store(true, Ordering::Relaxed);
        }
    }

    fn send(&mut self, _now: u64, worker: &mut Worker) -> bool {
        while let Some(output) = worker.poll_output() {
            self.outbox.send(output);
        }
        self.outbox.pass();
        self.outbox.wake();
        false
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        (self.outbox.waiting() > 0).then_some(now + RETRY_MS)
    }

    fn is_ready(&self) -> bool {
        self.more
    }

    fn parked(&self) -> usize {
        self.outbox.waiting()
    }

    fn stops(&mut self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The last cancels may wait: the thread between takes them until every worker has ended.
    fn finish(&mut self) {
        self.outbox.finish();
    }
}

/// The thread's state.
pub(crate) struct Middle {
    zmq: ZmqSide,
    /// To each worker.
    seats: Vec<Outlet<News>>,
    outputs: Receiver<Output>,
    sender: Option<SyncSender<Output>>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    ours: Arc<AtomicBool>,
    inspector: Arc<Inspector>,
    asked: u64,
    lost: Lost,
    more: bool,
}

/// What no worker gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    /// Packets of which no session could be read.
    malformed: u64,
    /// Sessions that were named and are no worker's.
    unknown: u64,
}

impl Middle {
    /// `waker` wakes the poll that [`Middle::run`] gets.
    pub(crate) fn new(zmq: ZmqSide, waker: Arc<Waker>, inspector: Arc<Inspector>) -> Self {
        let (sender, outputs) = sync_channel(QUEUE_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let ours = Arc::new(AtomicBool::new(false));
        let sender = Some(sender);
        Self {
            zmq,
            seats: Vec::new(),
            outputs,
            sender,
            waker,
            stop,
            ours,
            inspector,
            asked: 0,
            lost: Lost::default(),
            more: false,
        }
    }

    /// The end for one more worker, which `waker` wakes. `None` once the thread runs.
    pub(crate) fn seat(&mut self, waker: Arc<Waker>) -> Option<WorkerEnd> {
        let outbox = self.sender.clone()?;
        let (sender, inbox) = sync_channel(QUEUE_MAX);
        self.seats.push(Outlet::new(sender, waker));
        Some(WorkerEnd {
            inbox,
            outbox: Outlet::new(outbox, self.waker.clone()),
            stop: self.stop.clone(),
            ours: self.ours.clone(),
            more: false,
        })
    }

    /// Runs until `stops` says so and every worker has ended, or does not end.
    pub(crate) fn run(
        &mut self,
        poll: &mut Poll,
        mut stops: impl FnMut() -> bool,
    ) -> io::Result<()> {
        self.sender = None;
        let clock = Clock::new();
        let mut stop_at = u64::MAX;
        let mut events = Events::with_capacity(64);
        loop {
            let timeout = self.timeout(clock.now_ms());
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            events.iter().for_each(|event| self.zmq.edge(event.token()));
            let now = clock.now_ms();
            if stops() {
                stop_at = now + STOP_MS;
                self.stop.store(true, Ordering::Relaxed);
                self.seats.iter().for_each(Outlet::wake_anyway);
            }
            if !self.turn(now) || now > stop_at {
                return Ok(());
            }
        }
    }

    fn timeout(&self, now: u64) -> Option<Duration> {
        let parked = self.seats.iter().any(|seat| seat.waiting() > 0);
        if self.more || (!self.is_full() && self.zmq.is_ready()) {
            return Some(Duration::ZERO);
        }
        // The end of the last worker wakes nobody.
        let stopping = self.stop.load(Ordering::Relaxed);
        let retry = (parked || stopping).then_some(now + RETRY_MS);
        let next = [retry, self.zmq.next_deadline(now)].into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// Whether a worker is so far behind that no more is taken from the sockets.
    fn is_full(&self) -> bool {
        self.seats.iter().any(|seat| seat.waiting() >= WAITING_MAX)
    }

    /// One turn. False: every worker has ended.
    fn turn(&mut self, now: u64) -> bool {
        let running = self.send(now);
        self.inspector.note_queues(&mut self.asked, || {
            let queues = self.zmq.queues();
            let Lost { malformed, unknown } = self.lost;
            Queues { malformed: queues.malformed + malformed, unknown, ..queues }
        });
        // Workers drop what nobody waits for any more when the answer comes.
        self.zmq.send_waiting(now, |_| true);
        self.seats.iter_mut().for_each(Outlet::pass);
        if !self.is_full() {
            let Self { seats, lost, .. } = self;
            self.zmq.receive(BUDGET, |message| hand_out(seats, message, lost));
            if let Some(req) = &mut self.zmq.req {
                req.receive(BUDGET, |message| hand_out_response(seats, message, lost));
            }
        }
        let left = self.zmq.left(now);
        if left.push {
            self.tell_all(&News::PushLeft);
        }
        if left.probe {
            self.tell_all(&News::Probe);
        }
        for peer in self.zmq.retry(now) {
            self.tell_all(&News::PeerGone(peer.into()));
        }
        for peer in self.zmq.emptied() {
            self.tell_all(&News::PeerFull(peer, false));
        }
        self.seats.iter_mut().for_each(Outlet::wake);
        running
    }

    /// Sends what the workers want sent. False: none of them is left.
    fn send(&mut self, now: u64) -> bool {
        self.more = true;
        for _ in 0..BUDGET {
            match self.outputs.try_recv() {
                Ok(Output::First { session, packet }) => self.zmq.first(now, session, packet),
                Ok(Output::Req { session, packet }) => self.zmq.request(now, session, packet),
                Ok(Output::To { peer, packet }) => {
                    if !self.zmq.to(now, &peer, packet) {
                        self.tell_all(&News::PeerGone(peer));
                    } else if self.zmq.filled(&peer) {
                        self.tell_all(&News::PeerFull(peer, true));
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

    fn tell_all(&mut self, news: &News) {
        self.seats.iter_mut().for_each(|seat| seat.send(news.clone()));
    }
}

/// Gives a message to each worker that has a session of it.
fn hand_out(seats: &mut [Outlet<News>], message: &[u8], lost: &mut Lost) {
    let mut named = vec![false; seats.len()];
    for packet in zhttp::split(message) {
        mark(packet, &mut named, lost);
    }
    let shared = Bytes::copy_from_slice(message);
    for (seat, _) in seats.iter_mut().zip(named).filter(|(_, named)| *named) {
        seat.send(News::Message(shared.clone()));
    }
}

/// Gives a response of req mode to the worker that has the request.
fn hand_out_response(seats: &mut [Outlet<News>], message: &[u8], lost: &mut Lost) {
    let mut named = vec![false; seats.len()];
    mark(message, &mut named, lost);
    for (seat, _) in seats.iter_mut().zip(named).filter(|(_, named)| *named) {
        seat.send(News::Response(Bytes::copy_from_slice(message)));
    }
}

/// Why [`each_id`] cannot read a packet (`spec/zhttp.md §12`).
pub(super) fn why_unread(packet: &[u8]) -> String {
    match zhttp::Packet::parse(packet) {
        Ok(_) => "there is no id".into(),
        Err(reason) => reason.to_string(),
    }
}

/// Marks the workers whose sessions a packet names, and counts what is nobody's.
fn mark(packet: &[u8], named: &mut [bool], lost: &mut Lost) {
    let read = each_id(packet, |id| {
        match worker_of(id).and_then(|worker| named.get_mut(usize::from(worker))) {
            Some(seat) => *seat = true,
            None => lost.unknown += 1,
        }
    });
    if read.is_none() {
        lost.malformed += 1;
        log::warn!("unable to determine packet id(s): {}", why_unread(packet));
    }
}

/// The session ids of a packet, of which nothing else is looked at. `None`: it cannot be read, or
/// has none.
pub(super) fn each_id(packet: &[u8], mut note: impl FnMut(&[u8])) -> Option<()> {
    let (root, _) = tnetstring::parse(packet.strip_prefix(b"T")?).ok()?;
    match root.as_map()?.get("id").ok()?? {
        Value::Bytes(id) => note(id),
        Value::List(list) if !list.is_empty() => {
            for entry in list.iter() {
                let entry = entry.ok()?;
                note(entry.as_map()?.get("id").ok()??.as_bytes()?);
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zhttp::{Ext, Head, Id};

    #[test]
    fn packets_go_to_the_workers_they_name() {
        let workers = |ids: &[&str]| {
            let ids: Vec<Id<'_>> =
                ids.iter().map(|id| Id { id: id.as_bytes(), seq: Some(0) }).collect();
            let mut packet = Vec::new();
            let head = Head { from: b"px", ids: &ids, ext: Ext::default() };
            zhttp::write(&mut packet, &head, |_| {});
            let (mut named, mut lost) = (vec![false; 3], Lost::default());
            mark(&packet, &mut named, &mut lost);
            assert_eq!(lost.malformed, 0);
            (named, lost.unknown)
        };
        assert_eq!(workers(&["1-5-a"]), (vec![false, true, false], 0));
        assert_eq!(workers(&["0-5-a", "2-1-b"]), (vec![true, false, true], 0));
        assert_eq!(workers(&["7-5-a"]), (vec![false; 3], 1));
        assert_eq!(workers(&["0-5-a", "3-1-b", "junk", ""]), (vec![true, false, false], 3));
        let reasons = [
            (&b"junk"[..], "unrecognized data format"),
            (b"T", "unexpected eof"),
            (b"T5:2:id,}", "unexpected eof"),
            (b"Tx:}", "invalid data"),
            (b"T12:2:id,4:true!}", "id must be of type map or string"),
            (b"T0:}", "there is no id"),
            (b"T8:2:id,0:]}", "there is no id"),
            (b"", "unrecognized data format"),
        ];
        for (packet, reason) in reasons {
            let mut lost = Lost::default();
            mark(packet, &mut [false], &mut lost);
            assert_eq!(lost, Lost { malformed: 1, unknown: 0 });
            assert_eq!(why_unread(packet), reason);
        }
    }
}
