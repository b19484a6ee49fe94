//! WebSocket frames and compressed messages: splits and room do not matter, limits hold, and what
//! is sent is read.

use ::websocket::{Decoder, Deflate, Deflater, Event, Frame, Opcode, Role, Type, frame};

use crate::input::Input;

/// Most bytes of a message.
const SIZE_MAX: u64 = 100_000;

/// A whole message or a control frame: what it is, and its bytes.
type Said = (Event, Vec<u8>);

/// Reads the bytes as frames, at once and in pieces.
pub fn websocket(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let (step, room) = (usize::from(input.byte()) + 1, usize::from(input.byte()) * 4 + 125);
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let deflate = (choice & 2 != 0).then_some(Deflate { peer_takeover: choice & 4 != 0 });
    let decoder = || Decoder::new(role, deflate, SIZE_MAX);
    let whole = read(decoder(), input.0, input.0.len(), 8192);
    assert_eq!(read(decoder(), input.0, step, room), whole);
}

/// What is said completely, and whether an error ends it. Which one may depend on splits: bytes
/// that are not to be inflated may come behind some that are no text.
fn read(mut decoder: Decoder, wire: &[u8], step: usize, room: usize) -> (Vec<Said>, bool) {
    let (mut said, mut message) = (Vec::new(), Vec::new());
    let (mut at, mut arrived) = (0, 0);
    loop {
        let mut piece = Vec::new();
        let decoded = match decoder.decode(&wire[at..arrived], room, &mut piece) {
            Ok(decoded) => decoded,
            Err(_) => return (said, true),
        };
        assert!(piece.len() <= room.max(::websocket::CONTROL_MAX));
        at += decoded.consumed;
        match decoded.event {
            Some(event @ Event::Piece { last, .. }) => {
                message.extend(piece);
                assert!(message.len() as u64 <= SIZE_MAX);
                if last {
                    said.push((event, std::mem::take(&mut message)));
                }
            }
            Some(Event::Close { .. }) => {
                assert!(std::str::from_utf8(&piece).is_ok());
                return (said, false);
            }
            Some(event) => said.push((event, piece)),
            None if decoded.consumed > 0 => {}
            None if arrived == wire.len() => return (said, false),
            None => arrived = (arrived + step).min(wire.len()),
        }
    }
}

/// Compresses the bytes in pieces and reads the frames; then reads the bytes as compressed ones.
pub fn deflate(data: &[u8]) {
    let mut input = Input(data);
    let (size, step) = (usize::from(input.byte()) * 8 + 1, usize::from(input.byte()) + 1);
    let body = input.0;
    let mut pieces: Vec<&[u8]> = body.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(b"");
    }
    let (mut deflater, mut wire) = (Deflater::default(), Vec::new());
    for (n, piece) in pieces.iter().enumerate() {
        let last = n + 1 == pieces.len();
        let mut payload = Vec::new();
        deflater.piece(&mut payload, piece, last);
        let opcode = if n == 0 { Opcode::Binary } else { Opcode::Continuation };
        frame(&mut wire, Frame { opcode, last, compressed: n == 0 }, &payload, Some([1, 2, 3, 4]));
    }
    let decoder = || Decoder::new(Role::Server, Some(Deflate { peer_takeover: false }), SIZE_MAX);
    let event = Event::Piece { kind: Type::Binary, last: true };
    assert_eq!(read(decoder(), &wire, step, 500), (vec![(event, body.to_vec())], false));

    wire.clear();
    let head = Frame { opcode: Opcode::Binary, last: true, compressed: true };
    frame(&mut wire, head, body, Some([9, 0, 255, 7]));
    let whole = read(decoder(), &wire, wire.len(), 8192);
    assert_eq!(read(decoder(), &wire, step, 200), whole);
}
