//! What a peer did wrong, with the close code that tells it so.

use std::fmt;

/// Why a connection must be failed. After an error a decoder is not to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A bit is set that no negotiated extension gives a meaning to.
    ReservedBits,
    /// An opcode that is not defined.
    Opcode,
    /// A length that is longer than it needs to be, or negative.
    Length,
    /// A client's frame without a mask.
    Unmasked,
    /// A control frame of more than 125 bytes or in fragments.
    Control,
    /// A continuation without a message, or a message inside another.
    Sequence,
    /// A close payload of one byte, or with a code that is not for the wire.
    Close,
    /// A close reason that is not UTF-8.
    CloseReason,
    /// A text message that is not UTF-8.
    Utf8,
    /// A compressed message that cannot be inflated.
    Inflate,
    /// A message above the limit.
    TooLarge,
}

impl Error {
    /// The code of the close frame that tells the peer (RFC 6455 §7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::CloseReason | Self::Utf8 | Self::Inflate => 1007,
            Self::TooLarge => 1009,
            _ => 1002,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBits => "reserved bit set",
            Self::Opcode => "unknown opcode",
            Self::Length => "invalid frame length",
            Self::Unmasked => "frame without a mask",
            Self::Control => "control frame too long or fragmented",
            Self::Sequence => "unexpected start or continuation of a message",
            Self::Close => "invalid close code",
            Self::CloseReason => "close reason is not UTF-8",
            Self::Utf8 => "text is not UTF-8",
            Self::Inflate => "message cannot be inflated",
            Self::TooLarge => "message too large",
        })
    }
}

impl std::error::Error for Error {}
