//! Sessions that get the same packet, gathered by connection manager (design, rule 3).

use arrayvec::ArrayVec;
use evloop::arena::Arena;
use zhttp::{Fields, Id, Kind, MAX_IDS};

use super::Shard;
use super::peers::Peers;
use super::session::{Flags, Session};

/// Emptied vectors that are kept for reuse, and entries that they may have room for.
const SPARES_MAX: usize = 16;
const SPARE_ENTRIES: usize = 1_024;

/// Why these sessions are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupKey {
    pub(super) peer: u32,
    pub(super) router: bool,
    /// What the packet says; means something to the one who gathers.
    pub(super) content: (u32, u32),
}

/// The sessions gathered in one step, with the sequence number that each is to use.
#[derive(Debug, Default)]
pub(super) struct Group {
    buckets: Vec<(GroupKey, Vec<(u32, u32)>)>,
    spare: Vec<Vec<(u32, u32)>>,
    last: usize,
}

impl Group {
    pub(super) fn push(&mut self, key: GroupKey, session: u32, seq: u32) {
        if !self.buckets.get(self.last).is_some_and(|(k, _)| *k == key) {
            let found = self.buckets.iter().position(|(k, _)| *k == key);
            self.last = found.unwrap_or_else(|| {
                self.buckets.push((key, self.spare.pop().unwrap_or_default()));
                self.buckets.len() - 1
            });
        }
        self.buckets[self.last].1.push((session, seq));
    }
}

impl Group {
    /// Writes a packet for each group, at most 128 sessions in one; `fill` is told what the
    /// packet says.
    pub(super) fn write(
        &mut self,
        sessions: &Arena<Session>,
        peers: &mut Peers,
        fill: impl Fn(&mut Fields<'_>, (u32, u32)),
    ) {
        for (key, entries) in &mut self.buckets {
            let multi = peers.get(key.peer).is_some_and(|peer| peer.multi);
            for chunk in entries.chunks(if multi { MAX_IDS } else { 1 }) {
                let ids: ArrayVec<Id<'_>, MAX_IDS> = chunk
                    .iter()
                    .filter_map(|(index, seq)| {
                        let session = sessions.at(*index)?;
                        Some(Id { id: session.id.bytes(), seq: Some(*seq) })
                    })
                    .collect();
                if !ids.is_empty() {
                    peers.write(key.peer, key.router, &ids, |f| fill(f, key.content));
                }
            }
            entries.clear();
            if self.spare.len() < SPARES_MAX {
                entries.shrink_to(SPARE_ENTRIES);
                self.spare.push(std::mem::take(entries));
            }
        }
        self.buckets.clear();
        self.last = 0;
    }
}

impl Shard {
    /// Adds a session to a group, taking its next sequence number.
    pub(super) fn gather(&mut self, index: u32, content: (u32, u32)) {
        let Some(session) = self.sessions.at_mut(index) else { return };
        let router = session.flags.has(Flags::ROUTER);
        let key = GroupKey { peer: session.peer, router, content };
        let seq = session.take_seq();
        self.group.push(key, index, seq);
    }

    /// Writes what was gathered as packets without a body.
    pub(super) fn write_kind(&mut self, kind: Kind) {
        self.group.write(&self.sessions, &mut self.peers, |f, _| {
            f.kind(kind);
        });
    }

    /// Writes a packet for one session, with its user-data.
    pub(super) fn write_one(&mut self, index: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        let Some(session) = self.sessions.at_mut(index) else { return };
        let seq = session.take_seq();
        let session = &*session;
        let ids = [Id { id: session.id.bytes(), seq: Some(seq) }];
        let router = session.flags.has(Flags::ROUTER);
        self.peers.write(session.peer, router, &ids, |f| {
            fill(f);
            f.user_data(session.user_data());
        });
    }
}
