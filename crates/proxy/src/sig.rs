//! Grip-Sig: keys, tokens for backends, and the check of an upstream proxy's (spec/proxy.md §4).

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;

use crate::pem::PemKey;

/// How long a token is good, seconds.
const LIFETIME_S: u64 = 3_600;

/// A key that signs and verifies.
#[derive(Clone)]
pub struct SigKey(Kind);

#[derive(Clone)]
enum Kind {
    Secret(hmac::Key),
    Pem(Arc<PemKey>),
}

impl fmt::Debug for SigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigKey({})", self.algorithm())
    }
}

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
            return match PemKey::parse(&contents) {
                Ok(key) => Some(Self(Kind::Pem(Arc::new(key)))),
                Err(cause) => {
                    log::warn!("key file {}: {cause}, no key is used", path.display());
                    None
                }
            };
        }
        Self::secret(&decode_hex(contents.trim())?)
    }

    fn secret(secret: &[u8]) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(Kind::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret))))
    }

    /// The name of its algorithm in tokens.
    fn algorithm(&self) -> &'static str {
        match &self.0 {
            Kind::Secret(_) => "HS256",
            Kind::Pem(key) => key.algorithm(),
        }
    }

    fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Secret(key) => Some(hmac::sign(key, data).as_ref().to_vec()),
            Kind::Pem(key) => key.sign(data),
        }
    }

    fn is_signature(&self, data: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Secret(key) => hmac::verify(key, data, signature).is_ok(),
            Kind::Pem(key) => key.verifies(data, signature),
        }
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
        if text_claim(&header, "alg")? != self.algorithm() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.is_signature(signed.as_bytes(), &signature) {
            return None;
        }
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

    /// The token at this Unix time; empty if the key cannot sign.
    pub fn token(&self, now_s: u64) -> Arc<str> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != now_s || last.1.is_empty() {
            let made = self.make(now_s).unwrap_or_else(|| {
                log::error!("failed to sign request");
                String::new()
            });
            *last = (now_s, made.into());
        }
        Arc::clone(&last.1)
    }

    fn make(&self, now_s: u64) -> Option<String> {
        let header = format!(r#"{{"typ":"JWT","alg":"{}"}}"#, self.key.algorithm());
        let issuer = crossorigin::json::quote(&self.issuer);
        let claims = format!(r#"{{"exp":{},"iss":{issuer}}}"#, now_s + LIFETIME_S);
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(signed.as_bytes())?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
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

    /// A key of `openssl`, in a folder of its own; nothing where there is no openssl.
    fn openssl(dir: &Path, name: &str, arguments: &str) {
        let file = dir.join(name);
        let status = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .arg(&file)
            .current_dir(dir)
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "openssl {arguments}");
    }

    #[test]
    fn keys_of_files_sign_and_verify() {
        let dir = std::env::temp_dir().join(format!("proxy-sig-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        openssl(&dir, "ec", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out");
        openssl(&dir, "ec.old", "ec -in ec -out");
        openssl(&dir, "ec.pub", "pkey -in ec -pubout -out");
        openssl(&dir, "rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out");
        openssl(&dir, "rsa.old", "rsa -traditional -in rsa -out");
        openssl(&dir, "rsa.pub", "pkey -in rsa -pubout -out");
        std::fs::write(dir.join("hex"), "6368616e67656d65\n").unwrap();
        std::fs::write(
            dir.join("bad"),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        )
        .unwrap();
        let load = |name: &str| SigKey::load(&format!("file:{name}"), &dir);
        for (private, public, algorithm) in [
            ("ec", "ec.pub", "ES256"),
            ("ec.old", "ec.pub", "ES256"),
            ("rsa", "rsa.pub", "RS256"),
            ("rsa.old", "rsa.pub", "RS256"),
            ("hex", "hex", "HS256"),
        ] {
            let (private, public) = (load(private).unwrap(), load(public).unwrap());
            let token = Signer::new("i", private.clone()).unwrap().token(1_000);
            let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
            assert!(String::from_utf8(header).unwrap().contains(algorithm));
            assert!(public.verifies(token.as_bytes(), 1_000));
            assert!(private.verifies(token.as_bytes(), 1_000));
            assert!(!public.verifies(token.as_bytes(), 9_000));
            for other in ["ec.pub", "rsa.pub", "hex"] {
                let other = load(other).unwrap();
                if other.algorithm() != algorithm {
                    assert!(!other.verifies(token.as_bytes(), 1_000));
                }
            }
        }
        let public = Signer::new("i", load("rsa.pub").unwrap()).unwrap();
        assert!(public.token(1).is_empty() && load("bad").is_none());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn keys_that_are_none() {
        assert!(key("").is_none() && key("base64:").is_none() && key("base64:!").is_none());
        assert!(key("file:no-such-file").is_none());
        assert_eq!(decode_hex("00ff"), Some(vec![0, 255]));
        assert_eq!((decode_hex("0"), decode_hex("zz")), (None, None));
    }
}
