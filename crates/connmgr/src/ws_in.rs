//! WebSocket frames from clients to packets (`spec/connmgr.md §7.3`). A message is passed on in
//! pieces, as it comes and as the peer gives credits; what has none stays in the kernel.

use websocket::{Error, Event, Type};
use zhttp::Kind;

use crate::Net;
use crate::conn::{CLOSE_GOT, CLOSE_SENT, Conn, State, UNREAD};
use crate::peers::PeerId;
use crate::reading::Got;
use crate::worker::Worker;

/// Packets for one connection before others have their turn. Empty messages and pings cost a
/// client no credits.
const EVENTS_MAX: u32 = 100;

/// What became of some bytes.
enum Fed {
    /// So many were dealt with, and more of the same may go on.
    Used(usize),
    /// So many were dealt with; the rest is incomplete or longer than the credits.
    Short(usize),
}

impl Worker {
    /// Reads frames and passes them on while there are credits.
    pub(crate) fn pump_ws(&mut self, net: &mut impl Net, slot: u32) {
        let mut events = EVENTS_MAX;
        // Two loops in one: kept bytes until they are short of something, then the socket.
        while self.may_read(slot) {
            if events == 0 {
                return self.unfinished.push(slot);
            }
            let kept = self.conns.at_mut(slot).and_then(|conn| conn.inbuf.take());
            let more = match kept {
                Some(kept) => match self.feed_ws(slot, &kept.0, &mut events) {
                    Fed::Used(used) => {
                        self.put_back(slot, kept, used);
                        true
                    }
                    Fed::Short(used) => {
                        self.put_back(slot, kept, used);
                        self.read_behind(net, slot)
                    }
                },
                None => self.read_frames(net, slot, &mut events),
            };
            if !more {
                return;
            }
        }
        if self.conns.at(slot).is_some_and(|conn| conn.state != State::Request) {
            self.read_on(net, slot);
        }
    }

    /// Whether frames can be passed on now.
    fn may_read(&self, slot: u32) -> bool {
        let can = |conn: &Conn| conn.peer != PeerId::NONE && conn.out_credits > 0;
        let conn = self.conns.at(slot).filter(|conn| is_reading(conn) && can(conn));
        conn.is_some_and(|conn| !self.peers.is_full(conn.peer))
    }

    /// Messages wait for that process (`full`), or do so no more. Meanwhile nothing is read from
    /// WebSockets that it has: empty messages and pings cost a client no credits, and a queue
    /// that runs over ends all of the peer's sessions.
    pub fn peer_full(&mut self, instance: &[u8], full: bool) {
        let Some(peer) = self.peers.find(instance) else { return };
        self.peers.set_full(peer, full);
        if full {
            return;
        }
        for slot in 0..self.conns.capacity() {
            if self.conns.at(slot).is_some_and(|conn| conn.peer == peer && is_reading(conn)) {
                self.unfinished.push(slot);
            }
        }
    }

    /// Reads from the socket straight into the decoder.
    fn read_frames(&mut self, net: &mut impl Net, slot: u32, events: &mut u32) -> bool {
        let Some(conn) = self.conns.at_mut(slot) else { return false };
        let has_more = conn.ws.as_ref().is_some_and(|ws| ws.decoder.has_more());
        if has_more {
            self.feed_ws(slot, &[], events);
            return true;
        }
        let limit = self.config.buffer_size as usize;
        self.read_ws(net, slot, limit, |worker, bytes| {
            let (Fed::Used(used) | Fed::Short(used)) = worker.feed_ws(slot, bytes, events);
            if let Some(conn) = worker.conns.at_mut(slot) {
                conn.keep(&bytes[used..]);
            }
        })
    }

    /// Reads more behind kept bytes that are not enough.
    fn read_behind(&mut self, net: &mut impl Net, slot: u32) -> bool {
        let room = self.room(slot);
        room > 0
            && self.read_ws(net, slot, room, |worker, bytes| {
                if let Some(conn) = worker.conns.at_mut(slot) {
                    conn.keep(bytes);
                }
            })
    }

    /// One read. False: there is nothing to be had now, or the client is gone.
    fn read_ws(
        &mut self,
        net: &mut impl Net,
        slot: u32,
        limit: usize,
        take: impl FnOnce(&mut Self, &[u8]),
    ) -> bool {
        if !self.conns.at(slot).is_some_and(|conn| conn.has(UNREAD)) {
            return false;
        }
        match self.read(net, slot, limit) {
            Got::Bytes(n) => {
                let scratch = std::mem::take(&mut self.scratch);
                take(self, &scratch[..n]);
                self.scratch = scratch;
                self.client_active(slot);
                true
            }
            Got::Nothing => false,
            // No client can fall back behind its handshake.
            Got::Closed | Got::Plain => {
                // Without a close frame, also by half a close (spec/connmgr.md §4.6).
                self.client_gone(net, slot);
                false
            }
        }
    }

    /// Decodes `bytes` and passes on what they give.
    fn feed_ws(&mut self, slot: u32, bytes: &[u8], events: &mut u32) -> Fed {
        let mut used = 0;
        loop {
            let size_max = self.config.buffer_size;
            let may_read = self.may_read(slot);
            let Some(conn) = self.conns.at_mut(slot).filter(|_| may_read) else {
                // Behind a close or an error nothing is read.
                let over = self.conns.at(slot).is_none_or(|conn| !is_reading(conn));
                return Fed::Used(if over { bytes.len() } else { used });
            };
            let (true, Some(ws)) = (*events > 0, conn.ws.as_mut()) else { return Fed::Used(used) };
            let limit = size_max.min(conn.out_credits) as usize;
            self.body.clear();
            match ws.decoder.decode(&bytes[used..], limit, &mut self.body) {
                Ok(step) => {
                    used += step.consumed;
                    if let Some(event) = step.event {
                        *events -= 1;
                        self.pass_on(slot, event);
                    } else if step.consumed == 0 {
                        return Fed::Short(used);
                    }
                }
                Err(error) => self.violation(slot, error),
            }
        }
    }

    /// Sends one event to the peer; its bytes are in `body`.
    fn pass_on(&mut self, slot: u32, event: Event) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.out_credits = conn.out_credits.saturating_sub(self.body.len() as u32);
        match event {
            Event::Piece { kind, last } => {
                // Credits that are due go along.
                let credits = std::mem::take(&mut conn.due);
                conn.window += credits;
                let kind = if kind == Type::Text { "text" } else { "binary" };
                self.send(slot, |f, body| {
                    f.content_type(kind).body(body);
                    if credits > 0 {
                        f.credits(credits);
                    }
                    f.flag("more", !last);
                });
            }
            Event::Ping | Event::Pong => {
                let kind = if event == Event::Ping { Kind::Ping } else { Kind::Pong };
                self.send(slot, |f, body| {
                    f.kind(kind).body(body);
                });
            }
            Event::Close { code } => self.got_close(slot, code),
        }
    }

    fn got_close(&mut self, slot: u32, code: Option<u16>) {
        self.send(slot, |f, body| {
            f.kind(Kind::Close);
            if let Some(code) = code {
                f.code(code).body(body);
            }
        });
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.set(CLOSE_GOT, true);
        if conn.has(CLOSE_SENT) {
            self.counters.completed += 1;
            self.end_ws(slot);
        } else {
            self.time_close(slot);
        }
    }

    /// The client broke a rule: it is told which kind, and the peer that it is over.
    fn violation(&mut self, slot: u32, error: Error) {
        self.counters.ws_violations += 1;
        if let Some(conn) = self.conns.at(slot) {
            let name = self.session(slot, conn.counter);
            log::debug!("server-conn {name}: process error: {error}");
        }
        self.cancel(slot);
        self.fail_ws(slot, error.close_code());
    }
}

/// Whether frames are still of interest.
fn is_reading(conn: &Conn) -> bool {
    conn.is_open_ws() && !conn.has(CLOSE_GOT)
}
