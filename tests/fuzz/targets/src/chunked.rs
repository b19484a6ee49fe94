//! The chunked coding: splits do not matter, and what is encoded decodes to itself.

use http1::{BodyKind, CHUNK_END, ChunkHead, Decoder, LAST_CHUNK, Reason};

use crate::input::Input;

/// Body, bytes used, complete; or why not.
type Outcome = Result<(Vec<u8>, usize, bool), Reason>;

/// Decodes the bytes at once and in pieces; then encodes them and decodes that.
pub fn chunked(data: &[u8]) {
    let mut input = Input(data);
    let (step, max_data) = (usize::from(input.byte()) + 1, usize::from(input.byte()) + 1);
    let wire = input.0;
    let whole = decode(wire, wire.len().max(1), usize::MAX);
    assert_eq!(decode(wire, step, max_data), whole);
    if let Ok((body, used, _)) = &whole {
        assert!(body.len() <= *used && *used <= wire.len());
    }
    round_trip(wire, step, max_data);
}

fn decode(wire: &[u8], step: usize, max_data: usize) -> Outcome {
    let mut decoder = Decoder::new(BodyKind::Chunked);
    let (mut body, mut at, mut arrived) = (Vec::new(), 0, 0);
    loop {
        let piece = decoder.decode(&wire[at..arrived], max_data)?;
        assert!(piece.data.len() <= max_data && piece.data.end <= piece.consumed);
        body.extend_from_slice(&wire[at..arrived][piece.data]);
        at += piece.consumed;
        if piece.end {
            assert!(decoder.may_end_here());
            return Ok((body, at, true));
        }
        if piece.consumed == 0 {
            if arrived == wire.len() {
                return Ok((body, at, false));
            }
            arrived = (arrived + step).min(wire.len());
        }
    }
}

fn round_trip(body: &[u8], chunk: usize, step: usize) {
    let mut wire = Vec::new();
    for part in body.chunks(chunk) {
        wire.extend_from_slice(ChunkHead::new(part.len() as u32).as_bytes());
        wire.extend_from_slice(part);
        wire.extend_from_slice(CHUNK_END);
    }
    wire.extend_from_slice(LAST_CHUNK);
    assert_eq!(decode(&wire, step, usize::MAX), Ok((body.to_vec(), wire.len(), true)));
}
