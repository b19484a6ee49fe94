//! Later packets of requesters: credits, body, messages, the end (`spec/zhttp.md §4` to §6).

use evloop::arena::Key;
use zhttp::{Id, Kind, Packet};

use super::names::NameRef;
use super::session::Mode;
use super::{Order, Outgoing};

/// Why a packet cannot be for any session.
fn nobodys(packet: &Packet<'_>) -> Option<&'static str> {
    match packet {
        _ if packet.from.is_empty() => Some("unable to determine packet address"),
        _ if packet.ids.is_empty() => Some("unable to determine packet id(s): there is no id"),
        _ => None,
    }
}

impl Outgoing {
    /// A ZeroMQ message from the ROUTER socket: a packet, or several.
    pub fn packet(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for bytes in zhttp::split(message) {
            let Some(packet) = self.parse(bytes) else { continue };
            if let Some(why) = nobodys(&packet) {
                self.counters.malformed += 1;
                log::warn!("client-worker {}: {why}", self.config.worker.0);
                continue;
            }
            for id in packet.ids.iter() {
                match self.find(id, packet.from) {
                    Some(key) => self.deliver(key, id, &packet),
                    None => self.hold(id, packet.from, bytes),
                }
            }
        }
    }

    /// Reads a packet; one that cannot be read is counted.
    pub(super) fn parse<'p>(&mut self, bytes: &'p [u8]) -> Option<Packet<'p>> {
        let worker = self.config.worker.0;
        let error = match Packet::parse(bytes) {
            Ok(packet) => return Some(packet),
            Err(error) => error,
        };
        self.counters.malformed += 1;
        if matches!(error, zhttp::Error::FromTooLong | zhttp::Error::IdTooLong) {
            log::warn!("client-worker {worker}: {error}, skipping");
        } else {
            log::warn!("client-worker {worker}: zhttp parse error: {error}");
        }
        None
    }

    /// Applies a packet to one of the sessions that it names.
    fn deliver(&mut self, key: Key, id: Id<'_>, packet: &Packet<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(seq) = id.seq {
            let expected = session.in_seq;
            if seq != expected {
                self.counters.bad_seq += 1;
                let name = self.name(key);
                log::warn!(
                    "client-conn {name}: bad seq (expected {expected}, got {seq}), skipping"
                );
                return self.drop_session(key);
            }
            session.in_seq = seq.wrapping_add(1);
        }
        session.expires_at = self.now + zhttp::SESSION_EXPIRY_MS;
        if let Mode::Stream { multi, .. } = &mut session.mode {
            *multi |= packet.ext.multi;
        }
        let granted = packet.credits as usize;
        session.response_window = session.response_window.saturating_add(granted);
        if std::mem::take(&mut session.adrift) {
            self.names.set_fast(id.id, key);
            self.release(key);
        }
        if granted > 0 {
            self.order(key, Order::Grant(granted));
        }
        self.act(key, packet);
    }

    /// The session of that name; one whose requester passes its role on takes whoever goes on
    /// with the right number.
    fn find(&mut self, id: Id<'_>, from: &[u8]) -> Option<Key> {
        if let Some(key) = self.names.get(NameRef(from, id.id)) {
            return Some(key);
        }
        let goes_on = |key: &&Key| {
            let next = self.sessions.get(**key).map(|session| session.in_seq);
            id.seq.is_none() || id.seq == next
        };
        let key = *self.names.adrift(id.id).iter().find(goes_on)?;
        if let Mode::Stream { name, .. } = &mut self.sessions.get_mut(key)?.mode {
            let old = std::mem::replace(name, NameRef(from, id.id).to_name());
            self.names.remove(&old, key);
            self.names.insert(name.clone(), key);
        }
        Some(key)
    }

    /// A packet of a session that is not known: perhaps it is here before the first one.
    fn hold(&mut self, id: Id<'_>, from: &[u8], bytes: &[u8]) {
        let (own, workers) = self.config.worker;
        if super::worker_of(id.id, workers) != own {
            return;
        }
        self.counters.unknown += match id.seq {
            Some(seq) => self.early.hold(self.now, NameRef(from, id.id), seq, bytes),
            None => 1,
        };
    }

    /// Applies the packets that were here before the first one of this session.
    pub(super) fn catch_up(&mut self, from: &[u8], id: &[u8]) {
        let name = NameRef(from, id);
        for (seq, bytes) in (1..).zip(self.early.take(name)) {
            let (Some(key), Some(packet)) = (self.names.get(name), self.parse(&bytes)) else {
                self.counters.unknown += 1;
                continue;
            };
            self.counters.early += 1;
            self.deliver(key, Id { id, seq: Some(seq) }, &packet);
        }
    }

    fn act(&mut self, key: Key, packet: &Packet<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let websocket = session.websocket;
        match packet.kind {
            Kind::Data => self.data(key, packet),
            Kind::Credit | Kind::KeepAlive => {}
            Kind::Cancel | Kind::Error => {
                self.counters.cancelled += 1;
                self.drop_session(key);
            }
            Kind::HandoffStart => {
                self.send(key, |f| {
                    f.kind(Kind::HandoffProceed);
                });
                let Some(session) = self.sessions.get_mut(key) else { return };
                if let Mode::Stream { name, .. } = &session.mode {
                    session.adrift = true;
                    self.names.set_adrift(&name.1, key);
                }
            }
            Kind::Ping | Kind::Pong if websocket => {
                if packet.body.len() > websocket::CONTROL_MAX {
                    // Not in the wrong state, so it is told (`spec/zhttp.md §9.3`).
                    self.counters.unexpected += 1;
                    self.order(key, Order::Cancel);
                    self.fail(key, "undefined-condition");
                } else if self.charge(key, packet.body.len()) {
                    let data = packet.body.to_vec();
                    let ping = packet.kind == Kind::Ping;
                    self.order(key, if ping { Order::Ping(data) } else { Order::Pong(data) });
                }
            }
            Kind::Close if websocket => {
                let reason = packet.code.and(std::str::from_utf8(packet.body).ok());
                // A close without a code is a normal one (`spec/zhttp.md §9.3`).
                let code = Some(packet.code.unwrap_or(1000));
                let reason = reason.unwrap_or_default().to_owned();
                self.order(key, Order::Close(code, reason));
            }
            _ => self.unexpected(key),
        }
    }

    /// The requester sent what does not belong here: it has ended the session, and is not told
    /// (`spec/zhttp.md §5`).
    fn unexpected(&mut self, key: Key) {
        self.counters.unexpected += 1;
        self.drop_session(key);
    }

    /// Body of the request, or part of a message.
    fn data(&mut self, key: Key, packet: &Packet<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (size, last) = (packet.body.len(), !packet.more);
        if session.websocket {
            if !self.charge(key, size) || (size == 0 && !last) {
                return;
            }
            let binary = packet.content_type == b"binary";
            let kind = if binary { websocket::Type::Binary } else { websocket::Type::Text };
            let data = packet.body.to_vec();
            return self.order(key, Order::Message(kind, data, last));
        }
        if !session.more {
            // Behind the end of the body there is none.
            return if size > 0 || !session.answered {
                self.unexpected(key)
            };
        }
        session.more = packet.more;
        if session.answered {
            // The backend has answered early: the rest is for nobody.
            return;
        }
        if self.charge(key, size) {
            let data = packet.body.to_vec();
            self.order(key, Order::Body(data, last));
        }
    }

    /// Takes `size` bytes from what the requester may send. False: it sent more than that, and
    /// the session is over.
    fn charge(&mut self, key: Key, size: usize) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        if let Some(left) = session.window.checked_sub(size) {
            session.window = left;
            return true;
        }
        self.counters.overruns += 1;
        let credits = session.window;
        let name = self.name(key);
        log::warn!(
            "client-conn {name}: received too much data from handler (size={size}, \
             credits={credits})"
        );
        self.order(key, Order::Cancel);
        self.fail(key, "undefined-condition");
        false
    }

    /// A process of that instance id left: its sessions end.
    pub fn peer_gone(&mut self, now: u64, instance: &[u8]) {
        self.now = now;
        let of = |mode: &Mode| matches!(mode, Mode::Stream { name, .. } if *name.0 == *instance);
        let keys: Vec<Key> =
            self.sessions.iter().filter(|(_, s)| of(&s.mode)).map(|(key, _)| key).collect();
        self.counters.peer_gone += keys.len() as u64;
        keys.into_iter().for_each(|key| self.drop_session(key));
    }
}
