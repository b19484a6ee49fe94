//! Certificates by name (`spec/connmgr.md §9`): a flat directory with `NAME.crt` (PEM, the chain,
//! leaf first) and `NAME.key` (PEM). A pair is loaded when it is first asked for, kept, and loaded
//! again when its files change. One store serves all workers; `tls` asks it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use evloop::clock::Clock;
use hashbrown::HashMap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// How often the files of a name are looked at, at most.
const LOOK_MS: u64 = 1_000;

/// Names kept; each has files in the directory.
const NAMES_MAX: usize = 10_000;

/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Longest host name (RFC 1035 §2.3.4).
const NAME_MAX_BYTES: usize = 253;

/// What tells one state of a pair's files from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([(i64, i64, u64, u64); 2]);

impl Stamp {
    /// `None` if one of the files is not there.
    fn of(dir: &Path, name: &str) -> Option<Self> {
        let of = |kind| {
            let meta = path(dir, name, kind).metadata().ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
        };
        Some(Self([of("crt")?, of("key")?]))
    }
}

/// A name whose files are or were there.
#[derive(Debug)]
struct Kept {
    /// What was loaded last; the files may have become worse since.
    cert: Option<Arc<CertifiedKey>>,
    stamp: Stamp,
    /// Whether the files of this stamp could not be loaded.
    is_broken: bool,
    look_at: u64,
}

/// The directory, and what was loaded from it.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    provider: Arc<CryptoProvider>,
    clock: Clock,
    kept: Mutex<HashMap<Box<str>, Kept>>,
}

impl Store {
    pub(crate) fn new(dir: &Path, provider: Arc<CryptoProvider>) -> Self {
        let (dir, kept) = (dir.to_path_buf(), Mutex::default());
        Self { dir, provider, clock: Clock::new(), kept }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// The certificate for a client that wants `host`: its own, that of its parent domain
    /// (`_.example.com`), or the default one.
    pub(crate) fn find(
        &self,
        host: Option<&str>,
        default: Option<&str>,
    ) -> Option<Arc<CertifiedKey>> {
        self.find_at(self.clock.now_ms(), host, default)
    }

    fn find_at(
        &self,
        now: u64,
        host: Option<&str>,
        default: Option<&str>,
    ) -> Option<Arc<CertifiedKey>> {
        let host = host.filter(|host| is_name(host)).map(str::to_ascii_lowercase);
        let wildcard = host.as_deref().and_then(wildcard);
        let names = [host.as_deref(), wildcard.as_deref(), default.filter(|name| is_name(name))];
        names.into_iter().flatten().find_map(|name| {
            let cert = self.named(now, name)?;
            log::debug!("using cert: {name}");
            Some(cert)
        })
    }

    fn named(&self, now: u64, name: &str) -> Option<Arc<CertifiedKey>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.get_mut(name);
        if let Some(known) = &known
            && now < known.look_at
        {
            return known.cert.clone();
        }
        let stamp = Stamp::of(&self.dir, name);
        match (known, stamp) {
            (None, None) => None,
            (Some(known), None) => {
                known.look_at = now + LOOK_MS;
                known.cert.clone()
            }
            (Some(known), Some(stamp)) => {
                known.look_at = now + LOOK_MS;
                if known.stamp != stamp || known.is_broken {
                    self.load_into(known, name, stamp);
                }
                known.cert.clone()
            }
            (None, Some(stamp)) => {
                let mut new = Kept { cert: None, stamp, is_broken: false, look_at: now + LOOK_MS };
                self.load_into(&mut new, name, stamp);
                let cert = new.cert.clone();
                make_room(&mut kept);
                kept.insert(name.into(), new);
                cert
            }
        }
    }

    /// Loads a pair. If that fails, what was loaded before stays; a line says so, once for each
    /// state of the files.
    fn load_into(&self, kept: &mut Kept, name: &str, stamp: Stamp) {
        match load(&self.dir, name, &self.provider) {
            Ok(cert) => {
                log::debug!("loaded cert: {name}");
                kept.cert = Some(Arc::new(cert));
                kept.is_broken = false;
            }
            Err(reason) => {
                let said = kept.is_broken && kept.stamp == stamp;
                let effect =
                    if kept.cert.is_some() { "; the one loaded before is used" } else { "" };
                let level = if said { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "failed to load cert {name}: {reason}{effect}");
                kept.is_broken = true;
            }
        }
        kept.stamp = stamp;
    }
}

/// Forgets the name that was not looked at for longest, if there are too many.
fn make_room(kept: &mut HashMap<Box<str>, Kept>) {
    if kept.len() < NAMES_MAX {
        return;
    }
    let oldest = kept.iter().min_by_key(|(_, entry)| entry.look_at).map(|(name, _)| name.clone());
    if let Some(name) = oldest {
        kept.remove(&name);
    }
}

/// Whether a file may be looked up by this name.
fn is_name(name: &str) -> bool {
    let stray = |c: char| c == '/' || c.is_control();
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.contains(stray)
}

/// The name of the certificate of all hosts beside this one.
fn wildcard(host: &str) -> Option<String> {
    let (_, parent) = host.split_once('.')?;
    (!parent.is_empty()).then(|| format!("_.{parent}"))
}

fn path(dir: &Path, name: &str, kind: &str) -> PathBuf {
    dir.join(format!("{name}.{kind}"))
}

/// Reads a pair, and checks that the two belong together.
fn load(dir: &Path, name: &str, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let (crt, key) = (path(dir, name, "crt"), path(dir, name, "key"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&crt)?).collect();
    let chain = chain.map_err(|cause| format!("{}: {cause}", crt.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: no certificate in PEM format", crt.display()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(&key)?)
        .map_err(|cause| format!("{}: {cause}", key.display()))?;
    let (crt, key) = (crt.display(), key.display());
    CertifiedKey::from_der(chain, secret, provider).map_err(|cause| match cause {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("the key {key} does not belong to the certificate {crt}")
        }
        cause => format!("{crt} with {key}: {cause}"),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let error = |cause: std::io::Error| format!("{}: {cause}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(error)?;
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("{}: larger than {FILE_MAX_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// Chooses the certificate of each handshake on one port.
#[derive(Debug)]
pub(crate) struct Resolver {
    store: Arc<Store>,
    default: Option<String>,
    missed: AtomicBool,
}

impl Resolver {
    /// `default`: the name that serves clients for whose host there is nothing.
    pub(crate) fn new(store: Arc<Store>, default: Option<String>) -> Self {
        Self { store, default, missed: AtomicBool::new(false) }
    }

    /// Whether a look-up since the last call found nothing.
    pub(crate) fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name();
        log::debug!("tls server name: {}", host.unwrap_or("(none)"));
        let cert = self.store.find(host, self.default.as_deref());
        self.missed.store(cert.is_none(), Ordering::Relaxed);
        cert
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir {
        dir: tempfile::TempDir,
        store: Store,
    }

    impl Dir {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let store = Store::new(dir.path(), provider);
            Self { dir, store }
        }

        /// Writes a fresh pair; gives its leaf.
        fn pair(&self, name: &str) -> Vec<u8> {
            let pair = rcgen::generate_simple_self_signed(vec![name.to_string()]).unwrap();
            self.write(name, "crt", &pair.cert.pem());
            self.write(name, "key", &pair.signing_key.serialize_pem());
            pair.cert.der().to_vec()
        }

        fn write(&self, name: &str, kind: &str, text: &str) {
            std::fs::write(path(self.dir.path(), name, kind), text).unwrap();
        }

        fn find(&self, now: u64, host: &str) -> Option<Vec<u8>> {
            let found = self.store.find_at(now, Some(host), Some("default_1"));
            found.map(|cert| cert.cert[0].to_vec())
        }
    }

    #[test]
    fn the_nearest_name_is_taken() {
        let dir = Dir::new();
        assert_eq!(dir.find(0, "www.example.com"), None);
        let default = dir.pair("default_1");
        assert_eq!(dir.find(0, "www.example.com").as_ref(), Some(&default));
        let wildcard = dir.pair("_.example.com");
        assert_eq!(dir.find(0, "www.example.com").as_ref(), Some(&wildcard));
        let own = dir.pair("www.example.com");
        assert_eq!(dir.find(0, "WWW.Example.com"), Some(own));
        assert_eq!(dir.find(0, "a.www.example.com").as_ref(), Some(&default));
        assert_eq!(dir.find(0, "example.com").as_ref(), Some(&default));
        let found = dir.store.find_at(0, None, Some("default_1")).unwrap();
        assert_eq!(found.cert[0].to_vec(), default);
        assert!(dir.store.find_at(0, None, None).is_none());
    }

    #[test]
    fn changed_files_are_loaded_again_after_a_second() {
        let dir = Dir::new();
        let old = dir.pair("a.test");
        assert_eq!(dir.find(0, "a.test").as_ref(), Some(&old));
        let new = dir.pair("a.test");
        assert_eq!(dir.find(LOOK_MS - 1, "a.test").as_ref(), Some(&old));
        assert_eq!(dir.find(LOOK_MS, "a.test").as_ref(), Some(&new));
        std::fs::remove_file(path(dir.dir.path(), "a.test", "crt")).unwrap();
        assert_eq!(dir.find(2 * LOOK_MS, "a.test").as_ref(), Some(&new));
    }

    #[test]
    fn a_broken_pair_leaves_the_old_one() {
        let dir = Dir::new();
        let old = dir.pair("a.test");
        assert_eq!(dir.find(0, "a.test").as_ref(), Some(&old));
        let key = std::fs::read_to_string(path(dir.dir.path(), "a.test", "key")).unwrap();
        dir.pair("a.test");
        dir.write("a.test", "key", &key);
        assert_eq!(dir.find(LOOK_MS, "a.test").as_ref(), Some(&old));
        dir.write("a.test", "crt", "junk");
        assert_eq!(dir.find(2 * LOOK_MS, "a.test").as_ref(), Some(&old));
        let new = dir.pair("a.test");
        assert_eq!(dir.find(3 * LOOK_MS, "a.test"), Some(new));
    }

    #[test]
    fn says_what_is_wrong_with_a_pair() {
        let dir = Dir::new();
        dir.pair("a");
        dir.pair("b");
        let crt = std::fs::read_to_string(path(dir.dir.path(), "b", "crt")).unwrap();
        let reason = |name| load(dir.dir.path(), name, &dir.store.provider).unwrap_err();
        for (text, wanted) in [
            (crt.as_str(), "a.key does not belong to the certificate "),
            ("", "no certificate in PEM format"),
            ("-----BEGIN CERTIFICATE-----\n!\n", "a.crt: "),
        ] {
            dir.write("a", "crt", text);
            assert!(reason("a").contains(wanted), "{}", reason("a"));
        }
        assert!(reason("c").contains("c.crt: No such file"), "{}", reason("c"));
    }

    #[test]
    fn a_pair_that_never_worked_is_tried_again() {
        let dir = Dir::new();
        let default = dir.pair("default_1");
        dir.write("a.test", "crt", "junk");
        dir.write("a.test", "key", "junk");
        assert_eq!(dir.find(0, "a.test").as_ref(), Some(&default));
        let own = dir.pair("a.test");
        assert_eq!(dir.find(1, "a.test").as_ref(), Some(&default));
        assert_eq!(dir.find(LOOK_MS, "a.test"), Some(own));
    }

    #[test]
    fn names_that_are_none_touch_no_file() {
        let long = "a".repeat(NAME_MAX_BYTES + 1);
        for name in ["", "a/b", "../x", "a\0b", "a\nb", "\u{85}", long.as_str()] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["a", "a.b-c.d", "_.x", "default_443"] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let stamp = Stamp([(0, 0, 0, 0); 2]);
        let mut kept = HashMap::new();
        for n in 0..NAMES_MAX as u64 + 10 {
            make_room(&mut kept);
            let entry = Kept { cert: None, stamp, is_broken: true, look_at: n };
            kept.insert(n.to_string().into_boxed_str(), entry);
        }
        assert_eq!(kept.len(), NAMES_MAX);
        assert!(!kept.contains_key("9") && kept.contains_key("10"));
    }
}
