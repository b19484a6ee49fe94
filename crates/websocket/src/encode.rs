//! Frames to the peer. A message goes in as many frames as the caller has pieces.

use arrayvec::ArrayVec;

use crate::{CONTROL_MAX, HEAD_MAX, Opcode, mask};

/// What a frame's head says, length and mask aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's opcode in its first frame, then [`Opcode::Continuation`].
    pub opcode: Opcode,
    /// Whether it is the last frame of the message.
    pub last: bool,
    /// Whether the message is compressed; in its first frame only.
    pub compressed: bool,
}

impl Frame {
    /// The only frame of a message that is not compressed, or a control frame.
    pub fn whole(opcode: Opcode) -> Self {
        Self { opcode, last: true, compressed: false }
    }

    /// A later frame of a message.
    pub fn continuation(last: bool) -> Self {
        Self { opcode: Opcode::Continuation, last, compressed: false }
    }
}

/// The head of a frame of `size` payload bytes. `mask`: for clients, a fresh random key for each
/// frame, with which the payload must be masked too.
pub fn frame_head(frame: Frame, size: u64, mask: Option<[u8; 4]>) -> ArrayVec<u8, HEAD_MAX> {
    let mut head = ArrayVec::new();
    let bits = u8::from(frame.last) << 7 | u8::from(frame.compressed) << 6;
    head.push(bits | frame.opcode as u8);
    let masked = u8::from(mask.is_some()) << 7;
    match (u8::try_from(size), u16::try_from(size)) {
        (Ok(size @ 0..126), _) => head.push(masked | size),
        (_, Ok(size)) => {
            head.push(masked | 126);
            head.extend(size.to_be_bytes());
        }
        _ => {
            head.push(masked | 127);
            head.extend(size.to_be_bytes());
        }
    }
    head.extend(mask.into_iter().flatten());
    head
}

/// Appends a frame. `mask`: as for [`frame_head`]; the payload is given plain.
pub fn frame(out: &mut Vec<u8>, frame: Frame, payload: &[u8], mask: Option<[u8; 4]>) {
    out.extend_from_slice(&frame_head(frame, payload.len() as u64, mask));
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mut mask) = mask {
        mask::apply(&mut out[start..], &mut mask);
    }
}

/// Appends a ping or pong. Gives false and appends nothing if the payload is over
/// [`CONTROL_MAX`].
pub fn control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> bool {
    let fits = payload.len() <= CONTROL_MAX;
    if fits {
        frame(out, Frame::whole(opcode), payload, mask);
    }
    fits
}

/// Appends a close frame. `code`: none for a frame without payload, which then has no reason
/// either. A reason that is too long is cut between two characters.
pub fn close(out: &mut Vec<u8>, code: Option<u16>, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = ArrayVec::<u8, CONTROL_MAX>::new();
    if let Some(code) = code {
        payload.extend(code.to_be_bytes());
        let mut end = reason.len().min(CONTROL_MAX - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend(reason[..end].bytes());
    }
    frame(out, Frame::whole(Opcode::Close), &payload, mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6455 §5.7.
        let text = Frame::whole(Opcode::Text);
        let encoded = |head, payload: &[u8], mask| {
            let mut out = Vec::new();
            frame(&mut out, head, payload, mask);
            out
        };
        assert_eq!(encoded(text, b"Hello", None), b"\x81\x05Hello");
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(encoded(text, b"Hello", mask), masked);
        assert_eq!(encoded(Frame { last: false, ..text }, b"Hel", None), b"\x01\x03Hel");
        assert_eq!(encoded(Frame::continuation(true), b"lo", None), b"\x80\x02lo");
        assert_eq!(encoded(Frame::whole(Opcode::Ping), b"Hello", None), b"\x89\x05Hello");
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        let binary = Frame::whole(Opcode::Binary);
        for (size, wanted) in [
            (125, &b"\x82\x7d"[..]),
            (126, b"\x82\x7e\x00\x7e"),
            (256, b"\x82\x7e\x01\x00"),
            (65535, b"\x82\x7e\xff\xff"),
            (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            assert_eq!(&*frame_head(binary, size, None), wanted);
        }
    }

    #[test]
    fn control_frames_stay_short() {
        let mut out = Vec::new();
        assert!(!control(&mut out, Opcode::Ping, &[0; 126], None) && out.is_empty());
        assert!(control(&mut out, Opcode::Pong, &[0; 125], None) && out.len() == 127);
        out.clear();
        close(&mut out, Some(1000), &"é".repeat(100), None);
        assert_eq!((out.len(), out[1]), (124 + 2, 124));
        out.clear();
        close(&mut out, None, "ignored", None);
        assert_eq!(out, b"\x88\x00");
    }
}
