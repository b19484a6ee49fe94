//! Bytes from the peer to pieces of messages and control frames.

use crate::head::Head;
use crate::inflate::{Inflater, TAIL};
use crate::utf8::Utf8;
use crate::{Deflate, Error, Opcode, Role, Type, mask, read_close};

/// Masked bytes that are taken to the inflater at once.
const INFLATE_STEP: usize = 1024;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of a message were appended. They may be none: an empty message, or one whose end
    /// came after its bytes.
    Piece {
        /// The message's type, in every piece.
        kind: Type,
        /// Whether the message is complete.
        last: bool,
    },
    /// A ping; its payload was appended.
    Ping,
    /// A pong; its payload was appended.
    Pong,
    /// The peer sends nothing more; the reason, valid UTF-8, was appended.
    Close {
        /// The code, unless the frame was empty.
        code: Option<u16>,
    },
}

/// The outcome of one [`Decoder::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Input bytes that were dealt with and are not to be given again.
    pub consumed: usize,
    /// What came of them. With no event and nothing consumed, more input or room is needed.
    pub event: Option<Event>,
}

/// One direction of a connection, from the peer to us. It keeps no bytes of frames: heads and
/// control frames that are incomplete stay with the caller.
#[derive(Debug)]
pub struct Decoder {
    /// Payload bytes of the frame that are still to come.
    left: u64,
    /// Bytes of the message so far, inflated.
    size: u64,
    size_max: u64,
    /// There while a compressed message is in progress; between messages only with takeover.
    inflater: Option<Box<Inflater>>,
    deflate: Option<Deflate>,
    mask: [u8; 4],
    utf8: Utf8,
    /// The type of the message in progress.
    message: Option<Type>,
    role: Role,
    /// Inside a data frame, or behind it with bytes to be inflated.
    in_frame: bool,
    /// The frame is the last of its message.
    last: bool,
    /// The message is compressed.
    compressed: bool,
    /// The inflater may have more without further input.
    more_inside: bool,
    /// Bytes of [`TAIL`] that the inflater had.
    tail: u8,
}

impl Decoder {
    /// At the start of a connection. `deflate`: as negotiated. `size_max`: bytes of a message,
    /// inflated, above which the connection is failed.
    ///
    /// A server refuses frames without a mask (RFC 6455 §5.1); a client takes masked ones too,
    /// which some backends send (`spec/connmgr.md §10.6`).
    pub fn new(role: Role, deflate: Option<Deflate>, size_max: u64) -> Self {
        Self {
            left: 0,
            size: 0,
            size_max,
            inflater: None,
            deflate,
            mask: [0; 4],
            utf8: Utf8::default(),
            message: None,
            role,
            in_frame: false,
            last: false,
            compressed: false,
            more_inside: false,
            tail: 0,
        }
    }

    /// The type of the message of which a part has come so far.
    pub fn message(&self) -> Option<Type> {
        self.message
    }

    /// Whether a call without input may give something: a compressed message that had no room.
    pub fn has_more(&self) -> bool {
        self.more_inside
    }

    /// Reads `input` up to the next event. At most `limit` bytes of message, ping or pong are
    /// appended to `out`; a ping or pong that is longer waits, a close does not. To be called
    /// until it gives neither an event nor consumes; what it did not consume comes first next time.
    pub fn decode(
        &mut self,
        input: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<Decoded, Error> {
        let start = out.len();
        let mut consumed = 0;
        loop {
            if self.in_frame {
                let room = limit - (out.len() - start);
                consumed += self.payload(&input[consumed..], room, out)?;
                if self.in_frame {
                    break;
                }
                if self.last {
                    return Ok(Decoded { consumed, event: self.end_message()? });
                }
            }
            let rest = &input[consumed..];
            let Some(head) = Head::read(rest)? else { break };
            self.check(&head)?;
            if !head.opcode.is_control() {
                consumed += head.size;
                self.start_frame(&head)?;
            } else if out.len() > start {
                // What came before it goes first.
                break;
            } else {
                let event = control(&head, rest, limit, out)?;
                let size = event.map_or(0, |_| head.size + head.len as usize);
                return Ok(Decoded { consumed: consumed + size, event });
            }
        }
        let kind = self.message.filter(|_| out.len() > start);
        Ok(Decoded { consumed, event: kind.map(|kind| Event::Piece { kind, last: false }) })
    }

    /// Whether the head is allowed here.
    fn check(&self, head: &Head) -> Result<(), Error> {
        if self.role == Role::Server && head.mask.is_none() {
            return Err(Error::Unmasked);
        }
        if head.opcode.is_control() {
            return Ok(());
        }
        let continues = head.opcode == Opcode::Continuation;
        if continues != self.message.is_some() {
            return Err(Error::Sequence);
        }
        if head.compressed && (continues || self.deflate.is_none()) {
            return Err(Error::ReservedBits);
        }
        Ok(())
    }

    fn start_frame(&mut self, head: &Head) -> Result<(), Error> {
        match head.opcode {
            Opcode::Text => self.start_message(Type::Text, head.compressed),
            Opcode::Binary => self.start_message(Type::Binary, head.compressed),
            _ => {}
        }
        if !self.compressed && head.len > self.size_max - self.size {
            return Err(Error::TooLarge);
        }
        self.in_frame = true;
        self.last = head.last;
        self.left = head.len;
        self.mask = head.mask.unwrap_or_default();
        Ok(())
    }

    fn start_message(&mut self, kind: Type, compressed: bool) {
        self.message = Some(kind);
        self.compressed = compressed;
        self.size = 0;
        self.tail = 0;
    }

    /// Reads payload; gives the bytes dealt with. The frame is over if `in_frame` is false then.
    fn payload(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> Result<usize, Error> {
        let start = out.len();
        let consumed = if self.compressed {
            self.inflate(input, room, out)?
        } else {
            self.copy(input, room, out)
        };
        let piece = &out[start..];
        self.size += piece.len() as u64;
        if self.size > self.size_max {
            return Err(Error::TooLarge);
        }
        if self.message == Some(Type::Text) && !self.utf8.feed(piece) {
            return Err(Error::Utf8);
        }
        let inside = self.compressed && self.last && usize::from(self.tail) < TAIL.len();
        self.in_frame = self.left > 0 || self.more_inside || inside;
        Ok(consumed)
    }

    fn copy(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> usize {
        let n = input.len().min(room).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let start = out.len();
        out.extend_from_slice(&input[..n]);
        mask::apply(&mut out[start..], &mut self.mask);
        self.left -= n as u64;
        n
    }

    fn inflate(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> Result<usize, Error> {
        let mut inflater = self.inflater.take().unwrap_or_else(|| Box::new(Inflater::new()));
        let start = out.len();
        out.resize(start + room, 0);
        let (mut consumed, mut written) = (0, 0);
        let mut step = [0; INFLATE_STEP];
        while written < room {
            let rest = &input[consumed..];
            let n = rest
                .len()
                .min(INFLATE_STEP)
                .min(usize::try_from(self.left).unwrap_or(INFLATE_STEP));
            step[..n].copy_from_slice(&rest[..n]);
            mask::apply(&mut step[..n], &mut self.mask.clone());
            let in_tail = self.left == 0 && self.last;
            let bytes = if in_tail { &TAIL[usize::from(self.tail)..] } else { &step[..n] };
            if bytes.is_empty() && !self.more_inside {
                break;
            }
            let (read, given) = inflater.step(bytes, &mut out[start + written..])?;
            written += given;
            self.more_inside = written == room;
            if in_tail {
                self.tail += read as u8;
            } else {
                consumed += read;
                self.left -= read as u64;
                self.mask.rotate_left(read % 4);
            }
            if read == 0 && given == 0 {
                self.more_inside = false;
                break;
            }
        }
        out.truncate(start + written);
        self.inflater = Some(inflater);
        Ok(consumed)
    }

    /// The message is complete. Its window goes unless the peer may refer to it.
    fn end_message(&mut self) -> Result<Option<Event>, Error> {
        let utf8 = std::mem::take(&mut self.utf8);
        if !utf8.is_complete() {
            return Err(Error::Utf8);
        }
        if !self.deflate.is_some_and(|deflate| deflate.peer_takeover) {
            self.inflater = None;
        }
        Ok(self.message.take().map(|kind| Event::Piece { kind, last: true }))
    }
}

/// Reads a control frame, if it is complete and fits.
fn control(
    head: &Head,
    bytes: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<Option<Event>, Error> {
    let Some(payload) = bytes[head.size..].get(..head.len as usize) else { return Ok(None) };
    if head.opcode != Opcode::Close && payload.len() > limit {
        return Ok(None);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[start..], &mut head.mask.unwrap_or_default());
    Ok(Some(match head.opcode {
        Opcode::Ping => Event::Ping,
        Opcode::Pong => Event::Pong,
        _ => {
            let (code, _) = read_close(&out[start..])?;
            out.drain(start..(start + 2).min(out.len()));
            Event::Close { code }
        }
    }))
}
