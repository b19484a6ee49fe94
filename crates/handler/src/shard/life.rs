//! Sessions come, are found, and go.

use std::hash::BuildHasher;
use std::sync::Arc;

use evloop::arena::Key;

use super::Shard;
use super::filtering::Owner;
use super::session::{Session, SessionId};
use super::timers::{Crowd, tenths};
use crate::intern::NONE;
use crate::message::{ToHub, Took};
use crate::room::shrink_table;

impl Shard {
    fn id_hash(&self, peer: u32, id: &[u8]) -> u64 {
        self.hasher.hash_one((peer, id))
    }

    /// The session of a connection manager with that id.
    pub(super) fn find(&self, peer: u32, id: &[u8]) -> Option<Key> {
        let sessions = &self.sessions;
        let same =
            |index: &u32| sessions.at(*index).is_some_and(|s| s.peer == peer && s.id.bytes() == id);
        let index = self.by_id.find(self.id_hash(peer, id), same)?;
        self.sessions.key_at(*index)
    }

    /// Whether `SENDER:ID` is a session of this shard.
    pub(super) fn knows(&self, id: &str) -> bool {
        let found = id
            .rsplit_once(':')
            .and_then(|(sender, id)| self.find(self.peers.find(sender.as_bytes())?, id.as_bytes()));
        found.is_some() || self.find_socket(id.as_bytes()).is_some()
    }

    /// Puts a session into the tables and tells the hub.
    pub(super) fn insert(&mut self, session: Session, minute_counted: bool) -> Key {
        let (peer, route) = (session.peer, session.route);
        let hash = self.id_hash(peer, session.id.bytes());
        let took = Took {
            id: self.conn_id(peer, &session.id),
            route: self.routes[route as usize].route.clone(),
            address: session.address,
            ssl: session.flags.has(super::session::Flags::SSL),
            minute_counted,
        };
        self.responses += u64::from(session.mode() == stats::Mode::Response);
        self.named += usize::from(session.named().is_some());
        let key = self.sessions.insert(session);
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        self.by_id.insert_unique(hash, key.index, |index| {
            sessions.at(*index).map_or(0, |s| hasher.hash_one((s.peer, s.id.bytes())))
        });
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.sessions += 1;
        }
        self.count(route, |sums| sums.connections += 1);
        self.to_hub.push(ToHub::Took(Box::new(took)));
        key
    }

    /// `SENDER:ID`, as stats name a connection.
    pub(super) fn conn_id(&self, peer: u32, id: &SessionId) -> String {
        let sender = self.peers.get(peer).map(|peer| peer.id.clone());
        let sender = sender.unwrap_or_else(|| Arc::from(&b""[..]));
        let (sender, id) = (String::from_utf8_lossy(&sender), String::from_utf8_lossy(id.bytes()));
        [&sender, ":", &id].concat()
    }

    /// Takes a session out of all tables. `retry`: the proxy has it from now on.
    pub(super) fn remove(&mut self, now: u64, key: Key, retry: bool) -> Option<Session> {
        self.count_minutes(now, key);
        self.unsubscribe(key);
        self.end_filtering(now, Owner::Session(key));
        let hash = {
            let session = self.sessions.get(key)?;
            self.id_hash(session.peer, session.id.bytes())
        };
        if let Ok(entry) = self.by_id.find_entry(hash, |index| *index == key.index) {
            entry.remove();
        }
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        shrink_table(&mut self.by_id, |index| {
            sessions.at(*index).map_or(0, |s| hasher.hash_one((s.peer, s.id.bytes())))
        });
        let mut session = self.sessions.remove(key)?;
        if self.sessions.is_empty() {
            // Nobody looks at the timers of an empty table, so they would stay for good.
            self.wheel.clear();
            self.crowd = Crowd::default();
            self.quiet_crowd = Crowd::default();
        }
        self.let_go(&session, retry);
        self.end_links(now, key, &mut session);
        Some(session)
    }

    /// Undoes what the session counted in.
    fn let_go(&mut self, session: &Session, retry: bool) {
        self.responses -= u64::from(session.mode() == stats::Mode::Response);
        self.named -= usize::from(session.named().is_some());
        let id = self.conn_id(session.peer, &session.id);
        if let Some(peer) = self.peers.get_mut(session.peer) {
            peer.sessions -= 1;
        }
        if session.keep_alive != NONE {
            self.keep_alives.release(session.keep_alive);
        }
        if let Some(hold) = &session.hold {
            self.header_sets.release(hold.headers);
        }
        self.count(session.route, |sums| sums.connections -= 1);
        let route = self.routes[session.route as usize].route.clone();
        self.route_names.release(session.route);
        self.to_hub.push(ToHub::Left { id, route, retry });
    }

    /// Counts the full minutes since the last count.
    pub(super) fn count_minutes(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let minutes = tenths(now).saturating_sub(session.minute) / 600;
        if minutes > 0 {
            session.minute += minutes * 600;
            let route = session.route;
            self.count(route, |sums| sums.minutes += u64::from(minutes));
        }
    }

    /// A connection manager is gone: its sessions end, there is nobody to tell.
    pub fn peer_gone(&mut self, now: u64, peer: &[u8]) {
        let Some(number) = self.peers.find(peer) else { return };
        let of_peer = self.sessions.iter().filter(|(_, session)| session.peer == number);
        let keys: Vec<Key> = of_peer.map(|(key, _)| key).collect();
        if !keys.is_empty() {
            let name = String::from_utf8_lossy(peer);
            log::warn!("connection manager {name} is gone, ending {} sessions", keys.len());
        }
        for key in keys {
            self.remove(now, key, false);
        }
    }
}
