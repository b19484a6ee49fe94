//! Why a message was refused. The texts go into 400 answers (`spec/connmgr.md §4.5`).

use std::fmt;

/// The reason a head, a length or a chunk is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A byte that a header name may not have, or a folded line.
    HeaderName,
    /// A byte that a header value may not have.
    HeaderValue,
    /// A line end that is none (bare CR, or bare LF in chunked framing).
    NewLine,
    /// Not a status line.
    Status,
    /// A byte that a method or target may not have.
    Token,
    /// A target in none of the forms that its method allows (RFC 9112 §3.2).
    Target,
    /// More than one Host, or one that is no host with an optional port (RFC 9112 §3.2).
    Host,
    /// More than [`crate::MAX_HEADERS`].
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Content-Length is not a number, or two of them differ.
    ContentLength,
    /// Transfer-Encoding is not exactly `chunked`, or in a request of HTTP/1.0.
    TransferEncoding,
    /// Content-Length and Transfer-Encoding in one head (RFC 9112 §6.3, request smuggling).
    LengthAndEncoding,
    /// A chunk header that is not hexadecimal digits and extensions.
    ChunkSize,
    /// Chunk headers that are much longer than the data they announce.
    ChunkHeader,
    /// A chunk above 2³²−1 bytes.
    ChunkTooLarge,
    /// No CRLF after the data of a chunk.
    ChunkSuffix,
}

impl Reason {
    /// The text, as a client reads it after `Failed to parse request: `.
    pub fn text(self) -> &'static str {
        match self {
            Self::HeaderName => "invalid header name",
            Self::HeaderValue => "invalid header value",
            Self::NewLine => "invalid new line",
            Self::Status => "invalid response status",
            Self::Token => "invalid token",
            Self::Target => "invalid request target",
            Self::Host => "invalid host header",
            Self::TooManyHeaders => "too many headers",
            Self::Version => "invalid HTTP version",
            Self::ContentLength => "invalid content length",
            Self::TransferEncoding => "unsupported transfer encoding",
            Self::LengthAndEncoding => "content length together with transfer encoding",
            Self::ChunkSize => "invalid chunk size",
            Self::ChunkHeader => "chunk header too long",
            Self::ChunkTooLarge => "chunk too large",
            Self::ChunkSuffix => "invalid chunk suffix",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Reason {}

impl From<httparse::Error> for Reason {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::HeaderName,
            httparse::Error::HeaderValue => Self::HeaderValue,
            httparse::Error::NewLine => Self::NewLine,
            httparse::Error::Status => Self::Status,
            httparse::Error::Token => Self::Token,
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::Version,
        }
    }
}
