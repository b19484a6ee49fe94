//! Messages between a WebSocket's client and its backend (spec/proxy.md §11.2).

use evloop::arena::Key;
use zhttp::{Kind as PacketKind, Packet};

use super::filter::Verdict;
use super::outgoing::{Frame, WAITING_MAX};
use super::session::{End, event_kind};
use super::{Back, Kind};
use crate::Proxy;
use crate::answer::PACKET_BODY_MAX;

/// Credits for messages go back in steps of this size, bytes.
const CREDIT_STEP: u32 = 32 * 1024;

/// One stats activity for every so many milliseconds in which data passed.
const ACTIVITY_MS: u64 = 60_000;

impl Proxy {
    /// A packet of the client of a WebSocket; sequence and credits are done.
    pub(crate) fn ws_packet(&mut self, key: Key, packet: &Packet<'_>) {
        let open = self.sessions.get(key).and_then(|session| session.ws.as_ref());
        if !open.is_some_and(|ws| ws.open && !ws.client_closed) {
            return;
        }
        match packet.kind {
            // A packet that only grants credits has no content.
            PacketKind::Data if self.is_framed(key) => {
                self.framed_piece(key, packet.body, packet.more);
            }
            PacketKind::Ping if self.is_framed(key) => self.framed_ping(key, packet.body),
            PacketKind::Pong if self.is_framed(key) => {
                self.send_credit(key, packet.body.len() as u32);
            }
            PacketKind::Data => {
                self.client_sent(key, Kind::of(packet.content_type), packet.body, packet.more);
            }
            PacketKind::Ping => self.client_sent(key, Kind::Ping, packet.body, false),
            PacketKind::Pong => self.client_sent(key, Kind::Pong, packet.body, false),
            PacketKind::Close => self.client_closed(key, packet.code, packet.body),
            _ => {}
        }
    }

    /// A message of the client, or a piece of one, or a control frame.
    pub(crate) fn client_sent(&mut self, key: Key, kind: Kind, data: &[u8], more: bool) {
        self.count_activity(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        let size = data.len() as u32;
        session.counters.client_content_bytes_received += u64::from(size);
        session.counters.client_messages_received += u64::from(!more && kind.is_message());
        session.owed_credits = session.owed_credits.saturating_add(size);
        if ws.detached {
            return self.return_ws_credits(key, 0);
        }
        session.counters.server_content_bytes_sent += u64::from(size);
        session.counters.server_messages_sent += u64::from(!more && kind.is_message());
        match &mut ws.back {
            Back::None => self.return_ws_credits(key, 0),
            Back::Test => self.echo(key, kind, data, more),
            Back::Socket => self.pass_to_socket(key, kind, data, more),
            Back::OverHttp(over_http) => match over_http.link.push(event_kind(kind), data, more) {
                Ok(()) => self.ask(key),
                Err(why) => {
                    log::warn!("{}: {why}, ending the connection", ws.cid);
                    self.ws_abandon(key, true);
                }
            },
        }
    }

    /// The test backend sends back what it gets, marked if the extension is on.
    fn echo(&mut self, key: Key, kind: Kind, data: &[u8], more: bool) {
        let ws = self.sessions.get(key).and_then(|session| session.ws.as_ref());
        let Some(ws) = ws else { return };
        let starts =
            kind.is_message() && !ws.filter.as_ref().is_some_and(|f| f.is_within_message());
        let marked = ws.filter.is_some() && starts;
        let data = if marked { [b"m:", data].concat() } else { data.to_vec() };
        self.back_sent(key, kind, &data, more);
        self.return_ws_credits(key, 0);
    }

    /// Returns credits for what the backend has; `left` bytes have not left yet.
    pub(crate) fn return_ws_credits(&mut self, key: Key, left: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let gone = session.owed_credits.saturating_sub(left.try_into().unwrap_or(u32::MAX));
        let closed = session.ws.as_ref().is_none_or(|ws| ws.client_closed);
        if gone >= CREDIT_STEP && !closed {
            session.owed_credits -= gone;
            self.send_credit(key, gone);
        }
    }

    /// A message of the backend, or a piece of one, or a control frame.
    pub(crate) fn back_sent(&mut self, key: Key, kind: Kind, data: &[u8], more: bool) {
        self.count_activity(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        session.counters.server_content_bytes_received += data.len() as u64;
        session.counters.server_messages_received += u64::from(!more && kind.is_message());
        if ws.detached || ws.close_out != End::No {
            return;
        }
        let verdict = match &mut ws.filter {
            Some(filter) if kind.is_message() => filter.push(kind, data, more),
            _ => Verdict::Forward(data.to_vec()),
        };
        match verdict {
            Verdict::Nothing => {}
            Verdict::Dropped => {
                self.drops.no_prefix += 1;
                log::debug!("{}: a message without prefix was dropped", ws.cid);
            }
            Verdict::Control(message) => self.say_grip(key, message),
            Verdict::Forward(data) if kind.is_message() || ws.shape.is_plain() => {
                let frame = ws.shape.dress(kind, data, more);
                ws.out.push(frame);
                self.dirty.push(key);
            }
            // The client of SockJS knows no pings: the proxy is its answer.
            Verdict::Forward(data) if kind == Kind::Ping => {
                self.answer_ping(key, &data);
            }
            Verdict::Forward(_) => {}
        }
    }

    /// A message of the handler for one client.
    pub(crate) fn handler_sent(&mut self, key: Key, frame: Frame, queue: bool) {
        self.count_activity(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        let hidden = !ws.shape.is_plain() && !frame.kind.is_message();
        let frame = ws.shape.dress_own(frame);
        let fits = !ws.out.is_full() && ws.out.waiting() + frame.data.len() <= WAITING_MAX;
        let open = ws.open && ws.close_out == End::No;
        if open && !hidden && (queue || fits) {
            ws.out.push_own(frame);
            return self.dirty.push(key);
        }
        match open {
            true if hidden => {}
            true => self.drops.ws_full += 1,
            false => self.drops.ws_closed += 1,
        }
        if let Some(id) = frame.ack {
            self.say_ack(key, &id);
        }
    }

    /// Sends what may be sent.
    pub(crate) fn flush_ws(&mut self, key: Key) {
        let (now, poll) = (self.now, self.poll_of(key));
        while let Some(session) = self.sessions.get_mut(key) {
            let Some(ws) = session.ws.as_mut().filter(|ws| ws.open) else { return };
            if ws.out.is_empty() {
                break;
            }
            let Some(piece) = ws.out.pop(session.credits as usize, PACKET_BODY_MAX) else { break };
            if ws.out.is_empty() && ws.out.is_idle() {
                ws.out.clear();
            }
            ws.sent(now);
            session.credits -= piece.data.len() as u32;
            session.counters.client_content_bytes_sent += piece.data.len() as u64;
            session.counters.client_messages_sent +=
                u64::from(!piece.more && piece.kind.is_message());
            match poll {
                Some(poll) => self.poll_piece(key, poll, &piece),
                None => self.send(key, |fields| piece.write(fields)),
            }
            if let Some(id) = piece.ack {
                self.say_ack(key, &id);
            }
        }
        if let Some(poll) = poll {
            self.answer_poll(poll);
        }
        self.flush_close(key);
        self.extend_window(key);
        self.ask(key);
    }

    /// One activity for each minute in which data passed; minutes are counted from the opening.
    pub(crate) fn count_activity(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = session.ws.as_mut().filter(|ws| ws.open) else { return };
        let minutes = now.saturating_sub(ws.active_ms) / ACTIVITY_MS;
        if minutes > 0 {
            ws.active_ms += minutes * ACTIVITY_MS;
            let route = Self::stats_route(session);
            self.sums.add_activity(now, &route);
        }
    }
}
