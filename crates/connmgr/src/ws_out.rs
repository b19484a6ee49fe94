//! Packets to WebSocket frames for clients (`spec/connmgr.md §7.4`, §7.5). A body is made a frame,
//! and compressed, once per packet; all sockets that the packet names share its bytes.

use websocket::{Deflater, Frame, Opcode, Type};
use zhttp::{Kind, Packet};

use crate::conn::{ABORT, CLOSE_GOT, CLOSE_SENT, LINGER, State};
use crate::peers::PeerId;
use crate::response::SharedBody;
use crate::turn::{Span, Turn};
use crate::worker::Worker;
use crate::ws::Message;

/// Messages below this size are not compressed: it would not make them smaller.
const DEFLATE_MIN: usize = 32;

/// Close code: the peer failed.
pub(crate) const INTERNAL_ERROR: u16 = 1011;

/// Close code: this process ends, or has heard nothing for too long.
pub(crate) const GOING_AWAY: u16 = 1001;

/// Close code: all is well.
const NORMAL: u16 = 1000;

/// Close code that stands for none in a frame; never sent.
const NO_CODE: u16 = 1005;

/// The compressor of a worker, made when it is first needed, and room for its output.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    deflater: Option<Box<Deflater>>,
    out: Vec<u8>,
}

/// The frames of one packet as they stand in the turn's bytes: compressed or not, with the
/// message's opcode or as a continuation.
#[derive(Debug, Default)]
pub(crate) struct SharedFrames {
    message: [Option<Span>; 8],
    control: Option<Span>,
}

impl SharedFrames {
    /// The frame for a piece of a message.
    fn message(
        &mut self,
        turn: &mut Turn,
        compressor: &mut Compressor,
        message: Message,
        body: &[u8],
        last: bool,
    ) -> Span {
        let binary = message.kind == Type::Binary;
        let place = usize::from(message.compressed)
            | usize::from(message.first) << 1
            | usize::from(binary) << 2;
        if let Some(span) = self.message[place] {
            return span;
        }
        let compressed = message.compressed && compressor.compress(body, message.first, last);
        let payload = if compressed { &compressor.out } else { body };
        let opcode = if message.first { message.kind.opcode() } else { Opcode::Continuation };
        let frame = Frame { opcode, last, compressed: compressed && message.first };
        let span = turn.frame(frame, payload);
        self.message[place] = Some(span);
        span
    }
}

impl Compressor {
    /// Compresses a piece. False: it is a whole message that is better sent as it is.
    fn compress(&mut self, body: &[u8], first: bool, last: bool) -> bool {
        let whole = first && last;
        if whole && body.len() < DEFLATE_MIN {
            return false;
        }
        self.out.clear();
        self.deflater.get_or_insert_default().piece(&mut self.out, body, last);
        !whole || self.out.len() < body.len()
    }
}

impl Worker {
    /// A packet for an open WebSocket.
    pub(crate) fn ws_packet(&mut self, slot: u32, packet: &Packet<'_>, shared: &mut SharedBody) {
        let closed = self.conns.at(slot).is_none_or(|conn| conn.has(CLOSE_SENT));
        match packet.kind {
            Kind::Credit | Kind::KeepAlive => {}
            Kind::HandoffStart => self.hand_off(slot),
            Kind::Cancel | Kind::Error => {
                self.counters.peer_cancels += 1;
                self.abort_ws(slot);
            }
            Kind::Data | Kind::Ping | Kind::Pong | Kind::Close if closed => {
                self.counters.after_close += 1;
            }
            Kind::Data | Kind::Ping | Kind::Pong if !self.has_room(slot, packet) => {
                self.cancel(slot);
                self.fail_ws(slot, INTERNAL_ERROR);
            }
            Kind::Data => self.message_out(slot, packet, shared),
            Kind::Ping => self.control_out(slot, Opcode::Ping, packet, shared),
            Kind::Pong => self.control_out(slot, Opcode::Pong, packet, shared),
            Kind::Close => self.close_out(slot, packet),
            Kind::HandoffProceed | Kind::Unknown => {
                self.counters.unexpected += 1;
                self.fail_ws(slot, INTERNAL_ERROR);
            }
        }
    }

    /// Takes the packet's bytes off the credits that the peer has, unless it has not enough of
    /// them, or too much waits for the client already.
    fn has_room(&mut self, slot: u32, packet: &Packet<'_>) -> bool {
        let Some(conn) = self.conns.at_mut(slot) else { return false };
        let (size, credits) = (packet.body.len(), conn.window);
        if size > credits as usize {
            self.counters.overruns += 1;
            log::warn!("received too much data from handler (size={size}, credits={credits})");
            return false;
        }
        if conn.out.as_ref().is_some_and(|queue| queue.parts() >= self.config.messages_max) {
            self.counters.messages_limit += 1;
            return false;
        }
        conn.window -= size as u32;
        true
    }

    fn message_out(&mut self, slot: u32, packet: &Packet<'_>, shared: &mut SharedBody) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let Some(ws) = conn.ws.as_mut() else { return };
        let compressed = ws.deflate.is_some();
        let kind = if packet.content_type == b"binary" { Type::Binary } else { Type::Text };
        let mut message = ws.message.unwrap_or(Message { kind, compressed, first: true });
        // An empty frame says nothing but the end.
        let span = (!packet.body.is_empty() || !packet.more).then(|| {
            let (turn, compressor) = (&mut self.turn, &mut self.compressor);
            shared.frames.message(turn, compressor, message, packet.body, !packet.more)
        });
        message.first &= span.is_none();
        ws.message = packet.more.then_some(message);
        if let Some(span) = span {
            self.turn.add(slot, conn, span, packet.body.len() as u32);
        }
    }

    fn control_out(
        &mut self,
        slot: u32,
        opcode: Opcode,
        packet: &Packet<'_>,
        shared: &mut SharedBody,
    ) {
        if packet.body.len() > websocket::CONTROL_MAX {
            self.counters.unexpected += 1;
            self.cancel(slot);
            return self.fail_ws(slot, INTERNAL_ERROR);
        }
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let turn = &mut self.turn;
        let span = *shared
            .frames
            .control
            .get_or_insert_with(|| turn.frame(Frame::whole(opcode), packet.body));
        self.turn.add(slot, conn, span, packet.body.len() as u32);
    }

    /// The peer's close; its reason counts only with a code (`spec/zhttp.md §3.3`). A code that must
    /// not be on the wire is replaced: the client would take it for a mistake of ours.
    fn close_out(&mut self, slot: u32, packet: &Packet<'_>) {
        let reason = packet.code.and(std::str::from_utf8(packet.body).ok()).unwrap_or_default();
        let code = match packet.code {
            None => Some(NORMAL),
            Some(NO_CODE) => None,
            Some(code) if websocket::is_wire_code(code) => Some(code),
            Some(_) => Some(INTERNAL_ERROR),
        };
        self.write_close(slot, code, reason);
        if self.conns.at(slot).is_some_and(|conn| conn.has(CLOSE_GOT)) {
            self.counters.completed += 1;
            self.end_ws(slot);
        }
    }

    /// Writes our close frame.
    pub(crate) fn write_close(&mut self, slot: u32, code: Option<u16>, reason: &str) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.set(CLOSE_SENT, true);
        let span = self.turn.build(|out| websocket::close(out, code, reason, None));
        self.turn.add(slot, conn, span, 0);
    }

    /// The session is over, and the connection once all has left.
    pub(crate) fn end_ws(&mut self, slot: u32) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.state = State::Ending;
        self.turn.touch(slot, conn);
        self.set_peer(slot, PeerId::NONE);
    }

    /// Ends a WebSocket that cannot go on, with this code if no close has been sent. The peer is
    /// not told; [`Worker::cancel`] does that.
    pub(crate) fn fail_ws(&mut self, slot: u32, code: u16) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        if !conn.has(CLOSE_SENT) {
            conn.set(LINGER, true);
            self.write_close(slot, Some(code), "");
        }
        self.end_ws(slot);
        // A client that does not read does not get more time than one that does.
        self.linger_deadline(slot);
    }

    /// The peer gave the session up: closed without a close frame (`spec/connmgr.md §7.5`).
    fn abort_ws(&mut self, slot: u32) {
        if let Some(conn) = self.conns.at_mut(slot) {
            conn.set(ABORT, true);
        }
        self.end_ws(slot);
    }

    /// Nothing was heard of the peer (`silent_peer`) or of the client for too long, or one side
    /// has not answered a close.
    pub(crate) fn ws_overdue(&mut self, slot: u32, silent_peer: bool) {
        let Some(conn) = self.conns.at(slot) else { return };
        if silent_peer {
            self.counters.session_timeouts += 1;
            return self.fail_ws(slot, INTERNAL_ERROR);
        }
        let closing = conn.has(CLOSE_SENT) || conn.has(CLOSE_GOT);
        let code = if closing { NORMAL } else { GOING_AWAY };
        self.counters.close_timeouts += u64::from(closing);
        self.counters.stream_timeouts += u64::from(!closing);
        self.cancel(slot);
        self.fail_ws(slot, code);
    }

    /// Says good-bye to every client whose WebSocket is open, as far as it reads.
    pub(crate) fn leave_ws(&mut self) {
        for slot in 0..self.conns.capacity() {
            let open = |conn: &crate::conn::Conn| conn.is_open_ws() && !conn.has(CLOSE_SENT);
            if self.conns.at(slot).is_some_and(open) {
                self.write_close(slot, Some(GOING_AWAY), "");
            }
        }
    }
}
