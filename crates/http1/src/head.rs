//! Request and response heads over `httparse`, with framing and persistence worked out.
//!
//! A head is parsed where it lies in the caller's buffer; all parts borrow from it. The caller
//! limits the size by the room it gives. A bare LF may end a line (RFC 9112 §2.2), a bare CR, a
//! NUL, a folded line or blanks before the colon are refused.

use std::mem::MaybeUninit;

pub use httparse::Header;

use crate::{BodyKind, MAX_HEADERS, Reason, fields};

/// HTTP/1.0 or HTTP/1.1; nothing else is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    V10,
    /// HTTP/1.1
    V11,
}

impl Version {
    fn from_minor(minor: Option<u8>) -> Self {
        if minor == Some(1) { Self::V11 } else { Self::V10 }
    }

    /// As in a status line.
    pub fn text(self) -> &'static str {
        match self {
            Self::V10 => "HTTP/1.0",
            Self::V11 => "HTTP/1.1",
        }
    }
}

/// Room for the headers of one head; lives on the caller's stack while it reads the head.
pub struct HeaderSlots<'b>([MaybeUninit<Header<'b>>; MAX_HEADERS]);

impl HeaderSlots<'_> {
    /// Empty slots; costs nothing.
    pub fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_HEADERS])
    }
}

impl Default for HeaderSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// Case kept.
    pub method: &'b str,
    /// The request target verbatim, in whichever form.
    pub target: &'b str,
    /// HTTP version.
    pub version: Version,
    /// In order, case and duplicates kept.
    pub headers: &'h [Header<'b>],
    /// Bytes of the head in the buffer, blank lines before it included.
    pub size: usize,
    /// How the body is framed; never [`BodyKind::Close`].
    pub body: BodyKind,
    /// Whether the client lets the connection go on after this request.
    pub persistent: bool,
    /// `Expect: 100-continue` by an HTTP/1.1 client that has a body to send.
    pub expects_continue: bool,
}

impl<'b> RequestHead<'_, 'b> {
    /// The value of the first header `name`.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        fields::first(self.headers, name)
    }
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// HTTP version.
    pub version: Version,
    /// Status, three digits.
    pub code: u16,
    /// Reason phrase; empty if it has bytes above 0x7f.
    pub reason: &'b str,
    /// In order, case and duplicates kept.
    pub headers: &'h [Header<'b>],
    /// Bytes of the head in the buffer.
    pub size: usize,
    /// How the body is framed: [`BodyKind::None`] for HEAD, 1xx, 204 and 304.
    pub body: BodyKind,
    /// Whether the connection can be used again once the body is complete.
    pub persistent: bool,
}

impl<'b> ResponseHead<'_, 'b> {
    /// The value of the first header `name`.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        fields::first(self.headers, name)
    }
}

/// Reads a request head from the start of `buf`. `Ok(None)`: incomplete so far.
pub fn parse_request<'h, 'b>(
    buf: &'b [u8],
    slots: &'h mut HeaderSlots<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, Reason> {
    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(buf, &mut slots.0)?;
    let httparse::Status::Complete(size) = status else {
        return Ok(None);
    };
    let version = Version::from_minor(request.version);
    let headers: &'h [Header<'b>] = request.headers;
    let body = fields::framing(headers)?.unwrap_or(BodyKind::None);
    // RFC 9112 §6.1: the framing is faulty, for a reader of HTTP/1.0 sees no body.
    if version == Version::V10 && body == BodyKind::Chunked {
        return Err(Reason::TransferEncoding);
    }
    let expects = version == Version::V11 && !body.is_empty();
    Ok(Some(RequestHead {
        method: request.method.unwrap_or_default(),
        target: request.path.unwrap_or_default(),
        version,
        headers,
        size,
        body,
        persistent: fields::persistent(version, headers),
        expects_continue: expects && fields::list_has(headers, "expect", "100-continue"),
    }))
}

/// Reads a response head from the start of `buf`. `to_head`: the request was a HEAD.
/// `Ok(None)`: incomplete so far.
pub fn parse_response<'h, 'b>(
    buf: &'b [u8],
    slots: &'h mut HeaderSlots<'b>,
    to_head: bool,
) -> Result<Option<ResponseHead<'h, 'b>>, Reason> {
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buf,
        &mut slots.0,
    )?;
    let httparse::Status::Complete(size) = status else {
        return Ok(None);
    };
    let version = Version::from_minor(response.version);
    let headers: &'h [Header<'b>] = response.headers;
    let code = response.code.unwrap_or_default();
    let body = response_body(code, to_head, headers)?;
    let framed = body != BodyKind::Close && (version == Version::V11 || body != BodyKind::Chunked);
    Ok(Some(ResponseHead {
        version,
        code,
        reason: response.reason.unwrap_or_default(),
        headers,
        size,
        body,
        persistent: framed && fields::persistent(version, headers),
    }))
}

/// RFC 9112 §6.3 for responses. Heads whose framing would be refused are refused for HEAD too.
fn response_body(code: u16, to_head: bool, headers: &[Header<'_>]) -> Result<BodyKind, Reason> {
    if BodyKind::forbidden_by(code) {
        return Ok(BodyKind::None);
    }
    let announced = fields::framing(headers)?;
    if to_head {
        return Ok(BodyKind::None);
    }
    Ok(announced.unwrap_or(BodyKind::Close))
}
