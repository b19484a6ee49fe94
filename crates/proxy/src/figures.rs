//! What the metrics listener tells (spec/stats.md §7): the old names, and how requests ended, what
//! backends did and what was thrown away. Engines give [`Figures`], the driver adds its own and
//! the page shows the sums of all workers.

use metrics::{Kind, Text};
use origin::{Counts, Error};

use crate::Proxy;
use crate::engine::Drops;
use crate::log_line::Outcome;
use crate::session::Session;

/// Ways in which a request ends, in the order of [`Totals::outcomes`].
const OUTCOMES: [&str; 7] = ["1xx", "2xx", "3xx", "4xx", "5xx", "held", "failed"];
const HELD: usize = 5;
const FAILED: usize = 6;

/// Causes of a backend's failure, in the order of [`Totals::failures`].
const FAILURES: [&str; 10] = [
    "name",
    "refused",
    "unreachable",
    "timeout",
    "tls",
    "policy",
    "closed",
    "bad_response",
    "protocol",
    "overload",
];

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub requests: u64,
    pub minutes: u64,
    outcomes: [u64; OUTCOMES.len()],
    failures: [u64; FAILURES.len()],
}

impl Totals {
    /// A client's request ended, or is the handler's now. What came back from there was counted
    /// when it went.
    pub fn ended(&mut self, session: &Session, outcome: Outcome) {
        if session.internal || session.is_retry {
            return;
        }
        let place = match outcome {
            Outcome::Code(code, _) => usize::from((code / 100).clamp(1, 5)) - 1,
            Outcome::Accept => HELD,
            Outcome::Error => FAILED,
        };
        self.outcomes[place] += 1;
    }

    /// A backend was asked in vain.
    pub fn backend_failed(&mut self, error: Error) {
        let place = match error {
            Error::Name => 0,
            Error::Connect => 1,
            Error::Unreachable => 2,
            Error::Timeout => 3,
            Error::Tls => 4,
            Error::Policy => 5,
            Error::Closed => 6,
            Error::BadResponse | Error::RejectionTooLarge => 7,
            Error::Protocol => 8,
            Error::Overload => 9,
        };
        self.failures[place] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.minutes += other.minutes;
        add_each(&mut self.outcomes, &other.outcomes);
        add_each(&mut self.failures, &other.failures);
    }
}

fn add_each(sums: &mut [u64], more: &[u64]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// What one worker holds and has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    totals: Totals,
    drops: Drops,
    connections: u64,
    http: u64,
    sockets: u64,
    /// Connections to backends.
    pub backends: Counts,
    /// Packets that found their peer gone or its queue full, by cause.
    pub undelivered: evloop::peers::Drops,
    /// Stats packets that nobody took.
    pub stats_lost: u64,
}

impl Figures {
    /// Adds those of another worker.
    pub fn add(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        self.drops.add(&other.drops);
        self.connections += other.connections;
        self.http += other.http;
        self.sockets += other.sockets;
        self.backends.add(&other.backends);
        self.undelivered.add(other.undelivered);
        self.stats_lost += other.stats_lost;
    }

    /// The text of a metrics answer; `prefix` stands before every name.
    pub fn page(&self, prefix: &str) -> String {
        let mut text = Text::new(prefix);
        text.counter("request_received", "Number of requests received", self.totals.requests);
        let help = "Number of concurrent connections";
        text.gauge("connection_connected", help, self.connections);
        let help = "Number of minutes clients have been connected";
        text.counter("connection_minute", help, self.totals.minutes);
        let help = "Number of messages received by the publish API";
        text.counter("message_received", help, 0u64);
        text.counter("message_sent", "Number of messages sent to clients", 0u64);
        let mut sessions =
            text.family(Kind::Gauge, "proxy_sessions", "Sessions that the proxy has");
        sessions.value(&[("kind", "http")], self.http).value(&[("kind", "ws")], self.sockets);
        let help = "Requests of clients by how they ended; held ones are the handler's";
        let mut ended = text.family(Kind::Counter, "proxy_requests_total", help);
        for (outcome, count) in OUTCOMES.iter().zip(self.totals.outcomes) {
            ended.value(&[("outcome", outcome)], count);
        }
        self.backends(&mut text);
        self.dropped(&mut text);
        text.into_string()
    }

    fn backends(&self, text: &mut Text) {
        let counts = &self.backends;
        let help = "Connections to backends";
        let mut open = text.family(Kind::Gauge, "proxy_backend_connections", help);
        open.value(&[("state", "busy")], counts.open.saturating_sub(counts.idle));
        open.value(&[("state", "idle")], counts.idle);
        let help = "Requests that wait for a backend's name or for a free connection";
        text.gauge("proxy_backend_waiting", help, counts.waiting);
        let help = "Requests to backends by the connection that they got";
        let mut got = text.family(Kind::Counter, "proxy_backend_requests_total", help);
        got.value(&[("connection", "new")], counts.opened);
        got.value(&[("connection", "kept")], counts.reused);
        let help = "Requests to backends that failed, by cause";
        let mut failed = text.family(Kind::Counter, "proxy_backend_failures_total", help);
        for (cause, count) in FAILURES.iter().zip(self.totals.failures) {
            failed.value(&[("cause", cause)], count);
        }
    }

    fn dropped(&self, text: &mut Text) {
        let help = "What was thrown away, by cause";
        let mut family = text.family(Kind::Counter, "proxy_dropped_total", help);
        let drops = &self.drops;
        for (cause, count) in [
            ("bad_packet", drops.malformed),
            ("refused_request", drops.refused),
            ("bad_seq", drops.bad_seq),
            ("no_prefix", drops.no_prefix),
            ("slow_websocket", drops.ws_full),
            ("closing_websocket", drops.ws_closed),
            ("unanswered_websocket", drops.unanswered),
            ("peer_full", self.undelivered.overflow),
            ("peer_gone", self.undelivered.gone),
            ("stats_packet", self.stats_lost),
        ] {
            family.value(&[("cause", cause)], count);
        }
    }
}

impl Proxy {
    /// What this engine holds and has counted; the driver's part is zero.
    pub(crate) fn figures(&self) -> Figures {
        let sockets = self.cids.len() as u64;
        Figures {
            totals: self.totals,
            drops: self.drops(),
            connections: self.sums.connected(),
            http: (self.sessions.len() as u64).saturating_sub(sockets),
            sockets,
            ..Figures::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_two_workers() {
        let mut one = Figures::default();
        one.totals.requests = 3;
        one.totals.backend_failed(Error::Connect);
        one.backends = Counts { open: 5, idle: 2, waiting: 1, opened: 7, reused: 90 };
        one.drops.bad_seq = 1;
        let mut sum = one;
        sum.add(&one);
        let page = sum.page("pp_");
        for line in [
            "# HELP pp_request_received Number of requests received",
            "pp_request_received 6",
            "pp_message_sent 0",
            "pp_proxy_backend_connections{state=\"busy\"} 6",
            "pp_proxy_backend_connections{state=\"idle\"} 4",
            "pp_proxy_backend_requests_total{connection=\"kept\"} 180",
            "pp_proxy_backend_failures_total{cause=\"refused\"} 2",
            "pp_proxy_dropped_total{cause=\"bad_seq\"} 2",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
        // The old names come first, in the old order.
        let names: Vec<&str> = page.lines().filter(|l| l.starts_with("# TYPE")).take(5).collect();
        let old = [
            "request_received",
            "connection_connected",
            "connection_minute",
            "message_received",
            "message_sent",
        ];
        assert!(names.iter().zip(old).all(|(line, name)| line.contains(name)), "{names:?}");
    }
}
