//! Response packets become bytes for the client (`spec/connmgr.md §4.3`).

use http1::write::Response;
use http1::{BodyKind, Reason, Version};
use zhttp::Packet;

use crate::answer::Answer;
use crate::conn::{
    BODY, BODYLESS, CHUNKED, Conn, HEAD, LENGTH, LINGER, PERSIST, REQ, STARTED, State,
};
use crate::peers::PeerId;
use crate::turn::{Span, Turn};
use crate::worker::Worker;
use crate::ws_out::SharedFrames;

/// The body of one packet as it stands in the turn's bytes, in each framing that was needed.
#[derive(Debug, Default)]
pub(crate) struct SharedBody {
    raw: Option<Span>,
    chunks: Option<Span>,
    pub(crate) frames: SharedFrames,
}

impl SharedBody {
    fn chunks(&mut self, turn: &mut Turn, body: &[u8]) -> Span {
        *self.chunks.get_or_insert_with(|| {
            let (chunks, inner) = turn.chunks(body);
            self.raw = self.raw.or(inner);
            chunks
        })
    }

    fn raw(&mut self, turn: &mut Turn, body: &[u8]) -> Span {
        *self.raw.get_or_insert_with(|| turn.raw(body))
    }
}

impl Worker {
    /// A data packet: the head if it is the first, body, and the end if no more follows.
    pub(crate) fn data(&mut self, slot: u32, packet: &Packet<'_>, body: &mut SharedBody) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        if packet.body.len() > conn.window as usize {
            self.counters.overruns += 1;
            return self.give_up(slot, packet, &Answer::FAILED);
        }
        conn.window -= packet.body.len() as u32;
        if !conn.has(STARTED)
            && let Err(answer) = self.start_response(slot, packet)
        {
            return self.give_up(slot, packet, &answer);
        }
        self.add_body(slot, packet.body, body);
        if !packet.more || self.conns.at(slot).is_some_and(|conn| conn.has(REQ)) {
            self.end_response(slot);
        } else if self.is_full(slot) && self.grow(slot) {
            let block = self.config.buffer_size;
            self.conns.at_mut(slot).into_iter().for_each(|conn| conn.due += block);
        }
    }

    /// Whether the peer has used all its credits and none are on the way back to it.
    fn is_full(&self, slot: u32) -> bool {
        self.conns.at(slot).is_some_and(|conn| conn.window == 0 && conn.due == 0)
    }

    /// Ends a session because of what its peer sent; tells the peer unless it is done anyway.
    fn give_up(&mut self, slot: u32, packet: &Packet<'_>, answer: &Answer) {
        if packet.more {
            self.cancel(slot);
        }
        self.answer(slot, answer);
    }

    /// Writes the head.
    fn start_response(&mut self, slot: u32, packet: &Packet<'_>) -> Result<(), Answer> {
        let Some(conn) = self.conns.at_mut(slot) else { return Ok(()) };
        let code = packet.code.ok_or(Answer::FAILED)?;
        let body = framing(conn, code, packet).map_err(|_| Answer::FAILED)?;
        // Behind an interim status (1xx) the client waits for another one, which cannot come.
        let framed = body != BodyKind::Close && code >= 200;
        let persistent = conn.has(PERSIST) && !conn.has(BODY) && framed;
        let reason = packet.reason.as_bytes();
        let parts = Response { version: conn.version(), code, reason, persistent, body };
        let headers = packet.headers.iter().map(|(name, value)| (name.as_bytes(), value));
        let head = self.turn.encode(|out| http1::write::response(out, &parts, headers));
        let head = head.map_err(|reason| match reason {
            Reason::TooManyHeaders => Answer::RESPONSE_HEADERS,
            _ => Answer::FAILED,
        })?;
        conn.set(STARTED, true);
        conn.set(PERSIST, persistent);
        // A client that still sends must not lose the answer to a reset.
        let unread = conn.has(BODY);
        conn.set(LINGER, unread);
        conn.set(BODYLESS, conn.has(HEAD) || BodyKind::forbidden_by(code));
        conn.set(CHUNKED, body == BodyKind::Chunked);
        conn.set(LENGTH, matches!(body, BodyKind::Length(_)));
        conn.left = if let BodyKind::Length(size) = body { size } else { 0 };
        self.turn.add(slot, conn, head, 0);
        self.client_active(slot);
        Ok(())
    }

    /// Adds body bytes in the framing of this response.
    fn add_body(&mut self, slot: u32, body: &[u8], shared: &mut SharedBody) {
        let Some(conn) = self.conns.at_mut(slot).filter(|_| !body.is_empty()) else { return };
        let credit = body.len() as u32;
        if conn.has(BODYLESS) {
            conn.due += credit;
        } else if conn.has(CHUNKED) {
            let span = shared.chunks(&mut self.turn, body);
            self.turn.add(slot, conn, span, credit);
        } else {
            let mut span = shared.raw(&mut self.turn, body);
            if conn.has(LENGTH) {
                let fits = conn.left.min(u64::from(credit));
                conn.left -= fits;
                // More than announced: the rest would be read as the next response.
                conn.set(PERSIST, conn.has(PERSIST) && fits == u64::from(credit));
                span.end = span.start + fits as u32;
            }
            self.turn.add(slot, conn, span, credit);
        }
    }

    /// The last data packet: the session is over, the rest is between us and the client.
    fn end_response(&mut self, slot: u32) {
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.state = State::Ending;
        self.counters.completed += 1;
        let bodyless = conn.has(BODYLESS);
        if conn.has(CHUNKED) && !bodyless {
            self.turn.add(slot, conn, Turn::LAST_CHUNK, 0);
        }
        if conn.has(LENGTH) && !bodyless && conn.left > 0 {
            // Less than announced: only the end of the connection tells the client.
            conn.set(PERSIST, false);
        }
        self.turn.touch(slot, conn);
        let counter = conn.counter;
        self.set_peer(slot, PeerId::NONE);
        log::debug!("server-conn {}: finished", self.session(slot, counter));
    }
}

/// How the body of this response is framed.
fn framing(conn: &Conn, code: u16, packet: &Packet<'_>) -> Result<BodyKind, Reason> {
    if BodyKind::forbidden_by(code) {
        return Ok(BodyKind::None);
    }
    if conn.has(REQ) && !conn.has(HEAD) {
        return Ok(BodyKind::Length(packet.body.len() as u64));
    }
    if let Some(size) = content_length(packet)? {
        return Ok(BodyKind::Length(size));
    }
    let size = packet.body.len() as u64;
    Ok(match (packet.more, conn.version()) {
        (true, Version::V11) if !conn.has(REQ) => BodyKind::Chunked,
        // What a GET would have got is not known.
        _ if conn.has(HEAD) && (packet.more || size == 0) => BodyKind::None,
        (false, _) => BodyKind::Length(size),
        (true, _) => BodyKind::Close,
    })
}

/// The Content-Length that the peer gave.
fn content_length(packet: &Packet<'_>) -> Result<Option<u64>, Reason> {
    let mut found = None;
    let named =
        packet.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    for (_, value) in named {
        let size = http1::decimal(http1::trim(value)).ok_or(Reason::ContentLength)?;
        if found.is_some_and(|earlier| earlier != size) {
            return Err(Reason::ContentLength);
        }
        found = Some(size);
    }
    Ok(found)
}
