//! Packets of client sessions after the first (spec/zhttp.md §4, §5).

use evloop::arena::Key;
use routes::Destination;
use zhttp::{Kind, Packet};

use crate::backend::{BODY_KEPT_MAX, lacks_start};
use crate::inspecting::lacks_body;
use crate::peers::dump;
use crate::session::{Session, Stage};
use crate::{Output, Proxy};

/// Bytes of body above which the client's side has sent more than it may.
const BODY_QUEUE_MAX: usize = 2 * crate::arrival::REQUEST_CREDITS as usize;

impl Proxy {
    /// A message of the ROUTER socket, without its envelope.
    pub fn client_packet(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for packet in zhttp::split(message) {
            self.one_packet(packet, false);
        }
    }

    /// A message of the ROUTER socket for the handler's own requests.
    pub fn internal_packet(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        for packet in zhttp::split(message) {
            self.one_packet(packet, true);
        }
    }

    fn one_packet(&mut self, bytes: &[u8], internal: bool) {
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("IN stream (router) {}", dump(bytes));
        }
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(cause) => {
                self.drops.malformed += 1;
                return log::warn!("zhttp parse error: {cause}, skipping");
            }
        };
        let Some(peer) = self.peers.find(packet.from, internal) else { return };
        self.peers.announced(peer, packet.ext);
        for id in packet.ids.iter() {
            // Packets for sessions that are not here are late ones, no error.
            if let Some(key) = self.find(peer, id.id) {
                self.session_packet(key, id.seq, &packet);
            }
        }
    }

    fn session_packet(&mut self, key: Key, seq: Option<u32>, packet: &Packet<'_>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if matches!(packet.kind, Kind::Cancel | Kind::Error) {
            return self.drop_session(key);
        }
        if seq.is_some_and(|seq| seq != session.in_seq) {
            log::warn!(
                "session {}: bad seq (expected {}, got {:?}), canceling",
                String::from_utf8_lossy(&session.id),
                session.in_seq,
                seq
            );
            self.drops.bad_seq += 1;
            self.send_kind(key, Kind::Cancel);
            return self.drop_session(key);
        }
        session.in_seq = session.in_seq.wrapping_add(u32::from(seq.is_some()));
        session.last_in_ms = now;
        session.credits = session.credits.saturating_add(packet.credits);
        let pausing = session.stage == Stage::Pausing;
        match packet.kind {
            _ if session.ws.is_some() => self.ws_packet(key, packet),
            Kind::Data => self.request_body(key, packet.body, packet.more),
            Kind::HandoffProceed if pausing => self.client_paused(key),
            _ => {}
        }
        if packet.credits > 0 {
            self.dirty.push(key);
        }
    }

    /// More of the request's body.
    fn request_body(&mut self, key: Key, body: &[u8], more: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.exchange.request_more {
            // An empty end of a body that was complete, or what nobody wants any more.
            return;
        }
        session.counters.client_content_bytes_received += body.len() as u64;
        let lacked_body = lacks_body(session);
        session.exchange.request_more = more;
        keep_body(session, body);
        let before_worker = !session.backend && takes(session, &Destination::Zhttp(String::new()));
        if before_worker || matches!(session.stage, Stage::Inspecting | Stage::Gathering) {
            session.owed_credits = session.owed_credits.saturating_add(body.len() as u32);
        }
        if lacked_body {
            if !lacks_body(session) {
                self.call_inspect(key);
            }
            return;
        }
        if session.exchange.body.len() > BODY_QUEUE_MAX {
            log::warn!("a client's side sent more body than it may, ending the session");
            return self.drop_session(key);
        }
        if session.stage == Stage::Gathering {
            self.start_or_join(key);
        } else if session.exchange.sockjs.is_some() {
            self.sockjs_body(key, body.len() as u32, more);
        } else if session.backend {
            session.owed_credits = session.owed_credits.saturating_add(body.len() as u32);
            session.counters.server_content_bytes_sent += body.len() as u64;
            match session.zmq {
                Some(_) => self.zmq_body(key, body, !more),
                None => {
                    let data = body.to_vec();
                    self.outputs.push_back(Output::Body { key, data, last: !more });
                }
            }
        } else if before_worker {
            if !lacks_start(session) {
                self.start_target(key);
            }
        } else if takes(session, &Destination::ZhttpReq(String::new())) {
            // In request mode the whole body goes in one packet.
            match more {
                true => self.send_credit(key, body.len() as u32),
                false => self.start_target(key),
            }
        } else if takes(session, &Destination::Test) {
            self.test_body(key, body.len() as u32, more);
        }
    }

    /// The test target swallows the body.
    fn test_body(&mut self, key: Key, size: u32, more: bool) {
        if more {
            self.send_credit(key, size);
        } else {
            self.answer_test(key);
        }
    }

    /// A peer is gone: so are its sessions.
    pub fn peer_gone(&mut self, now: u64, id: &[u8], internal: bool) {
        self.now = now;
        let Some(peer) = self.peers.find(id, internal) else { return };
        let keys: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.peer == peer && session.stage != Stage::Accepting)
            .map(|(key, _)| key)
            .collect();
        if !keys.is_empty() {
            let name = String::from_utf8_lossy(id);
            log::info!("{name} is gone, ending its {} sessions", keys.len());
        }
        keys.into_iter().for_each(|key| self.drop_session(key));
    }
}

/// Whether the present target is of that kind and waits for the body, or the start of it.
fn takes(session: &Session, kind: &Destination) -> bool {
    let target = session.entry.as_ref().and_then(|entry| entry.route.targets.get(session.target));
    let same = |of: &Destination| std::mem::discriminant(of) == std::mem::discriminant(kind);
    session.stage == Stage::Asked && target.is_some_and(|target| same(&target.destination))
}

/// Keeps the body for `accept` and other targets while it is small enough.
fn keep_body(session: &mut Session, body: &[u8]) {
    if session.exchange.body_dropped {
        return;
    }
    session.exchange.body.extend_from_slice(body);
    // While a request waits for the handler's word nothing may be lost.
    let must_keep = matches!(session.stage, Stage::Inspecting | Stage::Gathering)
        || takes(session, &Destination::ZhttpReq(String::new()));
    if session.exchange.body.len() > BODY_KEPT_MAX && !must_keep {
        session.exchange.body_dropped = true;
        session.exchange.body = Vec::new();
    }
}
