//! Requests of a shard to the proxy, for links and filters: the requester's side of ZHTTP
//! (spec/internal-rpc.md §9). What is asked when, and by whom together, is in [`super::queue`].

use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::{HoldMode, Instruct, ResponseHead};
use tnetstring::Writer;
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

use super::Shard;
use super::filtering::Owner;
use super::session::LogRules;
use super::timers::{TICK_MS, tenths};
use crate::message::Output;

/// Bytes of body that the proxy may send before more are granted.
const CREDITS: u32 = 200_000;

/// Most of a body that is kept, to look for marks in it or as a filter's answer
/// (spec/grip.md §9).
const HELD_MAX: usize = grip::filter::ANSWER_MAX;

/// Tenths of a second without packets after which a request failed.
const EXPIRY: u32 = 600;

/// Tenths of a second between two keep-alives of a request.
const KEEP_ALIVE: u32 = (zhttp::KEEP_ALIVE_MS / TICK_MS) as u32;

/// Tenths of a second that a filter may take in all.
const FILTER_EXPIRY: u32 = 100;

/// Tenths of a second for which a session that goes back to the proxy waits for its gone link.
const GONE_EXPIRY: u32 = 100;

/// What a request is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The next part of these streams.
    Next(Vec<Key>),
    /// A session is over; who holds it next learns of it when that was told.
    Gone(Option<Box<Output>>),
    /// What becomes of an item.
    Filter(Owner),
}

/// What is asked.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) route: Box<str>,
    pub(super) prefer_internal: bool,
    pub(super) trusted: bool,
    pub(super) log: LogRules,
    pub(super) auto_share: bool,
    /// When what it is to bring was missed.
    pub(super) since: u64,
}

/// A request under way, or one that waits for its turn.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) purpose: Purpose,
    pub(super) ask: Ask,
    /// When it went.
    pub(super) sent: Option<u64>,
    /// Under which name others may join it.
    pub(super) share: Option<String>,
    peer: Option<Arc<[u8]>>,
    in_seq: u32,
    out_seq: u32,
    heard: u32,
    /// When the proxy last heard of it.
    told: u32,
    began: u32,
    /// What the head of the response said.
    instruct: Option<Arc<Instruct>>,
    code: u16,
    /// It said that the item is to be dropped.
    drop: bool,
    size: usize,
    /// Something of the body went to clients.
    pub(super) relayed: bool,
    /// The whole body for a filter; for streams whose body has marks, one that is not whole yet.
    held: Option<Vec<u8>>,
    /// Credits that are given when the client has taken what was sent so far.
    owed: u32,
}

fn id_of(key: Key) -> String {
    format!("{}-{}", key.index, key.generation)
}

fn key_of(id: &[u8]) -> Option<Key> {
    let (index, generation) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some(Key { index: index.parse().ok()?, generation: generation.parse().ok()? })
}

impl Fetch {
    pub(super) fn new(now: u64, purpose: Purpose, ask: Ask) -> Self {
        let held = matches!(purpose, Purpose::Filter(_)).then(Vec::new);
        Self {
            purpose,
            ask,
            sent: None,
            share: None,
            peer: None,
            in_seq: 0,
            out_seq: 0,
            heard: tenths(now),
            told: tenths(now),
            began: tenths(now),
            instruct: None,
            code: 0,
            drop: false,
            size: 0,
            relayed: false,
            held,
            owed: 0,
        }
    }

    /// What goes out when the request is over.
    pub(super) fn next_owner(&mut self) -> Option<Output> {
        match &mut self.purpose {
            Purpose::Gone(next) => next.take().map(|next| *next),
            _ => None,
        }
    }

    fn is_overdue(&self, now: u32) -> bool {
        let filter = matches!(self.purpose, Purpose::Filter(_));
        (filter && self.began + FILTER_EXPIRY <= now) || self.heard + EXPIRY <= now
    }
}

impl Shard {
    /// Sends a request to whichever proxy takes it.
    pub(super) fn send_request(&mut self, now: u64, key: Key) {
        let Some(fetch) = self.fetches.get_mut(key) else { return };
        fetch.sent = Some(now);
        (fetch.heard, fetch.told) = (tenths(now), tenths(now));
        let ask = std::mem::take(&mut fetch.ask);
        fetch.ask.method = ask.method;
        let passthrough = passthrough(&ask);
        self.send_fetch(key, |f| {
            f.method(ask.method).uri(&ask.url);
            f.headers(ask.headers.iter().map(|(name, value)| (name, value)));
            f.body(&ask.body);
            f.credits(CREDITS).flag("stream", true).flag("router-resp", true);
            f.frame("passthrough", Some(&passthrough));
        });
        if let Some(fetch) = self.fetches.get_mut(key) {
            (fetch.ask.url, fetch.ask.route, fetch.ask.log) = (ask.url, ask.route, ask.log);
        }
    }

    fn send_fetch(&mut self, key: Key, fill: impl FnOnce(&mut Fields<'_>)) {
        let Some(fetch) = self.fetches.get_mut(key) else { return };
        let (id, seq) = (id_of(key), fetch.out_seq);
        fetch.out_seq += 1;
        let ids = [Id { id: id.as_bytes(), seq: Some(seq) }];
        let mut packet = Vec::new();
        // The proxy answers to the name of this shard's ROUTER.
        let from = self.from.as_bytes();
        let ext = Ext { batch: false, ..Ext::OURS };
        zhttp::write(&mut packet, &Head { from, ids: &ids, ext }, fill);
        let proxy = fetch.peer.clone();
        if seq == 0 || proxy.is_some() {
            self.out.push(Output::Internal { shard: self.number, proxy, packet });
        }
    }

    /// Gives a request up, and lets the next one go.
    pub(super) fn drop_fetch(&mut self, now: u64, key: Key) {
        if self.fetches.get(key).is_some_and(|fetch| fetch.sent.is_some()) {
            self.send_fetch(key, |f| {
                f.kind(Kind::Cancel);
            });
        }
        self.remove_fetch(now, key);
    }

    /// The first packet of a request could not be sent: no proxy takes it.
    pub fn internal_refused(&mut self, now: u64, packet: &[u8]) {
        let Ok(packet) = Packet::parse(packet) else { return };
        for id in packet.ids.iter() {
            if let Some(key) = key_of(id.id) {
                self.fetch_failed(now, key, "network request failed: general error");
            }
        }
    }

    /// Takes a packet of a proxy that answers a request.
    pub fn internal_message(&mut self, now: u64, message: &[u8]) {
        for packet in zhttp::split(message) {
            match Packet::parse(packet) {
                Ok(packet) => {
                    for id in packet.ids.iter() {
                        match key_of(id.id) {
                            Some(key) => self.fetch_packet(now, key, &packet, id),
                            None => self.drops.unknown += 1,
                        }
                    }
                }
                Err(error) => {
                    self.drops.bad_packets += 1;
                    log::warn!("zhttp parse error: {error}");
                }
            }
        }
    }

    fn fetch_packet(&mut self, now: u64, key: Key, packet: &Packet<'_>, id: Id<'_>) {
        let Some(fetch) = self.fetches.get_mut(key).filter(|fetch| fetch.sent.is_some()) else {
            self.drops.unknown += 1;
            return;
        };
        match packet.kind {
            Kind::Cancel => {
                return self.fetch_failed(now, key, "network request failed: disconnected");
            }
            Kind::Error => return self.fetch_failed(now, key, cause(packet.condition)),
            _ => {}
        }
        if id.seq != Some(fetch.in_seq) {
            self.drops.bad_seq += 1;
            return self.fetch_failed(now, key, "network request failed: general error");
        }
        fetch.in_seq += 1;
        fetch.heard = tenths(now);
        fetch.peer = Some(packet.from.into());
        if packet.kind == Kind::Data {
            self.fetch_data(now, key, packet);
        }
    }

    fn fetch_data(&mut self, now: u64, key: Key, packet: &Packet<'_>) {
        if let Some(code) = packet.code
            && !self.fetch_head(now, key, code, packet)
        {
            return;
        }
        let Some(fetch) = self.fetches.get_mut(key) else { return };
        fetch.size += packet.body.len();
        let is_filter = matches!(fetch.purpose, Purpose::Filter(_));
        let mut blocked = false;
        match &mut fetch.held {
            Some(held) if is_filter && held.len() + packet.body.len() <= HELD_MAX => {
                held.extend_from_slice(packet.body);
            }
            Some(_) if is_filter => {
                return self.fetch_failed(now, key, "network response exceeded 100000 bytes");
            }
            Some(_) => match self.relay_marked(now, key, packet.body, packet.more) {
                Ok(waits) => blocked = waits,
                Err(error) => {
                    let text = format!("filter error: build-id: {error}");
                    return self.end_streams(now, key, &text);
                }
            },
            None => blocked = self.relay(now, key, &Bytes::copy_from_slice(packet.body)),
        }
        if !packet.more {
            return self.fetch_done(now, key);
        }
        self.owe(key, packet.body.len() as u32);
        if !blocked {
            self.give_credits(key);
        }
    }

    /// Relays a part of a body with the marks in it rewritten; one at its end waits for its rest.
    fn relay_marked(
        &mut self,
        now: u64,
        key: Key,
        body: &[u8],
        more: bool,
    ) -> Result<bool, String> {
        let Some(fetch) = self.fetches.get_mut(key) else { return Ok(false) };
        let (Some(held), Some(instruct)) = (&mut fetch.held, &fetch.instruct) else {
            return Ok(false);
        };
        held.extend_from_slice(body);
        let end = if more { grip::filter::complete(held) } else { held.len() };
        if held.len() - end > HELD_MAX {
            return Err(format!("a mark is longer than {HELD_MAX} bytes"));
        }
        let rest = held.split_off(end);
        let part = std::mem::replace(held, rest);
        let context = grip::filter::Context { meta: &instruct.meta, channels: &[], prev_ids: None };
        let body = grip::filter::build_id(&part, &context)?;
        Ok(self.relay(now, key, &body.into()))
    }

    fn owe(&mut self, key: Key, bytes: u32) {
        if let Some(fetch) = self.fetches.get_mut(key) {
            fetch.owed = fetch.owed.saturating_add(bytes);
        }
    }

    /// The proxy may send as much again as was taken.
    pub(super) fn give_credits(&mut self, key: Key) {
        let Some(fetch) = self.fetches.get_mut(key) else { return };
        let credits = std::mem::take(&mut fetch.owed);
        if credits > 0 {
            self.send_fetch(key, |f| {
                f.kind(Kind::Credit).credits(credits);
            });
        }
    }

    /// Reads the head of a response; false: the request is over.
    fn fetch_head(&mut self, now: u64, key: Key, code: u16, packet: &Packet<'_>) -> bool {
        self.close_to_others(key);
        let Some(fetch) = self.fetches.get_mut(key) else { return false };
        fetch.code = code;
        match fetch.purpose {
            Purpose::Filter(_) => {
                let mut headers = packet.headers.iter();
                fetch.drop = headers
                    .any(|(name, value)| name.eq_ignore_ascii_case("action") && value == b"drop");
                return true;
            }
            _ if !(200..300).contains(&code) => {
                self.fetch_failed(now, key, "");
                return false;
            }
            Purpose::Gone(_) => return true,
            Purpose::Next(_) => {}
        }
        let headers: Vec<(&str, &[u8])> = packet.headers.iter().collect();
        let head = ResponseHead { code, reason: packet.reason, headers: &headers, body: b"" };
        let parsed = match Instruct::parse(&fetch.ask.url, &head) {
            Ok(instruct) if instruct.hold == Some(HoldMode::Response) => {
                Err("Next link returned non-stream hold.".to_owned())
            }
            parsed => parsed,
        };
        match parsed {
            Ok(instruct) => {
                let mut filters = instruct.channels.iter().flat_map(|channel| &channel.filters);
                fetch.held = filters.any(|filter| filter == "build-id").then(Vec::new);
                fetch.instruct = Some(Arc::new(instruct));
                true
            }
            Err(text) => {
                self.end_streams(now, key, &text);
                false
            }
        }
    }

    /// What was fetched cannot be used: the streams that wait for it end.
    fn end_streams(&mut self, now: u64, key: Key, text: &str) {
        for session in self.waiters(key) {
            self.next_over(session);
            self.fail_stream(now, session, text);
        }
        self.drop_fetch(now, key);
    }

    fn waiters(&mut self, key: Key) -> Vec<Key> {
        match self.fetches.get_mut(key).map(|fetch| &mut fetch.purpose) {
            Some(Purpose::Next(sessions)) => std::mem::take(sessions),
            _ => Vec::new(),
        }
    }

    fn fetch_done(&mut self, now: u64, key: Key) {
        let Some(fetch) = self.fetches.get_mut(key) else { return };
        match &fetch.purpose {
            Purpose::Filter(owner) => {
                let (owner, code, drop) = (*owner, fetch.code, fetch.drop);
                let held = fetch.held.take();
                self.remove_fetch(now, key);
                let body = held.unwrap_or_default().into();
                self.filter_answered(now, owner, code, drop, body);
            }
            Purpose::Gone(_) => {
                if fetch.size > 0 {
                    log::debug!("httpsession: failed to request gone link");
                }
                self.remove_fetch(now, key);
            }
            Purpose::Next(_) => self.next_fetched(now, key),
        }
    }

    fn next_fetched(&mut self, now: u64, key: Key) {
        let Some(fetch) = self.fetches.get(key) else { return };
        let Some(instruct) = fetch.instruct.clone() else { return };
        log_fetched(fetch, &instruct);
        let sessions = self.waiters(key);
        let Some(fetch) = self.remove_fetch(now, key) else { return };
        for session in sessions {
            self.next_done(now, session, &fetch.ask.url, &instruct);
        }
        self.forget_outdated();
    }

    fn fetch_failed(&mut self, now: u64, key: Key, cause: &str) {
        let Some(fetch) = self.fetches.get(key) else { return };
        let relayed = fetch.relayed;
        match &fetch.purpose {
            Purpose::Gone(_) => log::debug!("httpsession: failed to request gone link"),
            Purpose::Next(_) => fetch.ask.log_next(|| "error".to_owned()),
            Purpose::Filter(owner) => {
                let owner = *owner;
                self.drop_fetch(now, key);
                return self.filter_failed(now, owner, cause.to_owned());
            }
        }
        let sessions = self.waiters(key);
        self.drop_fetch(now, key);
        let random = self.random(10);
        for session in sessions {
            self.next_failed(now, session, relayed, random);
        }
    }

    /// Tells the proxy that requests that take long are still wanted (spec/zhttp.md §7).
    pub(super) fn keep_fetches_alive(&mut self, now: u64) {
        let now = tenths(now);
        let due = |fetch: &Fetch| fetch.peer.is_some() && fetch.told + KEEP_ALIVE <= now;
        let found = self.fetches.iter().filter(|(_, fetch)| due(fetch));
        let keys: Vec<Key> = found.map(|(key, _)| key).collect();
        for key in keys {
            if let Some(fetch) = self.fetches.get_mut(key) {
                fetch.told = now;
            }
            self.send_fetch(key, |f| {
                f.kind(Kind::KeepAlive);
            });
        }
    }

    /// Requests that nobody answers any more fail; sessions do not wait that long for theirs.
    pub(super) fn expire_fetches(&mut self, now: u64) {
        for fetch in self.fetches.iter_mut() {
            if fetch.began + GONE_EXPIRY <= tenths(now) {
                self.out.extend(fetch.next_owner());
            }
        }
        let overdue = self.fetches.iter().filter(|(_, fetch)| fetch.is_overdue(tenths(now)));
        let keys: Vec<Key> = overdue.map(|(key, _)| key).collect();
        for key in keys {
            self.fetch_failed(now, key, "network request failed: request timed out");
        }
    }
}

/// What a filter's request failed of, by the condition that the proxy gives.
fn cause(condition: &str) -> &'static str {
    match condition {
        "remote-connection-failed" => "network request failed: connection refused",
        "connection-timeout" => "network request failed: connection timed out",
        "tls-error" => "network request failed: tls error",
        "disconnected" => "network request failed: disconnected",
        "session-timeout" => "network request failed: request timed out",
        _ => "network request failed: general error",
    }
}

impl Ask {
    /// The line about a next link (spec/proxy.md §14).
    fn log_next(&self, outcome: impl FnOnce() -> String) {
        let line = || {
            let route = self.log.route_part(&self.route);
            format!("GET {}{route} {}", self.url, outcome())
        };
        self.log.write(line);
    }
}

fn log_fetched(fetch: &Fetch, instruct: &Instruct) {
    let ids = || -> String {
        let ids = instruct.channels.iter().filter_map(|channel| {
            Some(format!(" #{}={}", channel.name, channel.prev_id.as_deref()?))
        });
        ids.collect()
    };
    fetch.ask.log_next(|| format!("code={} {}{}", fetch.code, fetch.size, ids()));
}

fn passthrough(ask: &Ask) -> Vec<u8> {
    let mut w = Writer::new();
    w.map(|w| {
        w.str("route");
        w.str(&ask.route);
        w.str("auto-share");
        w.bool(ask.auto_share);
        for (name, set) in [("prefer-internal", ask.prefer_internal), ("trusted", ask.trusted)] {
            if set {
                w.str(name);
                w.bool(true);
            }
        }
    });
    w.into_vec()
}
