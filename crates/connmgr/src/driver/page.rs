//! The metrics page (`spec/connmgr.md §11`): the old name first, then what else the workers count.

use std::sync::Arc;

use metrics::{Histogram, Kind, Text};

use super::clientside::reports::{ClientOverview, ClientReport};
use super::inspect::{Overview, Report};
use super::tlscount::Handshakes;
use super::zmqside::Queues;
use crate::{Counters, LISTENERS_MAX, Phase};

/// One counter: its label value, and where it is.
type Entry = (&'static str, Get);

/// Where a figure is.
type Get = fn(&Counters) -> u64;

/// How requests ended.
const OUTCOMES: [Entry; 6] = [
    ("completed", |c| c.completed),
    ("bad_request", |c| c.bad_requests),
    ("failed", |c| c.failed),
    ("nobody_answered", |c| c.unanswered),
    ("client_left", |c| c.clients_left),
    ("peer_cancelled", |c| c.peer_cancels),
];

/// What ended because a time was over.
const TIMEOUTS: [Entry; 4] = [
    ("session", |c| c.session_timeouts),
    ("stream", |c| c.stream_timeouts),
    ("req", |c| c.req_timeouts),
    ("close", |c| c.close_timeouts),
];

/// Packets, sessions and connections that were dropped, by cause.
const DROPS: [Entry; 14] = [
    ("malformed_packet", |c| c.malformed),
    ("unknown_session", |c| c.unknown),
    ("too_many_peers", |c| c.too_many_peers),
    ("ignored_in_req_mode", |c| c.req_ignored),
    ("bad_seq", |c| c.bad_seq),
    ("too_many_bytes", |c| c.overruns),
    ("unexpected_packet", |c| c.unexpected),
    ("peer_gone", |c| c.peer_gone),
    ("client_does_not_read", |c| c.pinned_limit),
    ("too_many_messages", |c| c.messages_limit),
    ("behind_close", |c| c.after_close),
    ("websocket_violation", |c| c.ws_violations),
    ("plain_on_tls", |c| c.plain_on_tls),
    ("tls_on_plain", |c| c.tls_on_plain),
];

/// Where a figure of the client side is.
type GetOut = fn(&ClientReport) -> u64;

/// How outgoing requests ended.
const CLIENT_OUTCOMES: [(&str, GetOut); 3] = [
    ("completed", |r| r.counters.completed),
    ("failed", |r| r.counters.failed),
    ("requester_cancelled", |r| r.counters.cancelled),
];

/// What the client side dropped or ended, by cause.
const CLIENT_DROPS: [(&str, GetOut); 8] = [
    ("bad_first_packet", |r| r.counters.bad_first),
    ("unknown_session", |r| r.counters.unknown),
    ("bad_seq", |r| r.counters.bad_seq),
    ("too_many_bytes", |r| r.counters.overruns),
    ("unexpected_packet", |r| r.counters.unexpected),
    ("peer_silent", |r| r.counters.expired),
    ("peer_gone", |r| r.counters.peer_gone),
    ("malformed_packet", |r| r.counters.malformed),
];

/// What the page has that is not asked of the workers.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    /// Put before every name.
    pub(crate) prefix: String,
    /// Addresses in the order of their numbers.
    pub(crate) listeners: Vec<String>,
    /// Only where there is a TLS port.
    pub(crate) handshakes: Option<Arc<Handshakes>>,
}

/// The page.
pub(crate) fn page(fixed: &Fixed, overview: &Overview) -> String {
    let reports: Vec<&Report> =
        overview.workers.iter().filter_map(|worker| worker.report.as_ref()).collect();
    let sum = |get: Get| -> u64 { reports.iter().map(|r| get(&r.counters)).sum() };
    let mut text = Text::new(&fixed.prefix);
    text.counter(
        "connmgr_requests_total",
        "Total number of requests processed by connmgr",
        sum(|c| c.requests),
    );
    counters(&mut text, &sum);
    by_label(
        &mut text,
        "connmgr_responses_total",
        "Requests by how they ended",
        "outcome",
        &OUTCOMES,
        &sum,
    );
    by_label(
        &mut text,
        "connmgr_timeouts_total",
        "Connections ended by a time limit",
        "limit",
        &TIMEOUTS,
        &sum,
    );
    drops(&mut text, &sum, &overview.queues);
    connections(&mut text, &reports, &fixed.listeners);
    if let Some(handshakes) = &fixed.handshakes {
        tls(&mut text, handshakes);
    }
    gauges(&mut text, overview, &reports);
    if let Some(side) = &overview.client_side {
        client_side(&mut text, side);
    }
    if let Some(turns) = all_turns(&reports) {
        text.histogram(
            "connmgr_turn_seconds",
            "Durations of the turns of the workers' loops",
            &turns,
        );
        text.gauge(
            "connmgr_turn_max_seconds",
            "The longest of these turns",
            turns.max_us() as f64 / 1e6,
        );
    }
    text.into_string()
}

fn counters(text: &mut Text, sum: &dyn Fn(Get) -> u64) {
    let all: [(&str, &str, Get); 7] = [
        ("connmgr_accepts_total", "Connections accepted", |c| c.accepts),
        ("connmgr_received_bytes_total", "Bytes read from clients", |c| c.bytes_in),
        ("connmgr_sent_bytes_total", "Bytes written to clients", |c| c.bytes_out),
        ("connmgr_writes_total", "System calls that wrote to clients", |c| c.writes),
        ("connmgr_packets_received_total", "ZHTTP packets received", |c| c.packets_in),
        ("connmgr_packets_sent_total", "ZHTTP packets sent", |c| c.packets_out),
        ("connmgr_deliveries_total", "Sessions that received packets named", |c| c.deliveries),
    ];
    for (name, help, get) in all {
        text.counter(name, help, sum(get));
    }
}

fn by_label(
    text: &mut Text,
    name: &str,
    help: &str,
    label: &str,
    entries: &[Entry],
    sum: &dyn Fn(Get) -> u64,
) {
    let mut family = text.family(Kind::Counter, name, help);
    for (value, get) in entries {
        family.value(&[(label, value)], sum(*get));
    }
}

/// `queues` has those that were dropped before a worker saw them.
fn drops(text: &mut Text, sum: &dyn Fn(Get) -> u64, queues: &Queues) {
    let help = "Packets dropped, sessions and connections ended, by cause";
    let mut family = text.family(Kind::Counter, "connmgr_drops_total", help);
    for (cause, get) in DROPS {
        let before = match cause {
            "malformed_packet" => queues.malformed,
            "unknown_session" => queues.unknown,
            _ => 0,
        };
        family.value(&[("cause", cause)], sum(get) + before);
    }
}

fn client_side(text: &mut Text, side: &ClientOverview) {
    let sum = |get: GetOut| -> u64 { side.workers.iter().map(get).sum() };
    let all: [(&str, &str, GetOut); 5] = [
        ("connmgr_client_requests_total", "Outgoing requests begun", |r| r.counters.requests),
        ("connmgr_client_failures_total", "Outgoing requests that ended with an error", |r| {
            r.counters.failed
        }),
        ("connmgr_client_early_packets_total", "Packets that waited for their first one", |r| {
            r.counters.early
        }),
        ("connmgr_client_connects_total", "Connections to backends made or tried", |r| {
            r.backends.opened
        }),
        ("connmgr_client_reuses_total", "Requests that went to a kept connection", |r| {
            r.backends.reused
        }),
    ];
    for (name, help, get) in all {
        text.counter(name, help, sum(get));
    }
    let help = "Outgoing requests by how they ended";
    let mut family = text.family(Kind::Counter, "connmgr_client_responses_total", help);
    for (outcome, get) in CLIENT_OUTCOMES {
        family.value(&[("outcome", outcome)], sum(get));
    }
    let help = "Outgoing requests and WebSockets that go on";
    let mut family = text.family(Kind::Gauge, "connmgr_client_sessions", help);
    family.value(&[("mode", "stream")], sum(|r| r.stream as u64));
    family.value(&[("mode", "req")], sum(|r| r.req as u64));
    let help = "Connections to backends, and requests that wait for one or for a name";
    let mut family = text.family(Kind::Gauge, "connmgr_client_connections", help);
    family.value(&[("state", "busy")], sum(|r| r.backends.open.saturating_sub(r.backends.idle)));
    family.value(&[("state", "idle")], sum(|r| r.backends.idle));
    family.value(&[("state", "waiting")], sum(|r| r.backends.waiting));
    let help = "Packets dropped and sessions ended in client mode, by cause";
    let mut family = text.family(Kind::Counter, "connmgr_client_drops_total", help);
    for (cause, get) in CLIENT_DROPS {
        let before = if cause == "malformed_packet" { side.malformed } else { 0 };
        family.value(&[("cause", cause)], sum(get) + before);
    }
    family.value(&[("cause", "unsent")], side.unsent);
}

fn connections(text: &mut Text, reports: &[&Report], listeners: &[String]) {
    let mut family = text.family(Kind::Gauge, "connmgr_connections", "Connections by what they do");
    for (place, mode) in ["stream", "req"].iter().enumerate() {
        for phase in Phase::ALL {
            let count: u64 = reports.iter().map(|r| r.survey.phases[phase as usize][place]).sum();
            family.value(&[("mode", mode), ("state", phase.name())], count);
        }
    }
    let name = "connmgr_listener_connections";
    let mut family = text.family(Kind::Gauge, name, "Connections by listener");
    for (number, address) in listeners.iter().take(LISTENERS_MAX).enumerate() {
        let count: u64 = reports.iter().map(|r| r.survey.listeners[number]).sum();
        family.value(&[("listener", address)], count);
    }
}

fn tls(text: &mut Text, handshakes: &Handshakes) {
    let name = "connmgr_tls_handshakes_total";
    let mut family = text.family(Kind::Counter, name, "TLS handshakes completed, by version");
    for (version, count) in handshakes.versions() {
        family.value(&[("version", version)], count);
    }
    let name = "connmgr_tls_failures_total";
    let mut family = text.family(Kind::Counter, name, "TLS handshakes not completed, by cause");
    for (cause, count) in handshakes.failures() {
        family.value(&[("cause", cause)], count);
    }
}

fn gauges(text: &mut Text, overview: &Overview, reports: &[&Report]) {
    let sum = |get: fn(&Report) -> usize| -> usize { reports.iter().map(|r| get(r)).sum() };
    let queues = &overview.queues;
    let silent = overview.workers.iter().filter(|worker| !worker.fresh).count();
    let all = [
        ("connmgr_unsent_bytes", "Bytes that wait for clients that do not read", sum(|r| r.pinned)),
        ("connmgr_lent_bytes", "Bytes lent to windows of fast clients", sum(|r| r.lent)),
        ("connmgr_unread_bytes", "Bytes read and not yet passed on", sum(|r| r.survey.bytes_in)),
        ("connmgr_spare_blocks", "Spare buffer blocks left", overview.spare_blocks),
        (
            "connmgr_waiting_messages",
            "Messages on their way to the ZeroMQ sockets",
            sum(|r| r.outputs),
        ),
        (
            "connmgr_waiting_requests",
            "Requests that no process could take yet",
            queues.first + queues.req,
        ),
        ("connmgr_slow_peers", "Processes that do not keep up with their packets", queues.parked),
        (
            "connmgr_silent_workers",
            "Workers that did not answer in time; theirs are old figures",
            silent,
        ),
    ];
    for (name, help, value) in all {
        text.gauge(name, help, value);
    }
    let help = "Requests dropped because too many waited for a process";
    text.counter("connmgr_waiting_dropped_total", help, queues.dropped);
}

fn all_turns(reports: &[&Report]) -> Option<Histogram> {
    let mut turns = reports.iter().map(|report| &report.turns);
    let mut all = turns.next()?.clone();
    turns.for_each(|other| all.add(other));
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use origin::Counts;

    use crate::client::ClientCounters;
    use crate::driver::inspect::Answer;

    /// Figures that differ from each other and from zero. All fields are named, so that a new one
    /// is not forgotten here nor on the page.
    fn counters() -> Counters {
        Counters {
            requests: 9001,
            accepts: 9002,
            bytes_in: 9003,
            bytes_out: 9004,
            completed: 9005,
            bad_requests: 9006,
            failed: 9007,
            peer_cancels: 9008,
            clients_left: 9009,
            req_timeouts: 9010,
            req_ignored: 9011,
            plain_on_tls: 9012,
            tls_on_plain: 9013,
            packets_in: 9014,
            packets_out: 9015,
            deliveries: 9016,
            malformed: 9017,
            unknown: 9018,
            bad_seq: 9019,
            overruns: 9020,
            unexpected: 9021,
            ws_violations: 9022,
            messages_limit: 9023,
            after_close: 9024,
            close_timeouts: 9025,
            too_many_peers: 9026,
            pinned_limit: 9027,
            session_timeouts: 9028,
            stream_timeouts: 9029,
            unanswered: 9030,
            peer_gone: 9031,
            writes: 9032,
        }
    }

    fn client_counters() -> ClientCounters {
        ClientCounters {
            requests: 8001,
            completed: 8002,
            failed: 8003,
            cancelled: 8004,
            malformed: 8005,
            bad_first: 8006,
            unknown: 8007,
            early: 8008,
            bad_seq: 8009,
            overruns: 8010,
            unexpected: 8011,
            expired: 8012,
            peer_gone: 8013,
        }
    }

    fn whole() -> String {
        let mut survey = crate::Survey::default();
        survey.phases[Phase::Waiting as usize] = [7001, 7002];
        (survey.listeners[1], survey.bytes_in) = (7003, 7004);
        let mut turns = Histogram::new(&[100]);
        turns.observe(50);
        let report = Report {
            counters: counters(),
            survey,
            peers: Vec::new(),
            turns,
            pinned: 7005,
            lent: 7006,
            outputs: 7007,
        };
        let queues = Queues {
            first: 7008,
            dropped: 7010,
            req: 1,
            parked: 7011,
            malformed: 20_000,
            unknown: 30_000,
        };
        let backends =
            Counts { open: 6001 + 6002, idle: 6002, waiting: 6003, opened: 6004, reused: 6005 };
        let (stream, req, counters) = (7012, 7013, client_counters());
        let client = ClientReport { stream, req, counters, backends };
        let overview = Overview {
            workers: vec![Answer { report: Some(report), fresh: false }],
            queues,
            spare_blocks: 7014,
            client_side: Some(ClientOverview {
                workers: vec![client],
                malformed: 40_000,
                unsent: 7015,
            }),
        };
        let listeners = vec!["a".into(), "b".into()];
        page(&Fixed { prefix: String::new(), listeners, handshakes: None }, &overview)
    }

    #[test]
    fn every_figure_is_on_the_page() {
        let text = whole();
        let has = |value: u64| text.lines().any(|line| line.ends_with(&format!(" {value}")));
        // Some are sums with what was dropped before a worker saw it.
        let alone = |n: &u64| ![9017, 9018, 8005, 7008].contains(n);
        let figures = (9001..=9032).chain(8001..=8013).chain(7001..=7015).chain(6001..=6005);
        let figures = figures.filter(alone);
        for figure in figures.chain([29_017, 39_018, 48_005]) {
            assert!(has(figure), "{figure}\n{text}");
        }
        for line in [
            "connmgr_connections{mode=\"stream\",state=\"waiting\"} 7001",
            "connmgr_listener_connections{listener=\"b\"} 7003",
            "connmgr_drops_total{cause=\"unknown_session\"} 39018",
            "connmgr_timeouts_total{limit=\"close\"} 9025",
            "connmgr_client_responses_total{outcome=\"requester_cancelled\"} 8004",
            "connmgr_client_connections{state=\"idle\"} 6002",
            "connmgr_client_drops_total{cause=\"unsent\"} 7015",
            "connmgr_silent_workers 1",
            "connmgr_turn_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    /// The page in docs/connmgr.md is written by hand.
    #[test]
    fn every_name_is_documented() {
        let docs = include_str!("../../../../docs/connmgr.md");
        for name in whole().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = name.split(' ').next().unwrap_or_default();
            assert!(docs.contains(&format!("`{name}")), "{name}");
        }
        let words = DROPS.iter().map(|(cause, _)| cause).chain(TIMEOUTS.iter().map(|(l, _)| l));
        let words = words.chain(OUTCOMES.iter().map(|(outcome, _)| outcome));
        let words = words.chain(CLIENT_DROPS.iter().map(|(cause, _)| cause));
        for word in words.chain(CLIENT_OUTCOMES.iter().map(|(outcome, _)| outcome)) {
            assert!(docs.contains(&format!("`{word}`")), "{word}");
        }
    }
}
