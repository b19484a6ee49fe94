//! Names to addresses, without holding up the loop: literals and `localhost` at once, the rest by
//! a few threads that are started when first needed. Answers are kept for some seconds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use mio::Waker;

/// Threads that ask the system's resolver, which blocks.
const THREADS: usize = 4;

/// Names that may wait for a thread.
const QUEUE_MAX: usize = 1_000;

/// Names that are remembered, and for how long.
const CACHE_MAX: usize = 1_000;
const CACHE_MS: u64 = 5_000;

/// Most addresses of one name that are tried (`spec/connmgr.md §10.1`).
const ADDRESSES_MAX: usize = 16;

/// The addresses of a name, none if it has none.
pub(crate) type Addresses = Arc<[IpAddr]>;

/// What is known about a name now.
pub(crate) enum Lookup {
    /// The addresses.
    Known(Addresses),
    /// A thread was asked; [`Names::answer`] gives it later.
    Asked,
    /// Too many names wait.
    Overload,
}

struct Threads {
    questions: SyncSender<String>,
    answers: Receiver<(String, Addresses)>,
}

/// The resolver.
pub(crate) struct Names {
    waker: Arc<Waker>,
    threads: Option<Threads>,
    cache: HashMap<String, (Addresses, u64)>,
    asked: HashMap<String, ()>,
}

impl Names {
    pub fn new(waker: Arc<Waker>) -> Self {
        Self { waker, threads: None, cache: HashMap::new(), asked: HashMap::new() }
    }

    /// Looks a name up.
    pub fn lookup(&mut self, now_ms: u64, name: &str) -> Lookup {
        if let Some(addresses) = at_once(name) {
            return Lookup::Known(addresses);
        }
        match self.cache.get(name) {
            Some((addresses, until)) if now_ms < *until => {
                return Lookup::Known(Arc::clone(addresses));
            }
            _ => {}
        }
        if self.asked.contains_key(name) {
            return Lookup::Asked;
        }
        self.ask(name)
    }

    fn ask(&mut self, name: &str) -> Lookup {
        if self.threads.is_none() {
            self.threads = start_threads(&self.waker);
        }
        let Some(threads) = &self.threads else { return Lookup::Overload };
        match threads.questions.try_send(name.to_owned()) {
            Ok(()) => {
                self.asked.insert(name.to_owned(), ());
                Lookup::Asked
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Lookup::Overload,
        }
    }

    /// The next answer that a thread gave.
    pub fn answer(&mut self, now_ms: u64) -> Option<(String, Addresses)> {
        let (name, addresses) = self.threads.as_ref()?.answers.try_recv().ok()?;
        self.asked.remove(&name);
        if self.cache.len() >= CACHE_MAX {
            self.cache.retain(|_, (_, until)| *until > now_ms);
        }
        if self.cache.len() < CACHE_MAX {
            self.cache.insert(name.clone(), (Arc::clone(&addresses), now_ms + CACHE_MS));
        }
        Some((name, addresses))
    }
}

/// Literals in every notation, and `localhost` (RFC 6761), need no resolver.
fn at_once(name: &str) -> Option<Addresses> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Arc::new([address]));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.eq_ignore_ascii_case("localhost") {
        return Some(Arc::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
    }
    // 127.1, 0x7f000001 and their like: the system's resolver would take them as well.
    match last.starts_with(|c: char| c.is_ascii_digit()).then(|| url::Host::parse(name)) {
        Some(Ok(url::Host::Ipv4(address))) => Some(Arc::new([address.into()])),
        _ => None,
    }
}

fn start_threads(waker: &Arc<Waker>) -> Option<Threads> {
    let (questions, waiting) = sync_channel::<String>(QUEUE_MAX);
    let (sender, answers) = channel();
    let waiting = Arc::new(Mutex::new(waiting));
    for n in 0..THREADS {
        let (waiting, sender, waker) = (Arc::clone(&waiting), sender.clone(), Arc::clone(waker));
        let thread = std::thread::Builder::new().name(format!("names-{n}"));
        if let Err(cause) = thread.spawn(move || resolve(&waiting, &sender, &waker)) {
            log::error!("unable to start a thread for name look-ups: {cause}");
            return None;
        }
    }
    Some(Threads { questions, answers })
}

fn resolve(waiting: &Mutex<Receiver<String>>, sender: &Sender<(String, Addresses)>, waker: &Waker) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(name) = next else { return };
        let found = (name.as_str(), 0).to_socket_addrs();
        let addresses = match found {
            Ok(list) => unique(list.map(|address| address.ip())),
            Err(cause) => {
                log::debug!("name look-up of {name} failed: {cause}");
                Arc::new([])
            }
        };
        if sender.send((name, addresses)).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

fn unique(list: impl Iterator<Item = IpAddr>) -> Addresses {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in list {
        if !found.contains(&address) && found.len() < ADDRESSES_MAX {
            found.push(address);
        }
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_localhost_at_once() {
        assert_eq!(*at_once("10.0.0.1").unwrap(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(*at_once("::1").unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        for name in ["LocalHost", "localhost.", "a.localhost"] {
            assert_eq!(at_once(name).unwrap().len(), 2);
        }
        for name in ["127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1."] {
            assert_eq!(*at_once(name).unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)], "{name}");
        }
        assert_eq!(*at_once("[::1]").unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        for name in ["example.com", "1.example", "256.256.256.256", "", "."] {
            assert!(at_once(name).is_none(), "{name}");
        }
    }
}
