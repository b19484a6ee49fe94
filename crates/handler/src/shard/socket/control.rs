//! Control packets of the proxies: sessions come and go, backends subscribe them
//! (spec/internal-rpc.md §6.3, spec/grip.md §10.2).

use evloop::arena::Key;
use grip::control::{Control, Message};
use stats::Mode;
use zrpc::control::{Item, Kind, Packet};

use super::kind;
use super::state::{ChannelFilters, Profile, Socket};
use crate::shard::Shard;
use crate::shard::session::{LogRules, NEVER, Sub, Subs};
use crate::shard::timers::tenths;

/// Seconds that a session lives whose proxy does not say.
const TTL_S: u32 = 60;

impl Shard {
    /// Takes a control packet of a proxy.
    pub fn control(&mut self, now: u64, payload: &[u8]) {
        let packet = match Packet::parse(payload) {
            Ok(packet) if !packet.from.is_empty() => packet,
            result => {
                let cause =
                    result.map_or_else(|error| error.to_string(), |_| "no 'from'".to_owned());
                self.drops.bad_packets += 1;
                return log::warn!(
                    "IN ws control: received packet with invalid format ({cause}), skipping"
                );
            }
        };
        let proxy = self.proxies.intern(packet.from);
        for item in &packet.items {
            self.control_item(now, proxy, item);
        }
    }

    fn control_item(&mut self, now: u64, proxy: u32, item: &Item<'_>) {
        let known = self.find_socket(item.cid);
        match (known, item.kind) {
            (_, Kind::Here) => self.here(now, proxy, known, item),
            (Some(key), _) => {
                self.change_proxy(key, proxy);
                self.known_item(now, key, item);
            }
            (None, Kind::Cancel | Kind::Gone) => {}
            (None, _) => self.proxies.write(proxy, &Item::new(item.cid, Kind::Cancel)),
        }
        if let Some(req_id) = item.req_id.filter(|_| item.kind != Kind::Ack) {
            let ack = Item { req_id: Some(req_id), ..Item::new(item.cid, Kind::Ack) };
            self.proxies.write(proxy, &ack);
        }
    }

    /// Whoever sent the last packet holds the connection.
    fn change_proxy(&mut self, key: Key, proxy: u32) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let old = std::mem::replace(&mut socket.proxy, proxy);
        for (number, change) in [(old, -1), (proxy, 1)] {
            if let Some(proxy) = self.proxies.get_mut(number) {
                proxy.sockets = proxy.sockets.saturating_add_signed(change);
            }
        }
    }

    /// A session begins, or its attributes changed.
    fn here(&mut self, now: u64, proxy: u32, known: Option<Key>, item: &Item<'_>) {
        if let Some(proxy) = self.proxies.get_mut(proxy) {
            proxy.multi |= item.multi;
        }
        let profile = Profile {
            route: item.route.into(),
            prefix: item.channel_prefix.into(),
            trusted: item.trusted,
            debug: item.debug || self.settings.debug,
            log: LogRules::new(item.log_level, item.separate_stats),
        };
        let profile = self.profiles.acquire(profile);
        let own_stats = item.separate_stats && !item.route.is_empty();
        let route = self.route(own_stats.then(|| item.route.into()));
        let Some(key) = known else {
            let ttl_s = item.ttl_s.unwrap_or(TTL_S);
            self.insert_socket(Socket {
                cid: item.cid.into(),
                proxy,
                profile,
                route,
                closed: false,
                expires: tenths(now).saturating_add(ttl_s.saturating_mul(10)),
                wheel: NEVER,
                uri: item.uri.into(),
                subs: Subs::NONE,
                extra: None,
            });
            return;
        };
        self.change_proxy(key, proxy);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let old = (socket.profile, socket.route);
        (socket.profile, socket.route, socket.uri) = (profile, route, item.uri.into());
        self.profiles.release(old.0);
        self.route_names.release(old.1);
    }

    fn known_item(&mut self, now: u64, key: Key, item: &Item<'_>) {
        match item.kind {
            Kind::KeepAlive => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    let ttl_s = item.ttl_s.unwrap_or(TTL_S);
                    socket.expires = tenths(now).saturating_add(ttl_s.saturating_mul(10));
                }
            }
            Kind::Grip => match Control::parse(item.message) {
                Ok(control) => self.grip_control(now, key, control),
                Err(error) => {
                    self.drops.bad_controls += 1;
                    log::debug!("{error}");
                }
            },
            Kind::Subscribe => self.subscribe_implicitly(key, item.channel),
            Kind::NeedKeepAlive => self.send_keep_alive(key),
            Kind::Ack => self.acknowledged(key, item.req_id),
            Kind::Gone | Kind::Cancel => self.remove_socket(now, key),
            _ => log::debug!("ignoring a control item of kind {}", item.kind.name()),
        }
    }

    fn grip_control(&mut self, now: u64, key: Key, control: Control) {
        match control {
            Control::Subscribe { channel, filters } => {
                self.subscribe_socket(key, &channel, filters)
            }
            Control::Unsubscribe { channel } => self.unsubscribe_socket(key, &channel),
            Control::Detach => self.tell(key, kind(Kind::Detach)),
            Control::Session(id) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    let id = id.filter(|id| self.settings.sessions && !id.is_empty());
                    self.named += usize::from(id.is_some());
                    let old = std::mem::replace(&mut socket.extra().sid, id.map(Into::into));
                    self.named -= usize::from(old.is_some());
                }
            }
            Control::SetMeta { name, value } => self.set_meta(key, name, value),
            Control::KeepAlive { message, timeout_s, interval } => {
                self.set_keep_alive(key, message, timeout_s, interval);
            }
            Control::SendDelayed { message, timeout_s } => {
                self.delay(now, key, message, timeout_s);
            }
            Control::FlushDelayed => self.flush_delayed(now, key),
        }
    }

    fn set_meta(&mut self, key: Key, name: String, value: Option<String>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let meta = &mut socket.extra().meta;
        match value {
            Some(value) if meta.len() < META_MAX || meta.contains_key(&name) => {
                meta.insert(name, value);
            }
            Some(_) => log::warn!("wssession: too many meta values, ignoring '{name}'"),
            None => drop(meta.remove(&name)),
        }
    }

    fn set_keep_alive(
        &mut self,
        key: Key,
        message: Option<Message>,
        timeout_s: u32,
        interval: bool,
    ) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let timeout_s = message.as_ref().map_or(0, |_| timeout_s);
        socket.extra().keep_alive = message;
        let setup = Item {
            timeout_s: Some(timeout_s),
            interval_mode: interval,
            ..kind(Kind::KeepAliveSetup)
        };
        self.tell(key, setup);
    }

    fn subscribe_socket(&mut self, key: Key, name: &str, filters: Vec<String>) {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.closed) else { return };
        if filters.len() > grip::FILTERS_MAX {
            let text = format!("too many filters for channel '{name}'");
            return self.fail_socket(key, &text);
        }
        if socket.subs.as_slice().len() >= self.settings.subscriptions_max {
            self.drops.too_many_subscriptions += 1;
            return log::debug!("wssession: too many subscriptions");
        }
        let prefix = self.profile_of(key).map_or("", |profile| &profile.prefix);
        let full = [prefix, name].concat();
        let channel = self.join_socket(key, &full);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Some(extra) = &mut socket.extra {
            extra.filters.retain(|own| own.channel != channel);
        }
        if !filters.is_empty() {
            socket.extra().filters.push(ChannelFilters { channel, filters });
        }
    }

    /// Subscriptions of the route, which the backend cannot end.
    fn subscribe_implicitly(&mut self, key: Key, full: &str) {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.closed) else { return };
        if socket.subs.as_slice().len() >= self.settings.subscriptions_max {
            self.drops.too_many_subscriptions += 1;
            return log::debug!("wssession: too many subscriptions");
        }
        let channel = self.join_socket(key, full);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let implicit = &mut socket.extra().implicit;
        if !implicit.contains(&channel) {
            implicit.push(channel);
        }
    }

    /// Puts the session onto a channel, if it is not there already; gives the channel's place.
    fn join_socket(&mut self, key: Key, full: &str) -> u32 {
        let channel = self.channel(full);
        let index = channel.index;
        let Some(socket) = self.sockets.get(key) else { return index };
        if !socket.subs.as_slice().iter().any(|sub| sub.channel == index) {
            let (position, _) = self.join(key, Mode::Ws, channel);
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.subs.add(Sub { channel: index, position });
            }
        }
        if let Some(socket) = self.sockets.get(key) {
            let log = self.profile_of(key).map(|profile| profile.log).unwrap_or_default();
            log.write(|| format!("subscribe {} channel={full}", socket.uri));
        }
        index
    }

    fn unsubscribe_socket(&mut self, key: Key, name: &str) {
        let prefix = self.profile_of(key).map_or("", |profile| &profile.prefix);
        let Some(channel) = self.find_channel(&[prefix, name].concat()) else { return };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Some(extra) = &mut socket.extra {
            if extra.implicit.contains(&channel.index) {
                return;
            }
            extra.filters.retain(|own| own.channel != channel.index);
        }
        if let Some(sub) = socket.subs.take(channel.index) {
            self.leave(Mode::Ws, sub);
        }
    }

    /// Takes the session off all its channels.
    pub(super) fn leave_all(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let subs = std::mem::replace(&mut socket.subs, Subs::NONE);
        if let Some(extra) = &mut socket.extra {
            extra.filters.clear();
            extra.implicit.clear();
        }
        subs.as_slice().iter().for_each(|sub| self.leave(Mode::Ws, *sub));
    }
}

/// Meta values that one session may have.
const META_MAX: usize = 100;
