//! WebSockets: the handshake, and the life of a session (`spec/connmgr.md §7`).
//!
//! A WebSocket is a connection in `State::Request`. Until it is accepted it is like any request;
//! then `ws_in` reads frames and `ws_out` writes them. Both closes done: `State::Ending`, and the
//! connection is closed once everything has left. A close that is not answered in time, and what
//! breaks a rule, ends it with a close frame of our own.

use arrayvec::ArrayString;
use http1::write::Response;
use http1::{BodyKind, Reason, RequestHead};
use websocket::{Deflate, Role, Type};
use zhttp::{Kind, Packet};

use crate::Config;
use crate::answer::Answer;
use crate::conn::{CLOSE_GOT, CLOSE_SENT, CLOSE_TIMED, LINGER, STARTED, State};
use crate::peers::PeerId;
use crate::worker::Worker;

/// Longest key; a real one has 24 bytes.
const KEY_MAX: usize = 220;

/// How long a client may take to answer our close.
const CLIENT_CLOSE_MS: u32 = 15_000;

/// How long the peer may take to answer a client's close.
const PEER_CLOSE_MS: u32 = 60_000;

/// What a connection has only as a WebSocket. There is one for each of them, however silent.
#[derive(Debug)]
pub(crate) struct Ws {
    /// `Sec-WebSocket-Accept`.
    accept: ArrayString<28>,
    /// As negotiated.
    pub(crate) deflate: Option<Deflate>,
    pub(crate) decoder: websocket::Decoder,
    /// The message to the client of which more is to come.
    pub(crate) message: Option<Message>,
}

// An idle one takes this and a `Conn`, nothing else.
const _: () = assert!(size_of::<Ws>() <= 104);

/// A message to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Type,
    pub(crate) compressed: bool,
    /// No frame of it has been written.
    pub(crate) first: bool,
}

/// `Upgrade: websocket` (`spec/connmgr.md §7.1`).
pub(crate) fn is_wanted(head: &RequestHead<'_, '_>) -> bool {
    let mut upgrades = head.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("upgrade"));
    upgrades.any(|h| http1::trim(h.value).eq_ignore_ascii_case(b"websocket"))
}

impl Ws {
    /// The state for this handshake, unless it is none.
    pub(crate) fn open(config: &Config, head: &RequestHead<'_, '_>) -> Option<Box<Self>> {
        let key = last(head, "sec-websocket-key").filter(|key| key.len() <= KEY_MAX)?;
        let valid = head.method == "GET"
            && head.body.is_empty()
            && last(head, "sec-websocket-version") == Some(b"13");
        let named = |name: &'static str| {
            head.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
        };
        let offers = named("sec-websocket-extensions");
        let deflate = websocket::negotiate(offers, config.compression_takeover).ok()?;
        let deflate = deflate.filter(|_| config.compression);
        valid.then(|| {
            Box::new(Self {
                accept: websocket::accept(key),
                deflate,
                decoder: websocket::Decoder::new(Role::Server, deflate, config.message_size_max),
                message: None,
            })
        })
    }
}

/// The value of the last header of that name.
fn last<'b>(head: &RequestHead<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    head.headers.iter().rfind(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

impl Worker {
    /// A packet for a WebSocket that has not been accepted.
    pub(crate) fn answer_handshake(&mut self, slot: u32, packet: &Packet<'_>) {
        match packet.kind {
            Kind::Credit | Kind::KeepAlive => {}
            Kind::HandoffStart => self.hand_off(slot),
            Kind::Data if packet.code == Some(101) => {
                if let Err(answer) = self.accept_ws(slot, packet) {
                    self.cancel(slot);
                    self.answer(slot, &answer);
                }
            }
            Kind::Error if packet.condition == "rejected" => {
                if let Err(answer) = self.reject_ws(slot, packet) {
                    self.answer(slot, &answer);
                }
            }
            Kind::Cancel | Kind::Error => {
                self.counters.peer_cancels += 1;
                self.answer(slot, &Answer::FAILED);
            }
            kind => {
                self.counters.unexpected += 1;
                // An answer that is none leaves the peer with a session. Who sends what does not
                // belong here has ended it (`spec/zhttp.md §5`).
                if kind == Kind::Data {
                    self.cancel(slot);
                }
                self.answer(slot, &Answer::FAILED);
            }
        }
    }

    fn accept_ws(&mut self, slot: u32, packet: &Packet<'_>) -> Result<(), Answer> {
        let buffer_size = self.config.buffer_size;
        let Some(conn) = self.conns.at_mut(slot) else { return Ok(()) };
        let Some(ws) = &conn.ws else { return Ok(()) };
        let reason = packet.reason.as_bytes();
        let (version, code, body) = (conn.version(), 101, BodyKind::None);
        let parts = Response { version, code, reason, persistent: false, body };
        let added = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", ws.accept.as_str()),
        ];
        let extensions = ws.deflate.map(|agreed| ("Sec-WebSocket-Extensions", agreed.answer()));
        let added = added.into_iter().chain(extensions);
        let headers = passed_on(packet).chain(added.map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let head = self.turn.encode(|out| http1::write::response(out, &parts, headers));
        let head = head.map_err(bad_head)?;
        conn.set(STARTED, true);
        if packet.credits == 0 {
            // Some responders count on our buffer (spec/zhttp.md §6).
            conn.out_credits = conn.out_credits.saturating_add(buffer_size);
        }
        self.turn.add(slot, conn, head, 0);
        self.client_active(slot);
        Ok(())
    }

    /// Passes on the response of a peer that does not want the WebSocket.
    fn reject_ws(&mut self, slot: u32, packet: &Packet<'_>) -> Result<(), Answer> {
        let limit = self.config.buffer_size;
        let Some(conn) = self.conns.at_mut(slot) else { return Ok(()) };
        let code = packet.code.filter(|code| *code != 101).ok_or(Answer::FAILED)?;
        if packet.body.len() > limit as usize {
            return Err(Answer::rejection_too_large(limit));
        }
        let bodyless = BodyKind::forbidden_by(code);
        let size = packet.body.len() as u64;
        let body = if bodyless { BodyKind::None } else { BodyKind::Length(size) };
        let (version, reason) = (conn.version(), packet.reason.as_bytes());
        let parts = Response { version, code, reason, persistent: false, body };
        let head = self.turn.encode(|out| http1::write::response(out, &parts, passed_on(packet)));
        let head = head.map_err(bad_head)?;
        conn.state = State::Ending;
        conn.set(STARTED, true);
        conn.set(LINGER, true);
        self.turn.add(slot, conn, head, 0);
        if !bodyless {
            let body = self.turn.raw(packet.body);
            self.turn.add(slot, conn, body, 0);
        }
        self.counters.completed += 1;
        self.set_peer(slot, PeerId::NONE);
        Ok(())
    }

    /// Limits the wait for the other side's close, once: by the client's activity it does not
    /// move any more.
    pub(crate) fn time_close(&mut self, slot: u32) {
        let now = self.clock();
        let Some(conn) = self.conns.at_mut(slot) else { return };
        let sent = conn.has(CLOSE_SENT) && conn.out.is_none();
        if conn.has(CLOSE_TIMED) || !(sent || conn.has(CLOSE_GOT)) {
            return;
        }
        conn.set(CLOSE_TIMED, true);
        let wait = if sent { CLIENT_CLOSE_MS } else { PEER_CLOSE_MS };
        conn.stream_at = now.wrapping_add(wait);
        self.arm(slot);
    }
}

fn bad_head(reason: Reason) -> Answer {
    match reason {
        Reason::TooManyHeaders => Answer::RESPONSE_HEADERS,
        _ => Answer::FAILED,
    }
}

/// The response's headers without those of the handshake, which are ours to make.
fn passed_on<'a>(packet: &Packet<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
    const OURS: [&str; 4] =
        ["upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions"];
    let ours = |name: &str| OURS.iter().any(|known| name.eq_ignore_ascii_case(known));
    let headers = packet.headers.iter().filter(move |(name, _)| !ours(name));
    headers.map(|(name, value)| (name.as_bytes(), value))
}
