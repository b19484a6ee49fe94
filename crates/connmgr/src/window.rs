//! How many response bytes a peer may have on the way to one client, and when it may send more.
//!
//! Everybody's window is one buffer. A peer that waits for credits while its client takes all at
//! once is lent more, doubling up to `window_max`: otherwise each buffer costs a round of two
//! processes being woken. A client that is blocked and stays so pays it back from what it takes,
//! so a slow reader ends with one buffer. All loans of a worker together have a limit.

use crate::conn::{Conn, State};
use crate::peers::PeerId;
use crate::worker::{Grant, Worker};

impl Worker {
    /// Lists the credits that are due, once they are worth a packet.
    pub(crate) fn grant(&mut self, slot: u32) {
        let Some(conn) = self.conns.at(slot) else { return };
        if !self.is_worth(conn) || conn.peer == PeerId::NONE || conn.state != State::Request {
            return;
        }
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let (peer, counter) = (conn.peer, conn.counter);
        let credits = std::mem::take(&mut conn.due);
        conn.window += credits;
        self.grants.push(Grant { peer, credits, slot, counter });
    }

    /// Takes back what the connection was lent, as its request or its client is done.
    pub(crate) fn end_loan(&mut self, slot: u32) {
        if let Some(conn) = self.conns.at_mut(slot) {
            self.lent -= usize::from(std::mem::take(&mut conn.lent));
        }
    }

    /// A quarter of the connection's window.
    fn quarter(&self, conn: &Conn) -> u32 {
        (self.config.buffer_size / 4).saturating_mul(1 + u32::from(conn.lent))
    }

    fn is_worth(&self, conn: &Conn) -> bool {
        conn.due >= self.quarter(conn)
    }

    /// Whether the peer has come to the end of its credits although the client took everything.
    fn is_starved(&self, conn: &Conn) -> bool {
        conn.state == State::Request
            && conn.out.is_none()
            && self.is_worth(conn)
            && conn.window < self.config.buffer_size / 4
    }

    /// After a write that met no queue: doubles the connection's window, if that is what the peer
    /// waits for, within the limits.
    pub(crate) fn lend(&mut self, slot: u32) {
        if !self.conns.at(slot).is_some_and(|conn| self.is_starved(conn)) {
            return;
        }
        let unit = self.config.buffer_size;
        let of_one = (self.config.window_max / unit).saturating_sub(1).min(u8::MAX.into()) as usize;
        let of_all = self.config.lent_max / unit as usize;
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let had = usize::from(conn.lent);
        let room = of_one.saturating_sub(had).min(of_all.saturating_sub(self.lent));
        let more = (had + 1).min(room);
        // At most 255 in all.
        conn.lent += more as u8;
        conn.due += more as u32 * unit;
        self.lent += more;
    }

    /// After a write from the queue: if the client is blocked still, keeps the credits that are
    /// due, as far as they were lent.
    pub(crate) fn pay_back(&mut self, slot: u32) {
        let unit = self.config.buffer_size;
        let owes = |conn: &&mut Conn| conn.lent > 0 && conn.out.is_some();
        let Some(conn) = self.conns.at_mut(slot).filter(owes) else { return };
        let units = (conn.due / unit).min(conn.lent.into());
        conn.due -= units * unit;
        conn.lent -= units as u8;
        self.lent -= units as usize;
    }
}
