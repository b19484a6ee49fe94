//! `Sec-WebSocket-Extensions` and the parameters of permessage-deflate (RFC 6455 §9.1,
//! RFC 7692 §7.1, `spec/connmgr.md §7.2`, §10.6).

use std::fmt;

use arrayvec::{ArrayString, ArrayVec};

/// What a client sends to offer compression.
pub const OFFER: &str =
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover";

/// Most parameters of an extension that are looked at; the four known ones, and one too many.
const PARAMS_MAX: usize = 5;

/// Compression as agreed upon. What is sent needs no agreement beyond that: a [`crate::Deflater`]
/// never refers to earlier messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    /// The peer may refer to its earlier messages: a window is kept for it between messages.
    pub peer_takeover: bool,
}

impl Deflate {
    /// The server's answer.
    pub fn answer(self) -> &'static str {
        match self.peer_takeover {
            true => "permessage-deflate; server_no_context_takeover",
            false => "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        }
    }
}

/// The header is malformed, or answers something that was not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadExtensions;

impl fmt::Display for BadExtensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid Sec-WebSocket-Extensions header")
    }
}

impl std::error::Error for BadExtensions {}

/// Looks for an offer that a server can accept. `values`: of every `Sec-WebSocket-Extensions`
/// header in order. `peer_takeover`: whether clients that want to may keep their window.
/// `Ok(None)`: no compression.
pub fn negotiate<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    peer_takeover: bool,
) -> Result<Option<Deflate>, BadExtensions> {
    let mut agreed = None;
    each(values, |extension| {
        if agreed.is_none() && extension.is_deflate() {
            let offer = extension.params().filter(|params| {
                params.client_bits.is_none_or(|bits| bits.is_none_or(is_window))
                    // A smaller window than the full one cannot be promised.
                    && params.server_bits.is_none_or(|bits| bits == Some(15))
            });
            agreed = offer.map(|params| Deflate {
                peer_takeover: peer_takeover && !params.client_no_takeover,
            });
        }
        Ok(())
    })?;
    Ok(agreed)
}

/// Reads a server's answer to [`OFFER`]. `values`: of every `Sec-WebSocket-Extensions` header.
/// `Ok(None)`: the server does not compress.
pub fn accepted<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Deflate>, BadExtensions> {
    let mut agreed = None;
    each(values, |extension| {
        let params = extension.params().filter(|_| extension.is_deflate() && agreed.is_none());
        let params = params.ok_or(BadExtensions)?;
        let fits = params.client_bits.is_none_or(|bits| bits == Some(15))
            && params.server_bits.is_none_or(|bits| bits.is_some_and(is_window));
        if !fits {
            return Err(BadExtensions);
        }
        agreed = Some(Deflate { peer_takeover: !params.server_no_takeover });
        Ok(())
    })?;
    Ok(agreed)
}

/// One member of the header's list.
#[derive(Debug, Default)]
struct Extension<'a> {
    name: &'a [u8],
    /// Name and value of each; further ones are left out, and are too many in any case.
    params: ArrayVec<(&'a [u8], Option<ArrayString<16>>), PARAMS_MAX>,
}

/// The parameters of permessage-deflate. `Some(None)`: there without a value.
#[derive(Debug, Default)]
struct Params {
    client_no_takeover: bool,
    server_no_takeover: bool,
    client_bits: Option<Option<u8>>,
    server_bits: Option<Option<u8>>,
}

impl Extension<'_> {
    fn is_deflate(&self) -> bool {
        self.name.eq_ignore_ascii_case(b"permessage-deflate")
    }

    /// The parameters, unless one is unknown, repeated or has a value that it must not have.
    fn params(&self) -> Option<Params> {
        let mut params = Params::default();
        for (name, value) in &self.params {
            let repeated = match *name {
                b"client_no_context_takeover" if value.is_none() => {
                    std::mem::replace(&mut params.client_no_takeover, true)
                }
                b"server_no_context_takeover" if value.is_none() => {
                    std::mem::replace(&mut params.server_no_takeover, true)
                }
                b"client_max_window_bits" => params.client_bits.replace(bits(value)?).is_some(),
                b"server_max_window_bits" => params.server_bits.replace(bits(value)?).is_some(),
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(params)
    }
}

/// A window size: nothing, or digits without leading zeros.
fn bits(value: &Option<ArrayString<16>>) -> Option<Option<u8>> {
    let Some(text) = value else { return Some(None) };
    let digits = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|bits| digits && is_window(*bits)).map(Some)
}

fn is_window(bits: u8) -> bool {
    (8..=15).contains(&bits)
}

/// Reads the headers' lists.
fn each<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    mut found: impl FnMut(&Extension<'_>) -> Result<(), BadExtensions>,
) -> Result<(), BadExtensions> {
    for value in values {
        let mut text = Text(value);
        loop {
            text.blanks();
            // Empty members are allowed (RFC 9110 §5.6.1).
            if !matches!(text.0.first(), None | Some(b',')) {
                found(&text.extension()?)?;
            }
            if !text.skip(b',') {
                break;
            }
        }
        if !text.0.is_empty() {
            return Err(BadExtensions);
        }
    }
    Ok(())
}

/// What is left of a header's value.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Takes this byte with the blanks around it, if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        self.blanks();
        let is_next = self.0.first() == Some(&byte);
        if is_next {
            self.0 = &self.0[1..];
            self.blanks();
        }
        is_next
    }

    fn extension(&mut self) -> Result<Extension<'a>, BadExtensions> {
        let mut extension = Extension { name: self.token()?, ..Extension::default() };
        while self.skip(b';') {
            let name = self.token()?;
            let value = if self.skip(b'=') { Some(self.value()?) } else { None };
            let _ = extension.params.try_push((name, value));
        }
        Ok(extension)
    }

    fn token(&mut self) -> Result<&'a [u8], BadExtensions> {
        let end = self.0.iter().position(|&b| !is_token(b)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(BadExtensions) } else { Ok(token) }
    }

    /// A token, or one in quotes. Longer ones than any that has a meaning are cut.
    fn value(&mut self) -> Result<ArrayString<16>, BadExtensions> {
        let mut value = ArrayString::new();
        let mut push = |byte: u8| {
            let _ = value.try_push(char::from(byte));
        };
        if self.0.first() != Some(&b'"') {
            self.token()?.iter().copied().for_each(push);
            return Ok(value);
        }
        let mut rest = self.0[1..].iter();
        loop {
            match rest.next() {
                Some(b'"') => break,
                Some(b'\\') => push(*rest.next().filter(|b| is_token(**b)).ok_or(BadExtensions)?),
                Some(byte) if is_token(*byte) => push(*byte),
                _ => return Err(BadExtensions),
            }
        }
        self.0 = rest.as_slice();
        if value.is_empty() { Err(BadExtensions) } else { Ok(value) }
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Result<Option<Deflate>, BadExtensions> = Ok(None);
    const YES: Result<Option<Deflate>, BadExtensions> = Ok(Some(Deflate { peer_takeover: false }));
    const KEEPS: Result<Option<Deflate>, BadExtensions> = Ok(Some(Deflate { peer_takeover: true }));

    #[test]
    fn servers_take_the_first_offer_that_fits() {
        let cases = [
            ("permessage-deflate", YES),
            (" Permessage-Deflate ; client_max_window_bits ", YES),
            ("permessage-deflate; client_max_window_bits=9; server_max_window_bits=\"15\"", YES),
            ("permessage-deflate;server_no_context_takeover;client_no_context_takeover", YES),
            ("x-other; a=b, , permessage-deflate", YES),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", YES),
            ("permessage-deflate; server_max_window_bits=10", NO),
            ("permessage-deflate; server_max_window_bits", NO),
            ("permessage-deflate; client_max_window_bits=7", NO),
            ("permessage-deflate; client_max_window_bits=015", NO),
            ("permessage-deflate; client_max_window_bits=+9", NO),
            ("permessage-deflate; unknown", NO),
            ("permessage-deflate; server_no_context_takeover=1", NO),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", NO),
            ("x-other", NO),
            ("", NO),
        ];
        for (text, wanted) in cases {
            assert_eq!(negotiate([text.as_bytes()], false), wanted, "{text}");
        }
        let two = [&b"x-webkit-deflate-frame"[..], b"permessage-deflate"];
        assert_eq!(negotiate(two, false), YES);
    }

    #[test]
    fn takeover_is_up_to_both() {
        let offers = |text: &'static str| [text.as_bytes()];
        assert_eq!(negotiate(offers("permessage-deflate"), true), KEEPS);
        let declined = "permessage-deflate; client_no_context_takeover";
        assert_eq!(negotiate(offers(declined), true), YES);
        for agreed in [YES, KEEPS] {
            let agreed = agreed.unwrap().unwrap();
            let read = accepted(offers(agreed.answer())).unwrap().unwrap();
            assert!(!read.peer_takeover, "this server never keeps its window");
        }
    }

    #[test]
    fn malformed_headers() {
        for text in
            ["permessage-deflate;", "; a", "a b", "a;b=", "a;b=\"c", "a;b=\"\"", "a;b=\"c d\""]
        {
            assert_eq!(negotiate([text.as_bytes()], false), Err(BadExtensions), "{text}");
            assert_eq!(accepted([text.as_bytes()]), Err(BadExtensions), "{text}");
        }
    }

    #[test]
    fn clients_read_the_answer() {
        let cases = [
            ("", NO),
            ("permessage-deflate", KEEPS),
            ("permessage-deflate; server_no_context_takeover", YES),
            ("permessage-deflate; server_max_window_bits=10; client_max_window_bits=15", KEEPS),
            ("permessage-deflate; client_max_window_bits=10", Err(BadExtensions)),
            ("permessage-deflate; client_max_window_bits", Err(BadExtensions)),
            ("permessage-deflate; server_max_window_bits", Err(BadExtensions)),
            ("permessage-deflate, permessage-deflate", Err(BadExtensions)),
            ("permessage-deflate; new", Err(BadExtensions)),
            ("x-other", Err(BadExtensions)),
        ];
        for (text, wanted) in cases {
            assert_eq!(accepted([text.as_bytes()]), wanted, "{text}");
        }
    }
}
