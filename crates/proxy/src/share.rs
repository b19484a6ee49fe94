//! Requests that are alike, as the handler says, are answered from one (spec/proxy.md §7.2). That
//! one belongs to a session without a client (`NOBODY`), the asking one. The clients' sessions
//! wait for it, each with credits of its own; the slowest sets the pace, and those that come
//! within [`LATE_MAX`] bytes get the response from its start. They are handed over by one call.

use std::ops::Deref;

use evloop::arena::Key;
use zhttp::Packet;

use crate::Proxy;
use crate::arrival::new_session;
use crate::backend::BODY_KEPT_MAX;
use crate::peers::NOBODY;
use crate::response::Head;
use crate::retry::Passthrough;
use crate::session::{Inspected, Session, Stage};

/// Bytes of a response's body after which nobody joins any more.
const LATE_MAX: usize = 100_000;

/// How a session takes part.
#[derive(Debug, Default)]
pub(crate) enum Share {
    /// Not at all.
    #[default]
    Alone,
    /// It asks for others.
    Asks(Box<Asking>),
    /// It gets what that one is answered.
    Waits(Key),
}

/// What an asking session has.
#[derive(Debug)]
pub(crate) struct Asking {
    name: Box<[u8]>,
    clients: Vec<Key>,
    /// The response so far, while others may join: its head with the length, and body.
    head: Option<(Head, Option<u64>)>,
    so_far: Vec<u8>,
}

/// The client sessions of a request: mostly one, for which no list is made.
pub(crate) enum Clients {
    One([Key; 1]),
    Several(Vec<Key>),
}

impl Deref for Clients {
    type Target = [Key];

    fn deref(&self) -> &[Key] {
        match self {
            Self::One(key) => key,
            Self::Several(keys) => keys,
        }
    }
}

impl Session {
    fn asking(&mut self) -> Option<&mut Asking> {
        match &mut self.exchange.share {
            Share::Asks(asking) => Some(asking),
            _ => None,
        }
    }

    /// The session that asks the backend in the place of this one, which is `key`.
    pub fn asker(&self, key: Key) -> Key {
        match self.exchange.share {
            Share::Waits(asks) => asks,
            _ => key,
        }
    }
}

/// Under which name a request is shared, if it may be: a client that has seen less than another is
/// not answered with what that one lacks.
fn share_name(known: &Inspected) -> Option<Box<[u8]>> {
    let mut name = known.sharing_key.as_deref()?.to_vec();
    let mut ids: Vec<_> = known.last_ids.iter().collect();
    ids.sort_unstable();
    for (channel, id) in ids {
        name.extend([b"|", channel.as_bytes(), b"; last-id=", id].concat());
    }
    Some(name.into())
}

/// Whether a request of the handler may be answered together with others: one whose answer is for
/// what it says, or must be new, may not, whatever goes for the requests of clients.
fn wants_to_share(session: &Session) -> bool {
    let packet = session.packet();
    packet.and_then(|packet| Passthrough::of(&packet)).is_some_and(|wanted| wanted.auto_share)
}

impl Proxy {
    /// What the handler says about the request is known: the backend is asked, or was already
    /// for another client.
    pub(crate) fn start_or_join(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let name = session.exchange.inspected.as_ref().and_then(|known| share_name(known));
        let name = name.filter(|_| !session.internal || wants_to_share(session));
        let Some(name) = name.filter(|_| session.exchange.body.len() <= BODY_KEPT_MAX) else {
            return self.start_target(key);
        };
        if session.exchange.request_more {
            session.stage = Stage::Gathering;
            return;
        }
        match self.shares.get(&name) {
            Some(asks) => self.join(key, *asks),
            None => self.ask_for_others(key, name),
        }
    }

    /// The first of its kind.
    fn ask_for_others(&mut self, key: Key, name: Box<[u8]>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let bytes = session.exchange.packet.clone();
        let Ok(packet) = Packet::parse(&bytes) else { return };
        let asking =
            Asking { name: name.clone(), clients: Vec::new(), head: None, so_far: Vec::new() };
        let mut asks = Session {
            entry: session.entry.clone(),
            trusted: session.trusted,
            https: session.https,
            ..new_session(&bytes, &packet, NOBODY, session.internal, now)
        };
        let (own, of_client) = (&mut *asks.exchange, &mut *session.exchange);
        own.headers = std::mem::take(&mut of_client.headers);
        own.place = of_client.place.take();
        own.body = std::mem::take(&mut of_client.body);
        own.inspected = of_client.inspected.clone();
        own.request_more = false;
        own.share = Share::Asks(Box::new(asking));
        let asks = self.insert(asks);
        self.shares.insert(name, asks);
        self.join(key, asks);
        self.start_target(asks);
    }

    fn join(&mut self, key: Key, asks: Key) {
        let Some(session) = self.sessions.get_mut(asks) else { return };
        let (entry, target) = (session.entry.clone(), session.target);
        let Some(asking) = session.asking() else { return };
        asking.clients.push(key);
        let begun = asking.head.clone().map(|begun| (begun, asking.so_far.clone()));
        let Some(client) = self.sessions.get_mut(key) else { return };
        (client.entry, client.target, client.stage) = (entry, target, Stage::Asked);
        (client.exchange.tried, client.exchange.share) = (true, Share::Waits(asks));
        client.exchange.body = Vec::new();
        if let Some(((head, length), body)) = begun {
            self.relay_head(key, head, length);
            self.relay_body(key, &body);
        }
    }

    /// Those for whom a session asks; nothing if it asks for itself.
    pub(crate) fn asked_for(&self, key: Key) -> Option<Vec<Key>> {
        match &self.sessions.get(key)?.exchange.share {
            Share::Asks(asking) => Some(asking.clients.clone()),
            _ => None,
        }
    }

    /// The client sessions of a request to a backend.
    pub(crate) fn clients_of(&self, key: Key) -> Clients {
        self.asked_for(key).map_or(Clients::One([key]), Clients::Several)
    }

    /// Which target is tried is told to those who wait for its answer.
    pub(crate) fn note_target(&mut self, key: Key, target: usize) {
        for client in self.asked_for(key).unwrap_or_default() {
            if let Some(session) = self.sessions.get_mut(client) {
                session.target = target;
            }
        }
    }

    /// Keeps the head for those who come late.
    pub(crate) fn keep_head(&mut self, key: Key, head: &Head, length: Option<u64>) {
        if let Some(asking) = self.sessions.get_mut(key).and_then(Session::asking) {
            asking.head = Some((head.clone(), length));
        }
    }

    /// Keeps a part of the body for those who come late, or ends that they may.
    pub(crate) fn keep_for_late(&mut self, key: Key, data: &[u8]) {
        let Some(asking) = self.sessions.get_mut(key).and_then(Session::asking) else { return };
        match asking.so_far.len() + data.len() <= LATE_MAX {
            true => asking.so_far.extend_from_slice(data),
            false => self.close_share(key),
        }
    }

    /// Nobody may join any more.
    pub(crate) fn close_share(&mut self, key: Key) {
        let Some(asking) = self.sessions.get_mut(key).and_then(Session::asking) else { return };
        asking.so_far = Vec::new();
        let name = std::mem::take(&mut asking.name);
        if self.shares.get(&name) == Some(&key) {
            self.shares.remove(&name);
        }
    }

    /// The answer does not come from the backend: gives those who are to get it, if there are
    /// others.
    pub(crate) fn stop_asking(&mut self, key: Key) -> Option<Vec<Key>> {
        let clients = self.asked_for(key)?;
        if self.sessions.get(key)?.backend {
            self.cancel_backend(key);
        }
        self.close_share(key);
        let session = self.sessions.get_mut(key)?;
        (session.backend, session.stage) = (false, Stage::Answering);
        Some(clients)
    }

    /// A session that waited is over. The request goes on for the others, if there are any.
    pub(crate) fn client_left(&mut self, asks: Key, client: Key) {
        let Some(session) = self.sessions.get_mut(asks) else { return };
        let pausing = session.stage == Stage::Pausing;
        let Some(asking) = session.asking() else { return };
        asking.clients.retain(|waits| *waits != client);
        if asking.clients.is_empty() {
            self.close_share(asks);
            self.end_asking(asks);
        } else if pausing {
            self.accept_if_paused(asks);
        } else {
            self.go_on_if_read(asks);
        }
    }

    /// Nobody waits any more: what the request counted goes to the report.
    fn end_asking(&mut self, asks: Key) {
        if let Some(session) = self.remove(asks) {
            self.report_backend(&session);
        }
    }

    /// The backend is told to wait until this client has read.
    pub(crate) fn wait_for(&mut self, key: Key) {
        let Some(asks) = self.sessions.get(key).map(|session| session.asker(key)) else { return };
        let waits = self.is_waited_for(asks);
        if let Some(session) = self.sessions.get_mut(key) {
            session.exchange.out.paused = true;
        }
        if waits == Some(false) {
            self.pause_backend(asks, true);
        }
    }

    /// The backend goes on once every client has read enough.
    pub(crate) fn go_on_if_read(&mut self, asks: Key) {
        if self.is_waited_for(asks) == Some(false) {
            self.pause_backend(asks, false);
        }
    }

    /// Whether a backend that sends was told to wait for one of its clients.
    fn is_waited_for(&self, asks: Key) -> Option<bool> {
        self.sessions.get(asks).filter(|session| session.backend)?;
        let waits = |key: &Key| self.sessions.get(*key).is_some_and(|s| s.exchange.out.paused);
        Some(self.clients_of(asks).iter().any(waits))
    }
}
