//! Stats of all shards and proxies together (spec/stats.md §3 to §6).

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use stats::{Activity, Body, ConnKind, Error, Maxima, Packet, Reports, Route};

use crate::message::Took;
use crate::room::{shrink_map, shrink_queue, shrink_set};
use crate::settings::Settings;

/// Most connections of proxies that are followed one by one.
const EXTERNALS_MAX: usize = 2_000_000;

/// Most topics of the stats socket.
const TOPICS_MAX: usize = 10_000;

/// Milliseconds between looks for maxima that expired.
const MAXIMA_CHECK_MS: u64 = 10_000;

/// A connection that a proxy told about.
#[derive(Debug)]
struct External {
    from: Arc<str>,
    route: Route,
    expires: u64,
    /// Up to when its minutes are counted.
    minute: u64,
}

/// The sums.
#[derive(Debug)]
pub(super) struct Sums {
    settings: Settings,
    reports: Reports,
    activity: Activity,
    maxima: Maxima,
    maxima_check: u64,
    externals: HashMap<String, External>,
    expiry: VecDeque<(u64, String)>,
    /// Connections that were taken over from proxies that speak of each one.
    own: HashSet<String>,
    totals: super::figures::Totals,
    topics: Vec<Box<[u8]>>,
    /// Connections taken over since the last figure of their proxy and route.
    taken: HashMap<(String, Route), u64>,
    /// Packets of proxies that have not told a maximum since.
    strangers: HashMap<String, u32>,
    /// A proxy tells only of single connections.
    single_conns: bool,
}

/// Sums of a proxy without a maximum among them, after which it is taken for one that tells
/// none. Ours tells both in the same step.
const STRANGER_PACKETS: u32 = 4;

/// Most proxies that are watched for it.
const STRANGERS_MAX: usize = 1_000;

impl Sums {
    pub(super) fn new(now: u64, settings: &Settings) -> Self {
        Self {
            reports: Reports::new(now, settings.stats_report_interval_ms),
            activity: Activity::default(),
            maxima: Maxima::default(),
            maxima_check: now + MAXIMA_CHECK_MS,
            externals: HashMap::new(),
            expiry: VecDeque::new(),
            own: HashSet::new(),
            totals: super::figures::Totals::default(),
            topics: Vec::new(),
            taken: HashMap::new(),
            strangers: HashMap::new(),
            single_conns: false,
            settings: settings.clone(),
        }
    }

    /// Goes on with other lifetimes.
    pub(super) fn set_settings(&mut self, settings: &Settings) {
        self.settings = settings.clone();
    }

    /// Whether a subscriber wants messages that begin with `kind`, a type and a space.
    pub(super) fn listens_to(&self, kind: &str) -> bool {
        let kind = kind.as_bytes();
        self.topics.iter().any(|topic| topic.starts_with(kind) || kind.starts_with(topic))
    }

    /// Whether the proxies are to tell of every connection.
    pub(super) fn needs_conn(&self) -> bool {
        self.settings.stats_connection_send && (self.single_conns || self.listens_to("conn "))
    }

    /// A proxy that never tells maxima has to tell of every connection.
    fn watch_stranger(&mut self, from: &str) {
        if self.single_conns || self.maxima.knows(from) || self.strangers.len() >= STRANGERS_MAX {
            return;
        }
        let packets = self.strangers.entry(from.to_owned()).or_default();
        *packets += 1;
        self.single_conns = *packets >= STRANGER_PACKETS;
    }

    /// 1 and a topic, or 0 and a topic.
    pub(super) fn subscription(&mut self, message: &[u8]) {
        match message {
            [1, topic @ ..] if self.topics.len() < TOPICS_MAX => self.topics.push(topic.into()),
            [0, topic @ ..] => {
                if let Some(at) = self.topics.iter().position(|known| **known == *topic) {
                    self.topics.swap_remove(at);
                }
            }
            _ => {}
        }
    }

    /// Whether a proxy told about that connection.
    pub(super) fn has_external(&self, id: &str) -> bool {
        self.externals.contains_key(id)
    }

    pub(super) fn has_externals(&self) -> bool {
        !self.externals.is_empty()
    }

    pub(super) fn totals(&self) -> super::figures::Totals {
        self.totals
    }

    /// Connections of all routes.
    pub(super) fn connected(&self) -> u64 {
        self.reports.current()
    }

    /// What a shard counted.
    pub(super) fn add(&mut self, now: u64, route: &Route, sums: &crate::message::Sums) {
        self.reports.connections(now, route, sums.connections);
        self.activity.add(now, route, sums.activity);
        let counted = crate::message::Sums { connections: 0, activity: 0, ..*sums };
        if counted == crate::message::Sums::default() {
            return;
        }
        self.totals.minutes += sums.minutes;
        self.totals.sent += sums.sent;
        self.reports.count(now, route, |report| {
            report.minutes += sums.minutes;
            report.sent += sums.sent;
            report.http_response_sent += sums.http_response_sent;
            report.blocks_sent += sums.blocks_sent;
            report.counters.add(&sums.counters);
        });
    }

    /// An item was processed.
    pub(super) fn received(&mut self, now: u64, blocks: u64) {
        self.totals.received += 1;
        self.reports.count(now, &None, |report| {
            report.received += 1;
            report.blocks_received += blocks;
        });
    }

    pub(super) fn conn_max(&mut self, now: u64, from: &str, route: &Route, max: u64, ttl_s: u64) {
        // A maximum tells of the time since the last one: what was taken over since then is
        // counted here already.
        let key = (from.to_owned(), route.clone());
        let max = max.saturating_sub(self.taken.remove(&key).unwrap_or_default());
        let change = self.maxima.set(now, from, route, max, ttl_s);
        self.reports.connections(now, route, change);
    }

    /// A shard took a connection over. Gives the packet that tells of it, if nobody has yet.
    pub(super) fn took(&mut self, now: u64, took: &Took) -> Option<Vec<u8>> {
        let external = self.externals.remove(&took.id);
        let known = external.is_some();
        if let Some(external) = external {
            self.reports.connections(now, &external.route, -1);
        } else if took.minute_counted {
            self.taken_from_proxy(now, took);
        } else {
            self.totals.minutes += 1;
            self.reports.count(now, &took.route, |report| report.minutes += 1);
        }
        if !took.minute_counted && self.maxima.is_empty() && self.own.len() < EXTERNALS_MAX {
            self.own.insert(took.id.clone());
        }
        if known || !self.settings.stats_connection_send || !self.listens_to("conn ") {
            return None;
        }
        let address = took.address.map(|address| address.to_string());
        let body = Body::Conn {
            id: &took.id,
            kind: ConnKind::Http,
            peer_address: address.as_deref(),
            ssl: took.ssl,
            ttl: self.settings.stats_connection_ttl_s,
        };
        Some(self.encode(&took.route, body))
    }

    /// A connection leaves the figure of its proxy, or the next figure that comes.
    fn taken_from_proxy(&mut self, now: u64, took: &Took) {
        let Some(proxy) = &took.proxy else { return };
        if self.maxima.give_one(proxy, &took.route) {
            self.reports.connections(now, &took.route, -1);
        } else if self.taken.len() < STRANGERS_MAX {
            *self.taken.entry((proxy.to_string(), took.route.clone())).or_default() += 1;
        }
    }

    /// A connection of a shard ended, or went back to the proxy, which then speaks for it.
    pub(super) fn left(&mut self, id: &str, route: &Route, retry: bool) -> Option<Vec<u8>> {
        self.own.remove(id);
        shrink_set(&mut self.own);
        if retry || !self.settings.stats_connection_send || !self.listens_to("conn ") {
            return None;
        }
        Some(self.encode(route, Body::ConnGone { id }))
    }

    fn encode(&self, route: &Route, body: Body<'_>) -> Vec<u8> {
        let packet = Packet { from: &self.settings.instance_id, route: route.as_deref(), body };
        packet.encode(self.settings.stats_format)
    }

    /// Takes a packet of a proxy; gives the packet to send on, if it is to be.
    pub(super) fn proxy_packet(
        &mut self,
        now: u64,
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let packet = Packet::parse(message)?;
        let route: Route = packet.route.map(Arc::from);
        match packet.body {
            Body::Activity { count } => {
                self.watch_stranger(packet.from);
                self.activity.add(now, &route, count);
            }
            Body::Counts { requests_received } => {
                self.totals.requests += requests_received;
                self.activity.add_requests(now, requests_received);
            }
            Body::ConnMax { max, ttl, .. } => {
                self.strangers.remove(packet.from);
                self.conn_max(now, packet.from, &route, max, ttl);
            }
            Body::Report(report) => {
                let minutes = match self.maxima.knows(packet.from) {
                    true => report.minutes,
                    false => 0,
                };
                self.totals.minutes += minutes;
                self.reports.count(now, &route, |own| {
                    own.minutes += minutes;
                    own.counters.add(&report.counters);
                });
            }
            Body::Conn { .. } | Body::ConnGone { .. } if self.settings.stats_connection_send => {
                return Ok(self.conn(now, &packet, route));
            }
            _ => {}
        }
        Ok(None)
    }

    fn conn(&mut self, now: u64, packet: &Packet<'_>, route: Route) -> Option<Vec<u8>> {
        let (id, ttl) = match packet.body {
            Body::Conn { id, .. } => (id, Some(self.settings.stats_connection_ttl_s)),
            Body::ConnGone { id } => (id, None),
            _ => return None,
        };
        if self.own.contains(id) {
            return None;
        }
        // A proxy that tells maxima is counted by them.
        if !self.maxima.knows(packet.from) {
            match ttl {
                Some(ttl) => self.external_seen(now, packet.from, id, route, ttl),
                None => self.external_gone(now, id),
            }
        }
        if !self.listens_to("conn ") {
            return None;
        }
        let own = Packet { from: &self.settings.instance_id, ..packet.clone() };
        Some(own.encode(self.settings.stats_format))
    }

    fn external_seen(&mut self, now: u64, from: &str, id: &str, route: Route, ttl_s: u64) {
        let expires = now + ttl_s * 1000;
        if let Some(external) = self.externals.get_mut(id) {
            external.expires = expires;
            external.from = Arc::from(from);
            let minutes = (now - external.minute) / 60_000;
            external.minute += minutes * 60_000;
            let route = external.route.clone();
            if minutes > 0 {
                self.reports.count(now, &route, |report| report.minutes += minutes);
            }
            return;
        }
        if self.externals.len() >= EXTERNALS_MAX {
            return;
        }
        self.totals.minutes += 1;
        self.reports.connections(now, &route, 1);
        self.reports.count(now, &route, |report| report.minutes += 1);
        let external = External { from: Arc::from(from), route, expires, minute: now };
        self.externals.insert(id.to_owned(), external);
        self.expiry.push_back((expires, id.to_owned()));
    }

    fn external_gone(&mut self, now: u64, id: &str) {
        if let Some(external) = self.externals.remove(id) {
            shrink_map(&mut self.externals);
            self.reports.connections(now, &external.route, -1);
            let minutes = (now - external.minute) / 60_000;
            if minutes > 0 {
                self.reports.count(now, &external.route, |report| report.minutes += minutes);
            }
        }
    }

    fn expire_externals(&mut self, now: u64) {
        while self.expiry.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.expiry.pop_front() else { return };
            match self.externals.get(&id).map(|external| external.expires) {
                Some(expires) if expires > now => self.expiry.push_back((expires, id)),
                Some(_) => self.external_gone(now, &id),
                None => {}
            }
        }
        shrink_queue(&mut self.expiry);
    }

    /// When something is to be sent.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        [self.activity.due(), self.reports.due()].into_iter().flatten().min()
    }

    /// Packets that are due.
    pub(super) fn timeout(&mut self, now: u64) -> Vec<Vec<u8>> {
        self.expire_externals(now);
        if now >= self.maxima_check {
            self.maxima_check = now + MAXIMA_CHECK_MS;
            for (route, change) in self.maxima.expire(now) {
                self.reports.connections(now, &route, change);
            }
        }
        let mut packets = Vec::new();
        if let Some((by_route, requests_received)) = self.activity.take(now) {
            if self.listens_to("activity ") {
                for (route, count) in by_route {
                    packets.push(self.encode(&route, Body::Activity { count }));
                }
            }
            if requests_received > 0 && self.listens_to("counts ") {
                packets.push(self.encode(&None, Body::Counts { requests_received }));
            }
        }
        let listened = self.listens_to("report ");
        for (route, report) in self.reports.take(now) {
            if listened {
                packets.push(self.encode(&route, Body::Report(report)));
            }
        }
        packets
    }
}
