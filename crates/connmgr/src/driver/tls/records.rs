//! Bytes between the engine, the TLS library and the socket: where plain text goes, what makes a
//! record, room for what the library writes. Used by `tls`.

use std::io::IoSlice;

use rustls::unbuffered::{EncodeError, EncryptError};

use super::{PLAIN_MAX, RECORD_MAX};

/// Where plain text goes: the engine's buffer, then beyond.
pub(super) struct Sink<'a> {
    pub(super) buf: &'a mut [u8],
    pub(super) used: usize,
    pub(super) rest: Vec<u8>,
}

impl Sink<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.buf.len() - self.used);
        self.buf[self.used..self.used + n].copy_from_slice(&bytes[..n]);
        self.used += n;
        self.rest.extend_from_slice(&bytes[n..]);
    }
}

/// Moves bytes from the front of `from` into `buf`; an empty `from` owns no memory.
pub(super) fn take(from: &mut Vec<u8>, buf: &mut [u8]) -> usize {
    let n = from.len().min(buf.len());
    buf[..n].copy_from_slice(&from[..n]);
    if n == from.len() {
        *from = Vec::new();
    } else {
        from.drain(..n);
    }
    n
}

/// The bytes of one record: what stands in `slices` behind the first `skip` bytes.
pub(super) fn gather<'a>(
    slices: &'a [IoSlice<'_>],
    mut skip: usize,
    into: &'a mut Vec<u8>,
) -> &'a [u8] {
    into.clear();
    for slice in slices {
        let piece = &slice[skip.min(slice.len())..];
        skip -= slice.len() - piece.len();
        if into.is_empty() && piece.len() >= PLAIN_MAX {
            return &piece[..PLAIN_MAX];
        }
        let n = piece.len().min(PLAIN_MAX - into.len());
        into.extend_from_slice(&piece[..n]);
        if into.len() == PLAIN_MAX {
            break;
        }
    }
    into
}

/// Appends what `fill` writes; it is asked again if it names a size that it needs.
pub(super) fn append(
    output: &mut Vec<u8>,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), rustls::Error> {
    let start = output.len();
    let mut room = RECORD_MAX;
    for _ in 0..2 {
        output.resize(start + room, 0);
        match fill(&mut output[start..]) {
            Ok(n) => {
                output.truncate(start + n);
                return Ok(());
            }
            Err(Some(required)) => room = required,
            Err(None) => break,
        }
    }
    output.truncate(start);
    Err(rustls::Error::EncryptError)
}

pub(super) fn encode_size(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(size) => Some(size.required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

pub(super) fn encrypt_size(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}
