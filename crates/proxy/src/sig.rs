//! Grip-Sig: keys, tokens for backends, and the check of an upstream proxy's (spec/proxy.md §4).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;

/// How long a token is good, seconds.
const LIFETIME_S: u64 = 3_600;

/// A key that signs and verifies.
#[derive(Clone, Debug)]
pub struct SigKey(hmac::Key);

impl SigKey {
    /// Reads a key setting; `file:` names are relative to `dir`. No key for an empty text, an
    /// unreadable file and bad contents (spec/proxy.md §4.1).
    pub fn load(text: &str, dir: &Path) -> Option<Self> {
        if let Some(name) = text.strip_prefix("file:") {
            return Self::from_file(&dir.join(name));
        }
        let secret = match text.strip_prefix("base64:") {
            Some(encoded) => STANDARD.decode(encoded.trim()).ok()?,
            None => text.as_bytes().to_vec(),
        };
        Self::secret(&secret)
    }

    fn from_file(path: &Path) -> Option<Self> {
        let contents = match std::fs::read_to_string(path) {
            Ok(contents) => contents,
            Err(cause) => {
                log::warn!("unable to read key file {}: {cause}", path.display());
                return None;
            }
        };
        if contents.starts_with("-----BEGIN") {
            log::warn!("key file {}: PEM keys are not supported, no key is used", path.display());
            return None;
        }
        Self::secret(&decode_hex(contents.trim())?)
    }

    fn secret(secret: &[u8]) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Whether `token` is signed with this key and has not expired. `now_s`: Unix time.
    pub fn verifies(&self, token: &[u8], now_s: u64) -> bool {
        self.check(token, now_s).is_some()
    }

    fn check(&self, token: &[u8], now_s: u64) -> Option<()> {
        let token = std::str::from_utf8(token).ok()?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if text_claim(&header, "alg")? != "HS256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let exp: u64 = number_claim(&claims, "exp")?;
        let in_time = exp > now_s && !claims.contains("\"aud\"");
        in_time.then_some(())
    }
}

/// The text behind `"name":` of a flat JSON object; enough for tokens, whose signature was made
/// by somebody who has the key.
fn text_claim<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let rest = claim(json, name)?.strip_prefix('"')?;
    rest.split_once('"').map(|(text, _)| text)
}

fn number_claim(json: &str, name: &str) -> Option<u64> {
    let rest = claim(json, name)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn claim<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let json = json.trim().strip_prefix('{')?.strip_suffix('}')?;
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() & 1 == 1 {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// Makes the tokens of one issuer. A token is made once per second and used for every request
/// of that second.
#[derive(Debug)]
pub struct Signer {
    issuer: String,
    key: SigKey,
    last: Mutex<(u64, Arc<str>)>,
}

impl Signer {
    /// A signer, if there is an issuer.
    pub fn new(issuer: &str, key: SigKey) -> Option<Self> {
        let issuer = issuer.to_owned();
        (!issuer.is_empty()).then(|| Self { issuer, key, last: Mutex::new((0, "".into())) })
    }

    /// The token at this Unix time.
    pub fn token(&self, now_s: u64) -> Arc<str> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != now_s || last.1.is_empty() {
            *last = (now_s, self.make(now_s).into());
        }
        Arc::clone(&last.1)
    }

    fn make(&self, now_s: u64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256"}"#);
        let issuer = escape(&self.issuer);
        let claims = format!(r#"{{"exp":{},"iss":"{issuer}"}}"#, now_s + LIFETIME_S);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key.0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A JSON string's inside.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<SigKey> {
        SigKey::load(text, Path::new("."))
    }

    #[test]
    fn tokens_verify_with_the_same_secret_only() {
        let signer = Signer::new("pushpin", key("changeme").unwrap()).unwrap();
        let token = signer.token(1_000);
        let claims = token.split('.').nth(1).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
        assert_eq!(claims, br#"{"exp":4600,"iss":"pushpin"}"#);
        assert!(key("changeme").unwrap().verifies(token.as_bytes(), 4_599));
        assert!(key("base64:Y2hhbmdlbWU=").unwrap().verifies(token.as_bytes(), 4_599));
        assert!(!key("changeme").unwrap().verifies(token.as_bytes(), 4_600));
        assert!(!key("other").unwrap().verifies(token.as_bytes(), 1_000));
        for junk in ["", ".", "..", "a.b.c", &token[1..], &token[..token.len() - 1]] {
            assert!(!key("changeme").unwrap().verifies(junk.as_bytes(), 1_000), "{junk}");
        }
    }

    #[test]
    fn keys_that_are_none() {
        assert!(key("").is_none() && key("base64:").is_none() && key("base64:!").is_none());
        assert!(key("file:no-such-file").is_none());
        assert_eq!(decode_hex("00ff"), Some(vec![0, 255]));
        assert_eq!((decode_hex("0"), decode_hex("zz")), (None, None));
    }
}
