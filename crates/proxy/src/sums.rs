//! The stats that the proxy sends to the handler (spec/proxy.md §15, spec/stats.md).
//!
//! Sums go every 100 ms, reports every ten seconds. Single connections are told only while
//! somebody listens for them; else the most connections of each route, if somebody listens for
//! that (design, rule 13).

use std::collections::BTreeMap;

use evloop::arena::Key;
use stats::{AGGREGATE_MS, Activity, Body, ConnKind, Counters, Format, Packet, Reports, Route};

use crate::session::Session;
use crate::{Output, Proxy, Settings, forward};

/// A minute of a connection.
const MINUTE_MS: u64 = 60_000;

/// Connections of one route.
#[derive(Debug, Default)]
struct Connections {
    now: u64,
    most: u64,
    sent: u64,
    sent_ms: u64,
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Sums {
    activity: Activity,
    reports: Reports,
    connections: BTreeMap<Route, Connections>,
    maxima_due: Option<u64>,
    max_ttl_s: u64,
    conn_wanted: bool,
    conn_max_wanted: bool,
}

impl Sums {
    pub fn new(settings: &Settings) -> Self {
        Self {
            activity: Activity::default(),
            reports: Reports::new(0, settings.report_interval_ms),
            connections: BTreeMap::new(),
            maxima_due: None,
            max_ttl_s: settings.connections_max_ttl_s,
            conn_wanted: false,
            conn_max_wanted: false,
        }
    }

    pub fn set_listeners(&mut self, conn: bool, conn_max: bool) {
        self.conn_wanted = conn;
        self.conn_max_wanted = conn_max;
    }

    /// Something happened on a connection that counts as activity.
    pub fn add_activity(&mut self, now: u64, route: &Route) {
        self.activity.add(now, route, 1);
    }

    /// Connections of all routes.
    pub fn connected(&self) -> u64 {
        self.connections.values().map(|of_route| of_route.now).sum()
    }

    /// When something is due.
    pub fn due(&self) -> Option<u64> {
        let maxima = self.maxima_due.filter(|_| self.conn_max_wanted);
        [self.activity.due(), self.reports.due(), maxima].into_iter().flatten().min()
    }

    fn connections(&mut self, now: u64, route: &Route, change: i64) {
        self.reports.connections(now, route, change);
        let of_route = self.connections.entry(route.clone()).or_default();
        of_route.now = of_route.now.saturating_add_signed(change);
        of_route.most = of_route.most.max(of_route.now);
        let due = now + AGGREGATE_MS;
        self.maxima_due = Some(self.maxima_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// A connection is about to be the handler's: it must not count twice. Gives the maximum to
    /// tell first, if what was told last has the connection in it.
    fn before_hand_over(&mut self, now: u64, route: &Route) -> Option<u64> {
        let of_route = self.connections.get_mut(route)?;
        let without = of_route.now.saturating_sub(1);
        if !self.conn_max_wanted || of_route.sent <= without {
            return None;
        }
        (of_route.sent, of_route.sent_ms) = (without, now);
        let due = now + AGGREGATE_MS;
        self.maxima_due = Some(self.maxima_due.map_or(due, |earlier| earlier.min(due)));
        Some(without)
    }

    /// A connection is the handler's now, and was nobody else's in the time not told yet.
    fn handed_over(&mut self, now: u64, route: &Route) {
        self.connections(now, route, -1);
        if let Some(of_route) = self.connections.get_mut(route) {
            of_route.most = of_route.most.saturating_sub(1).max(of_route.now);
        }
    }

    /// What is to be said about the maxima; starts over.
    fn take_maxima(&mut self, now: u64) -> Vec<(Route, u64)> {
        let refresh_ms = self.max_ttl_s * 750;
        let mut out = Vec::new();
        self.maxima_due = None;
        self.connections.retain(|route, of_route| {
            // A maximum above what was said last, else how many there are now.
            let value = if of_route.most > of_route.sent { of_route.most } else { of_route.now };
            of_route.most = of_route.now;
            let stale = value > 0 && now >= of_route.sent_ms + refresh_ms;
            if value != of_route.sent || stale {
                out.push((route.clone(), value));
                (of_route.sent, of_route.sent_ms) = (value, now);
            }
            of_route.now > 0 || of_route.sent > 0
        });
        if !self.connections.is_empty() {
            let fall = self.connections.values().any(|c| c.now != c.sent);
            let wait = if fall { AGGREGATE_MS } else { refresh_ms };
            self.maxima_due = Some(now + wait);
        }
        out
    }
}

impl Proxy {
    /// A request got its route.
    pub(crate) fn count_start(&mut self, key: Key, received: bool) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.counted = true;
        let route = Self::stats_route(session);
        self.sums.activity.add(now, &route, 1);
        if received {
            self.sums.activity.add_requests(now, 1);
            self.sums.reports.count(now, &route, |report| report.minutes += 1);
            self.totals.requests += 1;
            self.totals.minutes += 1;
        }
        self.sums.connections(now, &route, 1);
        self.announce(key);
    }

    /// A session ended, or went to the handler.
    pub(crate) fn count_end(&mut self, session: &mut Session, handed_over: bool) {
        if !std::mem::take(&mut session.counted) {
            return;
        }
        let (now, route) = (self.now, Self::stats_route(session));
        let counters = std::mem::take(&mut session.counters);
        let start = session.minute_ms;
        let minutes = take_minutes(session, now);
        let told = session.is_retry || self.unreported_ms(session).is_some();
        if handed_over && minutes == 0 && !told {
            self.sums.reports.take_back_minute(&route, start);
        }
        if minutes > 0 {
            self.totals.minutes += minutes;
            self.sums.reports.count(now, &route, |report| report.minutes += minutes);
        }
        let id = (self.sums.conn_wanted && !handed_over).then(|| self.connection_id(session));
        self.note_end(now, &route, &counters, id.as_deref(), handed_over);
    }

    /// Whether maxima go by stats packets.
    pub(crate) fn tells_maxima(&self) -> bool {
        self.sums.conn_max_wanted
    }

    /// The time of a session since its last counted minute, milliseconds, if the handler is to go
    /// on from there and not to count its first minute: what came back was counted there, and
    /// without packets for single connections the handler knows minutes from reports.
    pub(crate) fn unreported_ms(&self, session: &Session) -> Option<i64> {
        let counted = session.is_retry || !self.settings.connection_send;
        let since = self.now.saturating_sub(session.minute_ms).max(1);
        (self.tells_maxima() && counted).then(|| i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// As [`Proxy::count_end`], for a WebSocket that goes on without its client.
    pub(crate) fn count_ws_end(&mut self, key: Key) {
        let now = self.now;
        self.report_so_far(key);
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.counted) else {
            return;
        };
        session.counted = false;
        let Some(session) = self.sessions.get(key) else { return };
        let route = Self::stats_route(session);
        let id = self.sums.conn_wanted.then(|| self.connection_id(session));
        self.note_end(now, &route, &Counters::default(), id.as_deref(), false);
    }

    /// Adds what a long-lived session has counted so far to the reports.
    pub(crate) fn report_so_far(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.counted) else {
            return;
        };
        let counters = std::mem::take(&mut session.counters);
        let minutes = take_minutes(session, now);
        if minutes > 0 || counters != Counters::default() {
            let route = Self::stats_route(session);
            self.totals.minutes += minutes;
            self.sums.reports.count(now, &route, |report| {
                report.minutes += minutes;
                report.counters.add(&counters);
            });
        }
    }

    fn note_end(
        &mut self,
        now: u64,
        route: &Route,
        counters: &Counters,
        gone: Option<&str>,
        handed_over: bool,
    ) {
        match handed_over {
            true => self.sums.handed_over(now, route),
            false => self.sums.connections(now, route, -1),
        }
        self.sums.reports.count(now, route, |report| report.counters.add(counters));
        if let Some(id) = gone {
            self.publish(route, Body::ConnGone { id });
        }
    }

    /// Adds what a session without a client counted to the report.
    pub(crate) fn report_counters(&mut self, session: &Session) {
        let route = Self::stats_route(session);
        self.sums.reports.count(self.now, &route, |report| {
            report.counters.add(&session.counters);
        });
    }

    /// `<sender>:<id>`, or the public id of a WebSocket.
    fn connection_id(&self, session: &Session) -> String {
        if let Some(ws) = &session.ws {
            return ws.cid.to_string();
        }
        let sender = self.peers.get(session.peer).map_or(&b""[..], |peer| &peer.id);
        format!("{}:{}", String::from_utf8_lossy(sender), String::from_utf8_lossy(&session.id))
    }

    /// `conn` for one session, while somebody listens.
    fn announce(&mut self, key: Key) {
        let now = self.now;
        if !self.sums.conn_wanted {
            return;
        }
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.counted) else {
            return;
        };
        session.announced_ms = now;
        let Some(session) = self.sessions.get(key) else { return };
        let id = self.connection_id(session);
        let packet = session.packet().filter(|_| session.ws.is_none());
        let kept = session.ws.as_ref().map(|ws| ws.address.to_string());
        let address = packet.map(|packet| {
            let (headers, peer) = (packet.headers, packet.peer_address);
            forward::logical_address(headers, &self.settings, session.trusted, peer).to_owned()
        });
        let address = address.or(kept);
        let kind = if session.ws.is_some() { ConnKind::Ws } else { ConnKind::Http };
        let (route, ssl) = (Self::stats_route(session), session.https);
        self.publish(
            &route,
            Body::Conn {
                id: &id,
                kind,
                peer_address: address.as_deref().filter(|address| !address.is_empty()),
                ssl,
                ttl: self.settings.connection_ttl_s,
            },
        );
    }

    /// Announces a long-lived session again before its listeners forget it.
    pub(crate) fn announce_again(&mut self, key: Key) {
        let due_ms = self.settings.connection_ttl_s * 375;
        let Some(session) = self.sessions.get(key) else { return };
        if self.now.saturating_sub(session.announced_ms) >= due_ms {
            self.announce(key);
        }
    }

    fn publish(&mut self, route: &Route, body: Body<'_>) {
        let from = self.settings.instance_id.as_str();
        let packet = Packet { from, route: route.as_deref(), body };
        self.outputs.push_back(Output::Stats(packet.encode(Format::Tnetstring)));
    }

    /// Tells the maximum without a session that the handler is about to get.
    pub(crate) fn count_before_hand_over(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key).filter(|session| session.counted) else {
            return;
        };
        let route = Self::stats_route(session);
        if let Some(max) = self.sums.before_hand_over(self.now, &route) {
            self.publish(&route, Body::ConnMax { max, ttl: self.sums.max_ttl_s, retry_seq: None });
        }
    }

    fn publish_maxima(&mut self) {
        let ttl = self.sums.max_ttl_s;
        for (route, max) in self.sums.take_maxima(self.now) {
            self.publish(&route, Body::ConnMax { max, ttl, retry_seq: None });
        }
    }

    /// Sends the sums that are due.
    pub(crate) fn publish_sums(&mut self) {
        let now = self.now;
        if let Some((by_route, requests_received)) = self.sums.activity.take(now) {
            for (route, count) in by_route {
                self.publish(&route, Body::Activity { count });
            }
            if requests_received > 0 {
                self.publish(&None, Body::Counts { requests_received });
            }
        }
        if self.sums.conn_max_wanted && self.sums.maxima_due.is_some_and(|due| due <= now) {
            self.publish_maxima();
        }
        for (route, report) in self.sums.reports.take(now) {
            self.publish(&route, Body::Report(report));
        }
    }
}

/// The full minutes of a connection that are not counted yet (spec/stats.md §5).
fn take_minutes(session: &mut Session, now: u64) -> u64 {
    let minutes = now.saturating_sub(session.minute_ms) / MINUTE_MS;
    session.minute_ms += minutes * MINUTE_MS;
    minutes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxima_tell_peaks_and_falls() {
        let mut sums = Sums::new(&Settings::default());
        sums.connections(0, &None, 1);
        sums.connections(0, &None, 1);
        sums.connections(0, &None, -1);
        assert_eq!(sums.take_maxima(100), [(None, 2)]);
        assert_eq!(sums.take_maxima(200), [(None, 1)]);
        assert_eq!(sums.take_maxima(300), []);
        assert_eq!(sums.take_maxima(300 + 45_000), [(None, 1)]);
        sums.connections(50_000, &None, -1);
        assert_eq!(sums.take_maxima(50_100), [(None, 0)]);

        assert!(sums.take_maxima(50_200).is_empty() && sums.connections.is_empty());
    }

    #[test]
    fn a_connection_that_is_handed_over_counts_once() {
        let mut sums = Sums::new(&Settings::default());
        sums.set_listeners(false, true);
        // At once: it was never told.
        sums.connections(0, &None, 1);
        assert_eq!(sums.before_hand_over(5, &None), None);
        sums.handed_over(6, &None);
        assert_eq!(sums.take_maxima(100), []);
        // Later: it was.
        sums.connections(200, &None, 1);
        assert_eq!(sums.take_maxima(300), [(None, 1)]);
        assert_eq!(sums.before_hand_over(305, &None), Some(0));
        sums.handed_over(306, &None);
        assert_eq!(sums.take_maxima(400), []);
    }
}
