//! The clock of the client side: keep-alives, silent requesters, time limits, the end.

use std::sync::Arc;

use evloop::arena::Key;
use zhttp::{Ext, Head, Id, Kind};

use super::session::Mode;
use super::{Message, Order, Outgo, Outgoing};

/// Between two looks at all sessions.
const SWEEP_MS: u64 = 1_000;

/// Whom a packet for several sessions goes to, and how.
type Way = (Arc<[u8]>, bool, bool);

impl Outgoing {
    /// When [`Outgoing::timeout`] is to be called next, in milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let idle = self.sessions.is_empty() && self.early.is_empty();
        (!idle).then_some(self.next_sweep)
    }

    /// Ends what is over time and sends the keep-alives that are due.
    pub fn timeout(&mut self, now: u64) {
        self.now = now;
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_MS;
        self.counters.unknown += self.early.expire(now);
        let late = |mode: &Mode| matches!(mode, Mode::Req { end_at, .. } if *end_at <= now);
        let (mut expired, mut late_keys, mut due) = (Vec::new(), Vec::new(), Vec::new());
        for (key, session) in self.sessions.iter() {
            if session.is_req() {
                late_keys.extend(late(&session.mode).then_some(key));
            } else if session.expires_at <= now {
                expired.push(key);
            } else if session.keep_alive_at <= now && !session.adrift {
                due.push(key);
            }
        }
        self.counters.expired += expired.len() as u64;
        expired.into_iter().for_each(|key| self.drop_session(key));
        for key in late_keys {
            self.order(key, Order::Cancel);
            self.fail(key, "connection-timeout");
        }
        for key in &due {
            if let Some(session) = self.sessions.get_mut(*key) {
                session.keep_alive_at = now + zhttp::KEEP_ALIVE_MS;
            }
        }
        if !due.is_empty() {
            let (worker, count) = (self.config.worker.0, due.len());
            log::debug!("client-worker {worker}: sending keep alives for {count} sessions");
        }
        self.send_all(due, Kind::KeepAlive);
    }

    /// A keep-alive to each requester that is known: one that left shows itself when it is sent.
    pub fn probe(&mut self, now: u64) {
        self.now = now;
        let mut seen: Vec<Arc<[u8]>> = Vec::new();
        let mut one_each = Vec::new();
        for (key, session) in self.sessions.iter() {
            if let Mode::Stream { name: (peer, _), router: true, .. } = &session.mode
                && !session.adrift
                && !seen.contains(peer)
            {
                seen.push(peer.clone());
                one_each.push(key);
            }
        }
        self.send_all(one_each, Kind::KeepAlive);
    }

    /// Ends everything; requesters of stream mode are told.
    pub fn shutdown(&mut self, now: u64) {
        self.now = now;
        let known: Vec<Key> =
            self.sessions.iter().filter(|(_, s)| !s.adrift).map(|(key, _)| key).collect();
        if !known.is_empty() {
            let (worker, count) = (self.config.worker.0, known.len());
            log::debug!("client-worker {worker}: sending cancels for {count} sessions");
        }
        self.send_all(known, Kind::Cancel);
        let all: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        all.into_iter().for_each(|key| self.drop_session(key));
    }

    /// Sends the same to many sessions, in as few packets as the requesters understand.
    fn send_all(&mut self, keys: Vec<Key>, kind: Kind) {
        let mut sessions: Vec<(Way, Key)> = keys
            .into_iter()
            .filter_map(|key| match &self.sessions.get(key)?.mode {
                Mode::Stream { name: (peer, _), router, multi } => {
                    Some(((peer.clone(), *router, *multi), key))
                }
                Mode::Req { .. } => None,
            })
            .collect();
        sessions.sort_by(|a, b| a.0.cmp(&b.0));
        for group in sessions.chunk_by(|a, b| a.0 == b.0) {
            let (peer, router, multi) = group[0].0.clone();
            for part in group.chunks(if multi { zhttp::MAX_IDS } else { 1 }) {
                let packet = self.shared(part.iter().map(|(_, key)| *key), kind);
                let message = Message::Packet { peer: peer.clone(), router, packet };
                self.outputs.push_back(Outgo::Message(message));
            }
        }
    }

    /// One packet for several sessions.
    fn shared(&mut self, keys: impl Iterator<Item = Key>, kind: Kind) -> Vec<u8> {
        let mut named: Vec<(Vec<u8>, u32)> = Vec::new();
        for key in keys {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let Mode::Stream { name: (_, id), .. } = &session.mode else { continue };
            named.push((id.clone(), session.out_seq));
            session.out_seq = session.out_seq.wrapping_add(1);
        }
        let ids: Vec<Id<'_>> = named.iter().map(|(id, seq)| Id { id, seq: Some(*seq) }).collect();
        let head = Head { from: &self.config.instance, ids: &ids, ext: Ext::OURS };
        let mut packet = Vec::new();
        zhttp::write(&mut packet, &head, |f| {
            f.kind(kind);
        });
        packet
    }
}
