//! What every request of a WebSocket over HTTP begins with. Most of it is the same for many
//! clients and is stored once.

use std::collections::hash_map::RandomState;
use std::sync::Arc;

use hashbrown::HashSet;
use zhttp::{HeaderBuf, Headers, KeptHeaders};

use crate::forward::Place;

/// Headers whose value is hardly ever that of another client.
const OWN: [&str; 11] = [
    "authorization",
    "cookie",
    "forwarded",
    "grip-last",
    "grip-sig",
    "sec-websocket-key",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-real-ip",
    "x-request-id",
];

/// No header has this name; it is that of the path in HTTP/2.
const PATH: &str = ":path";

/// Sets that are never looked through for some that nobody uses any more.
const FEW: usize = 64;

/// Where the requests go and their headers.
#[derive(Debug)]
pub(crate) struct Kept {
    common: Arc<Common>,
    /// First the path with its query, under [`PATH`], then headers.
    own: KeptHeaders,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Common {
    authority: Box<str>,
    headers: KeptHeaders,
}

impl Kept {
    /// Where the requests go.
    pub fn place(&self) -> Place {
        let path = self.own.as_headers().get(PATH).unwrap_or_default();
        let target = String::from_utf8_lossy(path).into_owned();
        Place { authority: self.common.authority.to_string(), target }
    }

    /// Their headers: those of one name in the order in which the client sent them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let own = self.own.as_headers().iter().filter(|(name, _)| *name != PATH);
        self.common.headers.as_headers().iter().chain(own)
    }
}

/// What is in common, once.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    sets: HashSet<Arc<Common>, RandomState>,
    /// Sets at which those that nobody uses are looked for.
    sweep_at: usize,
}

impl Keeper {
    /// Keeps a request's place, and those of its headers that `wanted` names.
    pub fn keep(
        &mut self,
        place: &Place,
        headers: Headers<'_>,
        wanted: impl Fn(&str) -> bool,
    ) -> Kept {
        let (mut common, mut own) = (HeaderBuf::new(), HeaderBuf::new());
        own.push(PATH, place.target.as_bytes());
        for (name, value) in headers.iter().filter(|(name, _)| wanted(name)) {
            let is_own = OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
            if is_own { &mut own } else { &mut common }.push(name, value);
        }
        let common = Common { authority: (*place.authority).into(), headers: common.into() };
        if self.sets.len() >= self.sweep_at {
            self.sweep();
        }
        let common = self.sets.get_or_insert(Arc::new(common));
        Kept { common: Arc::clone(common), own: own.into() }
    }

    /// Forgets what nobody uses any more once there is more of it than sessions may have.
    pub fn tidy(&mut self, sessions: usize) {
        if self.sets.len() > FEW && self.sets.len() > 2 * sessions {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        self.sets.shrink_to(self.sets.len() * 2);
        self.sweep_at = FEW.max(2 * self.sets.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(keeper: &mut Keeper, cookie: &str) -> Kept {
        let mut headers = HeaderBuf::new();
        for (name, value) in [("Host", "h"), ("Cookie", cookie), ("hidden", "x"), ("A", "b")] {
            headers.push(name, value.as_bytes());
        }
        let place = Place { authority: "h:80".into(), target: format!("/?{cookie}") };
        keeper.keep(&place, headers.as_headers(), |name| name != "hidden")
    }

    #[test]
    fn what_clients_have_in_common_is_stored_once() {
        let mut keeper = Keeper::default();
        let (one, other) = (keep(&mut keeper, "one"), keep(&mut keeper, "other"));
        assert!(Arc::ptr_eq(&one.common, &other.common));
        let lines = |kept: &Kept| -> Vec<String> {
            kept.headers()
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
                .collect()
        };
        assert_eq!(lines(&one), ["Host: h", "A: b", "Cookie: one"]);
        assert_eq!(lines(&other), ["Host: h", "A: b", "Cookie: other"]);
        let place = other.place();
        assert_eq!((&*place.authority, &*place.target), ("h:80", "/?other"));
    }

    #[test]
    fn what_nobody_uses_goes() {
        let mut keeper = Keeper::default();
        let sets = |keeper: &mut Keeper, range: std::ops::Range<u32>| -> Vec<Kept> {
            let place = |n| Place { authority: format!("h{n}"), target: "/".into() };
            range.map(|n| keeper.keep(&place(n), HeaderBuf::new().as_headers(), |_| true)).collect()
        };
        let some = sets(&mut keeper, 0..1_000);
        assert_eq!(keeper.sets.len(), 1_000, "all are in use");
        drop(some);
        keeper.tidy(600);
        assert_eq!(keeper.sets.len(), 1_000, "sessions may have them");
        let others = sets(&mut keeper, 1_000..2_000);
        assert!(keeper.sets.len() < 1_100, "they were replaced");
        drop(others);
        keeper.tidy(10);
        assert_eq!(keeper.sets.len(), 0);
    }
}
