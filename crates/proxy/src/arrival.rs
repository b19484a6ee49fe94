//! A request arrives: checks, routing, and the first target (spec/proxy.md §2.1).

use std::sync::Arc;

use evloop::arena::Key;
use routes::Proto;
use stats::Counters;
use zhttp::{Ext, Head, Headers, Id, Kind, Packet};

use crate::Proxy;
use crate::peers::dump;
use crate::rare::Rare;
use crate::routing::Entry;
use crate::session::{Exchange, Session, Stage, range_of};
use crate::uri::Uri;

/// Credits for a request's body at its start, bytes (spec/zhttp.md §6).
pub(crate) const REQUEST_CREDITS: u32 = 200_000;

/// The answer to `Pushpin-Check`.
const NOTICE: &str = "Copyright (C) the Pushpin contributors\n\n\
    Pushpin is free software under the Apache License, version 2.0. You may obtain a copy of the\n\
    License at <https://www.apache.org/licenses/LICENSE-2.0>. It comes without warranties or\n\
    conditions of any kind, either express or implied.";

impl Proxy {
    /// A message of the PULL socket: requests of a connection manager.
    pub fn request(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for packet in zhttp::split(message) {
            self.one_request(packet, false);
        }
    }

    /// A message of the PULL socket for the handler's own requests.
    pub fn internal_request(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for packet in zhttp::split(message) {
            self.one_request(packet, true);
        }
    }

    fn one_request(&mut self, bytes: &[u8], internal: bool) {
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("IN stream {}", dump(bytes));
        }
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(cause) => {
                self.drops.malformed += 1;
                return log::warn!("zhttp request parse error: {cause}, skipping");
            }
        };
        let Some(id) = packet.ids.only().filter(|_| !packet.from.is_empty()) else {
            self.drops.refused += 1;
            return log::warn!("request packet did not contain exactly one id, skipping");
        };
        let Some(peer) = self.peers.intern(packet.from, internal, packet.ext) else {
            self.drops.refused += 1;
            return log::warn!("too many peers, request skipped");
        };
        let uri = Uri::parse(packet.uri);
        let whole = uri.is_some_and(|uri| uri.proto == Proto::Ws || !packet.method.is_empty());
        let (Some(uri), Kind::Data, true) = (uri, packet.kind, whole) else {
            self.drops.refused += 1;
            return self.refuse(peer, packet.router_resp, id.id, Kind::Cancel, None);
        };
        if id.seq.is_some_and(|seq| seq != 0) || (id.seq.is_none() && packet.more) {
            self.drops.refused += 1;
            let condition = Some("bad-request");
            return self.refuse(peer, packet.router_resp, id.id, Kind::Error, condition);
        }
        if self.find(peer, id.id).is_some() {
            self.drops.refused += 1;
            log::warn!("request with an id that is in use, canceling");
            return self.refuse(peer, packet.router_resp, id.id, Kind::Cancel, None);
        }
        self.accept_request(bytes, &packet, uri, peer, internal);
    }

    /// Ends a session that does not exist here.
    fn refuse(&mut self, peer: u32, router: bool, id: &[u8], kind: Kind, condition: Option<&str>) {
        let ids = [Id { id, seq: None }];
        let head = Head { from: self.settings.instance_id.as_bytes(), ids: &ids, ext: Ext::OURS };
        self.peers.packet(peer, router, &mut self.outputs, |out| {
            zhttp::write(out, &head, |fields| {
                fields.kind(kind);
                if let Some(condition) = condition {
                    fields.condition(condition);
                }
            });
        });
    }

    fn accept_request(
        &mut self,
        bytes: &[u8],
        packet: &Packet<'_>,
        mut uri: Uri<'_>,
        peer: u32,
        internal: bool,
    ) {
        uri.secure |= !internal && self.says_https(packet.headers);
        let mut session = new_session(bytes, packet, peer, internal, self.now);
        session.https = uri.secure;
        session.trusted = !internal && self.is_trusted(packet.headers);
        session.entry = match internal {
            true => self.internal_route(packet, &uri),
            false => self.route(packet.headers, &uri),
        };
        let route = session.entry.clone();
        let route = route.as_ref().map(|entry| &entry.route);
        // What holds for all clients is not for the handler (spec/proxy.md §8).
        let (debug, cross) = (self.settings.debug, self.settings.auto_cross_origin);
        session.debug = (debug && !internal) || route.is_some_and(|route| route.debug);
        if let Some(entry) = session.entry.clone()
            && crate::sockjs::path_start(&entry.route.sockjs, uri.path).is_some()
        {
            return self.sockjs_arrived(session, bytes, packet, &uri, &entry);
        }
        session.exchange.cross.on =
            (cross && !internal) || route.is_some_and(|r| r.auto_cross_origin);
        if uri.proto == Proto::Ws {
            session.ws = Some(Box::new(self.new_ws(&session, packet)));
            return self.answer_or_admit(session, packet, &uri);
        }
        let jsonp =
            session.exchange.cross.on.then(|| self.take_jsonp(packet, &uri, route.map(|r| &**r)));
        match jsonp.unwrap_or(Ok(None)) {
            Ok(None) => self.answer_or_admit(session, packet, &uri),
            Ok(Some((bytes, jsonp))) => {
                session.exchange.cross.jsonp = Some(Box::new(jsonp));
                self.converted(session, &bytes);
            }
            Err(text) => {
                let key = self.insert(session);
                self.answer_plain(key, 400, text);
            }
        }
    }

    /// Answers what needs no backend, and takes the rest.
    fn answer_or_admit(&mut self, session: Session, packet: &Packet<'_>, uri: &Uri<'_>) {
        if uri.proto == Proto::Http && packet.headers.get("pushpin-check").is_some() {
            let key = self.insert(session);
            return self.answer_plain(key, 200, NOTICE);
        }
        match session.entry.clone() {
            Some(entry) => self.admit(session, packet, uri, &entry),
            None => {
                let key = self.insert(session);
                self.answer_plain(key, 502, "Route not found");
            }
        }
    }

    /// Takes a session whose request was JSON-P; `bytes`: the packet with what is meant.
    fn converted(&mut self, mut session: Session, bytes: &[u8]) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let Some(mut uri) = Uri::parse(packet.uri) else { return };
        uri.secure = session.https;
        let again = new_session(bytes, &packet, session.peer, session.internal, self.now);
        session.replace_request(again);
        self.answer_or_admit(session, &packet, &uri);
    }

    /// Takes a session that has its route.
    pub(crate) fn admit(
        &mut self,
        mut session: Session,
        packet: &Packet<'_>,
        uri: &Uri<'_>,
        entry: &Entry,
    ) {
        let (now_s, address) = (self.now_s(), packet.peer_address);
        session.prepare(&self.settings, now_s, packet.headers, uri, entry, address);
        let (more, inspect) = (packet.more, self.wants_inspect(entry, packet));
        let internal = session.internal;
        let key = self.insert(session);
        if !internal {
            self.count_start(key, true);
        }
        if uri.proto == Proto::Ws {
            self.timers.acks.push(self.now, key);
            return self.start_target(key);
        }
        match more {
            true => self.send_credit(key, REQUEST_CREDITS),
            false => self.timers.acks.push(self.now, key),
        }
        match inspect {
            true => self.inspect(key),
            false => self.start_target(key),
        }
    }

    pub(crate) fn insert(&mut self, session: Session) -> Key {
        let key = self.sessions.insert(session);
        self.note_names(key);
        self.timers.wake(self.now);
        key
    }

    fn says_https(&self, headers: Headers<'_>) -> bool {
        if !self.settings.accept_forwarded_proto {
            return false;
        }
        let value = headers
            .get("x-forwarded-proto")
            .filter(|value| !value.is_empty())
            .or_else(|| headers.get("x-forwarded-protocol"));
        matches!(value, Some(b"https" | b"wss"))
    }

    fn is_trusted(&self, headers: Headers<'_>) -> bool {
        let Some(key) = &self.settings.upstream_key else { return false };
        let valid = headers.get("grip-sig").map(|token| key.verifies(token, self.now_s()));
        if valid == Some(false) {
            log::debug!("Grip-Sig of a client is not valid, treated as untrusted");
        }
        valid.unwrap_or(false)
    }

    /// The route of a client's request (spec/routes.md §6).
    fn route(&self, headers: Headers<'_>, uri: &Uri<'_>) -> Option<Arc<Entry>> {
        let named = headers.get("pushpin-route").filter(|id| !id.is_empty());
        if let Some(id) = named.filter(|_| self.settings.accept_route_header) {
            let found = self.routes.by_id(std::str::from_utf8(id).ok()?, uri.path);
            match (found, uri.proto) {
                (Err(true), Proto::Ws) => {}
                (found, _) => return found.ok().cloned(),
            }
        }
        self.route_by_host(uri)
    }

    pub(crate) fn route_by_host(&self, uri: &Uri<'_>) -> Option<Arc<Entry>> {
        self.routes.by_host(&uri.host(), uri.proto, uri.secure, uri.path).cloned()
    }
}

/// A session at its first packet.
pub(crate) fn new_session(
    bytes: &[u8],
    packet: &Packet<'_>,
    peer: u32,
    internal: bool,
    now: u64,
) -> Session {
    let id = packet.ids.iter().next().map_or(&b""[..], |id| id.id);
    Session {
        peer,
        id: id.into(),
        router: packet.router_resp,
        internal,
        in_seq: 1,
        out_seq: 0,
        credits: packet.credits,
        owed_credits: 0,
        last_in_ms: now,
        stage: Stage::Asked,
        user_data: packet.user_data.map(Box::from),
        entry: None,
        target: 0,
        trusted: false,
        debug: false,
        https: false,
        is_retry: false,
        backend: false,
        exchange: Rare::new(Exchange {
            method: range_of(bytes, packet.method),
            uri: range_of(bytes, packet.uri),
            packet: bytes.into(),
            first_credits: packet.credits,
            request_more: packet.more,
            body: packet.body.to_vec(),
            ..Exchange::default()
        }),
        zmq: None,
        ws: None,
        counters: Rare::new(request_counters(packet)),
        counted: false,
        minute_ms: now,
        away: None,
    }
}

/// The estimate of spec/stats.md §5.
fn request_counters(packet: &Packet<'_>) -> Counters {
    let target = packet.uri.splitn(4, '/').nth(3).map_or(1, |rest| rest.len() + 1);
    let headers: usize = packet.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    Counters {
        client_header_bytes_received: (packet.method.len() + target + headers) as u64,
        client_content_bytes_received: packet.body.len() as u64,
        ..Counters::default()
    }
}
