//! The chunked transfer coding (RFC 9112 §7.1): an incremental decoder that never copies, and the
//! encoder's pieces. Strict: CRLF only, no blanks around a size, extensions and trailers bounded.

use crate::{Decoded, MAX_HEADERS, Reason};

/// Longest chunk line or trailer section, in bytes; they carry nothing that we use.
const LINE_MAX: u16 = 8192;

/// Bytes of a chunk line that any chunk may have, and bytes per byte of data in addition.
const LINE_FREE: u32 = 16;
const LINE_PER_DATA: u32 = 2;

/// Bytes of chunk lines beyond these that a body may have: without a limit a body of few bytes
/// could be stretched to any work.
const EXCESS_MAX: u32 = 16 * 1024;

/// What ends the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Most data of one chunk that is written: recipients may have a bound (`spec/connmgr.md §4.3`).
pub const CHUNK_MAX: usize = 65_535;

/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeFirst,
    Size,
    ExtensionSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Takes a chunked body apart as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkDecoder {
    left: u32,
    line: u16,
    excess: u16,
    trailers: u8,
    state: State,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDecoder {
    /// At the first byte of a chunked body.
    pub fn new() -> Self {
        Self { left: 0, line: 0, excess: 0, trailers: 0, state: State::SizeFirst }
    }

    /// Whether the last chunk and the trailers have been seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// See [`crate::Decoder::decode`]: framing, then at most one piece of data.
    pub fn decode(&mut self, buf: &[u8], max_data: usize) -> Result<Decoded, Reason> {
        let mut at = 0;
        while self.state != State::Data && self.state != State::Done {
            let Some(&byte) = buf.get(at) else {
                break;
            };
            self.state = self.framing(byte)?;
            at += 1;
        }
        let start = at;
        if self.state == State::Data {
            let take = (buf.len() - at).min(max_data).min(self.left as usize);
            at += take;
            self.left -= take as u32;
            if self.left == 0 {
                self.state = State::DataCr;
            }
        }
        Ok(Decoded { consumed: at, data: start..at, end: self.is_done() })
    }

    /// The state after one byte of framing.
    fn framing(&mut self, byte: u8) -> Result<State, Reason> {
        match self.state {
            State::SizeFirst | State::Size => self.size(byte),
            State::ExtensionSpace => match byte {
                b' ' | b'\t' => self.counted(State::ExtensionSpace, Reason::ChunkHeader),
                b';' => Ok(State::Extension),
                _ => Err(Reason::ChunkSize),
            },
            State::Extension => match byte {
                b'\r' => Ok(State::SizeLf),
                b'\t' | 0x20..=0x7e | 0x80.. => self.counted(State::Extension, Reason::ChunkHeader),
                _ => Err(Reason::ChunkSize),
            },
            State::SizeLf => self.size_end(byte),
            State::DataCr => only(byte, b'\r', State::DataLf, Reason::ChunkSuffix),
            State::DataLf => only(byte, b'\n', State::SizeFirst, Reason::ChunkSuffix),
            State::EndLf => only(byte, b'\n', State::Done, Reason::NewLine),
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer(byte)
            }
            State::Data | State::Done => Ok(self.state),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, Reason> {
        if let Some(digit) = (byte as char).to_digit(16) {
            if self.left >> 28 != 0 {
                return Err(Reason::ChunkTooLarge);
            }
            self.left = self.left << 4 | digit;
            return self.counted(State::Size, Reason::ChunkHeader);
        }
        match byte {
            _ if self.state == State::SizeFirst => Err(Reason::ChunkSize),
            b'\r' => Ok(State::SizeLf),
            b';' => Ok(State::Extension),
            b' ' | b'\t' => Ok(State::ExtensionSpace),
            _ => Err(Reason::ChunkSize),
        }
    }

    fn size_end(&mut self, byte: u8) -> Result<State, Reason> {
        let free = self.left.saturating_mul(LINE_PER_DATA).saturating_add(LINE_FREE);
        let excess = (u32::from(self.excess) + u32::from(self.line)).saturating_sub(free);
        if excess > EXCESS_MAX {
            return Err(Reason::ChunkHeader);
        }
        // At most `EXCESS_MAX`, which fits.
        self.excess = excess as u16;
        self.line = 0;
        let next = if self.left == 0 { State::TrailerStart } else { State::Data };
        only(byte, b'\n', next, Reason::ChunkSize)
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Reason> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, _) => {
                self.trailers += 1;
                if usize::from(self.trailers) > MAX_HEADERS {
                    return Err(Reason::TooManyHeaders);
                }
                if byte == b':' {
                    return Err(Reason::HeaderName);
                }
                self.state = State::TrailerName;
                self.trailer(byte)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token(byte) => {
                self.counted(State::TrailerName, Reason::HeaderName)
            }
            (State::TrailerName, _) => Err(Reason::HeaderName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.counted(State::TrailerValue, Reason::HeaderValue)
            }
            (State::TrailerValue, _) => Err(Reason::HeaderValue),
            _ => only(byte, b'\n', State::TrailerStart, Reason::NewLine),
        }
    }

    /// One more byte of a line that has a limit.
    fn counted(&mut self, next: State, reason: Reason) -> Result<State, Reason> {
        self.line += 1;
        if self.line > LINE_MAX { Err(reason) } else { Ok(next) }
    }
}

fn only(byte: u8, wanted: u8, next: State, reason: Reason) -> Result<State, Reason> {
    if byte == wanted { Ok(next) } else { Err(reason) }
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `<size in lower-case hex> CRLF`, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    text: [u8; 10],
    start: u8,
}

impl ChunkHead {
    /// The header of a chunk with `size` bytes; `size` must not be 0, which would end the body.
    pub fn new(size: u32) -> Self {
        debug_assert!(size > 0);
        let mut text = *b"00000000\r\n";
        let mut start = 8;
        let mut rest = size;
        while rest > 0 {
            start -= 1;
            text[start] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        Self { text, start: start as u8 }
    }

    /// The bytes for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[usize::from(self.start)..]
    }
}

/// Appends `data` as chunks of at most [`CHUNK_MAX`] bytes; nothing if there is none, for an empty
/// chunk would end the body.
pub fn push_chunks(out: &mut Vec<u8>, data: &[u8]) {
    for piece in data.chunks(CHUNK_MAX) {
        out.extend_from_slice(ChunkHead::new(piece.len() as u32).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(CHUNK_END);
    }
}
