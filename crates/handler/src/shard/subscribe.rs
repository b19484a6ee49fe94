//! Sessions and channels find each other.

use std::hash::BuildHasher;
use std::sync::Arc;

use evloop::arena::Key;
use stats::Mode;

use super::Shard;
use super::channel::Channel;
use super::session::{Session, Sub, Subs};
use crate::intern::NONE;
use crate::message::ToHub;
use crate::room::shrink_table;

impl Shard {
    /// The subscriptions of the session at a place of the mode's table.
    pub(super) fn subs_at(&mut self, mode: Mode, index: u32) -> Option<&mut Subs> {
        match mode {
            Mode::Ws => self.sockets.at_mut(index).map(|socket| &mut socket.subs),
            _ => self.sessions.at_mut(index).map(|session| &mut session.subs),
        }
    }

    pub(super) fn find_channel(&self, name: &str) -> Option<Key> {
        let channels = &self.channels;
        let same = |index: &u32| channels.at(*index).is_some_and(|c| &*c.name == name);
        let index = self.by_name.find(self.hasher.hash_one(name), same)?;
        self.channels.key_at(*index)
    }

    /// The channel of that name; a new one is announced to the hub.
    pub(super) fn channel(&mut self, name: &str) -> Key {
        if let Some(key) = self.find_channel(name) {
            return key;
        }
        let name: Arc<str> = name.into();
        let hash = self.hasher.hash_one(&*name);
        let key = self.channels.insert(Channel::new(name.clone()));
        let (channels, hasher) = (&self.channels, &self.hasher);
        self.by_name.insert_unique(hash, key.index, |index| {
            channels.at(*index).map_or(0, |c| hasher.hash_one(&*c.name))
        });
        self.to_hub.push(ToHub::Subscribe { channel: key, name });
        key
    }

    /// Puts the session onto the channels `names`, each once, and takes it off all others;
    /// gives on how many new ones it waits for the hub.
    pub(super) fn subscribe(&mut self, key: Key, mode: Mode, names: &[String]) -> u16 {
        let Some(session) = self.sessions.get_mut(key) else { return 0 };
        let old = std::mem::replace(&mut session.subs, Subs::NONE);
        let mut subs: Vec<Sub> = Vec::with_capacity(names.len());
        let mut unconfirmed = 0;
        for name in names {
            let channel = self.channel(name);
            let is_it = |sub: &&Sub| sub.channel == channel.index;
            if subs.iter().any(|sub| is_it(&sub)) {
                continue;
            }
            if let Some(kept) = old.as_slice().iter().find(is_it) {
                subs.push(*kept);
                continue;
            }
            let (position, confirmed) = self.join(key, mode, channel);
            unconfirmed += u16::from(!confirmed);
            subs.push(Sub { channel: channel.index, position });
        }
        for sub in old.as_slice() {
            if !subs.iter().any(|kept| kept.channel == sub.channel) {
                self.leave(mode, *sub);
            }
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.subs = Subs::from_vec(subs);
        }
        unconfirmed
    }

    /// Adds the session to a channel's list; gives its position, and whether the hub knows of
    /// the channel.
    pub(super) fn join(&mut self, key: Key, mode: Mode, channel: Key) -> (u32, bool) {
        let Some(channel) = self.channels.get_mut(channel) else { return (0, true) };
        let join = channel.next_seq;
        let list = channel.list(mode);
        let position = list.add(key.index, join);
        let count = list.live;
        if channel.hub == NONE {
            // A WebSocket waits for nothing: what it is to get comes after the confirmation.
            if mode != Mode::Ws {
                channel.waiting.push(key);
            }
            return (position, false);
        }
        let hub = channel.hub;
        self.to_hub.push(ToHub::Count { hub, mode, count });
        (position, true)
    }

    /// Takes the session off its channels; channels without sessions go.
    pub(super) fn unsubscribe(&mut self, key: Key) {
        let mode = self.sessions.get(key).map(Session::mode);
        if let Some(mode) = mode {
            self.subscribe(key, mode, &[]);
        }
    }

    pub(super) fn leave(&mut self, mode: Mode, sub: Sub) {
        let Some(channel) = self.channels.at_mut(sub.channel) else { return };
        let list = channel.list(mode);
        let moved = list.remove(sub.position);
        let (count, hub) = (list.live, channel.hub);
        if let Some(subs) = moved.and_then(|moved| self.subs_at(mode, moved)) {
            subs.moved(sub.channel, sub.position);
        }
        if hub != NONE {
            self.to_hub.push(ToHub::Count { hub, mode, count });
            self.drop_if_empty(sub.channel);
        }
    }

    /// Forgets a confirmed channel without sessions. One that is not confirmed yet is kept
    /// until it is, so that the hub's answer finds it.
    fn drop_if_empty(&mut self, index: u32) {
        let Some(channel) = self.channels.at(index) else { return };
        if !channel.is_empty() || channel.hub == NONE {
            return;
        }
        let (hub, hash) = (channel.hub, self.hasher.hash_one(&*channel.name));
        if let Ok(entry) = self.by_name.find_entry(hash, |i| *i == index) {
            entry.remove();
        }
        let (channels, hasher) = (&self.channels, &self.hasher);
        shrink_table(&mut self.by_name, |index| {
            channels.at(*index).map_or(0, |channel| hasher.hash_one(&*channel.name))
        });
        let removed = self.channels.key_at(index).and_then(|key| self.channels.remove(key));
        self.under_way -= removed.map_or(0, |channel| channel.under_way());
        self.to_hub.push(ToHub::Release { hub });
    }

    /// The hub confirmed a channel: who waited for it may go on.
    pub(super) fn subscribed(&mut self, now: u64, key: Key, hub: u32, last_id: Option<Arc<str>>) {
        let Some(channel) = self.channels.get_mut(key) else {
            self.to_hub.push(ToHub::Release { hub });
            return;
        };
        channel.hub = hub;
        channel.last_id = last_id;
        let waiting = std::mem::take(&mut channel.waiting);
        for mode in Mode::ALL {
            let count = channel.live(mode);
            if count > 0 {
                self.to_hub.push(ToHub::Count { hub, mode, count });
            }
        }
        for session in waiting {
            self.confirmed(now, session, key.index);
        }
        self.forget_outdated();
        self.drop_if_empty(key.index);
    }

    /// One of the session's channels is confirmed.
    fn confirmed(&mut self, now: u64, key: Key, channel: u32) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(hold) = &mut session.hold else {
            return self.catch_up(now, key, |new| new == channel);
        };
        hold.unconfirmed -= 1;
        if hold.unconfirmed == 0 {
            self.begin(now, key);
        }
    }
}
