//! What the metrics listener tells (spec/stats.md §7): the old names, and what is held, delivered
//! and thrown away.

use metrics::{Kind, Text};
use stats::Mode;

use super::Hub;
use crate::shard::{Drops, Figures};

/// A cause's name and count.
type Cause = (&'static str, fn(&Drops) -> u64);

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
        queued.value(&[("what", "sequenced_items")], self.waiting.len());
        let help = "From publishing until an item was handed over to the sessions of a kind";
        text.histogram("handler_publish_seconds", help, &self.latency);
    }

    fn dropped(&self, text: &mut Text) {
        let help = "What was thrown away, by cause";
        let mut family = text.family(Kind::Counter, "handler_dropped", help);
        let causes: [Cause; 13] = [
            ("bad_packet", |d| d.bad_packets),
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
        for (cause, of) in causes {
            family.value(&[("cause", cause)], self.sum(|f| of(&f.drops)));
        }
        let own = self.drops;
        for (cause, count) in [
            ("duplicate_item", own.duplicates),
            ("unsequenced_item", own.unsequenced),
            ("bad_stats", own.bad_stats),
            ("bad_command", own.bad_commands),
        ] {
            family.value(&[("cause", cause)], count);
        }
    }
}
