//! The state of one held client session, kept small: a million of them is the aim.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use crossorigin::Jsonp;
use evloop::arena::Key;
use grip::{Item, NextLink};
use stats::Mode;

use super::cross::Cross;
use crate::intern::NONE;
use crate::message::Output;
use crate::shard::filtering::Filtering;

/// Most items that wait in one session (spec/grip.md §15).
pub(crate) const QUEUE_MAX: usize = 100;

/// Session ids of up to this many bytes are stored in place.
const ID_INLINE: usize = 30;

/// A ZHTTP session id.
#[derive(Debug)]
pub(crate) enum SessionId {
    Inline(u8, [u8; ID_INLINE]),
    Boxed(Box<[u8]>),
}

impl SessionId {
    pub(crate) fn new(id: &[u8]) -> Self {
        match id.len() {
            length @ 0..=ID_INLINE => {
                let mut bytes = [0; ID_INLINE];
                bytes[..length].copy_from_slice(id);
                Self::Inline(length as u8, bytes)
            }
            _ => Self::Boxed(id.into()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

/// One subscription: the channel's place and the session's place in the channel's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sub {
    pub(crate) channel: u32,
    pub(crate) position: u32,
}

/// The subscriptions of a session; nearly all have one.
#[derive(Debug)]
pub(crate) enum Subs {
    One(Sub),
    Many(Box<[Sub]>),
}

impl Subs {
    pub(crate) const NONE: Self = Self::One(Sub { channel: NONE, position: 0 });

    pub(crate) fn from_vec(subs: Vec<Sub>) -> Self {
        match subs[..] {
            [sub] => Self::One(sub),
            [] => Self::NONE,
            _ => Self::Many(subs.into()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[Sub] {
        match self {
            Self::One(Sub { channel: NONE, .. }) => &[],
            Self::One(sub) => std::slice::from_ref(sub),
            Self::Many(subs) => subs,
        }
    }

    /// Adds one more.
    pub(crate) fn add(&mut self, sub: Sub) {
        let mut subs = self.as_slice().to_vec();
        subs.push(sub);
        *self = Self::from_vec(subs);
    }

    /// Takes the one on `channel` out.
    pub(crate) fn take(&mut self, channel: u32) -> Option<Sub> {
        let mut subs = self.as_slice().to_vec();
        let at = subs.iter().position(|sub| sub.channel == channel)?;
        let sub = subs.remove(at);
        *self = Self::from_vec(subs);
        Some(sub)
    }

    /// Notes that the session moved inside a channel's list.
    pub(crate) fn moved(&mut self, channel: u32, position: u32) {
        let subs = match self {
            Self::One(sub) => std::slice::from_mut(sub),
            Self::Many(subs) => subs,
        };
        if let Some(sub) = subs.iter_mut().find(|sub| sub.channel == channel) {
            sub.position = position;
        }
    }
}

/// Truths about a session, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    /// Responses go through the ROUTER socket.
    pub(crate) const ROUTER: Self = Self(1);
    /// A response hold, else a stream hold.
    pub(crate) const RESPONSE: Self = Self(1 << 1);
    /// The client's side is TLS.
    pub(crate) const SSL: Self = Self(1 << 2);
    /// Error texts may tell the cause.
    pub(crate) const DEBUG: Self = Self(1 << 3);
    /// Came back by a retry.
    pub(crate) const RETRY: Self = Self(1 << 4);
    /// Needs more than bytes and ids: filters, prev-ids, user-data.
    pub(crate) const SPECIAL: Self = Self(1 << 5);
    /// A hand-off start was sent; nothing more may be.
    pub(crate) const PAUSING: Self = Self(1 << 6);
    /// The response's head was sent.
    pub(crate) const HEAD_SENT: Self = Self(1 << 7);
    /// The body ends when the queue is empty.
    pub(crate) const FINISHING: Self = Self(1 << 8);
    /// Keep-alives are put off by items.
    pub(crate) const IDLE_MODE: Self = Self(1 << 9);

    /// Asks its backend when there is time.
    pub(crate) const UPDATE: Self = Self(1 << 10);

    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Self, on: bool) {
        if on { self.0 |= flag.0 } else { self.0 &= !flag.0 }
    }
}

/// Body bytes that wait for credits.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) items: VecDeque<Bytes>,
}

/// What a session keeps until its hold runs, or, for a response hold, until its answer.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) uri: Box<str>,
    /// Status, headers and body that the backend instructed.
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
    /// Number of the header set.
    pub(crate) headers: u32,
    pub(crate) body: Bytes,
    /// Subscriptions that the hub has not confirmed yet.
    pub(crate) unconfirmed: u16,
    pub(crate) timeout_s: u32,
    /// The original request, where the session can go back to the proxy.
    pub(crate) origin: Option<Arc<Origin>>,
    /// Why a stream ends as soon as its head is sent.
    pub(crate) failure: Option<Box<str>>,
    pub(crate) log: LogRules,
    /// Automatic cross-origin.
    pub(crate) cross: Option<Box<Cross>>,
}

/// How lines about a route's sessions are written (spec/routes.md §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LogRules {
    /// The route's `log_level`; -1: that of the process.
    level: i8,
    /// The lines name the route: its id was given, not made.
    names_route: bool,
}

impl Default for LogRules {
    fn default() -> Self {
        Self::new(None, false)
    }
}

impl LogRules {
    /// From what a proxy says of the route.
    pub(crate) fn new(level: Option<i64>, names_route: bool) -> Self {
        Self { level: level.unwrap_or(-1).clamp(-1, 2) as i8, names_route }
    }

    /// The part of a line that names the route.
    pub(crate) fn route_part(self, route: &str) -> String {
        if self.names_route { format!(" route={route}") } else { String::new() }
    }

    /// Writes a line, if it is to be seen.
    pub(crate) fn write(self, line: impl FnOnce() -> String) {
        logging::access(self.level.into(), line);
    }
}

/// Where a session came from, for a retry.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Instance id of the proxy.
    pub(crate) proxy: Arc<[u8]>,
    pub(crate) method: Box<str>,
    pub(crate) uri: Box<str>,
    /// Encoded header list.
    pub(crate) headers: Box<[u8]>,
    pub(crate) body: Bytes,
    pub(crate) route: Option<Box<str>>,
    /// Encoded inspect map.
    pub(crate) inspect: Option<Box<[u8]>>,
}

/// What few sessions have.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Encoded frame for every packet.
    pub(crate) user_data: Option<Box<[u8]>>,
    pub(crate) meta: BTreeMap<String, String>,
    /// Names of all channels, without the route's prefix.
    pub(crate) names: Vec<String>,
    pub(crate) channels: Vec<ExtraChannel>,
    pub(crate) links: Option<Box<Links>>,
    pub(crate) named: Option<Box<Named>>,
    /// The body of a stream is an argument of this call.
    pub(crate) jsonp: Option<Box<Jsonp>>,
    /// An item waits for a backend's word on it, and others behind it.
    pub(crate) filtering: Option<Box<Filtering>>,
}

impl Extra {
    /// `Grip-Last` headers for every channel whose content is known to end somewhere.
    pub(crate) fn last_ids(&self) -> Vec<(&'static str, String)> {
        let known = self.channels.iter().filter_map(|c| Some((&c.name, c.prev_id.as_deref()?)));
        known.map(|(name, id)| ("Grip-Last", format!("{name}; last-id={id}"))).collect()
    }
}

/// The GRIP session that a client belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) id: Arc<str>,
    /// What stands before the names of its channels.
    pub(crate) prefix: Box<str>,
}

/// Where a stream goes on and who is told of its end.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) next: Option<NextLink>,
    pub(crate) gone: Option<Box<str>>,
    /// The session goes back to the proxy, when the gone link was told.
    pub(crate) handed_back: Option<Box<Output>>,
    /// URI of the client's request.
    pub(crate) uri: Box<str>,
    /// Where relative links start.
    pub(crate) base: String,
    pub(crate) route: Box<str>,
    /// Put before channel names.
    pub(crate) prefix: Box<str>,
    pub(crate) implicit: Vec<String>,
    pub(crate) trusted: bool,
    pub(crate) log: LogRules,
    /// There is no hold: the next link follows at once.
    pub(crate) paging: bool,
    /// When the next link is to be followed.
    pub(crate) due: u32,
    /// With whom, while the stream waits for that.
    pub(crate) round: Option<u64>,
    pub(crate) fetch: Option<Key>,
    /// The link is being followed, or will be tried again.
    pub(crate) updating: bool,
    /// It is to be followed as soon as that is possible.
    pub(crate) again: bool,
    /// When something was said to be missing; an answer asked for earlier does not bring it. 0:
    /// nothing is.
    pub(crate) missed: u64,
    pub(crate) tries: u8,
    /// Channels that something was sent of since the timer began.
    pub(crate) heard: Vec<u32>,
    /// Items that came meanwhile, with their channel.
    pub(crate) paused: Vec<(u32, Arc<Item>)>,
}

/// Filters and prev-id of one subscription.
#[derive(Debug, Default)]
pub(crate) struct ExtraChannel {
    /// Place in the channel table.
    pub(crate) channel: u32,
    /// Without the route's prefix.
    pub(crate) name: Box<str>,
    pub(crate) filters: Vec<String>,
    pub(crate) prev_id: Option<Box<str>>,
}

impl ExtraChannel {
    /// The item is part of the channel's content now.
    pub(crate) fn follow(&mut self, item: &Item) {
        if self.prev_id.is_some() {
            self.prev_id = item.id.as_deref().map(Box::from);
        }
    }
}

/// A deadline that is not set.
pub(crate) const NEVER: u32 = u32::MAX;

/// One held client session. Times are tenths of a second since the start.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Number of the connection manager.
    pub(crate) peer: u32,
    pub(crate) flags: Flags,
    /// Next expected from the client's side.
    pub(crate) in_seq: u32,
    /// Next to send.
    pub(crate) out_seq: u32,
    /// Bytes that may be sent.
    pub(crate) credits: u32,
    /// When its connection manager was last heard about it.
    pub(crate) heard: u32,
    /// When the keep-alive or the timeout is due.
    pub(crate) deadline: u32,
    /// When its entry in the wheel expires.
    pub(crate) wheel: u32,
    /// Up to when its minutes are counted.
    pub(crate) minute: u32,
    /// Number of the route.
    pub(crate) route: u32,
    /// Number of the keep-alive.
    pub(crate) keep_alive: u32,
    pub(crate) subs: Subs,
    pub(crate) address: Option<IpAddr>,
    pub(crate) queue: Option<Box<Queue>>,
    pub(crate) hold: Option<Box<Hold>>,
    pub(crate) extra: Option<Box<Extra>>,
}

// The budget of the design, section 6.
const _: () = assert!(size_of::<Session>() <= 192);

impl Session {
    pub(crate) fn mode(&self) -> Mode {
        if self.flags.has(Flags::RESPONSE) { Mode::Response } else { Mode::Stream }
    }

    /// Whether items may go to it together with others: its stream runs, nothing waits.
    pub(crate) fn is_clean(&self) -> bool {
        self.queue.is_none()
            && self.hold.is_none()
            && !self.flags.has(Flags::SPECIAL)
            && !self.flags.has(Flags::PAUSING)
            && !self.flags.has(Flags::FINISHING)
    }

    /// Takes the next sequence number.
    pub(crate) fn take_seq(&mut self) -> u32 {
        let seq = self.out_seq;
        self.out_seq = self.out_seq.wrapping_add(1);
        seq
    }

    pub(crate) fn user_data(&self) -> Option<&[u8]> {
        self.extra.as_ref()?.user_data.as_deref()
    }

    /// Whether its connection manager expects keep-alives of it: not while the session is on its
    /// way to another owner, nor before its subscriptions stand (spec/zhttp.md §7).
    pub(crate) fn keeps_alive(&self) -> bool {
        let unconfirmed = self.hold.as_ref().is_some_and(|hold| hold.unconfirmed > 0);
        !self.flags.has(Flags::PAUSING) && !unconfirmed
    }

    /// Whether it can share no packet with others.
    pub(crate) fn is_alone(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.user_data.is_some() || e.jsonp.is_some())
    }

    /// Lets bytes wait; false if the queue is full and they are lost.
    pub(crate) fn enqueue(&mut self, body: Bytes) -> bool {
        let queue = self.queue.get_or_insert_default();
        if queue.items.len() >= QUEUE_MAX {
            return false;
        }
        queue.items.push_back(body);
        true
    }

    /// Takes up to `credits` waiting bytes; the queue goes when it is empty.
    pub(crate) fn take_queued(&mut self) -> Bytes {
        let limit = self.credits as usize;
        let Some(queue) = &mut self.queue else { return Bytes::new() };
        let taken = queue.take(limit);
        if queue.items.is_empty() {
            self.queue = None;
        }
        taken
    }
}

impl Queue {
    fn take(&mut self, limit: usize) -> Bytes {
        let Some(first) = self.items.front_mut() else { return Bytes::new() };
        if first.len() >= limit || self.items.len() == 1 {
            return self.take_first(limit);
        }
        let mut out = Vec::new();
        while out.len() < limit && !self.items.is_empty() {
            let part = self.take_first(limit - out.len());
            out.extend_from_slice(&part);
        }
        out.into()
    }

    fn take_first(&mut self, limit: usize) -> Bytes {
        let Some(first) = self.items.front_mut() else { return Bytes::new() };
        if first.len() > limit {
            return first.split_to(limit);
        }
        self.items.pop_front().unwrap_or_default()
    }
}
