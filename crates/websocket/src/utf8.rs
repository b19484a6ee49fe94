//! UTF-8 checked as it comes: a character may be cut anywhere.

/// What was seen of a character that is not complete; 4 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Utf8 {
    start: [u8; 3],
    len: u8,
}

impl Utf8 {
    /// Whether the text is valid so far with `bytes` behind it.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((first, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            let mut character = [0; 4];
            let size = usize::from(self.len);
            character[..size].copy_from_slice(&self.start[..size]);
            character[size] = *first;
            self.len = 0;
            if !self.check(&character[..=size]) {
                return false;
            }
        }
        self.check(bytes)
    }

    /// Checks from the start of a character; keeps one that is incomplete.
    fn check(&mut self, bytes: &[u8]) -> bool {
        let Err(error) = std::str::from_utf8(bytes) else { return true };
        let rest = &bytes[error.valid_up_to()..];
        if error.error_len().is_some() || rest.len() > self.start.len() {
            return false;
        }
        self.start[..rest.len()].copy_from_slice(rest);
        self.len = rest.len() as u8;
        true
    }

    /// Whether the text may end here.
    pub(crate) fn is_complete(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_whole(
            bytes in prop_oneof![
                "\\PC{0,20}".prop_map(String::into_bytes),
                proptest::collection::vec(prop_oneof![any::<u8>(), 0xc0u8..=0xff, 0x80u8..0xc0], 0..9),
            ],
            step in 1usize..5,
        ) {
            let mut utf8 = Utf8::default();
            let valid = bytes.chunks(step).all(|part| utf8.feed(part)) && utf8.is_complete();
            prop_assert_eq!(valid, std::str::from_utf8(&bytes).is_ok());
        }
    }

    #[test]
    fn fails_at_the_first_byte_that_cannot_be() {
        let mut utf8 = Utf8::default();
        assert!(utf8.feed(b"a\xed"));
        assert!(!utf8.feed(b"\xa0"), "a surrogate");
    }
}
