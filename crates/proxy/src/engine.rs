//! The engine: its state, and the small moves that everything else is made of.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::sync::Arc;

use evloop::arena::{Arena, Key};
use hashbrown::HashMap;
use zhttp::{Ext, Fields, Head, Id, Kind};

use crate::figures::Totals;
use crate::index::Index;
use crate::inspecting::Inspector;
use crate::peers::{NOBODY, Peers};
use crate::random::Random;
use crate::session::{Session, SessionId};
use crate::share::Share;
use crate::sockjs::Polls;
use crate::sums::Sums;
use crate::timers::Timers;
use crate::ws::{Cid, Keeper, Outbox};
use crate::{Output, Routes, Settings};

/// What was not used or not delivered, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Not a packet.
    pub malformed: u64,
    /// Not a request that can be taken.
    pub refused: u64,
    /// A sequence number that was not expected.
    pub bad_seq: u64,
    /// Messages of WebSocket backends without the prefix that was agreed on.
    pub no_prefix: u64,
    /// Messages of the handler for clients that do not read.
    pub ws_full: u64,
    /// Messages of the handler for WebSockets that are closing.
    pub ws_closed: u64,
    /// WebSockets ended because the handler did not answer.
    pub unanswered: u64,
}

impl Drops {
    /// Adds those of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { malformed, refused, bad_seq, no_prefix, ws_full, ws_closed, unanswered } = other;
        self.malformed += malformed;
        self.refused += refused;
        self.bad_seq += bad_seq;
        self.no_prefix += no_prefix;
        self.ws_full += ws_full;
        self.ws_closed += ws_closed;
        self.unanswered += unanswered;
    }
}

/// The engine of one worker.
#[derive(Debug)]
pub struct Proxy {
    pub(crate) settings: Settings,
    pub(crate) routes: Arc<Routes>,
    pub(crate) sessions: Arena<Session>,
    /// Sessions of clients by peer and id.
    pub(crate) names: Index,
    /// Sessions that ask for others, by what these have in common.
    pub(crate) shares: HashMap<Box<[u8]>, Key, RandomState>,
    pub(crate) inspector: Inspector,
    pub(crate) peers: Peers,
    pub(crate) outputs: VecDeque<Output>,
    /// Sessions with something to send at the end of the turn.
    pub(crate) dirty: Vec<Key>,
    pub(crate) now: u64,
    pub(crate) timers: Timers,
    pub(crate) sums: Sums,
    pub(crate) drops: Drops,
    pub(crate) totals: Totals,
    /// WebSockets by public id.
    pub(crate) cids: Index,
    pub(crate) outbox: Outbox,
    pub(crate) keeper: Keeper,
    pub(crate) polls: Polls,
    pub(crate) random: Random,
    pub(crate) zmq_requests: u32,
}

impl Proxy {
    /// An engine without sessions.
    pub fn new(settings: Settings, routes: Arc<Routes>) -> Self {
        Self {
            sums: Sums::new(&settings),
            random: Random::new(&settings.seed),
            cids: Index::default(),
            outbox: Outbox::default(),
            keeper: Keeper::default(),
            polls: Polls::default(),
            zmq_requests: 0,
            settings,
            routes,
            sessions: Arena::new(),
            names: Index::default(),
            shares: HashMap::default(),
            inspector: Inspector::default(),
            peers: Peers::default(),
            outputs: VecDeque::new(),
            dirty: Vec::new(),
            now: 0,
            timers: Timers::default(),
            drops: Drops::default(),
            totals: Totals::default(),
        }
    }

    /// New requests use these routes; running ones keep theirs.
    pub fn set_routes(&mut self, routes: Arc<Routes>) {
        self.routes = routes;
    }

    /// Goes on with other settings; what is structural, or known to others already, stays.
    pub fn set_settings(&mut self, now: u64, newer: Settings) {
        let old = &self.settings;
        self.settings = Settings {
            instance_id: old.instance_id.clone(),
            epoch_s: old.epoch_s,
            seed: old.seed,
            outside_client: old.outside_client,
            ..newer
        };
        self.sums.set_settings(now, &self.settings);
    }

    /// Whether a new request may be taken; else it waits in ZeroMQ.
    pub fn wants_requests(&self) -> bool {
        self.sessions.len() < self.settings.sessions_max
    }

    /// Sessions at this time.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Packets that were not used.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Tells which stats are listened to: single connections, and their maxima.
    pub fn stats_listeners(&mut self, conn: bool, conn_max: bool) {
        self.sums.set_listeners(&self.settings, conn, conn_max);
    }

    /// The next thing to do; nothing once all of this turn is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(key) = self.dirty.pop() {
            self.flush(key);
        }
        self.flush_controls();
        self.peers.flush(&mut self.outputs);
        self.outputs.pop_front()
    }

    /// Sends one packet of a session and counts its sequence number.
    pub(crate) fn send(&mut self, key: Key, fill: impl FnOnce(&mut Fields<'_>)) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let ids = [Id { id: &session.id, seq: Some(session.out_seq) }];
        session.out_seq = session.out_seq.wrapping_add(1);
        let from = self.settings.instance_id.as_bytes();
        let head = Head { from, ids: &ids, ext: Ext::OURS };
        let user_data = session.user_data.as_deref();
        self.peers.packet(session.peer, session.router, &mut self.outputs, |out| {
            zhttp::write(out, &head, |fields| {
                fields.user_data(user_data);
                fill(fields);
            });
        });
    }

    /// Sends one packet to several sessions of a peer, at most [`zhttp::MAX_IDS`], none of which
    /// has user data.
    pub(crate) fn send_shared(
        &mut self,
        peer: u32,
        router: bool,
        keys: &[Key],
        fill: impl FnOnce(&mut Fields<'_>),
    ) {
        let names: Vec<(SessionId, u32)> = keys
            .iter()
            .filter_map(|key| {
                let session = self.sessions.get_mut(*key)?;
                let seq = session.out_seq;
                session.out_seq = seq.wrapping_add(1);
                Some((session.id.clone(), seq))
            })
            .collect();
        let ids: Vec<Id<'_>> = names.iter().map(|(id, seq)| Id { id, seq: Some(*seq) }).collect();
        if ids.is_empty() {
            return;
        }
        let head = Head { from: self.settings.instance_id.as_bytes(), ids: &ids, ext: Ext::OURS };
        self.peers.packet(peer, router, &mut self.outputs, |out| zhttp::write(out, &head, fill));
    }

    /// Sends a packet that has nothing but its type.
    pub(crate) fn send_kind(&mut self, key: Key, kind: Kind) {
        self.send(key, |fields| {
            fields.kind(kind);
        });
    }

    /// Lets the client's side send so many bytes more.
    pub(crate) fn send_credit(&mut self, key: Key, credits: u32) {
        self.send(key, |fields| {
            fields.kind(Kind::Credit).credits(credits);
        });
        self.add_poll_room(key, credits);
    }

    /// Takes a session out, with everything that belongs to it.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Session> {
        if self.sessions.get(key)?.backend {
            self.cancel_backend(key);
        }
        self.forget_names(key);
        let session = self.sessions.remove(key)?;
        if let Some(poll) = session.ws.as_ref().and_then(|ws| ws.shape.poll_key()) {
            self.upstream_gone(poll);
        }
        if let Share::Waits(asks) = session.exchange.share {
            self.client_left(asks, key);
        }
        if let Some(poll) = session.exchange.sockjs.as_ref().and_then(|ask| ask.poll()) {
            self.poll_left(poll, key);
        }
        Some(session)
    }

    /// The session of a peer by its id.
    pub(crate) fn find(&self, peer: u32, id: &[u8]) -> Option<Key> {
        let place = self.names.get((peer, id), name_of(&self.sessions))?;
        self.sessions.key_at(place)
    }

    /// The WebSocket of a public id.
    pub(crate) fn find_ws(&self, cid: Cid) -> Option<Key> {
        self.sessions.key_at(self.cids.get(cid, cid_of(&self.sessions))?)
    }

    /// Lets a new session be found.
    pub(crate) fn note_names(&mut self, key: Key) {
        let Self { sessions, names, cids, .. } = self;
        let Some(session) = sessions.get(key) else { return };
        if session.peer != NOBODY {
            names.insert(key.index, name_of(sessions));
        }
        if session.ws.is_some() {
            cids.insert(key.index, cid_of(sessions));
        }
    }

    /// Nobody finds the session any more.
    pub(crate) fn forget_names(&mut self, key: Key) {
        let Self { sessions, names, cids, .. } = self;
        if sessions.get(key).is_some() {
            names.remove(key.index, name_of(sessions));
            cids.remove(key.index, cid_of(sessions));
        }
    }

    /// After a crowd has left, its room is given back.
    pub(crate) fn tidy(&mut self) {
        let Self { sessions, names, cids, keeper, .. } = self;
        keeper.tidy(sessions.len());
        names.tidy(name_of(sessions));
        cids.tidy(cid_of(sessions));
    }

    /// Unix time in seconds.
    pub(crate) fn now_s(&self) -> u64 {
        self.settings.epoch_s + self.now / 1_000
    }
}

/// By what a client's packets name the session at a place.
fn name_of<'s>(sessions: &'s Arena<Session>) -> impl Fn(u32) -> Option<(u32, &'s [u8])> {
    |place| sessions.at(place).map(|session| (session.peer, &session.id[..]))
}

/// By what handler and commands name the WebSocket at a place.
fn cid_of(sessions: &Arena<Session>) -> impl Fn(u32) -> Option<Cid> {
    |place| sessions.at(place)?.ws.as_ref().map(|ws| ws.cid)
}
