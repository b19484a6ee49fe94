//! Bodies: the chunked coding both ways, lengths, limits, and that splits do not matter.

use http1::{BodyKind, CHUNK_END, CHUNK_MAX, ChunkHead, Decoder, LAST_CHUNK, Reason, push_chunks};
use proptest::prelude::*;

/// Body, bytes consumed, complete.
type Read = Result<(Vec<u8>, usize, bool), Reason>;

/// Decodes `wire` that arrives in pieces of the given sizes, `max_data` bytes at most at a time.
fn read(kind: BodyKind, wire: &[u8], pieces: &[usize], max_data: usize) -> Read {
    let mut decoder = Decoder::new(kind);
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(wire.len().max(1)));
    let (mut body, mut at, mut arrived) = (Vec::new(), 0, 0);
    loop {
        let step = decoder.decode(&wire[at..arrived], max_data)?;
        body.extend_from_slice(&wire[at..arrived][step.data]);
        at += step.consumed;
        if step.end {
            assert!(decoder.may_end_here());
            return Ok((body, at, true));
        }
        if step.consumed == 0 {
            if arrived == wire.len() {
                return Ok((body, at, false));
            }
            arrived = (arrived + pieces.next().unwrap_or(1)).min(wire.len());
        }
    }
}

fn chunked(wire: &[u8]) -> Read {
    read(BodyKind::Chunked, wire, &[], usize::MAX)
}

fn whole(body: &[u8], size: usize) -> Read {
    Ok((body.to_vec(), size, true))
}

#[test]
fn decodes_chunks_extensions_and_trailers() {
    assert_eq!(chunked(b"0\r\n\r\n"), whole(b"", 5));
    assert_eq!(
        chunked(b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\nGET"),
        whole(b"abc0123456789", 30)
    );
    assert_eq!(chunked(b"1;a=\"b\";c\r\nx\r\n0 ;e\r\nT: v\r\nU:\r\n\r\n"), whole(b"x", 32));
    assert_eq!(chunked(b"3\r\nab"), Ok((b"ab".to_vec(), 5, false)));
}

#[test]
fn refuses_bad_chunks() {
    let cases: [(&[u8], Reason); 16] = [
        (b"\r\n", Reason::ChunkSize),
        (b"-1\r\n", Reason::ChunkSize),
        (b"0x1\r\n", Reason::ChunkSize),
        (b"1 \r\nx", Reason::ChunkSize),
        (b" 1\r\nx", Reason::ChunkSize),
        (b"1\nx", Reason::ChunkSize),
        (b"1\rx", Reason::ChunkSize),
        (b"1;a\nx", Reason::ChunkSize),
        (b"1;\0\r\nx", Reason::ChunkSize),
        (b"100000000\r\n", Reason::ChunkTooLarge),
        (b"1\r\nxy", Reason::ChunkSuffix),
        (b"1\r\nx\n", Reason::ChunkSuffix),
        (b"0\r\nA b: c\r\n\r\n", Reason::HeaderName),
        (b"0\r\nA: c\n\r\n", Reason::HeaderValue),
        (b"0\r\n\rx", Reason::NewLine),
        (b"0\r\n:\r\n\r\n", Reason::HeaderName),
    ];
    for (wire, reason) in cases {
        assert_eq!(chunked(wire), Err(reason), "{:?}", String::from_utf8_lossy(wire));
    }
}

#[test]
fn bounds_lines_and_trailers() {
    let long = format!("1;{}\r\nx", "a".repeat(9000));
    assert_eq!(chunked(long.as_bytes()), Err(Reason::ChunkHeader));
    let trailers = |n: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(n));
    assert!(chunked(trailers(64).as_bytes()).is_ok_and(|(_, _, end)| end));
    assert_eq!(chunked(trailers(65).as_bytes()), Err(Reason::TooManyHeaders));
    assert_eq!(chunked(b"ffffffff\r\nx"), Ok((b"x".to_vec(), 11, false)));
}

#[test]
fn long_chunk_headers_need_data() {
    let of = |header: &str, size: usize, chunks: usize| {
        let chunk = format!("{size:x}{header}\r\n{}\r\n", "x".repeat(size));
        chunked((chunk.repeat(chunks) + "0\r\n\r\n").as_bytes()).map(|(body, _, _)| body.len())
    };
    assert_eq!(of(";a=bcdefghijkl", 1, 50_000), Ok(50_000), "16 bytes are free");
    assert_eq!(of(&format!(";{}", "e".repeat(100)), 64, 10_000), Ok(640_000));
    let long = format!(";{}", "e".repeat(1000));
    assert_eq!(of(&long, 1, 16), Ok(16));
    assert_eq!(of(&long, 1, 20), Err(Reason::ChunkHeader));
}

#[test]
fn counts_a_length_and_reads_to_the_close() {
    assert_eq!(read(BodyKind::Length(3), b"abcdef", &[1], 2), whole(b"abc", 3));
    assert_eq!(read(BodyKind::Length(0), b"abc", &[], 9), whole(b"", 0));
    assert_eq!(read(BodyKind::None, b"abc", &[], 9), whole(b"", 0));
    assert_eq!(read(BodyKind::Close, b"abc", &[], 9), Ok((b"abc".to_vec(), 3, false)));
    assert!(Decoder::new(BodyKind::Close).may_end_here());
    assert!(!Decoder::new(BodyKind::Length(1)).may_end_here());
}

#[test]
fn the_end_needs_no_credit() {
    let mut decoder = Decoder::new(BodyKind::Chunked);
    let step = decoder.decode(b"0\r\n\r\n", 0).unwrap();
    assert!(step.end && step.consumed == 5);
    let mut decoder = Decoder::new(BodyKind::Chunked);
    let step = decoder.decode(b"1\r\nx", 0).unwrap();
    assert!(!step.end && step.consumed == 3 && step.data.is_empty());
}

#[test]
fn writes_chunk_headers() {
    for (size, text) in
        [(1u32, "1\r\n"), (255, "ff\r\n"), (65535, "ffff\r\n"), (u32::MAX, "ffffffff\r\n")]
    {
        assert_eq!(ChunkHead::new(size).as_bytes(), text.as_bytes());
    }
}

#[test]
fn a_chunk_has_at_most_65535_bytes() {
    for (size, heads) in [
        (0, &[][..]),
        (1, &["1\r\n"][..]),
        (CHUNK_MAX, &["ffff\r\n"]),
        (CHUNK_MAX + 1, &["ffff\r\n", "1\r\n"]),
        (2 * CHUNK_MAX + 255, &["ffff\r\n", "ffff\r\n", "ff\r\n"]),
    ] {
        let data = vec![b'x'; size];
        let expected: String = heads
            .iter()
            .zip(data.chunks(CHUNK_MAX))
            .map(|(head, piece)| format!("{head}{}\r\n", "x".repeat(piece.len())))
            .collect();
        let mut wire = Vec::new();
        push_chunks(&mut wire, &data);
        assert!(wire == expected.as_bytes(), "{size}");
    }
}

fn encoded(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in chunks {
        wire.extend_from_slice(ChunkHead::new(chunk.len() as u32).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(CHUNK_END);
    }
    wire.extend_from_slice(LAST_CHUNK);
    wire
}

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6)
}

proptest! {
    #[test]
    fn chunks_survive_any_split(
        chunks in chunks(),
        pieces in proptest::collection::vec(1usize..80, 0..40),
        max_data in 1usize..500,
    ) {
        let wire = encoded(&chunks);
        let result = read(BodyKind::Chunked, &wire, &pieces, max_data);
        prop_assert_eq!(result, whole(&chunks.concat(), wire.len()));
    }

    #[test]
    fn errors_do_not_depend_on_splits(
        wire in proptest::collection::vec(prop_oneof![
            Just(b'0'), Just(b'1'), Just(b'\r'), Just(b'\n'), Just(b';'), Just(b':'), Just(b'A'), any::<u8>(),
        ], 0..40),
        pieces in proptest::collection::vec(1usize..5, 0..20),
    ) {
        prop_assert_eq!(read(BodyKind::Chunked, &wire, &pieces, usize::MAX), chunked(&wire));
    }
}
