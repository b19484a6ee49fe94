//! Reading a frame's head (RFC 6455 §5.2).

use crate::{CONTROL_MAX, Error, Opcode};

/// The head of a frame that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) opcode: Opcode,
    /// The last frame of its message.
    pub(crate) last: bool,
    pub(crate) compressed: bool,
    pub(crate) mask: Option<[u8; 4]>,
    /// Payload bytes.
    pub(crate) len: u64,
    /// Bytes of the head itself.
    pub(crate) size: usize,
}

impl Head {
    /// Reads a head from the start of `bytes`. `None`: incomplete, and nothing wrong so far.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some((&[bits, len], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        if bits & 0x30 != 0 {
            return Err(Error::ReservedBits);
        }
        let opcode = opcode(bits & 0x0f)?;
        let (last, compressed) = (bits & 0x80 != 0, bits & 0x40 != 0);
        if opcode.is_control() {
            check_control(last, compressed, len & 0x7f)?;
        }
        let Some((len_size, payload)) = length(len & 0x7f, rest)? else { return Ok(None) };
        let (mask, mask_size) = match (len & 0x80 != 0, rest[len_size..].first_chunk()) {
            (false, _) => (None, 0),
            (true, Some(mask)) => (Some(*mask), 4),
            (true, None) => return Ok(None),
        };
        let size = 2 + len_size + mask_size;
        Ok(Some(Self { opcode, last, compressed, mask, len: payload, size }))
    }
}

fn opcode(value: u8) -> Result<Opcode, Error> {
    Ok(match value {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Error::Opcode),
    })
}

fn check_control(last: bool, compressed: bool, len: u8) -> Result<(), Error> {
    if compressed {
        return Err(Error::ReservedBits);
    }
    if !last || usize::from(len) > CONTROL_MAX {
        return Err(Error::Control);
    }
    Ok(())
}

/// The length and how many bytes it takes behind the second one.
fn length(short: u8, rest: &[u8]) -> Result<Option<(usize, u64)>, Error> {
    let (size, len, least) = match short {
        126 => match rest.first_chunk() {
            Some(bytes) => (2, u64::from(u16::from_be_bytes(*bytes)), 126),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(bytes) => (8, u64::from_be_bytes(*bytes), 1 << 16),
            None => return Ok(None),
        },
        short => (0, u64::from(short), 0),
    };
    if len < least || len > i64::MAX as u64 { Err(Error::Length) } else { Ok(Some((size, len))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, frame_head};
    use proptest::prelude::*;

    #[test]
    fn refuses_what_no_rule_allows() {
        let cases: [(&[u8], Error); 9] = [
            (b"\x92\x00", Error::ReservedBits),
            (b"\xa2\x00", Error::ReservedBits),
            (b"\xc9\x00", Error::ReservedBits),
            (b"\x83\x00", Error::Opcode),
            (b"\x8b\x00", Error::Opcode),
            (b"\x09\x00", Error::Control),
            (b"\x89\x7e", Error::Control),
            (b"\x82\x7e\x00\x7d", Error::Length),
            (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", Error::Length),
        ];
        for (bytes, error) in cases {
            assert_eq!(Head::read(bytes), Err(error), "{bytes:x?}");
        }
        assert_eq!(Head::read(b"\x82\x7f\0\0\0\0\0\0\xff\xff"), Err(Error::Length));
    }

    proptest! {
        #[test]
        fn reads_what_is_written(
            opcode in prop::sample::select(vec![Opcode::Continuation, Opcode::Text, Opcode::Binary]),
            last: bool,
            compressed: bool,
            len in prop_oneof![0u64..300, 65_000u64..70_000, 0u64..1 << 63],
            mask: Option<[u8; 4]>,
        ) {
            let bytes = frame_head(Frame { opcode, last, compressed }, len, mask);
            for cut in 0..bytes.len() {
                prop_assert_eq!(Head::read(&bytes[..cut]), Ok(None));
            }
            let head = Head { opcode, last, compressed, mask, len, size: bytes.len() };
            prop_assert_eq!(Head::read(&bytes), Ok(Some(head)));
        }
    }
}
