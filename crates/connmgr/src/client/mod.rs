//! The client side: requests that other processes want made (`spec/connmgr.md §10`), as an engine.
//!
//! [`Outgoing`] takes ZHTTP packets of requesters and events of the `origin` crate's client, and
//! gives packets to send and orders for that client. The driver owns both ends. Life of a session:
//! asked (first packet, acknowledged at once) → answered (response head, or WebSocket open) → over.

mod early;
mod events;
mod follow;
mod keepalive;
mod names;
mod packets;
mod session;
mod start;

use std::collections::VecDeque;
use std::sync::Arc;

use evloop::arena::{Arena, Key};
use origin::{Endpoint, Opening, Request};
use zhttp::{Ext, Fields, Head, Id, Kind};

use early::Early;
use names::Names;
pub(crate) use names::worker_of;
use session::{Mode, Session};

/// Bytes of state per session (`--sizes`).
pub(crate) const SESSION_SIZE: usize = size_of::<Session>();

/// Settings of the client side; times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Instance id: `from` of every packet.
    pub instance: Vec<u8>,
    /// Which of the workers this is, and how many there are: sessions whose ids are another
    /// one's are not for this one.
    pub worker: (u16, u16),
    /// Most body of one packet; credits of a request's body; most body of a refused WebSocket.
    pub buffer_size: usize,
    /// Most body of a request and of a response in req mode.
    pub body_buffer_size: usize,
    /// How long a request of req mode may take, redirects included.
    pub req_timeout_ms: u64,
    /// Internal addresses are refused, unless a request says otherwise.
    pub deny_internal: bool,
    /// permessage-deflate is offered to WebSocket backends.
    pub compression: bool,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Outgo {
    /// To be sent to whoever asked.
    Message(Message),
    /// An order for the backends' client, about the request under this key.
    Origin(Key, Order),
}

/// A packet for whoever asked, and its way.
#[derive(Debug)]
pub enum Message {
    /// For a requester of stream mode.
    Packet {
        /// Its instance id.
        peer: Arc<[u8]>,
        /// By the ROUTER socket; else by PUB.
        router: bool,
        /// The packet.
        packet: Vec<u8>,
    },
    /// The answer to a request of req mode.
    Reply {
        /// The parts before the packet, the empty one included.
        envelope: Vec<Vec<u8>>,
        /// The packet.
        packet: Vec<u8>,
    },
}

/// Orders for [`origin::Client`], in the arguments of its verbs.
#[derive(Debug)]
pub enum Order {
    /// [`origin::Client::start_with_window`]
    Start(Arc<Endpoint>, Request, usize),
    /// [`origin::Client::open_websocket`]
    Open(Arc<Endpoint>, Opening, usize),
    /// [`origin::Client::body`]
    Body(Vec<u8>, bool),
    /// [`origin::Client::grant`]
    Grant(usize),
    /// [`origin::Client::message`]
    Message(websocket::Type, Vec<u8>, bool),
    /// [`origin::Client::ping`]
    Ping(Vec<u8>),
    /// [`origin::Client::pong`]
    Pong(Vec<u8>),
    /// [`origin::Client::close_websocket`]
    Close(Option<u16>, String),
    /// [`origin::Client::cancel`]
    Cancel,
}

/// Packets that were not used, by cause, and what became of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Requests that were begun.
    pub requests: u64,
    /// Requests whose response was passed on to its end, WebSockets that both sides closed, and
    /// refusals of WebSockets.
    pub completed: u64,
    /// Sessions that ended with an error for the requester.
    pub failed: u64,
    /// Sessions that the requester ended with `cancel` or `error`.
    pub cancelled: u64,
    /// Packets that could not be read.
    pub malformed: u64,
    /// First packets that could not begin a session.
    pub bad_first: u64,
    /// Packets for sessions that are not known, nor were soon after.
    pub unknown: u64,
    /// Packets that came before the first one of their session, and waited for it.
    pub early: u64,
    /// Sessions that a gap in the sequence ended.
    pub bad_seq: u64,
    /// Sessions whose requester sent more than it was granted.
    pub overruns: u64,
    /// Sessions ended by a packet that does not fit their state.
    pub unexpected: u64,
    /// Sessions whose requester fell silent.
    pub expired: u64,
    /// Sessions whose requester left.
    pub peer_gone: u64,
}

/// The engine.
#[derive(Debug)]
pub struct Outgoing {
    config: ClientConfig,
    sessions: Arena<Session>,
    names: Names,
    early: Early,
    outputs: VecDeque<Outgo>,
    counters: ClientCounters,
    req_count: usize,
    next_sweep: u64,
    now: u64,
}

impl Outgoing {
    /// Without sessions.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            sessions: Arena::new(),
            names: Names::default(),
            early: Early::default(),
            outputs: VecDeque::new(),
            counters: ClientCounters::default(),
            req_count: 0,
            next_sweep: 0,
            now: 0,
        }
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Sessions of stream mode.
    pub fn stream_len(&self) -> usize {
        self.sessions.len() - self.req_count
    }

    /// Requests of req mode that have no answer yet.
    pub fn req_len(&self) -> usize {
        self.req_count
    }

    /// What was counted so far.
    pub fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Outgo> {
        self.outputs.pop_front()
    }

    fn order(&mut self, key: Key, order: Order) {
        self.outputs.push_back(Outgo::Origin(key, order));
    }

    /// Sends a packet of one session to its requester.
    fn send(&mut self, key: Key, fill: impl FnOnce(&mut Fields<'_>)) {
        let instance = &self.config.instance;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Mode::Stream { name: (peer, id), router, .. } = &session.mode else { return };
        let seq = session.out_seq;
        session.out_seq = seq.wrapping_add(1);
        let ids = [Id { id, seq: Some(seq) }];
        let mut packet = Vec::new();
        zhttp::write(&mut packet, &Head { from: instance, ids: &ids, ext: Ext::OURS }, fill);
        if session.adrift {
            return session.held.push(packet);
        }
        let message = Message::Packet { peer: peer.clone(), router: *router, packet };
        self.outputs.push_back(Outgo::Message(message));
    }

    /// Sends what was held back while it was open who gets it.
    fn release(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Mode::Stream { name: (peer, _), router, .. } = &session.mode else { return };
        for packet in session.held.drain(..) {
            let message = Message::Packet { peer: peer.clone(), router: *router, packet };
            self.outputs.push_back(Outgo::Message(message));
        }
        if session.over {
            self.forget(key);
        }
    }

    /// Answers a request of req mode.
    fn reply(&mut self, key: Key, fill: impl FnOnce(&mut Fields<'_>)) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Mode::Req { envelope, id, .. } = &mut session.mode else { return };
        let mut packet = Vec::new();
        let id = id.as_ref().map(|id| Id { id, seq: None });
        let head = Head { from: b"", ids: id.as_slice(), ext: Ext::default() };
        zhttp::write(&mut packet, &head, fill);
        let message = Message::Reply { envelope: std::mem::take(envelope), packet };
        self.outputs.push_back(Outgo::Message(message));
    }

    /// The session is over for reasons of ours or the backend's: an error while nothing was
    /// answered, else a cancel (`spec/zhttp.md §5.1`).
    fn fail(&mut self, key: Key, condition: &str) {
        let Some(session) = self.sessions.get(key) else { return };
        self.counters.failed += 1;
        log::debug!("client-conn {}: error: {condition}", self.name(key));
        if session.is_req() {
            self.reply(key, |f| {
                f.kind(Kind::Error).condition(condition);
            });
        } else if session.answered {
            self.send(key, |f| {
                f.kind(Kind::Cancel);
            });
        } else {
            self.send(key, |f| {
                f.kind(Kind::Error).condition(condition);
            });
        }
        self.forget(key);
    }

    /// Ends the request at the backend, if it has not ended, and forgets the session.
    fn drop_session(&mut self, key: Key) {
        if self.sessions.get(key).is_some() {
            self.order(key, Order::Cancel);
            self.remove(key);
        }
    }

    /// Forgets a session whose request has ended, unless somebody is still to be told so.
    fn forget(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.adrift && !session.held.is_empty() {
            session.over = true;
            return;
        }
        self.remove(key);
    }

    fn remove(&mut self, key: Key) {
        let Some(session) = self.sessions.remove(key) else { return };
        match session.mode {
            Mode::Stream { name, .. } => self.names.remove(&name, key),
            Mode::Req { .. } => self.req_count -= 1,
        }
        log::debug!("client-conn {}: finished", self.name(key));
    }

    /// A session's name in the log.
    fn name(&self, key: Key) -> String {
        format!("{}-{}-{:x}", self.config.worker.0, key.index, key.generation)
    }
}
