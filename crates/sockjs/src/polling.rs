//! A session whose client polls: which frame answers a poll, and when.
//!
//! ```text
//! opening ── opened ──▶ open ── close ──▶ closing ── its frame was taken ──▶ closed
//!                         └── the client left its poll ────────────────────────┘
//! ```

use std::collections::VecDeque;

use crate::HEARTBEAT_MS;
use crate::escape::quoted;

/// How long a session waits for the next poll, and how long its end is remembered, milliseconds.
const LINGER_MS: u64 = 5_000;

/// Messages that may wait; those without content do not count in bytes.
const MESSAGES_MAX: usize = 10_000;

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    /// Open; whether the client knows.
    Open(bool),
    /// The frame of the end, which comes behind the messages.
    Closing(Vec<u8>),
    /// Over; every request gets this frame.
    Closed(Vec<u8>),
}

/// A frame for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// As it goes to the client.
    pub text: Vec<u8>,
    /// Bytes that the messages in it had taken.
    pub size: usize,
}

/// The state.
#[derive(Debug)]
pub struct Polling {
    stage: Stage,
    /// JSON strings.
    messages: VecDeque<Vec<u8>>,
    /// The start of a message that goes on.
    partial: Vec<u8>,
    /// Bytes in `messages`.
    bytes: usize,
    waiting: bool,
    /// A waiting poll gets a heartbeat then, or the session ends; none while it opens.
    due_ms: Option<u64>,
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    format!("c[{code},{}]", quoted(reason)).into_bytes()
}

impl Polling {
    /// A session whose first poll waits for the backend.
    pub fn new() -> Self {
        Self {
            stage: Stage::Opening,
            messages: VecDeque::new(),
            partial: Vec::new(),
            bytes: 0,
            waiting: true,
            due_ms: None,
        }
    }

    /// The frame that answers any request, once the session is over.
    pub fn closed(&self) -> Option<&[u8]> {
        match &self.stage {
            Stage::Closed(frame) => Some(frame),
            _ => None,
        }
    }

    /// Whether the backend's end of it is over, though perhaps not everything was taken.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Closing(_) | Stage::Closed(_))
    }

    /// Whether the backend has not accepted yet.
    pub fn is_opening(&self) -> bool {
        self.stage == Stage::Opening
    }

    /// A poll comes; its frame is what [`Polling::take`] gives now or later.
    ///
    /// # Errors
    /// The frame that answers it at once, since another poll waits.
    pub fn poll(&mut self, now: u64) -> Result<(), Vec<u8>> {
        if self.waiting {
            return Err(close_frame(2010, "Another connection still open"));
        }
        self.waiting = true;
        self.due_ms = (self.stage != Stage::Opening).then_some(now + HEARTBEAT_MS);
        Ok(())
    }

    /// The backend accepted.
    pub fn opened(&mut self) {
        if self.stage == Stage::Opening {
            self.stage = Stage::Open(false);
        }
    }

    /// A piece of a JSON string for the client.
    ///
    /// # Errors
    /// The message is too large, or too many wait.
    pub fn push(&mut self, piece: &[u8], more: bool) -> Result<(), &'static str> {
        self.partial.extend_from_slice(piece);
        if more {
            let fits = self.partial.len() < crate::BUFFER_MAX;
            return if fits {
                Ok(())
            } else {
                Err("a message is too large for a client that polls")
            };
        }
        let message = std::mem::take(&mut self.partial);
        self.bytes += message.len();
        self.messages.push_back(message);
        let fits = self.messages.len() <= MESSAGES_MAX;
        if fits { Ok(()) } else { Err("too many messages wait for a client that polls") }
    }

    /// The backend closes.
    pub fn close(&mut self, code: Option<u16>, reason: &[u8]) {
        let reason = match reason {
            [] => "Connection closed".into(),
            reason => String::from_utf8_lossy(reason),
        };
        self.stage = Stage::Closing(close_frame(code.unwrap_or(0), &reason));
    }

    /// The client left while its poll waited.
    pub fn client_left(&mut self, now: u64) {
        self.waiting = false;
        self.due_ms = Some(now + LINGER_MS);
        self.messages = VecDeque::new();
        self.stage = Stage::Closed(close_frame(3000, "Client already closed connection"));
    }

    /// What the waiting poll is answered with now, if anything.
    pub fn take(&mut self, now: u64) -> Option<Frame> {
        if !self.waiting {
            return None;
        }
        let frame = self.next_frame(now)?;
        self.waiting = false;
        self.due_ms = Some(now + LINGER_MS);
        Some(frame)
    }

    fn next_frame(&mut self, now: u64) -> Option<Frame> {
        let plain = |text: &[u8]| Some(Frame { text: text.to_vec(), size: 0 });
        match &mut self.stage {
            Stage::Opening => return None,
            Stage::Open(told) if !*told => {
                *told = true;
                return plain(b"o");
            }
            _ => {}
        }
        if !self.messages.is_empty() {
            let size = std::mem::take(&mut self.bytes);
            let messages: Vec<Vec<u8>> = std::mem::take(&mut self.messages).into();
            let text = [b"a[", messages.join(&b',').as_slice(), b"]"].concat();
            return Some(Frame { text, size });
        }
        match &mut self.stage {
            Stage::Closing(frame) | Stage::Closed(frame) => {
                let frame = std::mem::take(frame);
                self.stage = Stage::Closed(frame.clone());
                Some(Frame { text: frame, size: 0 })
            }
            _ if self.due_ms.is_some_and(|due| due <= now) => plain(b"h"),
            _ => None,
        }
    }

    /// When something happens by time alone.
    pub fn next_deadline(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether the session is to be forgotten: nobody polled in time.
    pub fn is_expired(&self, now: u64) -> bool {
        !self.waiting && self.due_ms.is_some_and(|due| due <= now)
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(polling: &mut Polling, now: u64) -> String {
        let frame = polling.take(now).map(|frame| frame.text).unwrap_or_default();
        String::from_utf8(frame).unwrap()
    }

    fn opened() -> Polling {
        let mut polling = Polling::new();
        polling.opened();
        assert_eq!(take(&mut polling, 0), "o");
        polling
    }

    #[test]
    fn the_first_poll_waits_for_the_backend() {
        let mut polling = Polling::new();
        assert!(polling.is_opening() && polling.next_deadline().is_none());
        assert_eq!(polling.take(1_000_000), None);
        polling.opened();
        assert_eq!(take(&mut polling, 1_000_000), "o");
        assert_eq!(polling.next_deadline(), Some(1_005_000));
        assert!(!polling.is_expired(1_004_999) && polling.is_expired(1_005_000));
    }

    #[test]
    fn messages_leave_together_and_wait_for_a_poll() {
        let mut polling = opened();
        polling.push(b"\"a", true).unwrap();
        polling.push(b"b\"", false).unwrap();
        polling.push(b"\"c\"", false).unwrap();
        assert_eq!(polling.take(1), None);
        polling.poll(1).unwrap();
        let frame = polling.take(1).unwrap();
        assert_eq!((&frame.text[..], frame.size), (&b"a[\"ab\",\"c\"]"[..], 7));
        polling.poll(2).unwrap();
        assert_eq!(polling.take(2), None);
        assert_eq!(polling.poll(3).unwrap_err(), b"c[2010,\"Another connection still open\"]");
        polling.push(b"\"d\"", false).unwrap();
        assert_eq!(take(&mut polling, 4), "a[\"d\"]");
    }

    #[test]
    fn a_poll_without_news_gets_a_heartbeat() {
        let mut polling = opened();
        polling.poll(1_000).unwrap();
        assert_eq!((polling.next_deadline(), polling.take(25_999)), (Some(26_000), None));
        assert!(!polling.is_expired(26_000));
        assert_eq!(take(&mut polling, 26_000), "h");
    }

    #[test]
    fn the_end_comes_behind_messages_and_stays_for_a_while() {
        for (code, reason, frame) in [
            (None, "", "c[0,\"Connection closed\"]"),
            (Some(1005), "", "c[1005,\"Connection closed\"]"),
            (Some(3000), "a\"", "c[3000,\"a\\\"\"]"),
        ] {
            let mut polling = opened();
            polling.push(b"\"a\"", false).unwrap();
            polling.close(code, reason.as_bytes());
            assert_eq!(polling.closed(), None);
            polling.poll(10).unwrap();
            assert_eq!(take(&mut polling, 10), "a[\"a\"]");
            polling.poll(20).unwrap();
            assert_eq!(take(&mut polling, 20), frame);
            assert_eq!(polling.closed(), Some(frame.as_bytes()));
            assert!(!polling.is_expired(5_019) && polling.is_expired(5_020));
        }
    }

    #[test]
    fn a_client_that_leaves_its_poll_has_closed() {
        let mut polling = opened();
        polling.poll(10).unwrap();
        polling.client_left(20);
        assert_eq!(polling.closed(), Some(&b"c[3000,\"Client already closed connection\"]"[..]));
        assert!(polling.is_expired(5_020));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut polling = opened();
        assert!(polling.push(&vec![b'x'; crate::BUFFER_MAX], true).is_err());
        let mut polling = opened();
        assert!((0..MESSAGES_MAX).all(|_| polling.push(b"\"\"", false).is_ok()));
        assert!(polling.push(b"\"\"", false).is_err());
    }
}
