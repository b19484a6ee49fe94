//! What a worker's connections are doing, for metrics and the debug view. It is gathered by a
//! walk over the connections, a piece per turn, when somebody asks: counting as states change
//! would be paid by every request.

use std::net::IpAddr;

use crate::conn::{Conn, REQ, STARTED, State};
use crate::peers::PeerId;
use crate::session::Session;
use crate::worker::Worker;

/// How many of the oldest and the largest are named.
const NAMED_MAX: usize = 10;

/// Listeners that are counted one by one; those beyond share the last count.
pub const LISTENERS_MAX: usize = 64;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// Part of a request's head has come.
    Reading,
    /// The request is with its peer, or its body is being read; no response yet.
    Waiting,
    /// A response is being given.
    Responding,
    /// The session is over, bytes for the client are left.
    Ending,
    /// Reading on behind an answer.
    Lingering,
    /// The client left before anybody took its request.
    Gone,
}

impl Phase {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Reading,
        Self::Waiting,
        Self::Responding,
        Self::Ending,
        Self::Lingering,
        Self::Gone,
    ];

    /// The word for it in metrics and dumps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Reading => "reading",
            Self::Waiting => "waiting",
            Self::Responding => "responding",
            Self::Ending => "ending",
            Self::Lingering => "lingering",
            Self::Gone => "gone",
        }
    }

    fn of(conn: &Conn) -> Self {
        match conn.state {
            State::Head if conn.buffered() == 0 => Self::Idle,
            State::Head => Self::Reading,
            State::Request if conn.has(STARTED) => Self::Responding,
            State::Request => Self::Waiting,
            State::Ending => Self::Ending,
            State::Linger => Self::Lingering,
            State::Gone => Self::Gone,
        }
    }
}

/// One connection in a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its place, and id of its session or last session.
    pub session: Session,
    /// Seconds since it was accepted.
    pub age_s: u32,
    /// What it is doing.
    pub phase: Phase,
    /// Req mode.
    pub req: bool,
    /// Where the client is.
    pub address: Option<(IpAddr, u16)>,
    /// Who answers; empty if nobody does.
    pub peer: String,
    /// Bytes read and not dealt with, a body of req mode included.
    pub bytes_in: usize,
    /// Bytes that the client did not take yet.
    pub bytes_out: usize,
}

impl Named {
    fn bytes(&self) -> usize {
        self.bytes_in + self.bytes_out
    }
}

/// The result; complete when [`Worker::survey`] says so.
#[derive(Clone, Debug)]
pub struct Survey {
    next: u32,
    /// Connections by [`Phase::ALL`], of stream mode and of req mode.
    pub phases: [[u64; 2]; Phase::ALL.len()],
    /// Connections by listener.
    pub listeners: [u64; LISTENERS_MAX],
    /// Bytes read and not dealt with.
    pub bytes_in: usize,
    /// The longest connected, first the oldest.
    pub oldest: Vec<Named>,
    /// Those with most bytes in buffers.
    pub largest: Vec<Named>,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            next: 0,
            phases: Default::default(),
            listeners: [0; LISTENERS_MAX],
            bytes_in: 0,
            oldest: Vec::new(),
            largest: Vec::new(),
        }
    }
}

impl Worker {
    /// Walks over up to `budget` more places. True: that were all; connections that came or went
    /// meanwhile may be missing.
    pub fn survey(&self, survey: &mut Survey, now: u64, budget: u32) -> bool {
        let end = survey.next.saturating_add(budget).min(self.conns.capacity());
        for slot in survey.next..end {
            if let Some(conn) = self.conns.at(slot) {
                self.note(survey, slot, conn, (now / 1000) as u32);
            }
        }
        survey.next = end;
        end >= self.conns.capacity()
    }

    fn note(&self, survey: &mut Survey, slot: u32, conn: &Conn, now_s: u32) {
        let phase = Phase::of(conn);
        survey.phases[phase as usize][usize::from(conn.has(REQ))] += 1;
        survey.listeners[usize::from(conn.listener).min(LISTENERS_MAX - 1)] += 1;
        let bytes_in = conn.buffered() + conn.gather.as_ref().map_or(0, |gather| gather.len());
        let bytes_out = conn.out.as_ref().map_or(0, |queue| queue.len());
        survey.bytes_in += bytes_in;
        let age_s = now_s.wrapping_sub(conn.since_s);
        let named = || Named {
            session: self.session(slot, conn.counter),
            age_s,
            phase,
            req: conn.has(REQ),
            address: conn.address.get(),
            peer: self.peer_name(conn.peer),
            bytes_in,
            bytes_out,
        };
        rank(&mut survey.oldest, age_s, |named| named.age_s, named);
        if bytes_in + bytes_out > 0 {
            rank(&mut survey.largest, bytes_in + bytes_out, Named::bytes, named);
        }
    }

    fn peer_name(&self, peer: PeerId) -> String {
        self.peers.name(peer).map_or(String::new(), |id| String::from_utf8_lossy(id).into_owned())
    }

    /// The processes that answer and how many sessions each has, those with most first.
    pub fn peer_sessions(&self) -> Vec<(String, u32)> {
        let name =
            |(id, sessions): (&[u8], u32)| (String::from_utf8_lossy(id).into_owned(), sessions);
        let mut peers: Vec<_> = self.peers.sessions().map(name).collect();
        peers.sort_by_key(|(_, sessions)| std::cmp::Reverse(*sessions));
        peers.truncate(NAMED_MAX);
        peers
    }
}

/// Puts one more into a list that is sorted by `key`, largest first, if it belongs there.
fn rank<K: Ord>(
    list: &mut Vec<Named>,
    value: K,
    key: impl Fn(&Named) -> K,
    named: impl FnOnce() -> Named,
) {
    let place = list.partition_point(|other| key(other) >= value);
    if place < NAMED_MAX {
        list.truncate(NAMED_MAX - 1);
        list.insert(place, named());
    }
}
