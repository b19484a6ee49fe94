//! Messages of the client that the backend has not accepted yet, oldest first.

use std::collections::VecDeque;

use crate::{CONTENT_MAX, Kind, WAITING_MAX, events};

/// Messages that may wait: empty ones cost no credits, so their number needs a bound of its own.
const MESSAGES_MAX: usize = 10_000;

#[derive(Debug)]
struct Message {
    kind: Kind,
    data: Vec<u8>,
    complete: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    /// So many messages from the front were offered before.
    offered: usize,
}

/// What a request offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub messages: usize,
    pub content: usize,
    /// Everything that waits is in it.
    pub everything: bool,
}

impl Waiting {
    /// Takes a piece of a message. Control messages come whole, also within others.
    ///
    /// # Errors
    /// A message that does not fit, or too many.
    pub fn push(&mut self, kind: Kind, data: &[u8], more: bool) -> Result<(), &'static str> {
        self.bytes += data.len();
        let control = matches!(kind, Kind::Ping | Kind::Pong);
        match self.messages.back_mut().filter(|last| !last.complete && !control) {
            Some(last) => {
                last.data.extend_from_slice(data);
                last.complete = !more;
            }
            None => {
                let message = Message { kind, data: data.to_vec(), complete: control || !more };
                let unfinished = self.messages.back().is_some_and(|last| !last.complete);
                let at = self.messages.len() - usize::from(unfinished);
                self.messages.insert(at, message);
            }
        }
        if self.messages.len() > MESSAGES_MAX {
            return Err("too many messages wait for the backend");
        }
        let stuck = self.messages.front().is_some_and(|first| !first.complete);
        if stuck && self.bytes >= WAITING_MAX {
            return Err("a message is larger than what may wait for the backend");
        }
        Ok(())
    }

    /// Whether nothing waits, not even a part of a message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a complete message waits that was never offered.
    pub fn has_new(&self) -> bool {
        self.messages.get(self.offered).is_some_and(|message| message.complete)
    }

    /// Appends the events of a request, and notes that their messages were offered.
    /// `messages_max`: most messages.
    pub fn offer(&mut self, out: &mut Vec<u8>, messages_max: usize) -> Offer {
        let mut offer = Offer::default();
        for message in self.messages.iter().take_while(|message| message.complete) {
            if offer.messages >= messages_max || offer.content >= CONTENT_MAX {
                break;
            }
            events::write(out, message.kind, &message.data);
            offer.messages += 1;
            offer.content += message.data.len();
        }
        offer.everything =
            !self.messages.get(offer.messages).is_some_and(|message| message.complete);
        self.offered = self.offered.max(offer.messages);
        offer
    }

    /// The backend took so many bytes of an offer; a part of a message leaves its rest. All of an
    /// offer's messages go if all its bytes do.
    pub fn accepted(&mut self, offer: Offer, mut bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let all = bytes >= offer.content;
        for _ in 0..offer.messages {
            let Some(first) = self.messages.front_mut() else { return };
            if first.data.len() > bytes || (bytes == 0 && !all) {
                first.data.drain(..bytes);
                return;
            }
            bytes -= first.data.len();
            self.messages.pop_front();
            self.offered = self.offered.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(waiting: &Waiting) -> bool {
        !waiting.messages.front().is_some_and(|message| message.complete)
    }

    fn offer(waiting: &mut Waiting, max: usize) -> (String, Offer) {
        let mut out = Vec::new();
        let offer = waiting.offer(&mut out, max);
        (String::from_utf8(out).unwrap().replace("\r\n", "|"), offer)
    }

    #[test]
    fn only_complete_messages_are_offered() {
        let mut waiting = Waiting::default();
        waiting.push(Kind::Text, b"a", true).unwrap();
        assert!(is_empty(&waiting) && !waiting.has_new());
        waiting.push(Kind::Ping, b"p", false).unwrap();
        waiting.push(Kind::Text, b"b", false).unwrap();
        waiting.push(Kind::Binary, b"c", true).unwrap();
        let (text, first) = offer(&mut waiting, usize::MAX);
        assert_eq!(text, "PING 1|p|TEXT 2|ab|");
        assert_eq!(first, Offer { messages: 2, content: 3, everything: true });
        assert!(!waiting.has_new());
        waiting.accepted(first, 2);
        assert_eq!(offer(&mut waiting, usize::MAX).0, "TEXT 1|b|");
        waiting.push(Kind::Binary, b"d", false).unwrap();
        assert!(waiting.has_new());
        assert!(!offer(&mut waiting, 1).1.everything);
    }

    #[test]
    fn bounds() {
        let mut waiting = Waiting::default();
        waiting.push(Kind::Text, &[0; WAITING_MAX - 1], true).unwrap();
        assert!(waiting.push(Kind::Text, b"x", true).is_err());
        let mut waiting = Waiting::default();
        let pushed = (0..=MESSAGES_MAX).filter(|_| waiting.push(Kind::Text, b"", false).is_ok());
        assert_eq!(pushed.count(), MESSAGES_MAX);
    }

    #[test]
    fn empty_messages_go_with_their_offer() {
        let mut waiting = Waiting::default();
        waiting.push(Kind::Text, b"", false).unwrap();
        waiting.push(Kind::Text, b"ab", false).unwrap();
        let (_, all) = offer(&mut waiting, usize::MAX);
        waiting.accepted(all, 0);
        assert_eq!(offer(&mut waiting, usize::MAX).1.messages, 2);
        waiting.accepted(all, 2);
        assert!(is_empty(&waiting));
        waiting.push(Kind::Text, b"", false).unwrap();
        let (_, empty) = offer(&mut waiting, usize::MAX);
        waiting.accepted(empty, 0);
        assert!(is_empty(&waiting));
    }
}
