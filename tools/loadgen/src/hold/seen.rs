//! What a worker of `hold` has seen, and how it travels to the coordinator.

use crate::stats::{Causes, Hist};
use serde_json::{Value, json};

/// What a worker has seen since its last report.
pub(super) struct Seen {
    pub(super) opened: u64,
    pub(super) settled: u64,
    pub(super) live: i64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) keepalives: u64,
    /// Messages missing, repeated or out of order, by the numbers they carry.
    pub(super) gaps: u64,
    pub(super) repeats: u64,
    pub(super) failed: Causes,
    pub(super) closed: Causes,
    pub(super) connect: Hist,
    pub(super) first_byte: Hist,
    pub(super) established: Hist,
    pub(super) latency: Hist,
    /// First and last time a connection started, was established, and a message came.
    pub(super) started: Span,
    pub(super) ready: Span,
    pub(super) received: Span,
}

#[derive(Clone, Copy)]
pub(super) struct Span(u64, u64);

impl Span {
    pub(super) const EMPTY: Span = Span(u64::MAX, 0);

    pub(super) fn see(&mut self, t: u64) {
        self.0 = self.0.min(t);
        self.1 = self.1.max(t);
    }

    pub(super) fn add(&mut self, v: &Value) {
        if let (Some(a), Some(b)) = (v[0].as_u64(), v[1].as_u64())
            && b > 0
        {
            self.see(a);
            self.see(b);
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.1.saturating_sub(self.0) as f64 / 1e9
    }
}

impl Seen {
    pub(super) fn new() -> Seen {
        Seen {
            opened: 0,
            settled: 0,
            live: 0,
            messages: 0,
            bytes: 0,
            keepalives: 0,
            gaps: 0,
            repeats: 0,
            failed: Causes::default(),
            closed: Causes::default(),
            connect: Hist::new(),
            first_byte: Hist::new(),
            established: Hist::new(),
            latency: Hist::new(),
            started: Span::EMPTY,
            ready: Span::EMPTY,
            received: Span::EMPTY,
        }
    }

    /// Everything so far as JSON; starts again from nothing.
    pub(super) fn take(&mut self) -> Value {
        let v = json!({
            "opened": self.opened, "settled": self.settled, "live": self.live,
            "messages": self.messages, "bytes": self.bytes, "keepalives": self.keepalives,
            "gaps": self.gaps, "repeats": self.repeats,
            "failed": self.failed.to_json(), "closed": self.closed.to_json(),
            "connect": self.connect.to_json(), "first_byte": self.first_byte.to_json(),
            "established": self.established.to_json(), "latency": self.latency.to_json(),
            "started": [self.started.0, self.started.1], "ready": [self.ready.0, self.ready.1],
            "received": [self.received.0, self.received.1],
        });
        self.clear();
        v
    }

    pub(super) fn clear(&mut self) {
        (self.opened, self.settled, self.live) = (0, 0, 0);
        (self.messages, self.bytes, self.keepalives, self.gaps, self.repeats) = (0, 0, 0, 0, 0);
        (self.failed, self.closed) = (Causes::default(), Causes::default());
        for h in [&mut self.connect, &mut self.first_byte, &mut self.established, &mut self.latency]
        {
            h.clear();
        }
        (self.started, self.ready, self.received) = (Span::EMPTY, Span::EMPTY, Span::EMPTY);
    }

    pub(super) fn add(&mut self, v: &Value) {
        let n = |key: &str| v[key].as_u64().unwrap_or(0);
        self.opened += n("opened");
        self.settled += n("settled");
        self.live += v["live"].as_i64().unwrap_or(0);
        self.messages += n("messages");
        self.bytes += n("bytes");
        self.keepalives += n("keepalives");
        self.gaps += n("gaps");
        self.repeats += n("repeats");
        self.failed.add_json(&v["failed"]);
        self.closed.add_json(&v["closed"]);
        self.connect.add_json(&v["connect"]);
        self.first_byte.add_json(&v["first_byte"]);
        self.established.add_json(&v["established"]);
        self.latency.add_json(&v["latency"]);
        self.started.add(&v["started"]);
        self.ready.add(&v["ready"]);
        self.received.add(&v["received"]);
    }

    pub(super) fn opening(&self) -> Value {
        let seconds = self.ready.1.saturating_sub(self.started.0) as f64 / 1e9;
        json!({
            "established": self.established.len(),
            "failed": self.failed.to_json(),
            "seconds": seconds,
            "per_second": if seconds > 0.0 { self.established.len() as f64 / seconds } else { 0.0 },
            "connect": self.connect.summary(),
            "first_byte": self.first_byte.summary(),
            "established_after": self.established.summary(),
        })
    }

    pub(super) fn receiving(&self) -> Value {
        let seconds = self.received.seconds();
        json!({
            "messages": self.messages,
            "bytes": self.bytes,
            "keepalives": self.keepalives,
            "gaps": self.gaps,
            "repeats": self.repeats,
            "closed": self.closed.to_json(),
            "seconds": seconds,
            "per_second": if seconds > 0.0 { self.messages as f64 / seconds } else { 0.0 },
            "latency": self.latency.summary(),
        })
    }
}
