//! Redirects (`spec/connmgr.md §10.5`).

use evloop::arena::Key;
use http1::Header;
use origin::{REDIRECTS_MAX, Target, becomes_get};
use zhttp::HeaderBuf;

use super::session::Ask;
use super::{Order, Outgoing};

/// Headers that are for one origin only.
const PRIVATE: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Headers that go with the body.
const OF_BODY: [&str; 3] = ["content-length", "content-type", "content-encoding"];

impl Outgoing {
    /// Whether this response is followed instead of passed on. It is then thrown away; the next
    /// request begins at its end, [`Outgoing::follow`].
    pub(super) fn is_followed(&mut self, key: Key, code: u16, headers: &[Header<'_>]) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let (Some(redirects), Some(ask)) = (&mut session.redirects, &session.ask) else {
            return false;
        };
        if !(300..400).contains(&code) {
            return false;
        }
        let mut locations = headers.iter().filter(|h| h.name.eq_ignore_ascii_case("location"));
        let location = locations.next().and_then(|h| std::str::from_utf8(h.value).ok());
        redirects.next = location.and_then(|location| ask.target.redirect(location));
        if redirects.next.is_none() {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(key).filter(|s| !s.websocket)
            && let Some(ask) = &mut session.ask
            && becomes_get(&ask.method, code)
        {
            "GET".clone_into(&mut ask.method);
            ask.body.clear();
            ask.headers = without(&ask.headers, &OF_BODY);
        }
        true
    }

    /// The redirect has been read: on to where it leads. False: there was none.
    pub(super) fn follow(&mut self, key: Key) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let Some(redirects) = &mut session.redirects else { return false };
        let Some(next) = redirects.next.take() else { return false };
        redirects.followed += 1;
        let followed = redirects.followed;
        let Some(ask) = session.ask.take() else { return false };
        if followed > REDIRECTS_MAX {
            self.fail(key, "too-many-redirects");
            return true;
        }
        log::debug!("client-conn {}: redirecting to {next}", self.name(key));
        self.go_on(key, *ask, next);
        true
    }

    fn go_on(&mut self, key: Key, mut ask: Ask, next: Target) {
        if !ask.target.is_same_origin(&next) {
            ask.headers = without(&ask.headers, &PRIVATE);
            ask.client_cert = "".into();
            ask.client_key = "".into();
        }
        ask.target = next;
        let body = std::mem::take(&mut ask.body);
        let window = self.sessions.get(key).map_or(0, |session| session.response_window);
        self.start(key, ask, &body, window);
    }

    /// Bytes of a redirect that nobody gets: the window stays as it was.
    pub(super) fn discard(&mut self, key: Key, bytes: usize) -> bool {
        let redirected = self.sessions.get(key).and_then(|s| s.redirects.as_ref());
        let discards = redirected.is_some_and(|redirects| redirects.next.is_some());
        if discards {
            self.order(key, Order::Grant(bytes));
        }
        discards
    }
}

fn without(headers: &HeaderBuf, names: &[&str]) -> HeaderBuf {
    let mut kept = HeaderBuf::new();
    for (name, value) in headers.as_headers().iter() {
        if !names.iter().any(|n| name.eq_ignore_ascii_case(n)) {
            kept.push(name, value);
        }
    }
    kept
}
