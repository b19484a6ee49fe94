//! Unpredictable numbers from one secret seed, so that the engine stays a pure state machine.

use ring::hmac;

/// A stream of numbers that nobody can guess without the seed.
#[derive(Debug)]
pub(crate) struct Random {
    key: hmac::Key,
    counter: u64,
}

impl Random {
    /// `seed`: 32 random bytes of the driver.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), counter: 0 }
    }

    /// 16 bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        self.counter += 1;
        let tag = hmac::sign(&self.key, &self.counter.to_le_bytes());
        let mut out = [0; 16];
        out.copy_from_slice(&tag.as_ref()[..16]);
        out
    }

    /// A number below `bound`, which is small.
    pub fn below(&mut self, bound: u64) -> u64 {
        let bytes = self.bytes();
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[..8]);
        u64::from_le_bytes(eight) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_by_seed_and_turn() {
        let (mut a, mut b) = (Random::new(&[0; 32]), Random::new(&[1; 32]));
        let first = a.bytes();
        assert_ne!(first, a.bytes());
        assert_ne!(first, b.bytes());
        assert!((0..100).all(|_| a.below(7) < 7) && a.below(0) == 0);
    }
}
