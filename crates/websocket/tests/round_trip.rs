//! Messages through encoder and decoder, in any fragments, cut and limits; and random bytes.

use proptest::prelude::*;
use websocket::{
    Decoder, Deflate, Deflater, Error, Event, Frame, Opcode, Role, Type, close, control, frame,
};

/// What a peer says, and what is to be read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Message(Type, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// How a message is sent.
#[derive(Clone, Debug)]
struct Item {
    said: Said,
    frames: usize,
    compressed: bool,
    /// A ping between the first two frames.
    interrupted: bool,
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof!["\\PC{0,40}", "[ab]{0,9000}"].prop_map(String::into_bytes)
}

fn said() -> impl Strategy<Value = Said> {
    let short = || proptest::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        4 => text().prop_map(|text| Said::Message(Type::Text, text)),
        4 => proptest::collection::vec(any::<u8>(), 0..2000)
            .prop_map(|bytes| Said::Message(Type::Binary, bytes)),
        1 => short().prop_map(Said::Ping),
        1 => short().prop_map(Said::Pong),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    (said(), 1usize..5, any::<bool>(), any::<bool>()).prop_map(
        |(said, frames, compressed, interrupted)| Item { said, frames, compressed, interrupted },
    )
}

/// The wire bytes of these items, and what is to be read.
fn encode(items: &[Item], deflate: bool, mask: Option<[u8; 4]>) -> (Vec<u8>, Vec<Said>) {
    let (mut wire, mut wanted) = (Vec::new(), Vec::new());
    let mut deflater = Deflater::default();
    for item in items {
        match &item.said {
            Said::Message(kind, bytes) => {
                let compressed = item.compressed && deflate;
                let size = bytes.len().div_ceil(item.frames).max(1);
                let mut pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                pieces.resize(item.frames, b"");
                for (n, piece) in pieces.iter().enumerate() {
                    let last = n + 1 == pieces.len();
                    let first = n == 0;
                    let opcode = if first { kind.opcode() } else { Opcode::Continuation };
                    let head = Frame { opcode, last, compressed: compressed && first };
                    let mut deflated = Vec::new();
                    if compressed {
                        deflater.piece(&mut deflated, piece, last);
                    }
                    frame(&mut wire, head, if compressed { &deflated } else { piece }, mask);
                    if first && !last && item.interrupted {
                        assert!(control(&mut wire, Opcode::Ping, b"!", mask));
                        wanted.push(Said::Ping(b"!".to_vec()));
                    }
                }
            }
            Said::Ping(bytes) => assert!(control(&mut wire, Opcode::Ping, bytes, mask)),
            Said::Pong(bytes) => assert!(control(&mut wire, Opcode::Pong, bytes, mask)),
            Said::Close(code, reason) => close(&mut wire, *code, reason, mask),
        }
        wanted.push(item.said.clone());
    }
    (wire, wanted)
}

/// Reads it all, given `step` bytes more at a time and `limit` bytes of room at each call.
fn decode(
    decoder: &mut Decoder,
    wire: &[u8],
    step: usize,
    limit: usize,
) -> Result<Vec<Said>, Error> {
    let (mut read, mut message) = (Vec::new(), Vec::new());
    let (mut from, mut to) = (0, 0);
    loop {
        let mut piece = Vec::new();
        let done = decoder.decode(&wire[from..to], limit, &mut piece)?;
        from += done.consumed;
        match done.event {
            Some(Event::Piece { kind, last }) => {
                assert!(piece.len() <= limit);
                message.extend(piece);
                if last {
                    read.push(Said::Message(kind, std::mem::take(&mut message)));
                }
            }
            Some(Event::Ping) => read.push(Said::Ping(piece)),
            Some(Event::Pong) => read.push(Said::Pong(piece)),
            Some(Event::Close { code }) => {
                read.push(Said::Close(code, String::from_utf8(piece).expect("checked")));
            }
            None => assert!(piece.is_empty()),
        }
        if done.consumed == 0 && done.event.is_none() {
            if to == wire.len() {
                assert_eq!(from, to, "all is read");
                return Ok(read);
            }
            to = (to + step).min(wire.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn everything_comes_back(
        items in proptest::collection::vec(item(), 0..8),
        step in prop_oneof![1usize..20, 1000usize..100_000],
        limit in prop_oneof![125usize..200, Just(8192usize)],
        deflate in prop::option::of(any::<bool>().prop_map(|peer_takeover| Deflate { peer_takeover })),
        key: [u8; 4],
        server: bool,
        end in prop::option::of((prop::option::of(3000u16..5000), "\\PC{0,30}")),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut items = items;
        if let Some((code, reason)) = end {
            let reason = if code.is_some() { reason } else { String::new() };
            items.push(Item {
                said: Said::Close(code, reason),
                frames: 1,
                compressed: false,
                interrupted: false,
            });
        }
        let (wire, wanted) = encode(&items, deflate.is_some(), server.then_some(key));
        let mut decoder = Decoder::new(role, deflate, u64::MAX);
        let read = decode(&mut decoder, &wire, step, limit);
        prop_assert_eq!(read, Ok(wanted));
        prop_assert!(!decoder.has_more() && decoder.message().is_none());
    }

    #[test]
    fn random_bytes_do_no_harm(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(vec![0x01u8, 0x41, 0xc1, 0x80, 0x89, 0x88])],
            0..400,
        ),
        step in 1usize..50,
        limit in 0usize..200,
        server: bool,
        peer_takeover: bool,
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut decoder = Decoder::new(role, Some(Deflate { peer_takeover }), 1000);
        let (mut from, mut to) = (0, 0);
        loop {
            let mut piece = Vec::new();
            let Ok(done) = decoder.decode(&bytes[from..to], limit, &mut piece) else { break };
            from += done.consumed;
            prop_assert!(from <= to && piece.len() <= limit.max(123));
            if done.consumed == 0 && done.event.is_none() {
                if to == bytes.len() {
                    break;
                }
                to = (to + step).min(bytes.len());
            }
        }
    }

    #[test]
    fn text_that_is_none_is_refused(
        mut bytes in text(),
        at in any::<prop::sample::Index>(),
        step in 1usize..100,
        compressed: bool,
    ) {
        bytes.insert(at.index(bytes.len() + 1), 0xff);
        let said = Said::Message(Type::Text, bytes);
        let item = Item { said, frames: 2, compressed, interrupted: false };
        let (wire, _) = encode(&[item], true, Some([9; 4]));
        let mut decoder = Decoder::new(Role::Server, Some(Deflate::default()), u64::MAX);
        let read = decode(&mut decoder, &wire, step * 100, 1000);
        prop_assert_eq!(read, Err(Error::Utf8));
    }
}

fn read(role: Role, wire: &[u8]) -> Result<Vec<Said>, Error> {
    decode(&mut Decoder::new(role, None, 100), wire, wire.len().max(1), 1000)
}

#[test]
fn masks_are_required_from_clients_only() {
    assert_eq!(read(Role::Server, b"\x81\x01a"), Err(Error::Unmasked));
    assert_eq!(read(Role::Server, b"\x88\x00"), Err(Error::Unmasked));
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let wanted = Ok(vec![Said::Message(Type::Text, b"Hello".to_vec())]);
    assert_eq!(read(Role::Server, hello), wanted);
    assert_eq!(read(Role::Client, hello), wanted);
}

#[test]
fn messages_come_in_order() {
    for wire in [&b"\x80\x01a"[..], b"\x00\x01a", b"\x01\x01a\x81\x01b", b"\x81\x01a\x80\x00"] {
        assert_eq!(read(Role::Client, wire), Err(Error::Sequence), "{wire:x?}");
    }
    // RSV1 where nothing was negotiated.
    assert_eq!(read(Role::Client, b"\xc1\x01a"), Err(Error::ReservedBits));
    let deflate = Some(Deflate::default());
    let later = decode(&mut Decoder::new(Role::Client, deflate, 9), b"\x01\x01a\xc0\x01a", 9, 9);
    assert_eq!(later, Err(Error::ReservedBits));
}

#[test]
fn text_may_be_cut_anywhere_but_not_short() {
    let wanted = Ok(vec![Said::Message(Type::Text, "é".into())]);
    assert_eq!(read(Role::Client, b"\x01\x01\xc3\x80\x01\xa9"), wanted);
    assert_eq!(read(Role::Client, b"\x81\x01\xc3"), Err(Error::Utf8));
    assert_eq!(read(Role::Client, b"\x01\x01\xc3\x00\x01\x28"), Err(Error::Utf8));
}

#[test]
fn closes_are_checked() {
    for (wire, error) in [
        (&b"\x88\x01\x03"[..], Error::Close),
        (b"\x88\x02\x03\xed", Error::Close),
        (b"\x88\x03\x03\xe8\xff", Error::CloseReason),
    ] {
        assert_eq!(read(Role::Client, wire), Err(error));
    }
    let wanted = Ok(vec![Said::Close(Some(1001), "by".into())]);
    assert_eq!(read(Role::Client, b"\x88\x04\x03\xe9by"), wanted);
}

#[test]
fn large_messages_are_refused_early() {
    // By the announced length, by the sum of the frames, and by what is inflated.
    assert_eq!(read(Role::Client, b"\x82\x65"), Err(Error::TooLarge));
    let half = [&[2, 60][..], &[b'x'; 60]].concat();
    let rest = [&[0x80, 60][..], &[b'x'; 60]].concat();
    assert_eq!(read(Role::Client, &[half, rest].concat()), Err(Error::TooLarge));
    let said = Said::Message(Type::Text, vec![b'a'; 100_000]);
    let bomb = Item { said, frames: 1, compressed: true, interrupted: false };
    let (wire, _) = encode(&[bomb], true, None);
    assert!(wire.len() < 1000);
    let mut decoder = Decoder::new(Role::Client, Some(Deflate::default()), 50_000);
    assert_eq!(decode(&mut decoder, &wire, 1000, 8192), Err(Error::TooLarge));
}

#[test]
fn a_long_ping_waits_for_room_and_a_close_does_not() {
    let mut decoder = Decoder::new(Role::Client, None, 100);
    let mut out = Vec::new();
    let none = decoder.decode(b"\x89\x02hi", 1, &mut out).unwrap();
    assert_eq!((none.consumed, none.event), (0, None));
    let ping = decoder.decode(b"\x89\x02hi", 2, &mut out).unwrap();
    assert_eq!((ping.consumed, ping.event, &*out), (4, Some(Event::Ping), &b"hi"[..]));
    let end = decoder.decode(b"\x88\x04\x03\xe8ok", 0, &mut out).unwrap();
    assert_eq!(end.event, Some(Event::Close { code: Some(1000) }));
    assert_eq!(out, b"hiok");
}

#[test]
fn a_window_is_kept_only_if_agreed() {
    // RFC 7692 §7.2.3.2: the second message refers to the first.
    let wire = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
    let with = |peer_takeover| {
        let mut decoder = Decoder::new(Role::Client, Some(Deflate { peer_takeover }), 100);
        decode(&mut decoder, wire, 3, 100)
    };
    let hello = Said::Message(Type::Text, b"Hello".to_vec());
    assert_eq!(with(true), Ok(vec![hello.clone(), hello.clone()]));
    assert_ne!(with(false), Ok(vec![hello.clone(), hello]), "the window is gone");
}

#[test]
fn a_state_is_small() {
    assert!(size_of::<Decoder>() <= 56, "{}", size_of::<Decoder>());
}
