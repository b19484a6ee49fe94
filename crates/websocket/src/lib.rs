//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), for both sides of a connection.
//!
//! Pure: bytes in, bytes out. The connection manager serves clients with it, the outgoing client
//! (`origin`) speaks to backends. No part of it holds a message: payload passes through in pieces
//! as it comes and as the caller has room, and nothing is allocated between messages unless the
//! peer was allowed to keep its compression window.
//!
//! - [`accept`] and [`key`]: the two values of the handshake.
//! - [`negotiate`], [`OFFER`] and [`accepted`]: `Sec-WebSocket-Extensions` on the server's and on
//!   the client's side.
//! - [`Decoder`]: bytes from the peer to pieces of messages, pings, pongs and closes.
//! - [`frame`], [`control`] and [`close`]: frames to the peer; [`Deflater`] compresses their
//!   payload.
//!
//! ```
//! use websocket::{Decoder, Event, Frame, Opcode, Role, Type, frame};
//!
//! // A client sends a message, a server reads it.
//! let mut wire = Vec::new();
//! frame(&mut wire, Frame::whole(Opcode::Text), b"hello", Some([1, 2, 3, 4]));
//! let mut decoder = Decoder::new(Role::Server, None, u64::MAX);
//! let mut piece = Vec::new();
//! let step = decoder.decode(&wire, 8192, &mut piece).unwrap();
//! assert_eq!(step.consumed, wire.len());
//! assert_eq!(step.event, Some(Event::Piece { kind: Type::Text, last: true }));
//! assert_eq!(piece, b"hello");
//! ```

mod close;
mod decoder;
mod deflate;
mod encode;
mod error;
mod extension;
mod handshake;
mod head;
mod inflate;
mod mask;
mod utf8;

pub use close::{is_wire_code, read_close};
pub use decoder::{Decoded, Decoder, Event};
pub use deflate::Deflater;
pub use encode::{Frame, close, control, frame, frame_head};
pub use error::Error;
pub use extension::{BadExtensions, Deflate, OFFER, accepted, negotiate};
pub use handshake::{accept, key};
pub use mask::apply as apply_mask;

/// Most payload bytes of a ping, pong or close (RFC 6455 §5.5).
pub const CONTROL_MAX: usize = 125;

/// Most bytes of a frame's head: two, an eight-byte length and a mask.
pub const HEAD_MAX: usize = 14;

/// Which side of the connection the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames that come in are masked, those that go out are not.
    Server,
    /// Frames that go out are masked, each with a key of its own.
    Client,
}

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Valid UTF-8 as a whole; a piece may end inside a character.
    Text,
    /// Any bytes.
    Binary,
}

impl Type {
    /// The opcode of a message's first frame.
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// The opcodes that RFC 6455 defines; all others are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A later frame of a message.
    Continuation = 0,
    /// The first frame of a text message.
    Text = 1,
    /// The first frame of a binary message.
    Binary = 2,
    /// The end of the connection's direction.
    Close = 8,
    /// To be answered with a pong.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

impl Opcode {
    /// Close, ping and pong: short, whole, and allowed between the frames of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}
