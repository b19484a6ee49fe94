//! Writers of heads into a `Vec<u8>`. Framing and connection headers are ours to decide: those that
//! a caller passes on are left out. Bytes that could end a line are refused, so that no value from
//! a backend or a message can add a header or a second message.

use crate::{BodyKind, MAX_HEADERS, Reason, Version, chunked};

/// The parts of a response head that are not passed-on headers.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The version of the request that is answered.
    pub version: Version,
    /// Status.
    pub code: u16,
    /// Reason phrase.
    pub reason: &'a [u8],
    /// Whether the connection goes on afterwards.
    pub persistent: bool,
    /// What is announced; [`BodyKind::Close`] announces nothing.
    pub body: BodyKind,
}

/// The parts of a request head that are not passed-on headers.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method, a token.
    pub method: &'a [u8],
    /// Request target: path and query.
    pub target: &'a [u8],
    /// Host header: name, and port if it is not the default.
    pub host: &'a [u8],
    /// What is announced; [`BodyKind::Close`] is not possible in a request and announces nothing.
    pub body: BodyKind,
}

/// Appends a response head (`spec/connmgr.md §4.3`). Left out of `headers`: Connection (kept for
/// code 101), Content-Length, Transfer-Encoding. On an error `out` is as before.
pub fn response<'a>(
    out: &mut Vec<u8>,
    parts: &Response<'_>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Reason> {
    let start = out.len();
    let result = response_parts(out, parts, headers);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn response_parts<'a>(
    out: &mut Vec<u8>,
    parts: &Response<'_>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Reason> {
    if !(100..=999).contains(&parts.code) || !is_value(parts.reason) {
        return Err(Reason::Status);
    }
    out.extend_from_slice(parts.version.text().as_bytes());
    out.push(b' ');
    decimal(out, u64::from(parts.code));
    out.push(b' ');
    out.extend_from_slice(parts.reason);
    out.extend_from_slice(b"\r\n");
    passed_on(out, headers, |name| {
        is_framing(name) && !(parts.code == 101 && is_connection(name))
    })?;
    match parts.version {
        Version::V10 if parts.persistent => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Version::V11 if !parts.persistent && parts.code >= 200 => {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        _ => {}
    }
    body_headers(out, parts.body, true);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a request head (`spec/connmgr.md §10.2`), always HTTP/1.1, Host first. Left out of
/// `headers`: Host, Connection, Content-Length, Transfer-Encoding. On an error `out` is as before.
pub fn request<'a>(
    out: &mut Vec<u8>,
    parts: &Request<'_>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Reason> {
    let start = out.len();
    let result = request_parts(out, parts, headers);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn request_parts<'a>(
    out: &mut Vec<u8>,
    parts: &Request<'_>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Reason> {
    if !is_name(parts.method) || !is_target(parts.target) {
        return Err(Reason::Token);
    }
    for part in [parts.method, b" ", parts.target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    header(out, b"Host", parts.host)?;
    passed_on(out, headers, |name| is_framing(name) || name.eq_ignore_ascii_case(b"host"))?;
    let bodyless = matches!(parts.method, b"OPTIONS" | b"GET" | b"HEAD");
    body_headers(out, parts.body, !bodyless);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends one header line after checking that it is one line.
pub fn header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Reason> {
    if !is_name(name) {
        return Err(Reason::HeaderName);
    }
    if !is_value(value) {
        return Err(Reason::HeaderValue);
    }
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// Whether a header describes this hop's framing or persistence: never passed on as it is.
pub fn is_framing(name: &[u8]) -> bool {
    match name.len() {
        10 => is_connection(name),
        14 => name.eq_ignore_ascii_case(b"content-length"),
        17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
        _ => false,
    }
}

fn is_connection(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"connection")
}

fn passed_on<'a>(
    out: &mut Vec<u8>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    left_out: impl Fn(&[u8]) -> bool,
) -> Result<(), Reason> {
    let mut count = 0;
    for (name, value) in headers {
        if left_out(name) {
            continue;
        }
        count += 1;
        if count > MAX_HEADERS {
            return Err(Reason::TooManyHeaders);
        }
        header(out, name, value)?;
    }
    Ok(())
}

fn body_headers(out: &mut Vec<u8>, body: BodyKind, zero_length: bool) {
    match body {
        BodyKind::Length(0) if !zero_length => {}
        BodyKind::Length(size) => {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, size);
            out.extend_from_slice(b"\r\n");
        }
        BodyKind::Chunked => out
            .extend_from_slice(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n"),
        BodyKind::None | BodyKind::Close => {}
    }
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    let mut text = [0u8; 20];
    let mut start = text.len();
    let mut rest = value;
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| chunked::is_token(b))
}

fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f))
}

fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|&b| b > 0x20 && b != 0x7f)
}
