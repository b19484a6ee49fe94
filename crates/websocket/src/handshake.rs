//! The two values of the opening handshake (RFC 6455 §4).

use arrayvec::ArrayString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// Appended to the key before hashing (RFC 6455 §1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` of a server that got this `Sec-WebSocket-Key`.
pub fn accept(key: &[u8]) -> ArrayString<28> {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(SALT);
    base64(hash.finish().as_ref())
}

/// A client's `Sec-WebSocket-Key`. `random`: fresh and not to be guessed.
pub fn key(random: [u8; 16]) -> ArrayString<24> {
    base64(&random)
}

/// At most as many bytes as the text has room for, three for every four characters.
fn base64<const N: usize>(bytes: &[u8]) -> ArrayString<N> {
    let mut text = [0; N];
    let size = STANDARD.encode_slice(bytes, &mut text).unwrap_or_default();
    let text = std::str::from_utf8(&text[..size]).unwrap_or_default();
    ArrayString::from(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(&key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
    }
}
