//! The stats that the proxy sends to the handler (spec/proxy.md §15, spec/stats.md).
//!
//! Sums go every 100 ms, reports every ten seconds. Single connections are told only while
//! somebody listens for them; else the most connections of each route, if somebody listens for
//! that (design, rule 13).

use std::collections::BTreeMap;

use evloop::arena::Key;
use stats::{AGGREGATE_MS, Activity, Body, ConnKind, Counters, Format, Packet, Reports, Route};
use tnetstring::Writer;

use crate::session::{Away, Session};
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
    /// When any maximum was told last.
    told_ms: Option<u64>,
    max_ttl_s: u64,
    conn_wanted: bool,
    conn_max_wanted: bool,
    /// What the subscribers of the stats socket want, whatever the settings say.
    asked: (bool, bool),
    /// Steps of the walk that announces connections again.
    refresh_step: u64,
}

impl Sums {
    pub fn new(settings: &Settings) -> Self {
        Self {
            activity: Activity::default(),
            reports: Reports::new(0, settings.report_interval_ms),
            connections: BTreeMap::new(),
            maxima_due: None,
            told_ms: None,
            max_ttl_s: settings.connections_max_ttl_s,
            conn_wanted: false,
            conn_max_wanted: false,
            asked: (false, false),
            refresh_step: 0,
        }
    }

    /// Somebody listens for single connections, or for their maxima, or does not any more.
    pub fn set_listeners(&mut self, settings: &Settings, conn: bool, conn_max: bool) {
        self.asked = (conn, conn_max);
        self.conn_wanted = conn && settings.connection_send;
        self.conn_max_wanted = conn_max;
    }

    /// Goes on with other intervals.
    pub fn set_settings(&mut self, now: u64, settings: &Settings) {
        self.reports.set_interval(now, settings.report_interval_ms);
        self.max_ttl_s = settings.connections_max_ttl_s;
        let (conn, conn_max) = self.asked;
        self.set_listeners(settings, conn, conn_max);
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

    /// A connection is the handler's from now on: it must not count twice. Gives the maximum to
    /// tell before, if what was told last has the connection in it.
    fn leave(&mut self, now: u64, route: &Route) -> Option<u64> {
        self.connections(now, route, -1);
        let wanted = self.conn_max_wanted;
        let of_route = self.connections.get_mut(route)?;
        // In the time that is not told yet it was nobody else's.
        of_route.most = of_route.most.saturating_sub(1).max(of_route.now);
        if !wanted || of_route.sent <= of_route.now {
            return None;
        }
        (of_route.sent, of_route.sent_ms) = (of_route.now, now);
        Some(of_route.now)
    }

    /// What is to be said about the maxima; starts over.
    fn take_maxima(&mut self, now: u64) -> Vec<(Route, u64)> {
        let refresh_ms = self.max_ttl_s * 750;
        let mut out = Vec::new();
        let untold = self.told_ms.is_none_or(|told| now >= told + refresh_ms);
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
        // Even with nothing to say the handler must know that this proxy tells maxima.
        if out.is_empty() && untold {
            out.push((None, self.connections.get(&None).map_or(0, |of_route| of_route.sent)));
        }
        if !out.is_empty() {
            self.told_ms = Some(now);
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
        if session.internal {
            return self.report_backend(session);
        }
        if !std::mem::take(&mut session.counted) {
            return;
        }
        let (now, route) = (self.now, Self::stats_route(session));
        let counters = session.counters.take();
        let minutes = if session.away.is_some() { 0 } else { take_minutes(session, now) };
        self.add_minutes(&route, minutes);
        self.sums.reports.count(now, &route, |report| report.counters.add(&counters));
        if session.away.is_none() {
            self.sums.connections(now, &route, -1);
        }
        if self.sums.conn_wanted && !handed_over {
            let id = self.connection_id(session);
            self.publish(&route, Body::ConnGone { id: &id });
        }
    }

    fn add_minutes(&mut self, route: &Route, minutes: u64) {
        if minutes > 0 {
            self.totals.minutes += minutes;
            self.sums.reports.count(self.now, route, |report| report.minutes += minutes);
        }
    }

    /// The handler is about to be asked to take a session: from now on it counts there. Where its
    /// minute can be taken back the handler counts it anew, so that it is reported at once.
    ///
    /// Gives the maxima to tell with the call, as a list, if what was told has the session in it.
    pub(crate) fn count_away(&mut self, key: Key) -> Option<Vec<u8>> {
        let now = self.now;
        let session = self.sessions.get_mut(key)?;
        if !session.counted || session.away.is_some() {
            return None;
        }
        let (route, start) = (Self::stats_route(session), session.minute_ms);
        let minutes = take_minutes(session, now);
        let fresh = minutes == 0 && !session.is_retry;
        session.away = Some(match fresh && self.sums.reports.take_back_minute(&route, start) {
            true => Away::MinuteTakenBack,
            false => Away::MinuteKept,
        });
        self.add_minutes(&route, minutes);
        let max = self.sums.leave(now, &route)?;
        let body = Body::ConnMax { max, ttl: self.sums.max_ttl_s, retry_seq: None };
        let from = self.settings.instance_id.as_str();
        let packet = Packet { from, route: route.as_deref(), body };
        // By both ways: with the call it comes in time, and on the stats socket in order.
        self.outputs.push_back(Output::Stats(packet.encode(Format::Tnetstring)));
        let mut list = Writer::new();
        list.list(|w| packet.write_map(w));
        Some(list.into_vec())
    }

    /// The handler did not take the session: it counts here again.
    pub(crate) fn count_back(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(away) = session.away.take() else { return };
        let route = Self::stats_route(session);
        if away == Away::MinuteTakenBack {
            self.sums.reports.count(now, &route, |report| report.minutes += 1);
        }
        self.sums.connections(now, &route, 1);
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
        self.sums.connections(now, &route, -1);
        if let Some(id) = id {
            self.publish(&route, Body::ConnGone { id: &id });
        }
    }

    /// Adds what a long-lived session has counted so far to the reports.
    pub(crate) fn report_so_far(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.counted) else {
            return;
        };
        if session.away.is_some() {
            return;
        }
        let counters = session.counters.take();
        let minutes = take_minutes(session, now);
        if minutes > 0 || counters != Counters::default() {
            let route = Self::stats_route(session);
            self.add_minutes(&route, minutes);
            self.sums.reports.count(now, &route, |report| report.counters.add(&counters));
        }
    }

    /// Adds what a session that is no client's exchanged with the backend to the report.
    pub(crate) fn report_backend(&mut self, session: &Session) {
        let counters = session.counters.of_server();
        if counters != Counters::default() {
            let route = Self::stats_route(session);
            self.sums.reports.count(self.now, &route, |report| report.counters.add(&counters));
        }
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
        if !self.sums.conn_wanted {
            return;
        }
        // Who hears of this proxy's connections must know first that it counts them itself.
        if self.sums.conn_max_wanted && self.sums.told_ms.is_none() {
            self.publish_maxima();
        }
        let here = |session: &&Session| session.counted && session.away.is_none();
        let Some(session) = self.sessions.get(key).filter(here) else { return };
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

    /// A step of the walk that announces every session again in three quarters of the time after
    /// which listeners forget it (spec/stats.md §4).
    pub(crate) fn announce_again(&mut self, tick_ms: u64) {
        if !self.sums.conn_wanted {
            return;
        }
        let refresh_ms = self.settings.connection_ttl_s * 750;
        let steps = usize::try_from(refresh_ms / tick_ms).unwrap_or(usize::MAX).max(1);
        let first = (self.sums.refresh_step % steps as u64) as u32;
        self.sums.refresh_step += 1;
        for index in (first..self.sessions.capacity()).step_by(steps) {
            if let Some(key) = self.sessions.key_at(index) {
                self.announce(key);
            }
        }
    }

    fn publish(&mut self, route: &Route, body: Body<'_>) {
        let from = self.settings.instance_id.as_str();
        let packet = Packet { from, route: route.as_deref(), body };
        self.outputs.push_back(Output::Stats(packet.encode(Format::Tnetstring)));
    }

    fn publish_maxima(&mut self) {
        let ttl = self.sums.max_ttl_s;
        for (route, max) in self.sums.take_maxima(self.now) {
            self.publish(&route, Body::ConnMax { max, ttl, retry_seq: None });
        }
    }

    /// Sends the sums that are due. Maxima come before reports and with every activity: who gets
    /// a report knows then that its minutes are for him to count.
    pub(crate) fn publish_sums(&mut self) {
        let now = self.now;
        let activity = self.sums.activity.take(now);
        let reports = self.sums.reports.take(now);
        let due = self.sums.maxima_due.is_some_and(|due| due <= now);
        if self.sums.conn_max_wanted && (due || activity.is_some() || !reports.is_empty()) {
            self.publish_maxima();
        }
        if let Some((by_route, requests_received)) = activity {
            for (route, count) in by_route {
                self.publish(&route, Body::Activity { count });
            }
            if requests_received > 0 {
                self.publish(&None, Body::Counts { requests_received });
            }
        }
        for (route, report) in reports {
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
        sums.set_listeners(&Settings::default(), false, true);
        // At once: it was never told. What is told is that there is something to tell.
        sums.connections(0, &None, 1);
        assert_eq!(sums.leave(5, &None), None);
        assert_eq!(sums.take_maxima(100), [(None, 0)]);
        // Later: it was.
        sums.connections(200, &None, 1);
        assert_eq!(sums.take_maxima(300), [(None, 1)]);
        assert_eq!(sums.leave(305, &None), Some(0));
        assert_eq!(sums.take_maxima(400), []);
        // The handler did not take it.
        sums.connections(450, &None, 1);
        assert_eq!(sums.take_maxima(500), [(None, 1)]);
    }
}
