//! The state of one WebSocket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use grip::control::Message;

use crate::shard::filtering::Filtering;
use crate::shard::session::{LogRules, Subs};

/// What sessions of one route have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Profile {
    /// Route id, automatic ones too.
    pub(crate) route: Box<str>,
    /// Put before channel names.
    pub(crate) prefix: Box<str>,
    /// The target is trusted.
    pub(crate) trusted: bool,
    /// Error texts may tell the cause.
    pub(crate) debug: bool,
    pub(crate) log: LogRules,
}

/// One WebSocket. Times are tenths of a second since the start.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) cid: Box<[u8]>,
    /// Number of the proxy that holds it.
    pub(crate) proxy: u32,
    /// Number of the profile.
    pub(crate) profile: u32,
    /// Number of the route that counts for it.
    pub(crate) route: u32,
    /// A close was sent: nothing more is.
    pub(crate) closed: bool,
    /// When it is forgotten without a word of the proxy.
    pub(crate) expires: u32,
    /// When its entry in the wheel expires.
    pub(crate) wheel: u32,
    pub(crate) uri: Box<str>,
    pub(crate) subs: Subs,
    pub(crate) extra: Option<Box<SocketExtra>>,
}

const _: () = assert!(size_of::<Socket>() <= 88);

/// What few WebSockets have.
#[derive(Debug, Default)]
pub(crate) struct SocketExtra {
    pub(crate) meta: BTreeMap<String, String>,
    /// Channels with filters.
    pub(crate) filters: Vec<ChannelFilters>,
    /// Channels that the backend cannot leave.
    pub(crate) implicit: Vec<u32>,
    pub(crate) keep_alive: Option<Message>,
    pub(crate) delayed: Option<Delayed>,
    /// Number of the next item that asks for an acknowledgement.
    pub(crate) next_req: u64,
    /// Items that were not acknowledged yet, and until when they may be.
    pub(crate) unacked: VecDeque<(u64, u32)>,
    /// The name that the backend gave the session.
    pub(crate) sid: Option<Arc<str>>,
    /// An item waits for a backend's word on it, and others behind it.
    pub(crate) filtering: Option<Box<Filtering>>,
}

/// The filters of one channel of a WebSocket.
#[derive(Debug)]
pub(crate) struct ChannelFilters {
    /// Place in the channel table.
    pub(crate) channel: u32,
    pub(crate) filters: Vec<String>,
}

/// A message that is sent later.
#[derive(Debug)]
pub(crate) struct Delayed {
    pub(crate) due: u32,
    pub(crate) message: Message,
}

impl Socket {
    pub(crate) fn extra(&mut self) -> &mut SocketExtra {
        self.extra.get_or_insert_default()
    }

    /// The GRIP session that it belongs to.
    pub(crate) fn sid(&self) -> Option<&Arc<str>> {
        self.extra.as_deref()?.sid.as_ref()
    }

    /// Whether items may go to it together with others.
    pub(crate) fn is_clean(&self) -> bool {
        let special = |extra: &SocketExtra| !extra.filters.is_empty() || extra.filtering.is_some();
        !self.closed && !self.extra.as_deref().is_some_and(special)
    }

    /// The filters of a channel.
    pub(crate) fn filters(&self, channel: u32) -> &[String] {
        let extra = self.extra.as_deref();
        let own = extra.and_then(|extra| extra.filters.iter().find(|own| own.channel == channel));
        own.map_or(&[], |own| &own.filters)
    }
}
