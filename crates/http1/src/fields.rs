//! Readers of header fields that decide framing and persistence. Used by `head`, and by callers
//! that look into list headers themselves.

use crate::{BodyKind, Header, Reason, Version};

/// Without the optional white space of RFC 9110 §5.6.3 at both ends.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, trimmed, empty ones left out.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|token| !token.is_empty())
}

/// Whether any header `name` lists `token`; both compared without case.
pub fn list_has(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    named(headers, name)
        .any(|value| tokens(value).any(|t| t.eq_ignore_ascii_case(token.as_bytes())))
}

/// The value of the first header `name`, compared without case.
pub(crate) fn first<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

/// The values of every header `name`, compared without case.
pub(crate) fn named<'h>(
    headers: &'h [Header<'_>],
    name: &'h str,
) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

/// Whether the connection may serve another exchange after this one (RFC 9112 §9.3).
pub(crate) fn persistent(version: Version, headers: &[Header<'_>]) -> bool {
    let (mut close, mut keep_alive) = (false, false);
    for token in named(headers, "connection").flat_map(tokens) {
        close |= token.eq_ignore_ascii_case(b"close");
        keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
    }
    !close && (version == Version::V11 || keep_alive)
}

/// The framing that the headers announce, `None` if they announce none (RFC 9112 §6.3).
pub(crate) fn framing(headers: &[Header<'_>]) -> Result<Option<BodyKind>, Reason> {
    let length = content_length(headers)?;
    let mut encodings = named(headers, "transfer-encoding");
    let Some(encoding) = encodings.next() else {
        return Ok(length.map(BodyKind::Length));
    };
    if length.is_some() {
        return Err(Reason::LengthAndEncoding);
    }
    if encodings.next().is_some() || !trim(encoding).eq_ignore_ascii_case(b"chunked") {
        return Err(Reason::TransferEncoding);
    }
    Ok(Some(BodyKind::Chunked))
}

/// Content-Length, once or repeated with the same value.
fn content_length(headers: &[Header<'_>]) -> Result<Option<u64>, Reason> {
    let mut found = None;
    for value in named(headers, "content-length") {
        let length = decimal(trim(value)).ok_or(Reason::ContentLength)?;
        if found.is_some_and(|earlier| earlier != length) {
            return Err(Reason::ContentLength);
        }
        found = Some(length);
    }
    Ok(found)
}

/// Digits only: no sign, no blanks, no list, nothing above `u64::MAX`.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
