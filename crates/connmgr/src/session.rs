//! Session ids: `<worker>-<slot>-<counter>`, the counter in lower-case hex (`spec/zhttp.md §4.1`).
//! The slot is found by reading the id, not by a look-up.

use std::fmt;

use arrayvec::ArrayVec;

/// Most bytes of an id: 5 + 1 + 10 + 1 + 8.
const TEXT_MAX: usize = 25;

/// A session of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Which worker has it.
    pub worker: u16,
    /// Which of the worker's connections it is on.
    pub slot: u32,
    /// Which of the worker's requests it is.
    pub counter: u32,
}

impl Session {
    /// Reads an id that [`Session::text`] wrote; nothing else is accepted.
    pub fn parse(id: &[u8]) -> Option<Self> {
        let mut parts = id.split(|&b| b == b'-');
        let worker = decimal(parts.next()?)?;
        let slot = decimal(parts.next()?)?;
        let counter = hex(parts.next()?)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self { worker: u16::try_from(worker).ok()?, slot, counter })
    }

    /// The id as it stands in packets.
    pub fn text(self) -> ArrayVec<u8, TEXT_MAX> {
        let mut text = ArrayVec::new();
        push_number(&mut text, self.worker.into(), 10);
        text.push(b'-');
        push_number(&mut text, self.slot, 10);
        text.push(b'-');
        push_number(&mut text, self.counter, 16);
        text
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:x}", self.worker, self.slot, self.counter)
    }
}

/// The worker that an id names, if it is one of ours.
pub(crate) fn worker_of(id: &[u8]) -> Option<u16> {
    let worker = id.split(|&b| b == b'-').next()?;
    decimal(worker).and_then(|worker| u16::try_from(worker).ok())
}

fn push_number(text: &mut ArrayVec<u8, TEXT_MAX>, mut value: u32, base: u32) {
    let mut digits: ArrayVec<u8, 10> = ArrayVec::new();
    loop {
        digits.push(b"0123456789abcdef"[(value % base) as usize]);
        value /= base;
        if value == 0 {
            break;
        }
    }
    text.extend(digits.into_iter().rev());
}

/// Digits without leading zeros.
fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    text.iter().try_fold(0u32, |value, b| {
        let digit = b.is_ascii_digit().then(|| u32::from(b - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Lower-case hex without leading zeros.
fn hex(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 8 || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    text.iter().try_fold(0u32, |value, b| match b {
        b'0'..=b'9' => Some(value << 4 | u32::from(b - b'0')),
        b'a'..=b'f' => Some(value << 4 | u32::from(b - b'a' + 10)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_only_what_it_writes() {
        let session = Session { worker: 0, slot: 7, counter: 0x2a };
        assert_eq!(session.text().as_slice(), b"0-7-2a");
        assert_eq!(Session::parse(b"0-7-2a"), Some(session));
        let bad = [
            "",
            "0-7",
            "0-7-2a-1",
            "00-7-2a",
            "0-07-2a",
            "0-7-02a",
            "0-7-2A",
            "0-7-",
            "-7-1",
            "65536-0-0",
            "0-4294967296-0",
            "0-0-100000000",
            "0-7-2a ",
        ];
        for id in bad {
            assert_eq!(Session::parse(id.as_bytes()), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(worker: u16, slot: u32, counter: u32) {
            let session = Session { worker, slot, counter };
            prop_assert_eq!(Session::parse(&session.text()), Some(session));
        }

        #[test]
        fn one_text_per_session(id in "[0-9a-f-]{0,12}") {
            if let Some(session) = Session::parse(id.as_bytes()) {
                let text = session.text();
                prop_assert_eq!(text.as_slice(), id.as_bytes());
            }
        }
    }
}
