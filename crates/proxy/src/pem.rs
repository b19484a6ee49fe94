//! Keys in PEM files: EC (P-256) and RSA, private ones to sign with and public ones to check with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, RsaKeyPair};

/// A key of a PEM file.
pub(crate) enum PemKey {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    /// A point.
    EcPublic(Vec<u8>),
    /// Modulus and exponent as PKCS#1 has them.
    RsaPublic(Vec<u8>),
}

/// `id-ecPublicKey`, 1.2.840.10045.2.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `rsaEncryption`, 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// The algorithm of a P-256 key as PKCS#8 names it.
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];

impl PemKey {
    /// The first key of a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut last = "no key in it";
        for (label, der) in blocks(text) {
            match Self::from_block(label, &der) {
                // Files of openssl may begin with the curve's parameters.
                None => last = "no key of a known kind",
                Some(key) => return key,
            }
        }
        Err(last)
    }

    fn from_block(label: &str, der: &[u8]) -> Option<Result<Self, &'static str>> {
        let ec = |der: &[u8]| {
            let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            EcdsaKeyPair::from_pkcs8(kind, der, &SystemRandom::new()).map(Self::Ec)
        };
        Some(match label {
            "PRIVATE KEY" => ec(der)
                .or_else(|_| RsaKeyPair::from_pkcs8(der).map(Self::Rsa))
                .map_err(|_| "neither a P-256 nor an RSA key of 2048 bits or more"),
            "EC PRIVATE KEY" => ec(&pkcs8_of_sec1(der)).map_err(|_| "not a P-256 key"),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(der)
                .map(Self::Rsa)
                .map_err(|_| "not an RSA key of 2048 bits or more"),
            "RSA PUBLIC KEY" => Ok(Self::RsaPublic(der.to_vec())),
            "PUBLIC KEY" => public(der).ok_or("neither an EC nor an RSA key"),
            _ => return None,
        })
    }

    /// The name of its algorithm in tokens.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) | Self::EcPublic(_) => "ES256",
            Self::Rsa(_) | Self::RsaPublic(_) => "RS256",
        }
    }

    /// Signs; nothing with a public key.
    pub fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(key) => Some(key.sign(&random, data).ok()?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, data, &mut out).ok()?;
                Some(out)
            }
            Self::EcPublic(_) | Self::RsaPublic(_) => None,
        }
    }

    /// Whether the signature is good; a private key checks with its public half.
    pub fn verifies(&self, data: &[u8], signed: &[u8]) -> bool {
        use ring::signature::KeyPair;
        let (kind, key): (&dyn signature::VerificationAlgorithm, &[u8]) = match self {
            Self::Ec(key) => (&signature::ECDSA_P256_SHA256_FIXED, key.public_key().as_ref()),
            Self::EcPublic(point) => (&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::Rsa(key) => (&signature::RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref()),
            Self::RsaPublic(key) => (&signature::RSA_PKCS1_2048_8192_SHA256, key),
        };
        signature::UnparsedPublicKey::new(kind, key).verify(data, signed).is_ok()
    }
}

/// Label and contents of each block.
fn blocks(text: &str) -> Vec<(&str, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, body)) = after.split_once("-----") else { break };
        let Some((body, after)) = body.split_once("-----END ") else { break };
        let digits: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        if let Ok(der) = STANDARD.decode(digits) {
            found.push((label, der));
        }
        rest = after;
    }
    found
}

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let size = content.len();
    let mut out = vec![tag];
    match size {
        0..=0x7f => out.push(size as u8),
        0x80..=0xff => out.extend([0x81, size as u8]),
        _ => out.extend([0x82, (size >> 8) as u8, size as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// A P-256 key of openssl's older form in the newer one (RFC 5208, RFC 5915).
fn pkcs8_of_sec1(sec1: &[u8]) -> Vec<u8> {
    let content = [&[0x02, 0x01, 0x00][..], P256, &element(0x04, sec1)].concat();
    element(0x30, &content)
}

/// Takes a DER element off; gives its tag and content, and what follows.
fn take(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (size, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    Some((tag, rest.get(..size)?, rest.get(size..)?))
}

/// A public key with its algorithm (RFC 5280 §4.1).
fn public(der: &[u8]) -> Option<PemKey> {
    let (0x30, content, _) = take(der)? else { return None };
    let (0x30, algorithm, rest) = take(content)? else { return None };
    let (0x06, oid, _) = take(algorithm)? else { return None };
    let (0x03, bits, _) = take(rest)? else { return None };
    let key = bits.strip_prefix(&[0])?.to_vec();
    match oid {
        EC_PUBLIC_KEY => Some(PemKey::EcPublic(key)),
        RSA_ENCRYPTION => Some(PemKey::RsaPublic(key)),
        _ => None,
    }
}
