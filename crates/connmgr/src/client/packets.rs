//! Later packets of requesters: credits, body, messages, the end (`spec/zhttp.md §4` to §6).

use std::sync::Arc;

use evloop::arena::Key;
use zhttp::{Id, Kind, Packet};

use super::session::Mode;
use super::{Order, Outgoing, name};

impl Outgoing {
    /// A ZeroMQ message from the ROUTER socket: a packet, or several.
    pub fn packet(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for bytes in zhttp::split(message) {
            match Packet::parse(bytes) {
                Ok(packet) => packet.ids.iter().for_each(|id| self.deliver(id, &packet)),
                Err(error) => {
                    self.counters.malformed += 1;
                    log::warn!("client-worker 0: zhttp parse error: {error}");
                }
            }
        }
    }

    /// Applies a packet to one of the sessions that it names.
    fn deliver(&mut self, id: Id<'_>, packet: &Packet<'_>) {
        let Some(key) = self.find(id.id, packet.from) else {
            self.counters.unknown += 1;
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(seq) = id.seq {
            let expected = session.in_seq;
            if seq != expected {
                self.counters.bad_seq += 1;
                let name = name(key);
                log::warn!(
                    "client-conn {name}: bad seq (expected {expected}, got {seq}), skipping"
                );
                return self.drop_session(key);
            }
            session.in_seq = seq.wrapping_add(1);
        }
        session.adrift = false;
        session.expires_at = self.now + zhttp::SESSION_EXPIRY_MS;
        if let Mode::Stream { multi, .. } = &mut session.mode {
            *multi |= packet.ext.multi;
        }
        session.response_window += packet.credits as usize;
        if packet.credits > 0 {
            self.order(key, Order::Grant(packet.credits as usize));
        }
        self.act(key, packet);
    }

    /// The session of that name; one whose requester passes its role on takes the next one.
    fn find(&mut self, id: &[u8], from: &[u8]) -> Option<Key> {
        let from: Arc<[u8]> = from.into();
        if let Some(key) = self.names.get(&(from.clone(), id.to_vec())) {
            return Some(*key);
        }
        let adrift = self.sessions.iter().find(|(_, session)| {
            let same = matches!(&session.mode, Mode::Stream { id: own, .. } if own == id);
            same && session.adrift
        });
        let key = adrift?.0;
        if let Mode::Stream { peer, .. } = &mut self.sessions.get_mut(key)?.mode {
            let old = std::mem::replace(peer, from.clone());
            self.names.remove(&(old, id.to_vec()));
            self.names.insert((from, id.to_vec()), key);
        }
        Some(key)
    }

    fn act(&mut self, key: Key, packet: &Packet<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let websocket = session.websocket;
        match packet.kind {
            Kind::Data => self.data(key, packet),
            Kind::Credit | Kind::KeepAlive => {}
            Kind::Cancel | Kind::Error => self.drop_session(key),
            Kind::HandoffStart => {
                self.send(key, |f| {
                    f.kind(Kind::HandoffProceed);
                });
                if let Some(session) = self.sessions.get_mut(key) {
                    session.adrift = true;
                }
            }
            Kind::Ping | Kind::Pong if websocket && packet.body.len() <= websocket::CONTROL_MAX => {
                if self.charge(key, packet.body.len()) {
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
            _ => self.drop_session(key),
        }
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
                self.drop_session(key)
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
        let (name, credits) = (name(key), session.window);
        log::warn!(
            "client-conn {name}: received too much data from handler (size={size}, \
             credits={credits})"
        );
        self.order(key, Order::Cancel);
        self.fail(key, "bad-request");
        false
    }

    /// A process of that instance id left: its sessions end.
    pub fn peer_gone(&mut self, now: u64, instance: &[u8]) {
        self.now = now;
        let of = |mode: &Mode| matches!(mode, Mode::Stream { peer, .. } if **peer == *instance);
        let keys: Vec<Key> =
            self.sessions.iter().filter(|(_, s)| of(&s.mode)).map(|(key, _)| key).collect();
        self.counters.peer_gone += keys.len() as u64;
        keys.into_iter().for_each(|key| self.drop_session(key));
    }
}
