//! The request that opens a WebSocket (RFC 6455 §4.1; `spec/connmgr.md §10.6`), encoded but for
//! its key, which the client draws when it sends it. Pure.

use http1::{BodyKind, Reason, write};

/// Headers of a request that the opening decides itself.
const OWN: [&str; 5] =
    ["host", "upgrade", "sec-websocket-version", "sec-websocket-key", "sec-websocket-accept"];

/// Characters of a key.
const KEY_SIZE: usize = 24;

/// A WebSocket to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    bytes: Vec<u8>,
    key_at: usize,
    offers_compression: bool,
    rejection_max: usize,
}

impl Opening {
    /// The handshake for `target` (path and query) at `host` (the Host header), with these
    /// headers behind its own; extensions among them are the caller's affair. `compression`:
    /// permessage-deflate is offered. `rejection_max`: bytes of body that a refusal may have.
    ///
    /// # Errors
    /// If a part has bytes that would end a line, or there are more than 64 headers.
    pub fn new<'h>(
        target: &str,
        host: &str,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        compression: bool,
        rejection_max: usize,
    ) -> Result<Self, Reason> {
        let mut bytes = Vec::with_capacity(512);
        let (target, host) = (target.as_bytes(), host.as_bytes());
        let parts = write::Request { method: b"GET", target, host, body: BodyKind::None };
        write::request(&mut bytes, &parts, [])?;
        // The empty line comes last.
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: ",
        );
        let key_at = bytes.len();
        bytes.extend_from_slice(&[b'='; KEY_SIZE]);
        bytes.extend_from_slice(b"\r\n");
        if compression {
            let offer = websocket::OFFER.as_bytes();
            write::header(&mut bytes, b"Sec-WebSocket-Extensions", offer)?;
        }
        let mut count = 0;
        for (name, value) in headers.into_iter().filter(|(name, _)| is_passed_on(name)) {
            count += 1;
            if count > http1::MAX_HEADERS {
                return Err(Reason::TooManyHeaders);
            }
            write::header(&mut bytes, name, value)?;
        }
        bytes.extend_from_slice(b"\r\n");
        Ok(Self { bytes, key_at, offers_compression: compression, rejection_max })
    }

    /// Fills in the key; gives the request's bytes and the accept value that answers it.
    pub(crate) fn with_key(mut self, random: [u8; 16]) -> (Vec<u8>, [u8; 28]) {
        let key = websocket::key(random);
        self.bytes[self.key_at..self.key_at + KEY_SIZE].copy_from_slice(key.as_bytes());
        let mut accept = [0; 28];
        accept.copy_from_slice(websocket::accept(key.as_bytes()).as_bytes());
        (self.bytes, accept)
    }

    pub(crate) fn offers_compression(&self) -> bool {
        self.offers_compression
    }

    pub(crate) fn rejection_max(&self) -> usize {
        self.rejection_max
    }
}

fn is_passed_on(name: &[u8]) -> bool {
    !write::is_framing(name) && !OWN.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_in_order() {
        let headers: [(&[u8], &[u8]); 5] = [
            (b"Host", b"other"),
            (b"Origin", b"o"),
            (b"connection", b"x"),
            (b"Sec-WebSocket-Key", b"x"),
            (b"Sec-WebSocket-Protocol", b"chat"),
        ];
        let opening = Opening::new("/a?b", "h:81", headers, true, 0).unwrap();
        let (bytes, accept) = opening.with_key(*b"the sample nonce");
        let text = "GET /a?b HTTP/1.1\r\nHost: h:81\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; \
            server_no_context_takeover\r\nOrigin: o\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
        assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_ends_a_line_is_refused() {
        let header = |name: &'static [u8], value: &'static [u8]| {
            Opening::new("/", "h", [(name, value)], false, 0).is_err()
        };
        assert!(header(b"A", b"b\r\nC: d") && header(b"A b", b"c") && !header(b"A", b"b"));
        assert!(Opening::new("/ x", "h", [], false, 0).is_err());
        let many = std::iter::repeat_n((&b"A"[..], &b"b"[..]), 65);
        assert_eq!(Opening::new("/", "h", many, false, 0), Err(Reason::TooManyHeaders));
    }
}
