//! ZHTTP packets from peers: which session, whether in order, and what they do to it
//! (`spec/zhttp.md §4` to §10).

use zhttp::{Kind, Packet};

use crate::Net;
use crate::answer::Answer;
use crate::conn::{BODY, Conn, LOST, REQ, STARTED, State, UNREAD, UNTAKEN, WS};
use crate::peers::PeerId;
use crate::response::SharedBody;
use crate::session::{Session, worker_of};
use crate::worker::Worker;

/// Turn bytes after which the connections are written to before more packets are applied.
pub(crate) const TURN_BYTES_MAX: usize = 4 << 20;

/// Where the session of an id is.
enum Found {
    Slot(u32),
    /// Another worker's affair, or nobody's, which was counted where packets are handed out.
    Elsewhere,
    Unknown,
}

impl Worker {
    /// Applies one ZeroMQ message: a packet, or several of a peer that batches them. What it
    /// writes to clients leaves with [`Worker::end_turn`].
    pub fn packet(&mut self, now: u64, net: &mut impl Net, message: &[u8]) {
        self.now = now;
        for bytes in zhttp::split(message) {
            match Packet::parse(bytes) {
                Ok(packet) => self.apply(net, &packet),
                Err(error) => {
                    self.counters.malformed += 1;
                    log::warn!("server-worker {}: zhttp parse error: {error}", self.config.worker);
                }
            }
            if self.turn.len() > TURN_BYTES_MAX {
                self.flush_all(net);
            }
        }
    }

    /// Applies a packet to each session that it names; each is judged by itself.
    fn apply(&mut self, net: &mut impl Net, packet: &Packet<'_>) {
        self.counters.packets_in += 1;
        if packet.from.is_empty() {
            self.counters.malformed += 1;
            return log::warn!("unable to determine packet address");
        }
        if packet.ids.is_empty() {
            self.counters.malformed += 1;
            return log::warn!("unable to determine packet id(s): there is no id");
        }
        let Some(peer) = self.peers.intern(packet.from, packet.ext) else {
            self.counters.too_many_peers += 1;
            return log::warn!("too many peers are known, packet dropped");
        };
        let mut body = SharedBody::default();
        let mut count = 0;
        for id in packet.ids.iter() {
            match self.find(id.id) {
                Found::Slot(slot) => {
                    count += 1;
                    self.deliver(net, slot, peer, id.seq, packet, &mut body);
                }
                Found::Elsewhere => {}
                Found::Unknown => self.counters.unknown += 1,
            }
        }
        log::debug!("server-worker {}: queued zmq message for {count} conns", self.config.worker);
    }

    /// The connection that has this session now.
    fn find(&self, id: &[u8]) -> Found {
        let own = |session: &Session| session.worker == self.config.worker;
        let Some(session) = Session::parse(id).filter(own) else {
            let elsewhere = self.config.workers > 1 && worker_of(id) != Some(self.config.worker);
            return if elsewhere { Found::Elsewhere } else { Found::Unknown };
        };
        let has = |conn: &Conn| conn.is_session(session.counter) && !conn.has(REQ);
        match self.conns.at(session.slot) {
            Some(conn) if has(conn) => Found::Slot(session.slot),
            _ => Found::Unknown,
        }
    }

    fn deliver(
        &mut self,
        net: &mut impl Net,
        slot: u32,
        peer: PeerId,
        seq: Option<u32>,
        packet: &Packet<'_>,
        body: &mut SharedBody,
    ) {
        let expiry = self.clock().wrapping_add(zhttp::SESSION_EXPIRY_MS as u32);
        let Some(conn) = self.conns.at_mut(slot) else { return };
        if let Some(seq) = seq {
            if seq != conn.in_seq {
                return self.bad_seq(net, slot, seq);
            }
            conn.in_seq = seq.wrapping_add(1);
        }
        let counter = conn.counter;
        self.counters.deliveries += 1;
        conn.session_at = expiry;
        conn.out_credits = conn.out_credits.saturating_add(packet.credits);
        if conn.has(UNTAKEN) {
            conn.set(UNTAKEN, false);
            conn.set(LOST, false);
            self.push_lost = false;
        }
        let (gone, has_body) = (conn.state == State::Gone, conn.has(BODY));
        let may_go_on = packet.credits > 0 || conn.peer != peer || conn.has(UNREAD);
        let has_frames = conn.has(WS) && (may_go_on || conn.inbuf.is_some());
        if conn.peer != peer {
            self.set_peer(slot, peer);
        }
        let kind = packet.kind.name().unwrap_or("(data)");
        log::debug!("server-conn {}: handle packet: {kind}", self.session(slot, counter));
        if gone {
            return self.bury(slot, packet);
        }
        self.act(slot, packet, body);
        if has_body {
            self.pump_body(net, slot);
        } else if has_frames {
            self.pump_ws(net, slot);
        }
        self.grant(slot);
    }

    fn act(&mut self, slot: u32, packet: &Packet<'_>, body: &mut SharedBody) {
        if let Some(conn) = self.conns.at(slot).filter(|conn| conn.has(WS)) {
            return match conn.has(STARTED) {
                true => self.ws_packet(slot, packet, body),
                false => self.answer_handshake(slot, packet),
            };
        }
        match packet.kind {
            Kind::Data => self.data(slot, packet, body),
            Kind::Credit | Kind::KeepAlive => {}
            Kind::HandoffStart => self.hand_off(slot),
            Kind::Cancel | Kind::Error => {
                self.counters.peer_cancels += 1;
                self.answer(slot, &Answer::FAILED);
            }
            Kind::HandoffProceed | Kind::Close | Kind::Ping | Kind::Pong | Kind::Unknown => {
                self.counters.unexpected += 1;
                self.answer(slot, &Answer::FAILED);
            }
        }
    }

    /// Agrees to another owner: whoever sends the next packet.
    pub(crate) fn hand_off(&mut self, slot: u32) {
        self.send(slot, |f, _| {
            f.kind(Kind::HandoffProceed);
        });
        self.set_peer(slot, PeerId::NONE);
    }

    /// The owner of a session whose client left has made itself known.
    fn bury(&mut self, slot: u32, packet: &Packet<'_>) {
        let over = match packet.kind {
            Kind::Cancel | Kind::Error => true,
            Kind::Data => !packet.more && !self.conns.at(slot).is_some_and(|conn| conn.has(WS)),
            _ => false,
        };
        if !over {
            self.cancel(slot);
        }
        self.forget(slot);
    }

    fn bad_seq(&mut self, net: &mut impl Net, slot: u32, got: u32) {
        self.counters.bad_seq += 1;
        let Some(conn) = self.conns.at(slot) else { return };
        let name = self.session(slot, conn.counter);
        log::warn!("server-conn {name}: bad seq (expected {}, got {got}), skipping", conn.in_seq);
        if conn.state == State::Gone {
            return self.close(net, slot);
        }
        self.answer(slot, &Answer::FAILED);
    }

    /// The process of that instance id is gone: its sessions end.
    pub fn peer_gone(&mut self, now: u64, instance: &[u8]) {
        self.now = now;
        let Some(peer) = self.peers.find(instance) else { return };
        self.peers.discard(peer);
        self.cancels.retain(|cancel| cancel.peer != peer);
        for slot in 0..self.conns.capacity() {
            if self.conns.at(slot).is_some_and(|conn| conn.peer == peer) {
                self.counters.peer_gone += 1;
                self.answer(slot, &Answer::FAILED);
            }
        }
    }

    /// One packet that is due anyway to each peer with sessions: a peer that left shows itself
    /// when it is sent. For the driver to call when a connection of its sockets ended.
    pub fn probe(&mut self, now: u64) {
        self.now = now;
        let mut wanted = self.peers.with_sessions();
        for slot in 0..self.conns.capacity() {
            if wanted.is_empty() {
                return;
            }
            let Some(conn) = self.conns.at(slot).filter(|conn| conn.in_session()) else {
                continue;
            };
            if let Some(place) = wanted.iter().position(|peer| *peer == conn.peer) {
                wanted.swap_remove(place);
                self.send(slot, |f, _| {
                    f.kind(Kind::KeepAlive);
                });
            }
        }
    }
}
