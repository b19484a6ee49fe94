//! The sessions of one worker whose clients poll.

use evloop::arena::{Arena, Key};
use hashbrown::HashMap;
use sockjs::{BUFFER_MAX, Polling};

use crate::Proxy;

/// One session.
#[derive(Debug)]
pub(crate) struct Poll {
    id: Box<str>,
    pub state: Polling,
    /// The WebSocket to the backend, while there is one.
    pub upstream: Option<Key>,
    /// The request that waits for a frame.
    pub request: Option<Key>,
    /// The request whose messages wait for room, and the messages.
    pub send: Option<(Key, Vec<String>)>,
    /// Bytes that the backend's side takes now.
    pub room: usize,
    /// The earliest entry in the wheel.
    timer_ms: Option<u64>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Polls {
    arena: Arena<Poll>,
    /// Clients choose the names freely: a hash that they cannot aim at.
    by_id: HashMap<Box<str>, Key, std::hash::RandomState>,
}

impl Default for Polls {
    fn default() -> Self {
        Self { arena: Arena::new(), by_id: HashMap::default() }
    }
}

impl Polls {
    /// How many there are, ended ones that are remembered included.
    pub fn len(&self) -> usize {
        self.arena.len()
    }

    pub fn find(&self, id: &str) -> Option<Key> {
        self.by_id.get(id).copied()
    }

    pub fn get(&self, key: Key) -> Option<&Poll> {
        self.arena.get(key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Poll> {
        self.arena.get_mut(key)
    }

    /// A session that opens; `request` waits for its first frame.
    pub fn insert(&mut self, id: &str, request: Key) -> Key {
        let key = self.arena.insert(Poll {
            id: id.into(),
            state: Polling::new(),
            upstream: None,
            request: Some(request),
            send: None,
            room: BUFFER_MAX,
            timer_ms: None,
        });
        self.by_id.insert(id.into(), key);
        key
    }

    pub fn remove(&mut self, key: Key) -> Option<Poll> {
        let poll = self.arena.remove(key)?;
        self.by_id.remove(&poll.id);
        Some(poll)
    }
}

impl Proxy {
    /// Sees that the session is looked at when something is due.
    pub(crate) fn schedule_poll(&mut self, key: Key) {
        let Some(poll) = self.polls.get_mut(key) else { return };
        let Some(due) = poll.state.next_deadline() else { return };
        if poll.timer_ms.is_none_or(|earlier| due < earlier) {
            poll.timer_ms = Some(due);
            self.timers.polls.schedule(due, key);
        }
    }

    /// Does what is due for all sessions whose clients poll.
    pub(crate) fn polls_timeout(&mut self) {
        while let Some(keys) = self.timers.polls.expired(self.now) {
            keys.iter().for_each(|&key| self.one_poll_timeout(key));
            self.timers.polls.recycle(keys);
        }
    }

    fn one_poll_timeout(&mut self, key: Key) {
        let now = self.now;
        let Some(poll) = self.polls.get_mut(key) else { return };
        poll.timer_ms = None;
        if !poll.state.is_expired(now) {
            self.answer_poll(key);
            return self.schedule_poll(key);
        }
        let upstream = self.polls.remove(key).and_then(|poll| poll.upstream);
        if let Some(upstream) = upstream {
            self.ws_abandon(upstream, false);
        }
    }
}
