//! Frames on their way to a WebSocket's client, as its credits allow.

use std::collections::VecDeque;

use super::Kind;

/// Bytes that may wait before the backend is told to wait, or a message of the handler that may be
/// dropped is.
pub(crate) const WAITING_MAX: usize = 200_000;

/// Frames that may wait; empty ones have no bytes to count.
const FRAMES_MAX: usize = 10_000;

/// A message, a piece of one, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: Kind,
    pub data: Vec<u8>,
    /// The message goes on.
    pub more: bool,
    /// Tells the handler when the frame has left: the request's id.
    pub ack: Option<Box<[u8]>>,
}

impl Frame {
    pub fn new(kind: Kind, data: Vec<u8>) -> Self {
        Self { kind, data, more: false, ack: None }
    }
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub kind: Kind,
    pub data: Vec<u8>,
    pub more: bool,
    /// The frame is done; its request is to be settled.
    pub ack: Option<Box<[u8]>>,
}

impl Piece {
    /// Writes it into a packet.
    pub fn write(&self, fields: &mut zhttp::Fields<'_>) {
        match self.kind {
            Kind::Text => fields.content_type("text"),
            Kind::Binary => fields.content_type("binary"),
            Kind::Ping => fields.kind(zhttp::Kind::Ping),
            Kind::Pong => fields.kind(zhttp::Kind::Pong),
        };
        fields.body(&self.data).flag("more", self.more);
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    frames: VecDeque<Frame>,
    /// Messages of the handler that wait for the end of a message of the backend.
    behind: VecDeque<Frame>,
    bytes: usize,
    /// The last frame queued is a piece of a message of this kind that goes on.
    within_message: Option<Kind>,
}

impl Outgoing {
    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits, and no message is half sent.
    pub fn is_idle(&self) -> bool {
        self.frames.is_empty() && self.within_message.is_none()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.behind.is_empty()
    }

    /// Whether no more should come for now.
    pub fn is_full(&self) -> bool {
        self.bytes >= WAITING_MAX || self.frames.len() + self.behind.len() >= FRAMES_MAX
    }

    /// Queues a frame of the backend.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.data.len();
        if frame.kind.is_message() {
            self.within_message = frame.more.then_some(frame.kind);
        }
        self.frames.push_back(frame);
        if self.within_message.is_none() {
            self.frames.append(&mut self.behind);
        }
    }

    /// Queues a whole message of the handler: behind the message of the backend that is under way.
    pub fn push_own(&mut self, frame: Frame) {
        self.bytes += frame.data.len();
        match self.within_message.is_some() && frame.kind.is_message() {
            true => self.behind.push_back(frame),
            false => self.frames.push_back(frame),
        }
    }

    /// The backend is gone: a message that it did not finish ends here.
    pub fn end_message(&mut self) {
        if let Some(kind) = self.within_message.take() {
            self.push(Frame::new(kind, Vec::new()));
        }
    }

    /// Takes what may leave with so many credits: at most `size_max` bytes. Control frames leave
    /// whole.
    pub fn pop(&mut self, credits: usize, size_max: usize) -> Option<Piece> {
        let frame = self.frames.front_mut()?;
        let room = credits.min(size_max);
        if frame.data.len() <= room {
            let Frame { kind, data, more, ack } = self.frames.pop_front()?;
            self.bytes -= data.len();
            if self.frames.is_empty() {
                self.frames.shrink_to(0);
            }
            return Some(Piece { kind, data, more, ack });
        }
        if room == 0 || !frame.kind.is_message() {
            return None;
        }
        let rest = frame.data.split_off(room);
        let data = std::mem::replace(&mut frame.data, rest);
        self.bytes -= data.len();
        Some(Piece { kind: frame.kind, data, more: true, ack: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(data: &str, more: bool) -> Frame {
        Frame { more, ..Frame::new(Kind::Text, data.as_bytes().to_vec()) }
    }

    fn drain(out: &mut Outgoing) -> String {
        let mut seen = String::new();
        while let Some(piece) = out.pop(usize::MAX, 3) {
            let more = if piece.more { "+" } else { "." };
            seen.push_str(&format!("{}{more}", String::from_utf8(piece.data).unwrap()));
        }
        seen
    }

    #[test]
    fn own_messages_wait_for_the_end_of_the_others() {
        let mut out = Outgoing::default();
        out.push(text("a", true));
        out.push_own(text("own", false));
        out.push_own(Frame::new(Kind::Ping, b"p".to_vec()));
        assert_eq!(drain(&mut out), "a+p.");
        assert!(!out.is_idle() && out.waiting() == 3);
        out.push(text("b", false));
        assert_eq!(drain(&mut out), "b.own.");
        assert!(out.is_idle() && out.waiting() == 0);
        out.push(text("c", true));
        out.end_message();
        assert_eq!(drain(&mut out), "c+.");
    }

    #[test]
    fn pieces_by_credits() {
        let mut out = Outgoing::default();
        out.push(text("abcdef", false));
        assert_eq!(out.pop(0, 100), None);
        let piece = out.pop(4, 100).unwrap();
        assert_eq!((&piece.data[..], piece.more), (&b"abcd"[..], true));
        let piece = out.pop(4, 100).unwrap();
        assert_eq!((&piece.data[..], piece.more), (&b"ef"[..], false));
        out.push(Frame::new(Kind::Pong, b"abc".to_vec()));
        assert_eq!(out.pop(2, 100), None);
        assert!(out.pop(3, 100).is_some());
        out.push(text("", false));
        assert!(out.pop(0, 100).is_some(), "an empty message needs no credits");
    }
}
