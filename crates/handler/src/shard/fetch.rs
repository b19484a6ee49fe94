//! Requests of a shard to the proxy, for next and gone links: the requester's side of ZHTTP
//! (spec/internal-rpc.md §9).

use std::sync::Arc;

use evloop::arena::{Arena, Key};
use grip::{HoldMode, Instruct, ResponseHead};
use tnetstring::Writer;
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

use super::Shard;
use super::timers::tenths;
use crate::message::Output;

/// Bytes of body that the proxy may send before more are granted.
const CREDITS: u32 = 200_000;

/// Most of a body that is kept to look for marks in it (spec/grip.md §9).
const HELD_MAX: usize = 100_000;

/// Tenths of a second without packets after which a request failed.
const EXPIRY: u32 = 600;

/// A request under way.
#[derive(Debug)]
pub(super) struct Fetch {
    /// For whom; nobody waits for a gone link.
    session: Option<Key>,
    url: String,
    peer: Option<Arc<[u8]>>,
    in_seq: u32,
    out_seq: u32,
    heard: u32,
    /// What the head of the response said.
    instruct: Option<Box<Instruct>>,
    code: u16,
    size: usize,
    /// Body that is relayed at its end, for its marks.
    held: Option<Vec<u8>>,
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub(super) session: Option<Key>,
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    /// `Grip-Last` values.
    pub(super) last: Vec<String>,
    pub(super) route: &'a str,
    pub(super) prefer_internal: bool,
    pub(super) trusted: bool,
    pub(super) auto_share: bool,
}

pub(super) type Fetches = Arena<Fetch>;

fn id_of(key: Key) -> String {
    format!("{}-{}", key.index, key.generation)
}

fn key_of(id: &[u8]) -> Option<Key> {
    let (index, generation) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some(Key { index: index.parse().ok()?, generation: generation.parse().ok()? })
}

impl Shard {
    /// Sends a request to whichever proxy takes it.
    pub(super) fn fetch(&mut self, now: u64, ask: &Ask<'_>) -> Key {
        let key = self.fetches.insert(Fetch {
            session: ask.session,
            url: ask.url.to_owned(),
            peer: None,
            in_seq: 0,
            out_seq: 0,
            heard: tenths(now),
            instruct: None,
            code: 0,
            size: 0,
            held: None,
        });
        let passthrough = passthrough(ask);
        self.send_fetch(key, |f| {
            f.method(ask.method).uri(ask.url);
            f.headers(ask.last.iter().map(|last| ("Grip-Last", last)));
            f.credits(CREDITS).flag("stream", true).flag("router-resp", true);
            f.frame("passthrough", Some(&passthrough));
        });
        key
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

    /// Gives a request up.
    pub(super) fn drop_fetch(&mut self, key: Key) {
        self.send_fetch(key, |f| {
            f.kind(Kind::Cancel);
        });
        self.fetches.remove(key);
    }

    /// The first packet of a request could not be sent: no proxy takes it.
    pub fn internal_refused(&mut self, now: u64, packet: &[u8]) {
        let Ok(packet) = Packet::parse(packet) else { return };
        for id in packet.ids.iter() {
            if let Some(key) = key_of(id.id) {
                self.fetch_failed(now, key);
            }
        }
    }

    /// Takes a packet of a proxy that answers a request.
    pub fn internal_message(&mut self, now: u64, message: &[u8]) {
        for packet in zhttp::split(message) {
            match Packet::parse(packet) {
                Ok(packet) => {
                    for id in packet.ids.iter() {
                        if let Some(key) = key_of(id.id) {
                            self.fetch_packet(now, key, &packet, id);
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
        let Some(fetch) = self.fetches.get_mut(key) else { return };
        if matches!(packet.kind, Kind::Cancel | Kind::Error) {
            return self.fetch_failed(now, key);
        }
        if id.seq != Some(fetch.in_seq) {
            self.drops.bad_seq += 1;
            return self.fetch_failed(now, key);
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
        let session = fetch.session;
        match &mut fetch.held {
            Some(held) if held.len() + packet.body.len() <= HELD_MAX => {
                held.extend_from_slice(packet.body);
            }
            Some(_) => return self.fetch_failed(now, key),
            None => {
                if let Some(session) = session.filter(|_| !packet.body.is_empty()) {
                    self.relay(now, session, packet.body.to_vec().into());
                }
            }
        }
        if !packet.more {
            return self.fetch_done(now, key);
        }
        if !packet.body.is_empty() {
            self.send_fetch(key, |f| {
                f.kind(Kind::Credit).credits(packet.body.len() as u32);
            });
        }
    }

    /// Reads the head of a response; false: the request is over.
    fn fetch_head(&mut self, now: u64, key: Key, code: u16, packet: &Packet<'_>) -> bool {
        let Some(fetch) = self.fetches.get_mut(key) else { return false };
        fetch.code = code;
        if !(200..300).contains(&code) {
            self.fetch_failed(now, key);
            return false;
        }
        let Some(session) = fetch.session else { return true };
        let headers: Vec<(&str, &[u8])> = packet.headers.iter().collect();
        let head = ResponseHead { code, reason: packet.reason, headers: &headers, body: b"" };
        let parsed = match Instruct::parse(&fetch.url, &head) {
            Ok(instruct) if instruct.hold == Some(HoldMode::Response) => {
                Err("Next link returned non-stream hold.".to_owned())
            }
            parsed => parsed,
        };
        match parsed {
            Ok(instruct) => {
                let mut filters = instruct.channels.iter().flat_map(|channel| &channel.filters);
                fetch.held = filters.any(|filter| filter == "build-id").then(Vec::new);
                fetch.instruct = Some(Box::new(instruct));
                true
            }
            Err(text) => {
                self.drop_fetch(key);
                self.next_over(session);
                self.fail_stream(now, session, &text);
                false
            }
        }
    }

    fn fetch_done(&mut self, now: u64, key: Key) {
        let Some(fetch) = self.fetches.remove(key) else { return };
        log::info!("{} code={} {}", fetch.url, fetch.code, fetch.size);
        let (Some(session), Some(instruct)) = (fetch.session, fetch.instruct) else { return };
        if let Some(held) = fetch.held {
            let context =
                grip::filter::Context { meta: &instruct.meta, channels: &[], prev_ids: &[] };
            match grip::filter::build_id(&held, &context) {
                Ok(body) => self.relay(now, session, body.into()),
                Err(error) => {
                    self.next_over(session);
                    let text = format!("filter error: build-id: {error}");
                    return self.fail_stream(now, session, &text);
                }
            }
        }
        self.next_done(now, session, &fetch.url, *instruct);
    }

    fn fetch_failed(&mut self, now: u64, key: Key) {
        let Some(fetch) = self.fetches.get(key) else { return };
        let (session, relayed) = (fetch.session, fetch.size > 0 && fetch.held.is_none());
        match session {
            None => log::debug!("httpsession: failed to request gone link"),
            Some(_) => log::info!("{} error", fetch.url),
        }
        self.drop_fetch(key);
        if let Some(session) = session {
            self.next_failed(now, session, relayed);
        }
    }

    /// Requests that nobody answers any more fail.
    pub(super) fn expire_fetches(&mut self, now: u64) {
        let silent = |fetch: &Fetch| fetch.heard + EXPIRY <= tenths(now);
        let keys: Vec<Key> =
            self.fetches.iter().filter(|(_, fetch)| silent(fetch)).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.fetch_failed(now, key));
    }
}

fn passthrough(ask: &Ask<'_>) -> Vec<u8> {
    let mut w = Writer::new();
    w.map(|w| {
        w.str("route");
        w.str(ask.route);
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
