//! The ways between the engines, and what is counted of each.

/// The ways that messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// First packets: connection manager to proxy.
    Push,
    /// Packets of running sessions: connection manager to proxy.
    ToProxy,
    /// Packets of running sessions: connection manager to handler.
    ToHandler,
    /// Proxy to connection manager.
    FromProxy,
    /// Handler to connection manager.
    FromHandler,
    /// Calls: proxy to handler.
    Accept,
    /// Their answers.
    AcceptReply,
    /// Sessions that go back: handler to proxy.
    Retry,
    /// About WebSockets: proxy to handler.
    Control,
    /// About WebSockets: handler to proxy.
    ControlReply,
}

impl Link {
    /// Whether its messages are ZHTTP packets.
    pub(crate) fn is_zhttp(self) -> bool {
        use Link::{Accept, AcceptReply, Control, ControlReply, Retry};
        !matches!(self, Accept | AcceptReply | Control | ControlReply | Retry)
    }
}

/// What one ZeroMQ message had in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// ZeroMQ messages.
    pub messages: usize,
    /// Packets in them.
    pub packets: usize,
    /// Sessions that the packets listed, all together.
    pub ids: usize,
    /// Packets with body bytes.
    pub bodies: usize,
}
