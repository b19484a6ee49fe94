//! Whether the TLS ports have certificates to show (spec/connmgr.md §9), before the connection
//! manager is started, which would find out client by client. Called by `ahead`.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// What the TLS ports need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The directory with `NAME.crt` and `NAME.key`.
    pub dir: PathBuf,
    /// The ports.
    pub ports: Vec<u16>,
}

/// Looks at every pair. Gives a warning for each that cannot be used while its port has another.
///
/// # Errors
/// If a port has no certificate: the port, and what to put where.
pub(crate) fn check(wanted: &Wanted) -> Result<Vec<String>, String> {
    let Wanted { dir, ports } = wanted;
    let names = names(dir).map_err(|text| format!("{text}; {}", advice(ports)))?;
    let provider = ring::default_provider();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for name in names {
        match load(dir, &name, &provider) {
            Ok(()) => good.push(name),
            Err(text) => bad.push((name, text)),
        }
    }
    for port in ports {
        if good.iter().any(|name| is_for(name, *port)) {
            continue;
        }
        let dir = dir.display();
        return Err(match bad.iter().find(|(name, _)| is_for(name, *port)) {
            Some((_, text)) => format!("no certificate for port {port} of https_ports: {text}"),
            None => format!("no certificate for port {port} in {dir}: {}", advice(&[*port])),
        });
    }
    Ok(bad
        .into_iter()
        .map(|(name, text)| format!("certificate {name} is of no use: {text}"))
        .collect())
}

fn advice(ports: &[u16]) -> String {
    let name = ports.first().map_or("NAME".into(), |port| format!("default_{port}"));
    format!("https_ports needs {name}.crt and {name}.key there, or those of a host name")
}

/// Whether a pair may be shown on a port: one of a host, or the port's own.
fn is_for(name: &str, port: u16) -> bool {
    name.strip_prefix("default_").is_none_or(|of| of == port.to_string())
}

/// The names with both files, in order.
fn names(dir: &Path) -> Result<Vec<String>, String> {
    let failed = |error| format!("cannot read {}: {error}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_pair = path.extension().is_some_and(|kind| kind == "crt")
            && path.with_extension("key").exists();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()).filter(|_| is_pair) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether both files can be read, are what they should be, and belong together.
fn load(dir: &Path, name: &str, provider: &CryptoProvider) -> Result<(), String> {
    let read = |kind: &str| {
        let path = dir.join(format!("{name}.{kind}"));
        let bytes = fs::read(&path);
        let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok::<_, String>((path, bytes))
    };
    let (crt, bytes) = read("crt")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain =
        chain.ok_or_else(|| format!("{} has no certificate in PEM format", crt.display()))?;
    let (key, bytes) = read("key")?;
    let secret = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| format!("{} has no private key in PEM format", key.display()))?;
    let (crt, key) = (crt.display(), key.display());
    match CertifiedKey::from_der(chain, secret, provider) {
        Ok(_) => Ok(()),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(format!("the key {key} does not belong to the certificate {crt}"))
        }
        Err(error) => Err(format!("{crt} with {key} cannot be used: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key, in PEM.
    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    fn put(wanted: &Wanted, name: &str, cert: &str, key: &str) {
        fs::write(wanted.dir.join(format!("{name}.crt")), cert).unwrap();
        fs::write(wanted.dir.join(format!("{name}.key")), key).unwrap();
    }

    #[test]
    fn every_port_needs_a_pair() {
        let (cert, key) = pair();
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = Wanted { dir: dir.path().join("gone"), ports: vec![443, 8443] };
        let error = check(&wanted).unwrap_err();
        assert!(
            error.contains("gone: No such file") && error.contains("default_443.crt"),
            "{error}"
        );
        wanted.dir = dir.path().to_owned();
        assert!(check(&wanted).unwrap_err().starts_with("no certificate for port 443 in "));
        put(&wanted, "default_443", &cert, &key);
        let error = check(&wanted).unwrap_err();
        assert!(error.starts_with("no certificate for port 8443 in "), "{error}");
        put(&wanted, "www.example.com", &cert, &key);
        assert_eq!(check(&wanted), Ok(Vec::new()));
    }

    #[test]
    fn every_pair_is_looked_at() {
        let (cert, key) = pair();
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { dir: dir.path().to_owned(), ports: vec![443] };
        put(&wanted, "default_443", &cert, "");
        let error = check(&wanted).unwrap_err();
        assert!(error.starts_with("no certificate for port 443 of https_ports: "), "{error}");
        assert!(error.ends_with("default_443.key has no private key in PEM format"), "{error}");
        put(&wanted, "default_443", "what", &key);
        assert!(check(&wanted).unwrap_err().ends_with(".crt has no certificate in PEM format"));
        put(&wanted, "default_443", &cert, &key);
        put(&wanted, "www.example.com", "", &key);
        let warnings = check(&wanted).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("certificate www.example.com is of no use: "),
            "{warnings:?}"
        );
        // A certificate alone is not a pair, and nobody's business.
        fs::write(wanted.dir.join("ca.crt"), "").unwrap();
        assert_eq!(check(&wanted).unwrap().len(), 1);
    }

    #[test]
    fn a_key_of_another_certificate_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { dir: dir.path().to_owned(), ports: vec![443] };
        let (cert, key) = pair();
        let (other, _) = pair();
        put(&wanted, "default_443", &other, &key);
        let error = check(&wanted).unwrap_err();
        let path = |kind| wanted.dir.join(format!("default_443.{kind}")).display().to_string();
        let said =
            format!("the key {} does not belong to the certificate {}", path("key"), path("crt"));
        assert_eq!(error, format!("no certificate for port 443 of https_ports: {said}"));
        // as one of several it is no reason not to serve the others
        put(&wanted, "a.test", &cert, &key);
        let warning = format!("certificate default_443 is of no use: {said}");
        assert_eq!(check(&wanted), Ok(vec![warning]));
    }

    #[test]
    fn a_certificate_that_is_none_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { dir: dir.path().to_owned(), ports: vec![443] };
        let (_, key) = pair();
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        put(&wanted, "default_443", junk, &key);
        let error = check(&wanted).unwrap_err();
        assert!(error.contains("default_443.key cannot be used: "), "{error}");
    }
}
