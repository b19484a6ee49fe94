//! The way of items to WebSockets: the same message for many of them is one `send` item with up
//! to 128 connection ids (design, rule 10).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::filter::Context;
use grip::{Action, Item, WsFormat};
use stats::Mode;
use zrpc::control::{Item as Control, Kind, MAX_CIDS};

use super::kind;
use crate::shard::Shard;
use crate::shard::channel::{Pending, Subscriber};
use crate::shard::deliver::{Left, first_for};
use crate::shard::filtering::{Owner, Step};

/// Sessions that get the same items, gathered by proxy.
#[derive(Debug, Default)]
pub(in crate::shard) struct Group {
    buckets: Vec<(Content, Vec<u32>)>,
}

/// Number of the proxy, first item and end.
type Content = (u32, usize, usize);

impl Group {
    fn push(&mut self, content: Content, socket: u32) {
        match self.buckets.iter_mut().find(|(known, _)| *known == content) {
            Some((_, sockets)) => sockets.push(socket),
            None => self.buckets.push((content, vec![socket])),
        }
    }
}

impl Shard {
    /// Serves a window of a channel's WebSockets.
    pub(in crate::shard) fn socket_window(
        &mut self,
        items: &VecDeque<Pending>,
        subscribers: &[Subscriber],
    ) -> (Left, usize) {
        let mut left = Left::default();
        let mut group = std::mem::take(&mut self.socket_group);
        for subscriber in subscribers {
            let first = first_for(items, *subscriber);
            let Some(socket) = self.sockets.at(subscriber.session) else { continue };
            if first == items.len() {
                continue;
            }
            let (route, proxy, clean) = (socket.route, socket.proxy, socket.is_clean());
            self.count_sent(route, (Mode::Ws, items, first), |_| {});
            if !clean || items.range(first..).any(|p| asks_for_filters(&p.item)) {
                left.slow.push((subscriber.session, first));
                continue;
            }
            let close = items.range(first..).position(|p| is(&p.item, Action::Close));
            let end = close.map_or(items.len(), |close| first + close + 1);
            group.push((proxy, first, end), subscriber.session);
            if close.is_some() {
                left.ended.push(subscriber.session);
            }
        }
        let written = self.write_group(&mut group, items);
        self.socket_group = group;
        (left, written)
    }

    /// Writes what was gathered; gives about how many bytes, as far as slices care.
    fn write_group(&mut self, group: &mut Group, items: &VecDeque<Pending>) -> usize {
        let mut written = 0;
        for ((proxy, first, end), sockets) in group.buckets.drain(..) {
            let multi = self.proxies.get(proxy).is_some_and(|proxy| proxy.multi);
            for chunk in sockets.chunks(if multi { MAX_CIDS } else { 1 }) {
                let known = chunk.iter().filter_map(|index| self.sockets.at(*index));
                let cids: Vec<&[u8]> = known.map(|socket| &*socket.cid).collect();
                for pending in items.range(first..end) {
                    let format = pending.item.ws.as_ref();
                    // A hint is nothing to a WebSocket.
                    let Some(format) = format.filter(|f| f.action != Action::Hint) else {
                        continue;
                    };
                    written += format.content.len() / 16 + 1;
                    if format.action == Action::Send && cids.len() > 1 {
                        let send = Control { cids: cids.clone(), ..send(format, &format.content) };
                        self.proxies.write(proxy, &send);
                        continue;
                    }
                    for cid in &cids {
                        let item = Control { cid, ..what(format, &format.content) };
                        self.proxies.write(proxy, &item);
                    }
                }
            }
        }
        written
    }

    /// Delivers items of one channel, in order, to one WebSocket.
    pub(in crate::shard) fn deliver_to_socket(
        &mut self,
        now: u64,
        key: Key,
        channel: u32,
        items: &[Arc<Item>],
    ) {
        for item in items {
            let Some(format) = item.ws.as_ref().filter(|f| f.action != Action::Hint) else {
                continue;
            };
            if self.filter_later(Owner::Socket(key), channel, item) {
                continue;
            }
            let Some(socket) = self.sockets.get(key).filter(|socket| !socket.closed) else {
                return;
            };
            let step = match grip::filter::agree(
                socket.filters(channel),
                format.content_filters.as_deref(),
            ) {
                Ok(()) => self.run_socket_filters(key, channel, item, format.content.clone(), 0),
                Err(text) => Step::Failed(text),
            };
            self.socket_step(now, key, channel, item, step);
        }
    }

    /// Runs the filters from number `from` on.
    pub(in crate::shard) fn run_socket_filters(
        &self,
        key: Key,
        channel: u32,
        item: &Item,
        content: Bytes,
        from: usize,
    ) -> Step {
        let Some(socket) = self.sockets.get(key) else { return Step::Nothing };
        let filters = socket.filters(channel);
        if filters.len() <= from {
            return Step::Content(content);
        }
        let none = std::collections::BTreeMap::new();
        let prefix = self.prefix_of(socket);
        let names: Vec<&str> = socket
            .subs
            .as_slice()
            .iter()
            .filter_map(|sub| self.channels.at(sub.channel))
            .map(|channel| channel.name.strip_prefix(prefix).unwrap_or(&channel.name))
            .collect();
        let meta = socket.extra.as_ref().map_or(&none, |extra| &extra.meta);
        // Nobody keeps ids for a WebSocket, so its marks have no default id.
        let context = Context { meta, channels: &names, prev_ids: None };
        Step::from(grip::filter::run(filters, from, item, content, &context))
    }

    /// Does what the filters came to.
    pub(in crate::shard) fn socket_step(
        &mut self,
        now: u64,
        key: Key,
        channel: u32,
        item: &Arc<Item>,
        step: Step,
    ) {
        let debug = self.profile_of(key).is_some_and(|profile| profile.debug);
        match step {
            Step::Content(content) => self.send_to_socket(key, item, &content),
            Step::Ask { filter, content } => {
                self.ask_filter(now, Owner::Socket(key), channel, item, filter, content);
            }
            Step::Nothing | Step::Conflict => {}
            Step::Failed(text) if debug => self.fail_socket(key, &text),
            Step::Failed(text) => {
                self.drops.filter_failed += 1;
                log::debug!("dropping an item: {text}");
            }
        }
    }

    fn send_to_socket(&mut self, key: Key, item: &Item, content: &[u8]) {
        let Some(format) = &item.ws else { return };
        let Some(socket) = self.sockets.get(key) else { return };
        if socket.closed {
            return;
        }
        self.tell(key, what(format, content));
        if format.action == Action::Close {
            self.close_socket(key);
        }
    }
}

fn is(item: &Item, action: Action) -> bool {
    item.ws.as_ref().is_some_and(|format| format.action == action)
}

/// Whether the item goes only to those who have certain filters.
fn asks_for_filters(item: &Item) -> bool {
    item.ws.as_ref().is_some_and(|format| format.content_filters.is_some())
}

fn send<'a>(format: &WsFormat, content: &'a [u8]) -> Control<'a> {
    Control { content_type: format.kind.name(), message: content, ..kind(Kind::Send) }
}

/// The control item that an item becomes.
fn what<'a>(format: &'a WsFormat, content: &'a [u8]) -> Control<'a> {
    match format.action {
        Action::Close => {
            let reason = format.reason.as_bytes();
            Control { code: format.code, reason, ..kind(Kind::Close) }
        }
        Action::Refresh => kind(Kind::Refresh),
        Action::Send | Action::Hint => send(format, content),
    }
}
