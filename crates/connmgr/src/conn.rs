//! The state of one client connection. A million of them may be held, so it is small, owns no
//! buffer while nothing is being gathered, and keeps times as wrapping 32-bit milliseconds.
//!
//! Life: `Head` (between requests, reading one) → `Request` (sent on; body and response flow)
//! → `Ending` (session over, bytes still to be written) → `Head` again, or closed, or `Linger`
//! (answer sent, reading on until the client has seen it). `Gone` is a request whose client left
//! before anybody took it: it waits for its owner only to cancel there.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http1::{Decoder, Version};

use crate::outqueue::OutQueue;
use crate::peers::PeerId;
use crate::reqmode::Gather;
use crate::ws::Ws;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Head,
    Request,
    Ending,
    Linger,
    Gone,
}

/// One bit of a connection's [`Flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(u32);

/// The socket may have bytes that were not read.
pub(crate) const UNREAD: Flag = Flag(1);
/// The client closed its sending side.
pub(crate) const HUP: Flag = Flag(1 << 1);
/// The request was HTTP/1.0.
pub(crate) const V10: Flag = Flag(1 << 2);
/// Another request may follow.
pub(crate) const PERSIST: Flag = Flag(1 << 3);
/// The request is a HEAD.
pub(crate) const HEAD: Flag = Flag(1 << 4);
/// The client waits for `100 Continue`.
pub(crate) const EXPECT: Flag = Flag(1 << 5);
/// The request's body has not been read to its end.
pub(crate) const BODY: Flag = Flag(1 << 6);
/// The response has been started.
pub(crate) const STARTED: Flag = Flag(1 << 7);
/// The response's body goes in chunks.
pub(crate) const CHUNKED: Flag = Flag(1 << 8);
/// The response has a Content-Length.
pub(crate) const LENGTH: Flag = Flag(1 << 9);
/// The response has no body, whatever the peer sends.
pub(crate) const BODYLESS: Flag = Flag(1 << 10);
/// Listed for the end of the turn.
pub(crate) const TOUCHED: Flag = Flag(1 << 11);
/// Read on for a while before closing, so that the answer is not lost to a reset.
pub(crate) const LINGER: Flag = Flag(1 << 12);
/// Close after this turn even if bytes remain.
pub(crate) const ABORT: Flag = Flag(1 << 13);
/// No packet has come for this request yet.
pub(crate) const UNTAKEN: Flag = Flag(1 << 14);
/// The processes that could have taken the request left: short patience.
pub(crate) const LOST: Flag = Flag(1 << 15);
/// The client's side of the connection is TLS.
pub(crate) const SECURE: Flag = Flag(1 << 16);

/// Req mode: the whole request in one packet, the whole response in one.
pub(crate) const REQ: Flag = Flag(1 << 24);

/// The request opens a WebSocket.
pub(crate) const WS: Flag = Flag(1 << 17);
/// Our close frame was written or queued.
pub(crate) const CLOSE_SENT: Flag = Flag(1 << 18);
/// The client's close frame was read.
pub(crate) const CLOSE_GOT: Flag = Flag(1 << 19);
/// How long to wait for the other close has been fixed.
pub(crate) const CLOSE_TIMED: Flag = Flag(1 << 20);

/// The flags of one request; the others belong to the connection.
const REQUEST_FLAGS: u32 = V10.0
    | PERSIST.0
    | HEAD.0
    | EXPECT.0
    | BODY.0
    | STARTED.0
    | CHUNKED.0
    | LENGTH.0
    | BODYLESS.0
    | UNTAKEN.0
    | LOST.0;

/// A set of [`Flag`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    pub(crate) fn has(self, flag: Flag) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Flag, on: bool) {
        if on {
            self.0 |= flag.0;
        } else {
            self.0 &= !flag.0;
        }
    }

    /// Forgets what belonged to the request.
    pub(crate) fn end_request(&mut self) {
        self.0 &= !REQUEST_FLAGS;
    }
}

/// The client's address in 18 bytes; the unspecified address stands for none (Unix sockets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    ip: [u8; 16],
    port: [u8; 2],
}

impl Address {
    pub(crate) fn new(address: Option<SocketAddr>) -> Self {
        let ip = address.map_or(Ipv6Addr::UNSPECIFIED, |a| match a.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        });
        let port = address.map_or(0, |a| a.port());
        Self { ip: ip.octets(), port: port.to_be_bytes() }
    }

    /// IPv4 in dotted form, also where it came in mapped.
    pub(crate) fn get(self) -> Option<(IpAddr, u16)> {
        let ip = Ipv6Addr::from(self.ip);
        if ip.is_unspecified() {
            return None;
        }
        Some((IpAddr::V6(ip).to_canonical(), u16::from_be_bytes(self.port)))
    }
}

/// Bytes read and not dealt with; boxed, so that a connection without any is small.
#[derive(Debug, Default)]
pub(crate) struct Kept(pub(crate) Vec<u8>);

/// No node in a list of the turn.
pub(crate) const NO_NODE: u32 = u32::MAX;

/// One client connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Bytes read and not dealt with; freed when empty.
    pub(crate) inbuf: Option<Box<Kept>>,
    /// Bytes that the socket did not take; freed when empty.
    pub(crate) out: Option<Box<OutQueue>>,
    /// What only a WebSocket needs.
    pub(crate) ws: Option<Box<Ws>>,
    /// Req mode: the request whose body is being collected.
    pub(crate) gather: Option<Box<Gather>>,
    /// Body bytes that the announced Content-Length still asks for; while lingering, bytes that
    /// may still be thrown away; before a head, bytes of blank lines that were skipped.
    pub(crate) left: u64,
    /// The request body's framing.
    pub(crate) decoder: Decoder,
    /// Counter of the session id.
    pub(crate) counter: u32,
    /// Next sequence number expected from the peer.
    pub(crate) in_seq: u32,
    /// Next sequence number to send.
    pub(crate) out_seq: u32,
    /// Request body bytes that may be sent.
    pub(crate) out_credits: u32,
    /// Response body bytes that the peer may send.
    pub(crate) window: u32,
    /// Response body bytes written for which no credit was returned yet.
    pub(crate) due: u32,
    /// When silence of the peer ends the session.
    pub(crate) session_at: u32,
    /// When silence of the client ends the connection.
    pub(crate) stream_at: u32,
    /// When it was accepted, in seconds of the loop's clock.
    pub(crate) since_s: u32,
    /// First of this turn's bytes for the client.
    pub(crate) first_node: u32,
    /// Last of them.
    pub(crate) last_node: u32,
    /// Where the client is.
    pub(crate) address: Address,
    /// Who answers.
    pub(crate) peer: PeerId,
    pub(crate) flags: Flags,
    pub(crate) state: State,
    /// Which listener accepted it.
    pub(crate) listener: u8,
    /// Buffer blocks beyond the two that every connection may use.
    pub(crate) blocks: u8,
    /// Buffers that its window was enlarged by.
    pub(crate) lent: u8,
}

// The budget is 256 bytes (design, section 6); the aim is half of it.
const _: () = assert!(size_of::<Conn>() <= 128);

impl Conn {
    /// A fresh connection without deadlines.
    pub(crate) fn new(address: Option<SocketAddr>) -> Self {
        Self {
            inbuf: None,
            out: None,
            ws: None,
            gather: None,
            left: 0,
            decoder: Decoder::Length(0),
            counter: 0,
            in_seq: 0,
            out_seq: 0,
            out_credits: 0,
            window: 0,
            due: 0,
            session_at: 0,
            stream_at: 0,
            since_s: 0,
            first_node: NO_NODE,
            last_node: NO_NODE,
            address: Address::new(address),
            peer: PeerId::NONE,
            flags: Flags::default(),
            state: State::Head,
            listener: 0,
            blocks: 0,
            lent: 0,
        }
    }

    /// Whether packets may name the session.
    pub(crate) fn in_session(&self) -> bool {
        matches!(self.state, State::Request | State::Gone)
    }

    /// Whether this is the session of that counter.
    pub(crate) fn is_session(&self, counter: u32) -> bool {
        self.in_session() && self.counter == counter
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags.has(flag)
    }

    pub(crate) fn set(&mut self, flag: Flag, on: bool) {
        self.flags.set(flag, on);
    }

    /// Whether it is a WebSocket that has been accepted and is not over.
    pub(crate) fn is_open_ws(&self) -> bool {
        self.has(WS) && self.has(STARTED) && self.state == State::Request
    }

    pub(crate) fn version(&self) -> Version {
        if self.has(V10) { Version::V10 } else { Version::V11 }
    }

    /// Bytes read and not dealt with.
    pub(crate) fn buffered(&self) -> usize {
        self.inbuf.as_ref().map_or(0, |kept| kept.0.len())
    }

    /// Keeps `bytes` behind what is already buffered.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.inbuf.get_or_insert_default().0.extend_from_slice(bytes);
        }
    }

    /// The sooner of the two deadlines.
    pub(crate) fn deadline(&self) -> u32 {
        if is_before(self.stream_at, self.session_at) { self.stream_at } else { self.session_at }
    }
}

/// Whether time `a` is before `b`, both wrapping.
pub(crate) fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_wrap() {
        assert!(is_before(1, 2) && !is_before(2, 2) && !is_before(3, 2));
        assert!(is_before(u32::MAX - 5, 10) && !is_before(10, u32::MAX - 5));
    }

    #[test]
    fn addresses_come_back() {
        for text in ["192.0.2.9:40312", "[2001:db8::1]:80", "127.0.0.1:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let stored = Address::new(Some(address));
            assert_eq!(stored.get(), Some((address.ip(), address.port())));
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.9]:5".parse().unwrap();
        let dotted = "192.0.2.9".parse().unwrap();
        assert_eq!(Address::new(Some(mapped)).get(), Some((dotted, 5)));
        assert_eq!(Address::new(None).get(), None);
    }
}
