//! What the metrics listener tells (spec/stats.md §7): the old names, and what is held, delivered
//! and thrown away.

use std::collections::BTreeMap;

use metrics::{Kind, Text};
use stats::Mode;

use super::Hub;
use crate::shard::{Drops, Figures};

/// A cause's name and count.
type Cause = (&'static str, fn(&Drops) -> u64);

/// Causes that the log tells of, by number, not for each drop.
const TOLD: [&str; 8] = [
    "queue_full",
    "pass_full",
    "filter_failed",
    "slow_session",
    "too_many_subscriptions",
    "unacknowledged_session",
    "gone_link",
    "unsequenced_item",
];

/// Milliseconds between two lines of that kind.
const TELL_MS: u64 = 10_000;

/// What the log was told of drops.
#[derive(Debug, Default)]
pub(super) struct ToldDrops {
    next: u64,
    counts: BTreeMap<&'static str, u64>,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) minutes: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Hub {
    /// Keeps what a shard told of itself.
    pub(super) fn keep_figures(&mut self, shard: usize, figures: Figures) {
        if self.figures.len() <= shard {
            self.figures.resize(shard + 1, Figures::default());
        }
        self.figures[shard] = figures;
    }

    /// The text of a metrics answer; `prefix` stands before every name.
    pub fn metrics(&self, prefix: &str) -> String {
        let mut text = Text::new(prefix);
        let totals = self.sums.totals();
        text.counter("request_received", "Number of requests received", totals.requests);
        let connected = self.sums.connected();
        text.gauge("connection_connected", "Number of concurrent connections", connected);
        let help = "Number of minutes clients have been connected";
        text.counter("connection_minute", help, totals.minutes);
        let help = "Number of messages received by the publish API";
        text.counter("message_received", help, totals.received);
        text.counter("message_sent", "Number of messages sent to clients", totals.sent);
        self.held(&mut text);
        self.dropped(&mut text);
        text.into_string()
    }

    fn sum(&self, of: impl Fn(&Figures) -> u64) -> u64 {
        self.figures.iter().map(of).sum()
    }

    fn held(&self, text: &mut Text) {
        let mut sessions = text.family(Kind::Gauge, "handler_sessions", "Sessions held");
        sessions.value(&[("kind", "response")], self.sum(|f| f.responses));
        sessions.value(&[("kind", "stream")], self.sum(|f| f.streams));
        sessions.value(&[("kind", "ws")], self.sum(|f| f.sockets));
        let mut family =
            text.family(Kind::Gauge, "handler_subscriptions", "Subscriptions of sessions");
        for (mode, kind) in
            [(Mode::Response, "response"), (Mode::Stream, "stream"), (Mode::Ws, "ws")]
        {
            family.value(&[("kind", kind)], self.subscriptions(mode));
        }
        text.gauge("handler_channels", "Channels with subscriptions", self.records.len());
        let mut queued = text.family(Kind::Gauge, "handler_queued", "What waits");
        queued.value(&[("what", "items")], self.sum(|f| f.under_way));
        queued.value(&[("what", "limited_deliveries")], self.sum(|f| f.limited));
        queued.value(&[("what", "sequenced_items")], self.sequencer.items);
        let help = "Items that went though the one before them had not come in time";
        text.counter("handler_sequence_gaps", help, self.sequencer.gaps);
        let help = "From publishing until an item was handed over to the sessions of a kind";
        text.histogram("handler_publish_seconds", help, &self.latency);
    }

    fn dropped(&self, text: &mut Text) {
        let help = "What was thrown away, by cause";
        let mut family = text.family(Kind::Counter, "handler_dropped", help);
        for (cause, count) in self.causes() {
            family.value(&[("cause", cause)], count);
        }
    }

    /// What was thrown away since the last line that told so, where that is to be told now. Of the
    /// causes whose single drops are worth no line of their own.
    pub(super) fn drops_to_tell(&mut self, now: u64) -> Option<String> {
        if now < self.told_drops.next {
            return None;
        }
        let mut parts = Vec::new();
        for (cause, count) in self.causes().into_iter().filter(|(cause, _)| TOLD.contains(cause)) {
            let told = self.told_drops.counts.entry(cause).or_default();
            let new = count - std::mem::replace(told, count);
            if new > 0 {
                parts.push(format!("{new} {cause}"));
            }
        }
        if parts.is_empty() {
            return None;
        }
        self.told_drops.next = now + TELL_MS;
        Some(format!("dropped: {} (see handler_dropped in the metrics)", parts.join(", ")))
    }

    /// Every cause with its count.
    fn causes(&self) -> Vec<(&'static str, u64)> {
        let own = self.drops;
        let hub = [
            ("duplicate_item", own.duplicates),
            ("unsequenced_item", own.unsequenced),
            ("bad_stats", own.bad_stats),
            ("bad_command", own.bad_commands),
        ];
        let shards: [Cause; 15] = [
            ("bad_packet", |d| d.bad_packets),
            ("unknown_session", |d| d.unknown),
            ("unexpected_packet", |d| d.unexpected),
            ("bad_call", |d| d.bad_calls),
            ("queue_full", |d| d.queue_full),
            ("pass_full", |d| d.pass_full),
            ("over_hwm", |d| d.over_hwm),
            ("filter_failed", |d| d.filter_failed),
            ("bad_seq", |d| d.bad_seq),
            ("expired_session", |d| d.expired),
            ("slow_session", |d| d.slow_closed),
            ("bad_control", |d| d.bad_controls),
            ("too_many_subscriptions", |d| d.too_many_subscriptions),
            ("unacknowledged_session", |d| d.unacknowledged),
            ("gone_link", |d| d.gone_links),
        ];
        let shards = shards.map(|(cause, of)| (cause, self.sum(|f| of(&f.drops))));
        shards.into_iter().chain(hub).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_burst_of_drops_is_told_once_with_its_number() {
        let mut hub = Hub::new(0, Arc::default());
        let drop = |hub: &mut Hub, queue_full, expired| {
            let drops = Drops { queue_full, expired, ..Drops::default() };
            hub.keep_figures(1, Figures { drops, ..Figures::default() });
        };
        assert_eq!(hub.drops_to_tell(0), None);
        drop(&mut hub, 20, 7);
        hub.drops.unsequenced = 3;
        let line = hub.drops_to_tell(1_000).unwrap();
        assert!(line.starts_with("dropped: 20 queue_full, 3 unsequenced_item ("), "{line}");
        drop(&mut hub, 25, 7);
        assert_eq!(hub.drops_to_tell(2_000), None);
        drop(&mut hub, 29, 8);
        assert!(hub.drops_to_tell(11_000).unwrap().starts_with("dropped: 9 queue_full ("));
        assert_eq!(hub.drops_to_tell(22_000), None);
    }
}
