//! Bytes from clients. Reads go into the worker's scratch buffer; a connection keeps only what
//! cannot be dealt with at once: an incomplete head, body without credits, a pipelined request.

use std::io::ErrorKind;

use http1::Reason;

use crate::Net;
use crate::answer::Answer;
use crate::conn::{BODY, EXPECT, HUP, Kept, REQ, SECURE, STARTED, State, UNREAD};
use crate::peers::PeerId;
use crate::worker::Worker;

/// Most request body in one packet to a peer of this release, if that is more than a buffer; it
/// has to be read, written and woken for that much less often.
pub(crate) const PIECE_MAX: usize = 64 * 1024;

/// What a read gave.
pub(crate) enum Got {
    /// So many bytes in the scratch buffer.
    Bytes(usize),
    Nothing,
    Closed,
    /// Plain text where TLS is spoken.
    Plain,
}

impl Worker {
    /// The socket has bytes. `closed`: the system reported the end of the stream or an error, so
    /// that a short read does not mean that all is read.
    pub fn readable(&mut self, now: u64, net: &mut impl Net, slot: u32, closed: bool) {
        self.now = now;
        let Some(conn) = self.conns.at_mut(slot).filter(|conn| conn.state != State::Gone) else {
            return;
        };
        conn.set(UNREAD, true);
        if closed {
            conn.set(HUP, true);
        }
        self.read_on(net, slot);
    }

    /// Reads as far as the connection's state wants more. What it does not want stays in the
    /// kernel and slows the client down.
    pub(crate) fn read_on(&mut self, net: &mut impl Net, slot: u32) {
        while let Some(conn) = self.conns.at(slot) {
            if conn.gather.is_some() {
                return self.pump_body(net, slot);
            }
            if !conn.has(UNREAD) {
                return;
            }
            let more = match conn.state {
                State::Head => self.read_head(net, slot),
                State::Request if conn.is_open_ws() => return self.pump_ws(net, slot),
                State::Request if conn.has(BODY) && !conn.has(STARTED) => {
                    return self.pump_body(net, slot);
                }
                State::Request => self.watch(net, slot),
                State::Linger => self.discard(net, slot),
                State::Ending | State::Gone => false,
            };
            if !more {
                return;
            }
        }
    }

    /// One read of at most `limit` bytes. A short read has emptied the socket, but for TLS: there
    /// it is a record that ended.
    pub(crate) fn read(&mut self, net: &mut impl Net, slot: u32, limit: usize) -> Got {
        let Some(conn) = self.conns.at_mut(slot) else { return Got::Nothing };
        loop {
            match net.read(slot, &mut self.scratch[..limit]) {
                Ok(0) => {
                    conn.set(HUP, true);
                    conn.set(UNREAD, false);
                    return Got::Closed;
                }
                Ok(n) => {
                    conn.set(UNREAD, n == limit || conn.has(HUP) || conn.has(SECURE));
                    self.counters.bytes_in += n as u64;
                    return Got::Bytes(n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    conn.set(UNREAD, false);
                    return Got::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => return Got::Plain,
                Err(_) => return Got::Closed,
            }
        }
    }

    /// Room behind what the connection has kept.
    pub(crate) fn room(&self, slot: u32) -> usize {
        let kept = self.conns.at(slot).map_or(0, |conn| conn.buffered());
        self.head_capacity(slot).saturating_sub(kept).min(self.scratch.len())
    }

    fn read_head(&mut self, net: &mut impl Net, slot: u32) -> bool {
        let room = self.room(slot);
        match self.read(net, slot, room) {
            Got::Bytes(n) => {
                self.take_bytes(slot, n);
                true
            }
            Got::Nothing => false,
            Got::Plain => {
                self.counters.plain_on_tls += 1;
                self.refuse(slot, &Answer::PLAIN_ON_TLS, 0);
                false
            }
            Got::Closed => {
                self.close(net, slot);
                false
            }
        }
    }

    /// Reads the head in what has just been read, together with what was kept before.
    fn take_bytes(&mut self, slot: u32, n: usize) {
        let capacity = self.head_capacity(slot);
        let Some(conn) = self.conns.at_mut(slot) else { return };
        if conn.inbuf.is_some() {
            conn.keep(&self.scratch[..n]);
            let full = conn.buffered() >= capacity;
            // Between two line ends nothing new can be said; a client that sends byte by byte
            // would have its head read again for each.
            if full || self.scratch[..n].contains(&b'\n') {
                self.parse_kept(slot);
            }
            return;
        }
        let scratch = std::mem::take(&mut self.scratch);
        let used = self.head(slot, &scratch[..n]);
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.keep(&scratch[used..n]);
        }
        self.scratch = scratch;
    }

    /// Reads a head from what the connection has kept.
    pub(crate) fn parse_kept(&mut self, slot: u32) {
        let Some(kept) = self.conns.at_mut(slot).and_then(|conn| conn.inbuf.take()) else {
            return;
        };
        let used = self.head(slot, &kept.0);
        self.put_back(slot, kept, used);
    }

    /// Gives the connection back what was not used of its kept bytes.
    pub(crate) fn put_back(&mut self, slot: u32, mut kept: Box<Kept>, used: usize) {
        kept.0.drain(..used);
        if let Some(conn) = self.conns.at_mut(slot).filter(|_| !kept.0.is_empty()) {
            conn.inbuf = Some(kept);
        }
    }

    /// While a response is awaited or written: keeps pipelined bytes, notices the client leaving
    /// (also by half a close, `spec/connmgr.md §4.6`).
    fn watch(&mut self, net: &mut impl Net, slot: u32) -> bool {
        let room = self.room(slot);
        if room == 0 {
            if self.conns.at(slot).is_some_and(|conn| conn.has(HUP)) {
                self.client_left(net, slot);
            }
            return false;
        }
        match self.read(net, slot, room) {
            Got::Bytes(n) => {
                if let Some(conn) = self.conns.at_mut(slot) {
                    conn.keep(&self.scratch[..n]);
                }
                true
            }
            Got::Nothing => false,
            Got::Closed | Got::Plain => {
                self.client_left(net, slot);
                false
            }
        }
    }

    /// The client closed at least its sending side. If the response was not started, it may
    /// still see that it gets none.
    fn client_left(&mut self, net: &mut impl Net, slot: u32) {
        let Some(conn) = self.conns.at(slot) else { return };
        let (started, req) = (conn.has(STARTED), conn.has(REQ));
        if !started && (req || self.cancel(slot)) {
            self.counters.clients_left += 1;
            return self.answer(slot, &Answer::FAILED);
        }
        self.client_gone(net, slot);
    }

    /// While lingering: throws bytes away, up to a limit. A client that sends more is held up
    /// until its time is over or it has closed; its answer is not lost to a reset until then.
    fn discard(&mut self, net: &mut impl Net, slot: u32) -> bool {
        let limit = self.scratch.len();
        let Some(conn) = self.conns.at(slot) else { return false };
        let got = match conn.left {
            0 if conn.has(HUP) => Got::Closed,
            0 => Got::Nothing,
            _ => self.read(net, slot, limit),
        };
        match (got, self.conns.at_mut(slot)) {
            (Got::Bytes(n), Some(conn)) => {
                conn.left = conn.left.saturating_sub(n as u64);
                true
            }
            (Got::Closed | Got::Plain, _) => {
                self.close(net, slot);
                false
            }
            _ => false,
        }
    }

    /// Sends request body on while there are credits, from what was kept and from the socket.
    pub(crate) fn pump_body(&mut self, net: &mut impl Net, slot: u32) {
        while let Some(conn) = self.conns.at_mut(slot) {
            let wanted = conn.state == State::Request && conn.has(BODY) && !conn.has(STARTED);
            if !wanted {
                return self.read_on(net, slot);
            }
            if conn.peer == PeerId::NONE && conn.gather.is_none() {
                return;
            }
            let outcome = match conn.inbuf.take() {
                Some(kept) => {
                    let outcome = self.feed(slot, &kept.0);
                    self.put_back(slot, kept, *outcome.as_ref().unwrap_or(&0));
                    outcome
                }
                None if conn.out_credits == 0 => return,
                None => {
                    self.say_continue(slot);
                    self.read_body(net, slot)
                }
            };
            match outcome {
                Ok(0) => return,
                Ok(_) => {}
                Err(reason) => return self.bad_body(slot, reason),
            }
        }
    }

    /// Reads and sends one piece of body. 0: nothing to be had now.
    fn read_body(&mut self, net: &mut impl Net, slot: u32) -> Result<usize, Reason> {
        if !self.conns.at(slot).is_some_and(|conn| conn.has(UNREAD)) {
            return Ok(0);
        }
        let limit = self.body_limit(slot);
        match self.read(net, slot, limit) {
            Got::Bytes(n) => {
                let scratch = std::mem::take(&mut self.scratch);
                let outcome = self.feed(slot, &scratch[..n]);
                if let (Ok(used), Some(conn)) = (&outcome, self.conns.at_mut(slot)) {
                    conn.keep(&scratch[*used..n]);
                }
                self.scratch = scratch;
                outcome.map(|_| n)
            }
            Got::Nothing => Ok(0),
            Got::Closed | Got::Plain => {
                self.client_left(net, slot);
                Ok(0)
            }
        }
    }

    /// Most request body in one packet to the connection's peer; old ones get no more than a
    /// buffer (`spec/connmgr.md §6`).
    fn piece_max(&self, slot: u32) -> usize {
        let batch = self.conns.at(slot).is_some_and(|conn| self.peers.is_batch(conn.peer));
        if batch { self.scratch.len() } else { self.config.buffer_size as usize }
    }

    /// Most bytes of one read of a body: what cannot be sent on is kept, so no more than a buffer
    /// beyond the credits.
    fn body_limit(&self, slot: u32) -> usize {
        let credits = self.conns.at(slot).map_or(0, |conn| conn.out_credits as usize);
        self.piece_max(slot).min(credits.max(self.config.buffer_size as usize))
    }

    /// Takes body out of `bytes` as credits allow and sends it; gives the bytes dealt with.
    fn feed(&mut self, slot: u32, bytes: &[u8]) -> Result<usize, Reason> {
        let max = self.piece_max(slot);
        let Some(conn) = self.conns.at_mut(slot) else { return Ok(0) };
        let max = max.min(conn.out_credits as usize);
        self.body.clear();
        let mut used = 0;
        let end = loop {
            let step = conn.decoder.decode(&bytes[used..], max - self.body.len())?;
            self.body.extend_from_slice(&bytes[used..][step.data]);
            used += step.consumed;
            if step.end || step.consumed == 0 {
                break step.end;
            }
        };
        // The body is at most the credits.
        conn.out_credits -= self.body.len() as u32;
        if end {
            conn.set(BODY, false);
            conn.set(EXPECT, false);
        }
        if conn.gather.is_some() {
            self.collect(slot, end);
        } else if end || !self.body.is_empty() {
            self.send(slot, |f, body| {
                f.body(body).flag("more", !end);
            });
        }
        self.client_active(slot);
        Ok(used)
    }

    /// Lets a client that waits for it send its body.
    fn say_continue(&mut self, slot: u32) {
        if let Some(conn) = self.conns.at_mut(slot).filter(|conn| conn.has(EXPECT)) {
            conn.set(EXPECT, false);
            let span = self.turn.raw(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.turn.add(slot, conn, span, 0);
        }
    }

    /// The body's framing is broken: nothing behind it can be trusted.
    fn bad_body(&mut self, slot: u32, reason: Reason) {
        self.cancel(slot);
        self.answer(slot, &Answer::unreadable(reason));
    }
}
