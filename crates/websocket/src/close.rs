//! The payload of a close frame (RFC 6455 §5.5.1, §7.4).

use crate::Error;

/// Whether a close frame may have this code. 1005, 1006 and 1015 stand for things that are not
/// said; the rest is reserved.
pub fn is_wire_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Code and reason of a close payload; no code if it is empty.
pub fn read_close(payload: &[u8]) -> Result<(Option<u16>, &str), Error> {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Error::Close) };
    };
    let code = u16::from_be_bytes([*high, *low]);
    if !is_wire_code(code) {
        return Err(Error::Close);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Error::CloseReason)?;
    Ok((Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_payloads() {
        assert_eq!(read_close(b""), Ok((None, "")));
        assert_eq!(read_close(b"\x03\xe8"), Ok((Some(1000), "")));
        assert_eq!(read_close(b"\x0f\xa0by\xc3\xa9"), Ok((Some(4000), "byé")));
        assert_eq!(read_close(b"\x03"), Err(Error::Close));
        assert_eq!(read_close(b"\x03\xe8\xff"), Err(Error::CloseReason));
    }

    #[test]
    fn codes_for_the_wire() {
        let bad = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
        assert!(!bad.into_iter().any(is_wire_code));
        let good = [1000, 1001, 1002, 1003, 1007, 1008, 1011, 1012, 1014, 3000, 4999];
        assert!(good.into_iter().all(is_wire_code));
    }
}
