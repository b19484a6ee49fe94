//! What may happen to messages on their way, from a seed: lost, repeated, late.

/// Numbers that look random and are the same for the same seed (xorshift).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        dice.below(2);
        dice
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound.max(1)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
    Twice,
    /// So many milliseconds late; what comes behind it on the same way waits for it.
    Late(u64),
}

/// How much happens.
#[derive(Clone, Debug)]
pub struct Faults {
    dice: Dice,
    /// One message in so many is lost; 0: none.
    pub lose: u64,
    /// One in so many comes twice.
    pub repeat: u64,
    /// One in so many is up to 100 ms late.
    pub delay: u64,
    /// Messages lost and repeated so far.
    pub happened: u64,
}

impl Faults {
    /// Nothing happens yet.
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), lose: 0, repeat: 0, delay: 0, happened: 0 }
    }

    /// From now on everything arrives.
    pub fn stop(&mut self) {
        (self.lose, self.repeat, self.delay) = (0, 0, 0);
    }

    pub(crate) fn fate(&mut self) -> Fate {
        let Self { dice, lose, repeat, delay, happened } = self;
        let mut strikes = |n: u64| n > 0 && dice.once_in(n);
        let fate = match () {
            () if strikes(*lose) => Fate::Lost,
            () if strikes(*repeat) => Fate::Twice,
            () if strikes(*delay) => Fate::Late(1 + dice.below(100)),
            () => Fate::Arrives,
        };
        *happened += u64::from(matches!(fate, Fate::Lost | Fate::Twice));
        fate
    }
}
