//! What proxy and handler say about WebSockets (spec/internal-rpc.md §6).
//!
//! Items of one turn leave together, up to 128 in a packet. Until the handler has spoken about a
//! connection nobody knows which handler it is, and items for it wait.

use std::sync::Arc;

use evloop::arena::Key;
use zrpc::control::{self, Item, Kind as ItemKind, MAX_ITEMS, Packet};

use super::outgoing::Frame;
pub(crate) use super::session::Control;
use super::session::{End, KEEP_ALIVE_JITTER_MS, KeepAlive, Say};
use super::{Back, Cid, Kind};
use crate::{Output, Proxy};

/// How long a session lives at the handler without a word, seconds.
const TTL_S: u32 = 60;

/// How long the handler may take for a request, milliseconds.
pub(crate) const REQUEST_MS: u64 = 8_000;

/// Items of one connection that may wait for the handler to speak.
const WAITING_MAX: usize = 1_000;

/// The close that clients get when the handler is gone: come again.
const SERVICE_RESTART: u16 = 1012;

/// Items of this turn.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lists: Vec<List>,
    /// Handlers that have spoken.
    handlers: Vec<Arc<[u8]>>,
}

#[derive(Debug)]
struct List {
    /// None: the first item of a session, for whichever handler takes it.
    peer: Option<Arc<[u8]>>,
    items: Vec<u8>,
    count: usize,
}

impl Outbox {
    /// Adds an item; gives the packet's items if it is full.
    fn push(&mut self, peer: Option<&Arc<[u8]>>, item: &Item<'_>) -> Option<List> {
        let at = match self.lists.iter().position(|list| list.peer.as_ref() == peer) {
            Some(at) => at,
            None => {
                self.lists.push(List { peer: peer.cloned(), items: Vec::new(), count: 0 });
                self.lists.len() - 1
            }
        };
        let list = &mut self.lists[at];
        control::write_item(&mut list.items, item);
        list.count += 1;
        (list.count >= MAX_ITEMS).then(|| self.lists.swap_remove(at))
    }
}

fn kind_of(content_type: &str) -> Kind {
    match content_type {
        "binary" => Kind::Binary,
        "ping" => Kind::Ping,
        "pong" => Kind::Pong,
        _ => Kind::Text,
    }
}

impl Proxy {
    fn say(&mut self, peer: Option<&Arc<[u8]>>, item: &Item<'_>) {
        if let Some(full) = self.outbox.push(peer, item) {
            self.give_out(full);
        }
    }

    fn give_out(&mut self, list: List) {
        let payload = control::write_packet(self.settings.instance_id.as_bytes(), &list.items);
        self.outputs.push_back(Output::Control { handler: list.peer, payload });
    }

    /// Gives out the items of this turn.
    pub(crate) fn flush_controls(&mut self) {
        for list in std::mem::take(&mut self.outbox.lists) {
            self.give_out(list);
        }
    }

    /// Announces a session that was just accepted, with its implicit subscriptions.
    pub(crate) fn say_here(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let uri = session.uri().into_owned();
        let Some(ws) = &session.ws else { return };
        let (Some(_), Some(entry)) = (&ws.control, session.entry.clone()) else { return };
        let (cid, route) = (ws.cid.text(), &entry.route);
        let target = route.targets.get(session.target);
        let item = Item {
            req_id: Some(b"0"),
            uri: &uri,
            ttl_s: Some(TTL_S),
            route: &route.id,
            separate_stats: route.explicit_id,
            channel_prefix: &route.prefix,
            debug: route.debug,
            trusted: target.is_some_and(|target| target.trusted),
            log_level: (route.log_level >= 0).then_some(route.log_level.into()),
            multi: true,
            ..Item::new(&cid, ItemKind::Here)
        };
        self.say(None, &item);
        for channel in target.map_or(&[][..], |target| &target.subscribe) {
            self.say_request(key, |id| Say::Subscribe(id, channel.clone()));
        }
    }

    /// A control message of the backend.
    pub(crate) fn say_grip(&mut self, key: Key, message: Vec<u8>) {
        self.say_request(key, |id| Say::Grip(id, message));
    }

    /// Says something that the handler must acknowledge in time.
    fn say_request(&mut self, key: Key, say: impl FnOnce(u32) -> Say) {
        let due = self.now + REQUEST_MS;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(control) = session.ws.as_mut().and_then(|ws| ws.control.as_mut()) else { return };
        let id = control.number_request();
        control.asked.pending.push_back((id, due));
        self.say_or_wait(key, say(id));
        self.schedule_ws(key);
    }

    /// The keep-alive timer fired.
    pub(crate) fn say_need_keep_alive(&mut self, key: Key) {
        self.say_or_wait(key, Say::NeedKeepAlive);
    }

    /// Settles a request of the handler.
    pub(crate) fn say_ack(&mut self, key: Key, id: &[u8]) {
        self.say_or_wait(key, Say::Ack(id.into()));
    }

    fn say_or_wait(&mut self, key: Key, say: Say) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        let Some(control) = &mut ws.control else { return };
        match control.peer.clone() {
            Some(peer) => {
                let cid = ws.cid;
                self.say_now(cid, &peer, &say);
            }
            None if control.asked.waiting.len() < WAITING_MAX => control.asked.waiting.push(say),
            None => {
                log::warn!("{}: too much waits for the handler, ending the connection", ws.cid);
                self.ws_abandon(key, true);
            }
        }
    }

    fn say_now(&mut self, cid: Cid, peer: &Arc<[u8]>, say: &Say) {
        let cid = cid.text();
        let id;
        let mut item = Item::new(&cid, ItemKind::NeedKeepAlive);
        match say {
            Say::NeedKeepAlive => {}
            Say::Ack(id) => (item.kind, item.req_id) = (ItemKind::Ack, Some(&id[..])),
            Say::Grip(number, message) => {
                id = number.to_string();
                (item.kind, item.req_id) = (ItemKind::Grip, Some(id.as_bytes()));
                item.message = message;
            }
            Say::Subscribe(number, channel) => {
                id = number.to_string();
                (item.kind, item.req_id) = (ItemKind::Subscribe, Some(id.as_bytes()));
                item.channel = channel;
            }
        }
        self.say(Some(peer), &item);
    }

    /// The session ended.
    pub(crate) fn say_gone(&mut self, key: Key) {
        self.say_simply(key, ItemKind::Gone);
    }

    /// The session lives.
    pub(crate) fn say_keep_alive(&mut self, key: Key) {
        self.say_simply(key, ItemKind::KeepAlive);
    }

    fn say_simply(&mut self, key: Key, kind: ItemKind) {
        let ws = self.sessions.get(key).and_then(|session| session.ws.as_ref());
        let Some(ws) = ws else { return };
        let Some(peer) = ws.control.as_ref().and_then(|control| control.peer.clone()) else {
            return;
        };
        let cid = ws.cid.text();
        let ttl_s = (kind == ItemKind::KeepAlive).then_some(TTL_S);
        self.say(Some(&peer), &Item { ttl_s, ..Item::new(&cid, kind) });
    }

    /// A packet of a handler.
    pub fn control_packet(&mut self, now: u64, payload: &[u8]) {
        self.now = now;
        let packet = match Packet::parse(payload) {
            Ok(packet) if !packet.from.is_empty() => packet,
            Ok(_) => {
                self.drops.malformed += 1;
                return log::warn!("wscontrol: received message with invalid from value, skipping");
            }
            Err(cause) => {
                self.drops.malformed += 1;
                return log::warn!("{}", cause.skipping("wscontrol"));
            }
        };
        let peer = self.handler_of(packet.from);
        for item in &packet.items {
            if item.cids.is_empty() {
                self.control_item(&peer, item.cid, item);
            } else {
                self.send_to_many(&peer, item);
            }
        }
    }

    /// The id of a handler, stored once for all of its connections.
    fn handler_of(&mut self, id: &[u8]) -> Arc<[u8]> {
        let known = &mut self.outbox.handlers;
        if let Some(handler) = known.iter().find(|handler| handler[..] == *id) {
            return Arc::clone(handler);
        }
        known.retain(|handler| Arc::strong_count(handler) > 1);
        let handler: Arc<[u8]> = id.into();
        known.push(Arc::clone(&handler));
        handler
    }

    /// The connection of an item, which is now this handler's. One that is not here is cancelled.
    fn owned(&mut self, peer: &Arc<[u8]>, cid: &[u8], kind: ItemKind) -> Option<Key> {
        let found = Cid::parse(cid).and_then(|cid| self.find_ws(cid));
        let ws = found.and_then(|key| self.sessions.get_mut(key)?.ws.as_mut());
        let Some((key, ws)) = found.zip(ws) else {
            if kind != ItemKind::Cancel {
                self.say(Some(peer), &Item::new(cid, ItemKind::Cancel));
            }
            return None;
        };
        let control = ws.control.get_or_insert_default();
        if control.peer.as_ref() != Some(peer) {
            control.peer = Some(Arc::clone(peer));
            let (cid, waiting) = (ws.cid, control.take_waiting());
            waiting.iter().for_each(|say| self.say_now(cid, peer, say));
        }
        Some(key)
    }

    fn control_item(&mut self, peer: &Arc<[u8]>, cid: &[u8], item: &Item<'_>) {
        let Some(key) = self.owned(peer, cid, item.kind) else { return };
        if let Some(id) =
            item.req_id.filter(|_| !matches!(item.kind, ItemKind::Send | ItemKind::Ack))
        {
            self.say_ack(key, id);
        }
        match item.kind {
            ItemKind::Ack => self.settle_request(key, item.req_id),
            ItemKind::Send => {
                let frame = Frame {
                    ack: item.req_id.map(Into::into),
                    ..Frame::new(kind_of(item.content_type), item.message.to_vec())
                };
                self.handler_sent(key, frame, item.queue);
            }
            ItemKind::Close => {
                self.close_client(key, item.code, item.reason);
                // The code is for the client (spec/grip.md §10.3).
                self.tell_back_of_close(key, None, b"");
            }
            ItemKind::Detach => self.detach(key),
            ItemKind::Refresh => self.refresh(key),
            ItemKind::KeepAliveSetup => self.set_keep_alive(key, item),
            ItemKind::Cancel => {
                if let Some(session) = self.sessions.get_mut(key)
                    && let Some(ws) = &mut session.ws
                {
                    ws.control = None;
                }
                self.ws_abandon(key, true);
            }
            _ => {}
        }
    }

    fn settle_request(&mut self, key: Key, id: Option<&[u8]>) {
        let id: Option<u32> = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let session = self.sessions.get_mut(key).and_then(|session| session.ws.as_mut());
        let control = session.and_then(|ws| ws.control.as_mut());
        if let (Some(id), Some(control)) = (id, control) {
            control.settle(id);
        }
    }

    fn set_keep_alive(&mut self, key: Key, item: &Item<'_>) {
        let now = self.now;
        let timeout_ms = u64::from(item.timeout_s.unwrap_or(0)) * 1_000;
        let jitter_ms = self.random.below(KEEP_ALIVE_JITTER_MS);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        ws.keep_alive = (timeout_ms > 0).then(|| {
            let idle = !item.interval_mode;
            let mut keep_alive = KeepAlive { timeout_ms, interval_ms: 0, due_ms: 0, idle };
            keep_alive.draw(jitter_ms);
            keep_alive.due_ms = now + keep_alive.interval_ms;
            Box::new(keep_alive)
        });
        self.schedule_ws(key);
    }

    /// Asks a backend that is reached by requests now.
    pub(crate) fn refresh(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = session.ws.as_mut().filter(|ws| ws.open && !ws.detached) else { return };
        if let Back::OverHttp(over_http) = &mut ws.back {
            over_http.link.refresh();
            self.ask(key);
        }
    }

    /// One message for many connections: those that can take it now share packets, as far as
    /// their client's side understands that (design, rule 10).
    fn send_to_many(&mut self, peer: &Arc<[u8]>, item: &Item<'_>) {
        if item.kind != ItemKind::Send {
            self.drops.malformed += 1;
            return log::warn!("wscontrol: cids of an item that is no send, skipping");
        }
        let kind = kind_of(item.content_type);
        let mut clear: Vec<(u32, bool, Key)> = Vec::with_capacity(item.cids.len());
        for cid in &item.cids {
            let Some(key) = self.owned(peer, cid, item.kind) else { continue };
            match self.can_share(key, item.message.len()) {
                Some((peer, router)) => clear.push((peer, router, key)),
                None => {
                    let frame = Frame::new(kind, item.message.to_vec());
                    self.handler_sent(key, frame, item.queue);
                }
            }
        }
        clear.sort_unstable_by_key(|(peer, router, key)| (*peer, *router, key.index));
        clear.dedup();
        for group in clear.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            self.share(group, kind, item.message);
        }
    }

    /// The peer of a session that can take a message in a packet with others.
    fn can_share(&self, key: Key, size: usize) -> Option<(u32, bool)> {
        let session = self.sessions.get(key)?;
        let ws = session.ws.as_ref()?;
        let multi = self.peers.get(session.peer)?.multi;
        let fits = size <= session.credits as usize && size <= crate::answer::PACKET_BODY_MAX;
        let alike = session.user_data.is_none() && ws.shape.is_plain();
        (multi && alike && ws.is_clear() && fits).then_some((session.peer, session.router))
    }

    /// Sends one packet to sessions of one peer.
    fn share(&mut self, group: &[(u32, bool, Key)], kind: Kind, message: &[u8]) {
        let now = self.now;
        for some in group.chunks(zhttp::MAX_IDS) {
            let keys: Vec<Key> = some.iter().map(|(_, _, key)| *key).collect();
            for key in &keys {
                self.count_shared(now, *key, kind, message.len());
            }
            self.send_shared(some[0].0, some[0].1, &keys, |fields| {
                match kind {
                    Kind::Text => fields.content_type("text"),
                    Kind::Binary => fields.content_type("binary"),
                    Kind::Ping => fields.kind(zhttp::Kind::Ping),
                    Kind::Pong => fields.kind(zhttp::Kind::Pong),
                };
                fields.body(message);
            });
        }
    }

    fn count_shared(&mut self, now: u64, key: Key, kind: Kind, size: usize) {
        self.count_activity(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.credits = session.credits.saturating_sub(size as u32);
        session.counters.client_content_bytes_sent += size as u64;
        session.counters.client_messages_sent += u64::from(kind.is_message());
        if let Some(ws) = &mut session.ws {
            ws.sent(now);
        }
    }

    /// A handler may be gone: each that is known gets a word, and those that it cannot reach are
    /// gone.
    pub fn probe_handlers(&mut self, now: u64) {
        self.now = now;
        let mut seen: Vec<Arc<[u8]>> = Vec::new();
        let mut some: Vec<Key> = Vec::new();
        for (key, session) in self.sessions.iter() {
            let control = session.ws.as_ref().and_then(|ws| ws.control.as_ref());
            if let Some(peer) = control.and_then(|control| control.peer.as_ref())
                && !seen.contains(peer)
            {
                seen.push(Arc::clone(peer));
                some.push(key);
            }
        }
        some.into_iter().for_each(|key| self.say_keep_alive(key));
    }

    /// A handler is gone, and with it what it knew of its sessions: their clients are told to
    /// come again.
    pub fn control_gone(&mut self, now: u64, handler: &[u8]) {
        self.now = now;
        let of_handler = |ws: &super::Ws| {
            ws.control.as_ref().is_some_and(|c| c.peer.as_deref() == Some(handler))
        };
        let keys: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.ws.as_deref().is_some_and(of_handler))
            .map(|(key, _)| key)
            .collect();
        if !keys.is_empty() {
            let name = String::from_utf8_lossy(handler);
            log::warn!("{name} is gone, closing its {} WebSockets", keys.len());
        }
        for key in keys {
            if let Some(ws) = self.sessions.get_mut(key).and_then(|s| s.ws.as_mut()) {
                ws.control = None;
                if ws.close_out == End::No {
                    self.close_client(key, Some(SERVICE_RESTART), b"");
                    self.tell_back_of_close(key, Some(SERVICE_RESTART), b"");
                }
            }
        }
    }
}
