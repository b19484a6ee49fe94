//! The engine of one worker: its connections, and the verbs by which a driver or a test moves it.
//! The verbs' work is in the other files: `reading` and `request` for clients, `packets` and
//! `response` for peers, `flush` for the end of a turn, `timeouts` and `keepalive` for the clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use evloop::arena::Arena;
use zhttp::{Ext, Head, Id};

use crate::conn::{Conn, REQ, SECURE, State};
use crate::keepalive::{Cycle, KEPT};
use crate::net::Net;
use crate::peers::{PeerId, Peers};
use crate::reading::PIECE_MAX;
use crate::session::Session;
use crate::timeouts::Timers;
use crate::turn::Turn;
use crate::ws_out::Compressor;
use crate::{Config, Counters};

/// A ZeroMQ message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The first packet of a session, to whichever process takes it.
    First {
        /// Whose; [`Worker::is_waiting`] tells whether it is still wanted.
        session: Session,
        /// The message.
        packet: Vec<u8>,
    },
    /// A request of req mode, to whichever process takes it.
    Req {
        /// Whose; [`Worker::is_waiting`] tells whether it is still wanted.
        session: Session,
        /// The message.
        packet: Vec<u8>,
    },
    /// Packets of running sessions, to one process.
    To {
        /// Its instance id.
        peer: Arc<[u8]>,
        /// The message: one packet, or several if the peer announced `batch`.
        packet: Vec<u8>,
    },
}

/// A new client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Where it is; none for Unix sockets.
    pub address: Option<SocketAddr>,
    /// Whether it speaks TLS: its requests are `https`.
    pub secure: bool,
    /// Whether its listener is one of req mode.
    pub req: bool,
    /// Which listener of the process accepted it.
    pub listener: u8,
}

impl From<Option<SocketAddr>> for Client {
    fn from(address: Option<SocketAddr>) -> Self {
        Self { address, ..Self::default() }
    }
}

/// A packet that is put off to the end of the turn, to share it with other sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Grant {
    pub(crate) peer: PeerId,
    pub(crate) credits: u32,
    pub(crate) slot: u32,
    pub(crate) counter: u32,
}

/// A session that is over here and not yet at its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cancel {
    pub(crate) peer: PeerId,
    pub(crate) slot: u32,
    pub(crate) counter: u32,
    pub(crate) seq: u32,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    pub(crate) config: Config,
    pub(crate) conns: Arena<Conn>,
    pub(crate) turn: Turn,
    pub(crate) peers: Peers,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) cancels: Vec<Cancel>,
    pub(crate) timers: Timers,
    pub(crate) cycle: Cycle,
    pub(crate) counters: Counters,
    /// Read into here; kept by a connection only if it is not dealt with at once.
    pub(crate) scratch: Vec<u8>,
    /// A request body's bytes without their framing.
    pub(crate) body: Vec<u8>,
    /// Compresses messages for all connections.
    pub(crate) compressor: Compressor,
    /// Connections that have more to be read, and have had their share of this turn.
    pub(crate) unfinished: Vec<u32>,
    /// Bytes in the queues of blocked connections.
    pub(crate) pinned: usize,
    /// Bytes below the engine that blocked clients have not taken, as of the last turn.
    pub(crate) below: usize,
    /// Buffers that connections' windows have beyond their first.
    pub(crate) lent: usize,
    /// Connections of req mode.
    req_conns: usize,
    /// A process that takes first packets left, and nobody took one since.
    pub(crate) push_lost: bool,
    pub(crate) now: u64,
    next_counter: u32,
}

impl Worker {
    /// A worker without connections.
    pub fn new(config: Config) -> Self {
        Self {
            conns: Arena::new(),
            turn: Turn::new(),
            peers: Peers::default(),
            outputs: VecDeque::new(),
            grants: Vec::new(),
            cancels: Vec::new(),
            timers: Timers::new(),
            cycle: Cycle::default(),
            counters: Counters::default(),
            scratch: vec![0; PIECE_MAX.max(config.buffer_size as usize)],
            body: Vec::new(),
            compressor: Compressor::default(),
            unfinished: Vec::new(),
            pinned: 0,
            below: 0,
            lent: 0,
            req_conns: 0,
            push_lost: false,
            now: 0,
            next_counter: config.first_counter,
            config,
        }
    }

    /// Connections, and sessions of clients that left before anybody took their request.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The connections of req mode among them.
    pub fn len_req(&self) -> usize {
        self.req_conns
    }

    /// Bytes that wait for clients that do not read; ciphertext as of the last turn.
    pub fn pinned(&self) -> usize {
        self.pinned + self.below
    }

    /// Bytes by which connections' windows are larger than one buffer, all together.
    pub fn lent(&self) -> usize {
        self.lent * self.config.buffer_size as usize
    }

    /// Whether a peer announced `batch`, as only ours do.
    pub fn peers_batch(&self) -> bool {
        self.peers.batch_seen()
    }

    /// Another worker of the process has seen a peer that announced `batch`.
    pub fn note_batch(&mut self) {
        self.peers.note_batch();
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes a new connection in; gives the number by which the [`Net`] and the other verbs name
    /// it.
    pub fn accept(&mut self, now: u64, client: impl Into<Client>) -> u32 {
        self.now = now;
        let client = client.into();
        let mut conn = Conn::new(client.address);
        conn.set(SECURE, client.secure);
        conn.set(REQ, client.req);
        (conn.listener, conn.since_s) = (client.listener, (now / 1000) as u32);
        let slot = self.conns.insert(conn).index;
        self.counters.accepts += 1;
        self.req_conns += usize::from(client.req);
        self.ready_for_request(slot);
        self.log_start(slot, client.req);
        slot
    }

    fn log_start(&self, slot: u32, req: bool) {
        let (stream_max, req_max) = self.config.maxconn;
        let (mode, count, max) = if req {
            ("req", self.req_conns, req_max)
        } else {
            ("stream", self.conns.len() - self.req_conns, stream_max)
        };
        let number = self.config.worker;
        log::debug!("server-worker {number}: {mode} conn starting {slot} {count}/{max}");
    }

    /// ZeroMQ messages that wait to be sent.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The next ZeroMQ message to send; call until there is none, after [`Worker::end_turn`].
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            self.outputs.shrink_to(KEPT);
        }
        output
    }

    /// Whether somebody still waits for the answer to this first packet.
    pub fn is_waiting(&self, session: Session) -> bool {
        self.conns
            .at(session.slot)
            .is_some_and(|conn| conn.state == State::Request && conn.counter == session.counter)
    }

    /// The counter of a new session.
    pub(crate) fn new_counter(&mut self) -> u32 {
        let counter = self.next_counter;
        self.next_counter = counter.wrapping_add(1);
        counter
    }

    pub(crate) fn session(&self, slot: u32, counter: u32) -> Session {
        Session { worker: self.config.worker, slot, counter }
    }

    /// Writes a packet of one session to its peer, counting its sequence.
    pub(crate) fn send(&mut self, slot: u32, fill: impl FnOnce(&mut zhttp::Fields<'_>, &[u8])) {
        let Some(conn) = self.conns.at_mut(slot).filter(|conn| conn.peer != PeerId::NONE) else {
            return;
        };
        let seq = conn.out_seq;
        conn.out_seq = seq.wrapping_add(1);
        let session = Session { worker: self.config.worker, slot, counter: conn.counter };
        let ids = [Id { id: &session.text(), seq: Some(seq) }];
        let head = Head { from: &self.config.instance, ids: &ids, ext: Ext::OURS };
        let body = &self.body;
        self.counters.packets_out += 1;
        self.peers.write(conn.peer, |out| zhttp::write(out, &head, |f| fill(f, body)));
    }

    /// Makes `peer` the one that answers.
    pub(crate) fn set_peer(&mut self, slot: u32, peer: PeerId) {
        let Some(conn) = self.conns.at_mut(slot).filter(|conn| conn.peer != peer) else {
            return;
        };
        self.peers.release(conn.peer);
        conn.peer = peer;
        if peer != PeerId::NONE {
            if self.peers.held() == 0 {
                self.cycle.resume(self.now);
            }
            self.peers.hold(peer);
        }
    }

    /// Closes the connection and forgets it; its session, if any, must have been dealt with.
    pub(crate) fn close(&mut self, net: &mut impl Net, slot: u32) {
        if self.conns.at(slot).is_some_and(|conn| conn.state != State::Gone) {
            net.close(slot);
        }
        self.forget(slot);
    }

    /// Closes as [`Worker::close`] does, after a regular end.
    pub(crate) fn end(&mut self, net: &mut impl Net, slot: u32) {
        net.end(slot);
        self.forget(slot);
    }

    /// Forgets a connection whose socket is closed.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.set_peer(slot, PeerId::NONE);
        self.end_loan(slot);
        if let Some(conn) = self.conns.key_at(slot).and_then(|key| self.conns.remove(key)) {
            self.pinned -= conn.out.as_ref().map_or(0, |queue| queue.len());
            self.req_conns -= usize::from(conn.has(REQ));
            self.config.blocks.give_back(conn.blocks);
            if self.conns.is_empty() {
                self.timers.all_left();
            }
        }
    }

    /// Lets the connection have one more buffer block, if the settings and the other connections
    /// allow it (`spec/connmgr.md §8`).
    pub(crate) fn grow(&mut self, slot: u32) -> bool {
        let Some(conn) = self.conns.at_mut(slot) else { return false };
        let grows =
            conn.blocks + 2 < self.config.connection_blocks_max && self.config.blocks.take();
        conn.blocks += u8::from(grows);
        grows
    }

    /// Gives back what the connection had for its request: additional blocks, a larger window.
    pub(crate) fn shrink(&mut self, slot: u32) {
        self.end_loan(slot);
        if let Some(conn) = self.conns.at_mut(slot).filter(|conn| conn.blocks > 0) {
            self.config.blocks.give_back(std::mem::take(&mut conn.blocks));
        }
    }

    /// Lists a cancel for the session's peer, or gives false if it has none.
    pub(crate) fn cancel(&mut self, slot: u32) -> bool {
        let Some(conn) = self.conns.at_mut(slot).filter(|conn| conn.peer != PeerId::NONE) else {
            return false;
        };
        let seq = conn.out_seq;
        self.cancels.push(Cancel { peer: conn.peer, slot, counter: conn.counter, seq });
        true
    }

    /// The client left. Its session, if it has one, is cancelled now or once it has a peer.
    pub(crate) fn client_gone(&mut self, net: &mut impl Net, slot: u32) {
        let Some(conn) = self.conns.at(slot) else { return };
        let (req, session) = (conn.has(REQ), conn.state == State::Request);
        self.counters.clients_left += u64::from(session);
        if !session || req || self.cancel(slot) {
            return self.close(net, slot);
        }
        net.close(slot);
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.state = State::Gone;
            conn.inbuf = None;
            conn.ws = None;
            self.pinned -= conn.out.take().map_or(0, |queue| queue.len());
        }
    }

    /// Closes everything; the cancels are in the output afterwards (`spec/connmgr.md §2`).
    pub fn shutdown(&mut self, now: u64, net: &mut impl Net) {
        self.leave_ws();
        self.end_turn(now, net);
        for slot in 0..self.conns.capacity() {
            if self.conns.at(slot).is_some_and(Conn::in_session) {
                self.cancel(slot);
            }
            self.close(net, slot);
        }
        self.end_turn(now, net);
    }
}
