//! WebSockets: sessions that a proxy holds, whose channels and stored messages are here
//! (spec/grip.md §10, spec/internal-rpc.md §6). The proxy tells what happens in control packets;
//! what is published goes back to it in the same way.

mod control;
mod deliver;
mod proxies;
mod state;
mod timers;

use std::hash::BuildHasher;

use evloop::arena::Key;
use zrpc::control::{Item, Kind};

use super::Shard;
use super::filtering::Owner;
use crate::intern::NONE;
use crate::room::shrink_table;
pub(super) use deliver::Group;
pub(super) use proxies::Proxies;
pub(crate) use state::{Profile, Socket};

impl Shard {
    /// WebSockets that are known.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// The session of that connection id.
    pub(super) fn find_socket(&self, cid: &[u8]) -> Option<Key> {
        let sockets = &self.sockets;
        let same = |index: &u32| sockets.at(*index).is_some_and(|socket| *socket.cid == *cid);
        let index = self.sockets_by_id.find(self.hasher.hash_one(cid), same)?;
        self.sockets.key_at(*index)
    }

    fn insert_socket(&mut self, socket: Socket) -> Key {
        let hash = self.hasher.hash_one(&*socket.cid);
        if let Some(proxy) = self.proxies.get_mut(socket.proxy) {
            proxy.sockets += 1;
        }
        let key = self.sockets.insert(socket);
        let (sockets, hasher) = (&self.sockets, &self.hasher);
        self.sockets_by_id.insert_unique(hash, key.index, |index| {
            sockets.at(*index).map_or(0, |socket| hasher.hash_one(&*socket.cid))
        });
        key
    }

    /// Takes a session out of all tables. The proxy is told nothing.
    pub(super) fn remove_socket(&mut self, now: u64, key: Key) {
        self.leave_all(key);
        self.end_filtering(now, Owner::Socket(key));
        let Some(socket) = self.sockets.remove(key) else { return };
        if self.sockets.is_empty() {
            self.socket_wheel.clear();
        }
        let hash = self.hasher.hash_one(&*socket.cid);
        if let Ok(entry) = self.sockets_by_id.find_entry(hash, |index| *index == key.index) {
            entry.remove();
        }
        let (sockets, hasher) = (&self.sockets, &self.hasher);
        shrink_table(&mut self.sockets_by_id, |index| {
            sockets.at(*index).map_or(0, |socket| hasher.hash_one(&*socket.cid))
        });
        self.named -= usize::from(socket.sid().is_some());
        self.let_go_of_socket(&socket);
    }

    /// What stands before the names of a WebSocket's channels.
    pub(super) fn prefix_of(&self, socket: &Socket) -> &str {
        self.profiles.get(socket.profile).map_or("", |profile| &profile.prefix)
    }

    fn let_go_of_socket(&mut self, socket: &Socket) {
        if let Some(proxy) = self.proxies.get_mut(socket.proxy) {
            proxy.sockets -= 1;
        }
        self.route_names.release(socket.route);
        if socket.profile != NONE {
            self.profiles.release(socket.profile);
        }
    }

    /// Nothing more is delivered to the session; the proxy ends it.
    pub(super) fn close_socket(&mut self, key: Key) {
        self.leave_all(key);
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.closed = true;
        }
    }

    /// Closes a session because of an error; the reason is for debugging only.
    fn fail_socket(&mut self, key: Key, text: &str) {
        let debug = self.profile_of(key).is_some_and(|profile| profile.debug);
        let reason = if debug { text } else { "" };
        let close = Item { code: Some(1011), reason: reason.as_bytes(), ..kind(Kind::Close) };
        self.tell(key, close);
        self.close_socket(key);
    }

    /// Drops a session that the proxy did not take care of.
    fn cancel_socket(&mut self, now: u64, key: Key) {
        self.tell(key, kind(Kind::Cancel));
        self.remove_socket(now, key);
    }

    /// Appends an item for the session to what its proxy gets.
    pub(super) fn tell(&mut self, key: Key, item: Item<'_>) {
        let Some(socket) = self.sockets.get(key) else { return };
        self.proxies.write(socket.proxy, &Item { cid: &socket.cid, ..item });
    }

    fn profile_of(&self, key: Key) -> Option<&Profile> {
        self.profiles.get(self.sockets.get(key)?.profile)
    }

    /// A proxy is gone: its sessions end, there is nobody to tell.
    pub fn proxy_gone(&mut self, now: u64, proxy: &[u8]) {
        let Some(number) = self.proxies.find(proxy) else { return };
        let of_proxy = self.sockets.iter().filter(|(_, socket)| socket.proxy == number);
        let keys: Vec<Key> = of_proxy.map(|(key, _)| key).collect();
        if !keys.is_empty() {
            let name = String::from_utf8_lossy(proxy);
            log::warn!("proxy {name} is gone, ending {} WebSocket sessions", keys.len());
        }
        keys.into_iter().for_each(|key| self.remove_socket(now, key));
    }

    /// A connection to some proxy broke: writes what shows who is gone.
    pub fn probe_proxies(&mut self) {
        self.proxies.probe();
    }

    /// Lets the proxy ask the backend of these sessions now, where that is done by HTTP.
    pub(super) fn refresh_channel(&mut self, channel: Key) {
        let Some(channel) = self.channels.get_mut(channel) else { return };
        if channel.live(stats::Mode::Ws) == 0 {
            return;
        }
        let list = channel.list(stats::Mode::Ws);
        let indexes: Vec<u32> = list.subscribers.iter().map(|s| s.session).collect();
        for index in indexes {
            if let Some(key) = self.sockets.key_at(index) {
                self.tell(key, kind(Kind::Refresh));
            }
        }
    }

    /// As [`Shard::refresh_channel`] for one session; false if it is not here.
    pub(super) fn refresh_socket(&mut self, cid: &[u8]) -> bool {
        let found = self.find_socket(cid);
        if let Some(key) = found {
            self.tell(key, kind(Kind::Refresh));
        }
        found.is_some()
    }
}

/// An item of that kind, for [`Shard::tell`].
fn kind(kind: Kind) -> Item<'static> {
    Item::new(b"", kind)
}
