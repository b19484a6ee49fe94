//! The public id of a WebSocket: a random UUID in lower case.

use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The id; backends, handler and stats know the connection by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cid([u8; 16]);

impl Cid {
    /// Makes a UUID (RFC 9562, version 4) of random bytes.
    pub fn new(mut random: [u8; 16]) -> Self {
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        Self(random)
    }

    /// The usual form of 36 characters.
    pub fn text(self) -> [u8; 36] {
        let mut out = [b'-'; 36];
        let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
        for (n, place) in places.enumerate() {
            let byte = self.0[n / 2];
            let digit = if n % 2 == 0 { byte >> 4 } else { byte & 15 };
            out[place] = DIGITS[usize::from(digit)];
        }
        out
    }

    /// Reads the usual form.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 36 || [8, 13, 18, 23].iter().any(|&place| text[place] != b'-') {
            return None;
        }
        let mut bytes = [0; 16];
        let mut n = 0;
        for digit in text.iter().filter(|&&digit| digit != b'-') {
            let value = DIGITS.iter().position(|known| known == digit)? as u8;
            *bytes.get_mut(n / 2)? |= if n % 2 == 0 { value << 4 } else { value };
            n += 1;
        }
        (n == 32).then_some(Self(bytes))
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let cid = Cid::new([0xff; 16]);
        assert_eq!(cid.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Cid::parse(&cid.text()), Some(cid));
        let text = cid.text();
        for junk in [&text[1..], b"", &[b'-'; 36], &text.map(|b| b.to_ascii_uppercase())] {
            assert_eq!(Cid::parse(junk), None);
        }
    }
}
