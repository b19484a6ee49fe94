//! What the GRIP extension does to a backend's messages (spec/proxy.md §11.2): control messages
//! go to the handler, others lose their prefix or are dropped.

use super::Kind;
use crate::rare::{Rare, blank};

/// Marks control messages.
const CONTROL: &[u8] = b"c:";

/// The prefix, unless the backend says otherwise.
const USUAL_PREFIX: &[u8] = b"m:";

/// Largest control message, bytes.
const CONTROL_MAX: usize = 200_000;

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, or not yet.
    Nothing,
    /// To the client, with the kind and whether more follows as given.
    Forward(Vec<u8>),
    /// A whole control message for the handler, without its mark.
    Control(Vec<u8>),
    /// A message was dropped, since it has no prefix or is a control message that is too large.
    Dropped,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The start of a message, as far as it is known.
    Start(Vec<u8>),
    Forwarding,
    Dropping,
    /// A control message so far.
    Control(Vec<u8>),
}

impl Default for State {
    fn default() -> Self {
        Self::Start(Vec::new())
    }
}

/// The filter of one connection.
#[derive(Debug)]
pub(crate) struct Filter {
    prefix: Rare<Prefix>,
    state: Rare<State>,
}

/// What messages for the client begin with.
#[derive(Debug)]
struct Prefix(Box<[u8]>);

impl Default for Prefix {
    fn default() -> Self {
        Self(USUAL_PREFIX.into())
    }
}

blank!(State, Prefix);

impl Filter {
    /// `prefix`: what messages for the client begin with.
    pub fn new(prefix: &[u8]) -> Self {
        let prefix = match prefix {
            USUAL_PREFIX => Rare::default(),
            other => Rare::new(Prefix(other.into())),
        };
        Self { prefix, state: Rare::default() }
    }

    /// Whether the client has got a part of a message of which more comes.
    pub fn is_within_message(&self) -> bool {
        *self.state == State::Forwarding
    }

    /// Takes a piece of a text or binary message.
    pub fn push(&mut self, kind: Kind, data: &[u8], more: bool) -> Verdict {
        match self.state.take() {
            State::Start(mut start) => {
                start.extend_from_slice(data);
                self.begin(kind, start, more)
            }
            State::Forwarding => {
                self.then(State::Forwarding, more, Verdict::Forward(data.to_vec()))
            }
            State::Dropping => self.then(State::Dropping, more, Verdict::Nothing),
            State::Control(mut message) => {
                message.extend_from_slice(data);
                self.control(message, more)
            }
        }
    }

    /// The verdict, and the state for what follows of the message.
    fn then(&mut self, state: State, more: bool, verdict: Verdict) -> Verdict {
        if more {
            self.state = Rare::new(state);
        }
        verdict
    }

    /// Decides about a message by its start, once enough of it is there.
    fn begin(&mut self, kind: Kind, mut start: Vec<u8>, more: bool) -> Verdict {
        let prefix = &*self.prefix.0;
        let known = |mark: &[u8]| !more || start.len() >= mark.len();
        let may_be = |mark: &[u8]| start.starts_with(&mark[..mark.len().min(start.len())]);
        if kind == Kind::Text && start.starts_with(CONTROL) {
            let message = start.split_off(CONTROL.len());
            return self.control(message, more);
        }
        if kind == Kind::Text && !known(CONTROL) && may_be(CONTROL) {
            return self.then(State::Start(start), more, Verdict::Nothing);
        }
        if start.starts_with(prefix) {
            let rest = start.split_off(prefix.len());
            return self.then(State::Forwarding, more, Verdict::Forward(rest));
        }
        if !known(prefix) && may_be(prefix) {
            return self.then(State::Start(start), more, Verdict::Nothing);
        }
        self.then(State::Dropping, more, Verdict::Dropped)
    }

    fn control(&mut self, message: Vec<u8>, more: bool) -> Verdict {
        let too_large = message.len() > CONTROL_MAX;
        match (too_large, more) {
            (true, _) => self.then(State::Dropping, more, Verdict::Dropped),
            (false, true) => self.then(State::Control(message), more, Verdict::Nothing),
            (false, false) => Verdict::Control(message),
        }
    }
}

/// The message prefix, if `value` (of Sec-WebSocket-Extensions) has the `grip` extension
/// (spec §11.1).
pub(crate) fn grip_prefix(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    text.split(',').find_map(|extension| {
        let mut parts = extension.split(';').map(str::trim);
        if parts.next() != Some("grip") {
            return None;
        }
        let mut prefix = "m:";
        for part in parts {
            match part.split_once('=') {
                Some((_, "")) => return None,
                Some((name, value)) if name.trim() == "message-prefix" => {
                    prefix = value.trim().trim_matches('"');
                }
                _ => {}
            }
        }
        Some(prefix.as_bytes().to_vec())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forward(text: &str) -> Verdict {
        Verdict::Forward(text.as_bytes().to_vec())
    }

    #[test]
    fn whole_messages() {
        let mut filter = Filter::new(b"m:");
        let mut push = |kind, text: &str| filter.push(kind, text.as_bytes(), false);
        assert_eq!(push(Kind::Text, "m:hello"), forward("hello"));
        assert_eq!(push(Kind::Binary, "m:"), forward(""));
        assert_eq!(push(Kind::Text, "c:{}"), Verdict::Control(b"{}".to_vec()));
        assert_eq!(push(Kind::Binary, "c:{}"), Verdict::Dropped);
        assert_eq!(push(Kind::Text, "hello"), Verdict::Dropped);
        assert_eq!(push(Kind::Text, ""), Verdict::Dropped);
        assert_eq!(push(Kind::Text, "m"), Verdict::Dropped);
    }

    #[test]
    fn continuations_of_dropped_messages_are_dropped() {
        let mut filter = Filter::new(b"m:");
        assert_eq!(filter.push(Kind::Text, b"x", true), Verdict::Dropped);
        assert_eq!(filter.push(Kind::Text, b"m:y", true), Verdict::Nothing);
        assert_eq!(filter.push(Kind::Text, b"m:z", false), Verdict::Nothing);
        assert_eq!(filter.push(Kind::Text, b"m:a", true), forward("a"));
        assert!(filter.is_within_message());
        assert_eq!(filter.push(Kind::Text, b"b", false), forward("b"));
        assert!(!filter.is_within_message());
        let mut filter = Filter::new(b"");
        assert_eq!(filter.push(Kind::Text, b"c", true), Verdict::Nothing);
        assert_eq!(filter.push(Kind::Text, b"at", false), forward("cat"));
    }

    #[test]
    fn control_messages_have_a_limit() {
        let mut filter = Filter::new(b"m:");
        assert_eq!(filter.push(Kind::Text, b"c:", true), Verdict::Nothing);
        assert_eq!(filter.push(Kind::Text, &[b'x'; CONTROL_MAX + 1], true), Verdict::Dropped);
        assert_eq!(filter.push(Kind::Text, b"x", false), Verdict::Nothing);
        assert_eq!(filter.push(Kind::Text, b"m:y", false), forward("y"));
    }

    #[test]
    fn extensions() {
        for (value, prefix) in [
            ("grip", Some("m:")),
            ("x; a=b, grip; message-prefix=zz", Some("zz")),
            ("grip;message-prefix=\"\"", Some("")),
            ("grip; message-prefix=", None),
            ("Grip", None),
            ("permessage-deflate", None),
        ] {
            let expected = prefix.map(|prefix| prefix.as_bytes().to_vec());
            assert_eq!(grip_prefix(value.as_bytes()), expected, "{value}");
        }
    }

    proptest! {
        /// However a message is cut, the same comes out of it.
        #[test]
        fn pieces_do_not_matter(
            message in prop_oneof!["m:[a-z]{0,9}", "c:[a-z]{0,9}", "[a-z:]{0,9}"],
            cuts in prop::collection::vec(0usize..12, 0..4),
        ) {
            let whole = Filter::new(b"m:").push(Kind::Text, message.as_bytes(), false);
            let mut filter = Filter::new(b"m:");
            let (mut forwarded, mut other) = (None::<Vec<u8>>, None);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(message.len())).collect();
            cuts.sort_unstable();
            cuts.push(message.len());
            let mut start = 0;
            for (i, &cut) in cuts.iter().enumerate() {
                let piece = &message.as_bytes()[start..cut];
                match filter.push(Kind::Text, piece, i + 1 < cuts.len()) {
                    Verdict::Forward(data) => forwarded.get_or_insert_default().extend(data),
                    Verdict::Nothing => {}
                    verdict => other = Some(verdict),
                }
                start = cut;
            }
            let seen = forwarded.map(Verdict::Forward).or(other);
            prop_assert_eq!(seen, Some(whole));
        }
    }
}
