//! The end of a turn: each connection that packets or requests touched gets one `writev`, then
//! credits, keep-alives and cancels leave, equal ones together.

use std::io::{self, ErrorKind, IoSlice};

use arrayvec::ArrayVec;

use crate::Net;
use crate::conn::{ABORT, BODY, HUP, LINGER, PERSIST, State, TOUCHED, UNREAD};
use crate::outqueue::{OutQueue, SLICES_MAX};
use crate::turn::Node;
use crate::worker::Worker;

/// Bytes that are read and thrown away behind an answer; then the client has to wait.
const DISCARD_MAX: u64 = 1 << 20;

impl Worker {
    /// Writes what this turn brought. To be called after each turn's events, packets and
    /// timeouts; [`Worker::poll_output`] has the packets afterwards.
    pub fn end_turn(&mut self, now: u64, net: &mut impl Net) {
        self.now = now;
        self.below = net.unsent();
        self.flush_all(net);
        self.send_grants();
        self.send_cancels();
        self.peers.drain(&mut self.outputs);
    }

    pub(crate) fn flush_all(&mut self, net: &mut impl Net) {
        let mut done = 0;
        // A flush may start the next request of a connection, and so list it again.
        while let Some(slot) = self.turn.touched.get(done) {
            self.flush(net, *slot);
            done += 1;
        }
        self.turn.clear();
    }

    fn flush(&mut self, net: &mut impl Net, slot: u32) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.set(TOUCHED, false);
        let result = if conn.out.is_some() {
            self.queue_nodes(slot);
            Ok(())
        } else {
            self.write_nodes(net, slot).map(|()| self.lend(slot))
        };
        match result {
            Ok(()) => self.after_write(net, slot),
            Err(_) => self.client_gone(net, slot),
        }
    }

    /// Writes the connection's nodes; what does not fit goes to its queue.
    fn write_nodes(&mut self, net: &mut impl Net, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conns.at_mut(slot) else { return Ok(()) };
        let mut nodes = self.turn.take(conn);
        let mut rest = None;
        let (mut moved, mut credit) = (false, 0);
        // Filled in place: `collect` moves two kilobytes for the one piece that is usual.
        let mut batch = ArrayVec::<Node, SLICES_MAX>::new();
        loop {
            batch.clear();
            batch.extend(nodes.by_ref().take(SLICES_MAX));
            if batch.is_empty() {
                break;
            }
            let mut slices = ArrayVec::<IoSlice<'_>, SLICES_MAX>::new();
            slices.extend(batch.iter().map(|node| IoSlice::new(self.turn.get(node.span))));
            self.counters.writes += 1;
            let written = write(net, slot, &slices)?;
            self.counters.bytes_out += written as u64;
            moved |= written > 0;
            let (whole, through, skip) = progress(&batch, written);
            credit += through;
            if whole < batch.len() {
                let mut left: Vec<Node> = batch[whole..].to_vec();
                left.extend(nodes);
                rest = Some((left, skip));
                break;
            }
        }
        conn.due += credit;
        if let Some((left, skip)) = rest {
            self.queue(slot, &left, skip);
            net.want_write(slot, true);
        }
        if moved {
            self.client_active(slot);
        }
        Ok(())
    }

    /// Adds the connection's nodes to its queue, for it is blocked.
    fn queue_nodes(&mut self, slot: u32) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let nodes: Vec<Node> = self.turn.take(conn).collect();
        self.queue(slot, &nodes, 0);
    }

    /// Keeps these pieces beyond the turn, the first without its first `skip` bytes.
    fn queue(&mut self, slot: u32, nodes: &[Node], mut skip: usize) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let queue = conn.out.get_or_insert_default();
        for node in nodes {
            let bytes = self.turn.detach(node.span, skip);
            skip = 0;
            self.pinned += bytes.len();
            queue.push(bytes, node.credit);
        }
        if self.pinned + self.below > self.config.pinned_max {
            self.counters.pinned_limit += 1;
            conn.set(ABORT, true);
            if conn.state == State::Request {
                self.cancel(slot);
            }
        }
    }

    /// The socket has room again.
    pub fn writable(&mut self, now: u64, net: &mut impl Net, slot: u32) {
        self.now = now;
        let Some(queue) = self.conns.at_mut(slot).and_then(|conn| conn.out.take()) else {
            return;
        };
        match self.drain(net, slot, queue) {
            Ok(()) => {
                self.pay_back(slot);
                self.after_write(net, slot);
            }
            Err(_) => self.client_gone(net, slot),
        }
    }

    /// Writes the queue until it is empty or the socket is full again.
    fn drain(&mut self, net: &mut impl Net, slot: u32, mut queue: Box<OutQueue>) -> io::Result<()> {
        let (before, mut credit) = (queue.len(), 0);
        let mut result = Ok(());
        while !queue.is_empty() {
            self.counters.writes += 1;
            let written = write(net, slot, &queue.slices());
            match written {
                Ok(0) => break,
                Ok(n) => {
                    self.counters.bytes_out += n as u64;
                    credit += queue.written(n);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.pinned -= before - queue.len();
        if queue.len() < before {
            self.client_active(slot);
        }
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.due += credit;
            if queue.is_empty() {
                net.want_write(slot, false);
            } else {
                conn.out = Some(queue);
            }
        }
        result
    }

    /// What follows once bytes have left, or could not.
    fn after_write(&mut self, net: &mut impl Net, slot: u32) {
        let Some(conn) = self.conns.at(slot) else { return };
        if conn.has(ABORT) {
            self.close(net, slot);
        } else if conn.state == State::Request {
            self.time_close(slot);
            self.grant(slot);
        } else if conn.state == State::Ending && conn.out.is_none() {
            self.finish(net, slot);
        }
    }

    /// The response has left: the next request, or the end of the connection.
    fn finish(&mut self, net: &mut impl Net, slot: u32) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        if conn.has(PERSIST) && !conn.has(BODY) {
            conn.flags.end_request();
            conn.state = State::Head;
            conn.left = 0;
            self.shrink(slot);
            self.ready_for_request(slot);
            self.parse_kept(slot);
            return self.read_on(net, slot);
        }
        let unread = conn.has(LINGER) || conn.has(UNREAD) || conn.inbuf.is_some();
        if unread && !conn.has(HUP) { self.linger(net, slot) } else { self.end(net, slot) }
    }

    /// Ends our side and reads on until the client has seen it, so that what it still sends does
    /// not reset the answer away.
    fn linger(&mut self, net: &mut impl Net, slot: u32) {
        net.shutdown(slot);
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.state = State::Linger;
            conn.inbuf = None;
            conn.left = DISCARD_MAX;
        }
        self.linger_deadline(slot);
        self.read_on(net, slot);
    }
}

/// Writes; a full socket takes 0 bytes.
fn write(net: &mut impl Net, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match net.write(slot, slices) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

/// How many nodes `written` bytes cover, their credits, and the bytes of the next node.
fn progress(nodes: &[Node], mut written: usize) -> (usize, u32, usize) {
    let mut credit = 0;
    for (n, node) in nodes.iter().enumerate() {
        if written < node.span.len() {
            return (n, credit, written);
        }
        written -= node.span.len();
        credit += node.credit;
    }
    (nodes.len(), credit, 0)
}
