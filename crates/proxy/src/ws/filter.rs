//! What the GRIP extension does to a backend's messages (spec/proxy.md §11.2): control messages
//! go to the handler, others lose their prefix or are dropped.

use super::Kind;

/// Marks control messages.
const CONTROL: &[u8] = b"c:";

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

/// The filter of one connection.
#[derive(Debug)]
pub(crate) struct Filter {
    prefix: Box<[u8]>,
    state: State,
}

impl Filter {
    /// `prefix`: what messages for the client begin with.
    pub fn new(prefix: &[u8]) -> Self {
        Self { prefix: prefix.into(), state: State::Start(Vec::new()) }
    }

    /// Whether the client has got a part of a message of which more comes.
    pub fn is_within_message(&self) -> bool {
        self.state == State::Forwarding
    }

    /// Takes a piece of a text or binary message.
    pub fn push(&mut self, kind: Kind, data: &[u8], more: bool) -> Verdict {
        let verdict = match &mut self.state {
            State::Start(start) => {
                start.extend_from_slice(data);
                return self.begin(kind, more);
            }
            State::Forwarding => Verdict::Forward(data.to_vec()),
            State::Dropping => Verdict::Nothing,
            State::Control(message) => {
                message.extend_from_slice(data);
                return self.control(more);
            }
        };
        if !more {
            self.state = State::Start(Vec::new());
        }
        verdict
    }

    /// Decides about a message by its start, once enough of it is there.
    fn begin(&mut self, kind: Kind, more: bool) -> Verdict {
        let State::Start(start) = &mut self.state else { return Verdict::Nothing };
        let known = |mark: &[u8]| !more || start.len() >= mark.len();
        let may_be = |mark: &[u8]| start.starts_with(&mark[..mark.len().min(start.len())]);
        if kind == Kind::Text && start.starts_with(CONTROL) {
            let message = start.split_off(CONTROL.len());
            self.state = State::Control(message);
            return self.control(more);
        }
        if kind == Kind::Text && !known(CONTROL) && may_be(CONTROL) {
            return Verdict::Nothing;
        }
        if start.starts_with(&self.prefix) {
            let rest = start.split_off(self.prefix.len());
            self.state = if more { State::Forwarding } else { State::Start(Vec::new()) };
            return Verdict::Forward(rest);
        }
        if !known(&self.prefix) && may_be(&self.prefix) {
            return Verdict::Nothing;
        }
        self.state = if more { State::Dropping } else { State::Start(Vec::new()) };
        Verdict::Dropped
    }

    fn control(&mut self, more: bool) -> Verdict {
        let State::Control(message) = &mut self.state else { return Verdict::Nothing };
        let too_large = message.len() > CONTROL_MAX;
        if more && !too_large {
            return Verdict::Nothing;
        }
        let message = std::mem::take(message);
        self.state = if more { State::Dropping } else { State::Start(Vec::new()) };
        if too_large { Verdict::Dropped } else { Verdict::Control(message) }
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
