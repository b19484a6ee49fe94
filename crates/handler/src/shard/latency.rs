//! How long items take from their publishing to the packets that carry them.

use metrics::Histogram;

use super::Shard;

/// Upper bounds of the buckets, microseconds. The clock of the engine has milliseconds: what is
/// handed over in the same one counts as zero.
pub(crate) const BOUNDS_US: &[u64] = &[
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// What was measured since the hub was told last.
#[derive(Debug, Default)]
pub(super) struct Latency(Option<Box<Histogram>>);

impl Latency {
    pub(super) fn take(&mut self) -> Option<Box<Histogram>> {
        self.0.take()
    }
}

impl Shard {
    /// An item that was published `at` is handed over now.
    pub(super) fn handed_over(&mut self, now: u64, at: u64) {
        let histogram = self.latency.0.get_or_insert_with(|| Box::new(Histogram::new(BOUNDS_US)));
        histogram.observe(now.saturating_sub(at) * 1_000);
    }
}
