//! Durations in fixed buckets.

/// Counts of durations by upper bound, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds_us: &'static [u64],
    /// One more than bounds: the last is for what is above all of them.
    counts: Vec<u64>,
    sum_us: u64,
    max_us: u64,
}

impl Histogram {
    /// An empty one. `bounds_us` rises; a duration belongs to the first bound that is not below
    /// it.
    pub fn new(bounds_us: &'static [u64]) -> Self {
        debug_assert!(bounds_us.windows(2).all(|pair| pair[0] < pair[1]));
        Self { bounds_us, counts: vec![0; bounds_us.len() + 1], sum_us: 0, max_us: 0 }
    }

    /// Counts one duration.
    pub fn observe(&mut self, us: u64) {
        let bucket = self.bounds_us.partition_point(|bound| *bound < us);
        self.counts[bucket] += 1;
        self.sum_us += us;
        self.max_us = self.max_us.max(us);
    }

    /// Adds what another one with the same bounds has counted.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds_us, other.bounds_us);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_us += other.sum_us;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Durations counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// Each bound with the number of durations that are not above it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        self.bounds_us.iter().copied().zip(sums)
    }
}
