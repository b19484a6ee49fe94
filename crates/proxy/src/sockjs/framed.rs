//! How a WebSocket's messages look to its client: as they are, or in SockJS frames.

use evloop::arena::Key;
use sockjs::{Escaper, FRAME_MAX, HEARTBEAT_MS};

use crate::Proxy;
use crate::session::Session;
use crate::ws::{Frame, Kind, Ws};

/// Pieces of messages of backend and client, half of which is there.
#[derive(Debug, Default)]
pub(crate) struct Framed {
    escaper: Escaper,
    /// A frame of the client so far.
    partial: Vec<u8>,
    heartbeat_ms: Option<u64>,
}

/// The look.
#[derive(Debug, Default)]
pub(crate) enum Shape {
    /// As they are.
    #[default]
    Plain,
    /// A frame for each message.
    Framed(Box<Framed>),
    /// The client polls.
    Poll(Box<(Key, Escaper)>),
}

impl Shape {
    pub fn framed() -> Self {
        Self::Framed(Box::default())
    }

    pub fn poll(key: Key) -> Self {
        Self::Poll(Box::new((key, Escaper::default())))
    }

    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// The session of a client that polls.
    pub fn poll_key(&self) -> Option<Key> {
        match self {
            Self::Poll(poll) => Some(poll.0),
            _ => None,
        }
    }

    /// When a heartbeat is due.
    pub fn heartbeat_ms(&self) -> Option<u64> {
        match self {
            Self::Framed(framed) => framed.heartbeat_ms,
            _ => None,
        }
    }

    /// A piece of a backend's message as the client gets it.
    pub fn dress(&mut self, kind: Kind, data: Vec<u8>, more: bool) -> Frame {
        match self {
            Self::Plain => Frame { more, ..Frame::new(kind, data) },
            Self::Framed(framed) => {
                let data = framed.escaper.piece(&data, more, "a[\"", "\"]");
                Frame { more, ..Frame::new(Kind::Text, data) }
            }
            Self::Poll(poll) => {
                let data = poll.1.piece(&data, more, "\"", "\"");
                Frame { more, ..Frame::new(Kind::Text, data) }
            }
        }
    }

    /// A whole message of the handler as the client gets it, past a half message of the backend.
    pub fn dress_own(&self, frame: Frame) -> Frame {
        let data = match self {
            Self::Plain => return frame,
            Self::Framed(_) => sockjs::frame(&frame.data),
            Self::Poll(..) => Escaper::default().piece(&frame.data, false, "\"", "\""),
        };
        Frame { kind: Kind::Text, data, ..frame }
    }
}

impl Proxy {
    /// The backend accepted: what a SockJS client hears first.
    pub(crate) fn sockjs_opened(&mut self, key: Key) {
        let now = self.now;
        let Some(ws) = self.sessions.get_mut(key).and_then(|s| s.ws.as_mut()) else { return };
        match &mut ws.shape {
            Shape::Plain => {}
            Shape::Framed(framed) => {
                framed.heartbeat_ms = Some(now + HEARTBEAT_MS);
                ws.out.push_own(Frame::new(Kind::Text, b"o".to_vec()));
                self.schedule_ws(key);
            }
            Shape::Poll(poll) => {
                let poll = poll.0;
                if let Some(session) = self.polls.get_mut(poll) {
                    session.state.opened();
                }
                self.answer_poll(poll);
            }
        }
    }

    /// Whether the client's messages come in frames.
    pub(crate) fn is_framed(&self, key: Key) -> bool {
        let ws = self.sessions.get(key).and_then(|session| session.ws.as_ref());
        ws.is_some_and(|ws| matches!(ws.shape, Shape::Framed(_)))
    }

    /// A heartbeat, if one is due.
    pub(crate) fn sockjs_heartbeat(&mut self, key: Key) {
        let now = self.now;
        let Some(ws) = self.sessions.get_mut(key).and_then(|s| s.ws.as_mut()) else { return };
        let Shape::Framed(framed) = &mut ws.shape else { return };
        if framed.heartbeat_ms.is_some_and(|due| due <= now) {
            framed.heartbeat_ms = Some(now + HEARTBEAT_MS);
            if ws.is_clear() {
                ws.out.push_own(Frame::new(Kind::Text, b"h".to_vec()));
                self.dirty.push(key);
            }
        }
    }

    /// Answers a ping of the client itself: a backend sees nothing of the frames.
    pub(crate) fn framed_ping(&mut self, key: Key, data: &[u8]) {
        let Some(ws) = self.sessions.get_mut(key).and_then(|s| s.ws.as_mut()) else { return };
        if !ws.out.is_full() {
            ws.out.push_own(Frame::new(Kind::Pong, data.to_vec()));
            self.dirty.push(key);
        }
        self.send_credit(key, data.len() as u32);
    }

    /// Answers a ping of the backend, of which a SockJS client knows nothing.
    pub(crate) fn answer_ping(&mut self, key: Key, data: &[u8]) {
        self.client_sent(key, Kind::Pong, data, false);
        // The client did not send this, so nothing is owed for it.
        if let Some(session) = self.sessions.get_mut(key) {
            session.owed_credits = session.owed_credits.saturating_sub(data.len() as u32);
        }
    }

    /// A piece of a frame of the client. Credits go back for everything that is no message.
    pub(crate) fn framed_piece(&mut self, key: Key, data: &[u8], more: bool) {
        let Some(ws) = self.sessions.get_mut(key).and_then(|s| s.ws.as_mut()) else { return };
        let Shape::Framed(framed) = &mut ws.shape else { return };
        framed.partial.extend_from_slice(data);
        let too_large = framed.partial.len() > FRAME_MAX;
        if more && !too_large {
            return self.return_framed(key, data.len());
        }
        let frame = std::mem::take(&mut framed.partial);
        let messages = if too_large { None } else { sockjs::messages(&frame) };
        let Some(messages) = messages else {
            log::debug!("{}: not a SockJS frame, ending the connection", ws.cid);
            return self.ws_abandon(key, true);
        };
        let content: usize = messages.iter().map(String::len).sum();
        self.return_framed(key, data.len().saturating_sub(content));
        for message in &messages {
            self.client_sent(key, Kind::Text, message.as_bytes(), false);
        }
        // What was returned when the first pieces came is not owed again.
        if let Some(session) = self.sessions.get_mut(key) {
            let returned = content.saturating_sub(data.len()) as u32;
            session.owed_credits = session.owed_credits.saturating_sub(returned);
        }
    }

    fn return_framed(&mut self, key: Key, size: usize) {
        if size > 0 {
            self.send_credit(key, size as u32);
        }
    }

    /// A WebSocket for a session's first packet.
    pub(crate) fn new_ws(&mut self, session: &Session, packet: &zhttp::Packet<'_>) -> Ws {
        let address = crate::forward::logical_address(
            packet.headers,
            &self.settings,
            session.trusted,
            packet.peer_address,
        );
        Ws::new(crate::ws::Cid::new(self.random.bytes()), address)
    }
}
