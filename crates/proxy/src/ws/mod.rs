//! WebSockets (spec/proxy.md §11): one client session, its backend of whatever kind, and the
//! handler's control of it.
//!
//! ```text
//! opening ── backend accepts ──▶ open ── both sides closed ──▶ parting ──▶ gone
//!    └── refused: gone            └── an error: gone             (the backend is told the end)
//! ```
//!
//! `open` asks the targets, `relay` moves messages both ways, `closing` ends it, `control` talks
//! with the handler; `socket` is for backends that speak WebSocket, `over_http` for those that are
//! asked by requests.

mod cid;
mod closing;
mod control;
mod filter;
mod kept;
mod open;
mod outgoing;
mod over_http;
mod relay;
mod session;
mod socket;
mod test_target;
mod timer;

pub(crate) use cid::Cid;
pub(crate) use control::Outbox;
pub(crate) use kept::Keeper;
pub(crate) use outgoing::{Frame, Outgoing, Piece};
pub(crate) use session::{Back, Ws};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
}

impl Kind {
    /// A message, which may come in pieces; else a control frame.
    pub fn is_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }

    /// The kind of a message by its `content-type` (spec/zhttp.md §3.1).
    pub fn of(content_type: &[u8]) -> Self {
        if content_type == b"binary" { Self::Binary } else { Self::Text }
    }
}
