//! The way of items to sessions: channels with work take turns, a window of subscribers each
//! (design, rules 3, 5 and 15).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::{Action, Body, Item};
use stats::Mode;

use super::Shard;
use super::channel::{Pending, Subscriber};
use super::session::Flags;
use crate::intern::NONE;
use crate::message::Sums;
use crate::room::shrink_queue;

/// Subscribers visited in one slice of work.
const SLICE_POSITIONS: usize = 8192;

/// Bytes of bodies written in one slice of work.
const SLICE_BYTES: usize = 8 << 20;

/// Sessions that a window could not serve together with others.
#[derive(Default)]
pub(super) struct Left {
    /// Session and first item for it.
    pub(super) slow: Vec<(u32, usize)>,
    /// Sessions whose response is complete.
    pub(super) ended: Vec<u32>,
}

impl Left {
    /// The items, if somebody is served by himself.
    fn items(&self, items: &VecDeque<Pending>) -> Vec<Arc<Item>> {
        match self.slow.is_empty() {
            true => Vec::new(),
            false => items.iter().map(|pending| pending.item.clone()).collect(),
        }
    }
}

impl Shard {
    /// An item for the sessions of a channel.
    pub(super) fn publish(&mut self, key: Key, item: &Arc<Item>, at: u64) {
        self.tell_sessions(key, item);
        let Some(mut channel) = self.channels.get_mut(key) else { return };
        if !item.no_seq {
            channel.last_id = item.id.as_deref().map(Arc::from);
        }
        let seq = channel.next_seq;
        channel.next_seq = channel.next_seq.wrapping_add(1);
        let for_streams =
            item.stream.as_ref().is_some_and(|format| format.action != Action::Refresh);
        for (mode, wanted) in [
            (Mode::Stream, for_streams),
            (Mode::Response, item.response.is_some()),
            (Mode::Ws, item.ws.is_some()),
        ] {
            if !wanted || channel.live(mode) == 0 {
                continue;
            }
            if self.limiter.is_some() {
                self.publish_limited(key, mode, item, at);
                let Some(again) = self.channels.get_mut(key) else { return };
                channel = again;
                continue;
            }
            if channel.list(mode).push(item, seq, at) {
                self.under_way += 1;
            } else {
                self.drops.pass_full += 1;
                log::debug!("too many items on their way in channel {}, dropping", item.channel);
            }
        }
        if channel.is_busy() && !channel.queued {
            channel.queued = true;
            self.work.push_back(key);
        }
    }

    /// Whether items are on their way.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty() || self.has_unlimited_work()
    }

    /// Does one slice of delivering; gives whether more is to do.
    pub fn work(&mut self, now: u64) -> bool {
        self.work_limited(now);
        let (mut positions, mut bytes) = (SLICE_POSITIONS, SLICE_BYTES);
        while positions > 0 && bytes > 0 {
            let Some(key) = self.work.pop_front() else { break };
            let Some(channel) = self.channels.get_mut(key) else { continue };
            channel.queued = false;
            let Some(mode) = channel.next_busy() else { continue };
            let (walked, written) = self.window(now, key, mode, positions);
            // A short list still costs a look.
            positions = positions.saturating_sub(walked.max(8));
            bytes = bytes.saturating_sub(written);
            let Some(channel) = self.channels.get_mut(key) else { continue };
            if channel.is_busy() {
                channel.queued = true;
                self.work.push_back(key);
            }
        }
        shrink_queue(&mut self.work);
        self.has_work()
    }

    /// Serves one window of a channel's subscribers; gives positions and bytes.
    fn window(&mut self, now: u64, key: Key, mode: Mode, limit: usize) -> (usize, usize) {
        let Some(channel) = self.channels.get_mut(key) else { return (0, 0) };
        let list = channel.list(mode);
        let Some(pass) = &mut list.pass else { return (0, 0) };
        let length = list.subscribers.len();
        let window = pass.window(length, limit);
        // Both go back below, before anything can look at the channel.
        let items = std::mem::take(&mut pass.items);
        let subscribers = std::mem::take(&mut list.subscribers);
        let (left, written) = self.together(now, mode, &items, &subscribers[window.clone()]);
        let slow = left.items(&items);
        self.put_back(now, (key, mode), items, subscribers, window.end);
        self.one_by_one(now, key.index, mode, left, &slow);
        self.end_pass_if_done(key, mode);
        (window.len(), written)
    }

    /// Delivers items to some sessions of a channel.
    pub(super) fn serve(
        &mut self,
        now: u64,
        channel: u32,
        mode: Mode,
        items: &VecDeque<Pending>,
        subscribers: &[Subscriber],
    ) {
        let (left, _) = self.together(now, mode, items, subscribers);
        let slow = left.items(items);
        self.one_by_one(now, channel, mode, left, &slow);
    }

    fn together(
        &mut self,
        now: u64,
        mode: Mode,
        items: &VecDeque<Pending>,
        subscribers: &[Subscriber],
    ) -> (Left, usize) {
        match mode {
            Mode::Stream => self.stream_window(now, items, subscribers),
            Mode::Response => self.response_window(items, subscribers),
            Mode::Ws => self.socket_window(items, subscribers),
        }
    }

    /// Ends sessions, and serves those that could not be served together.
    fn one_by_one(&mut self, now: u64, channel: u32, mode: Mode, left: Left, slow: &[Arc<Item>]) {
        self.end_all(now, mode, left.ended);
        for (index, first) in left.slow {
            let items = &slow[first..];
            match mode {
                Mode::Ws => {
                    if let Some(socket) = self.sockets.key_at(index) {
                        self.deliver_to_socket(now, socket, channel, items);
                    }
                }
                _ => {
                    if let Some(session) = self.sessions.key_at(index) {
                        self.deliver_alone(now, session, channel, items);
                    }
                }
            }
        }
    }

    fn end_all(&mut self, now: u64, mode: Mode, ended: Vec<u32>) {
        for index in ended {
            match mode {
                Mode::Ws => {
                    if let Some(socket) = self.sockets.key_at(index) {
                        self.close_socket(socket);
                    }
                }
                _ => {
                    if let Some(key) = self.sessions.key_at(index) {
                        self.remove(now, key, false);
                    }
                }
            }
        }
    }

    fn put_back(
        &mut self,
        now: u64,
        (key, mode): (Key, Mode),
        items: VecDeque<Pending>,
        subscribers: Vec<Subscriber>,
        end: usize,
    ) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let list = channel.list(mode);
        list.subscribers = subscribers;
        let length = list.subscribers.len();
        if let Some(pass) = &mut list.pass {
            pass.items = items;
            let mut done = Vec::new();
            pass.advance(end, length, |at| done.push(at));
            self.under_way -= done.len();
            done.into_iter().for_each(|at| self.handed_over(now, at));
        }
    }

    fn end_pass_if_done(&mut self, key: Key, mode: Mode) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let list = channel.list(mode);
        if !list.pass.as_ref().is_some_and(|pass| pass.items.is_empty()) {
            return;
        }
        let (sessions, sockets) = (&mut self.sessions, &mut self.sockets);
        list.finish_pass(|index, position| {
            let subs = match mode {
                Mode::Ws => sockets.at_mut(index).map(|socket| &mut socket.subs),
                _ => sessions.at_mut(index).map(|session| &mut session.subs),
            };
            if let Some(subs) = subs {
                subs.moved(key.index, position);
            }
        });
    }

    /// Streams: all items that a session is to get go as one body.
    fn stream_window(
        &mut self,
        now: u64,
        items: &VecDeque<Pending>,
        subscribers: &[Subscriber],
    ) -> (Left, usize) {
        let bodies = Bodies::of(items);
        let mut left = Left::default();
        let mut written = 0;
        for subscriber in subscribers {
            let first = first_for(items, *subscriber);
            let Some(session) = self.sessions.at_mut(subscriber.session) else { continue };
            if first == items.len() {
                continue;
            }
            let route = session.route;
            if !session.is_clean() {
                left.slow.push((subscriber.session, first));
                self.count_sent(route, (Mode::Stream, items, first), |_| {});
                continue;
            }
            let (range, close) = bodies.fitting(first, session.credits as usize);
            let length = bodies.length(&range);
            session.credits -= length as u32;
            let idle = session.flags.has(Flags::IDLE_MODE);
            if length > 0 || close {
                self.gather(subscriber.session, (range.start as u32, range.end as u32));
                written += length / 64 + 1;
            }
            self.count_sent(route, (Mode::Stream, items, first), |sums| {
                sums.counters.client_content_bytes_sent += length as u64;
            });
            if close {
                left.ended.push(subscriber.session);
            } else if range.end < items.len() {
                left.slow.push((subscriber.session, range.end));
            } else if idle {
                self.restart_keep_alive(now, subscriber.session);
            }
        }
        self.group.write(&self.sessions, &mut self.peers, |f, (first, end)| {
            let range = first as usize..end as usize;
            let close = bodies.close == range.end.checked_sub(1);
            f.body_pieces(&bodies.pieces[range]).flag("more", !close);
        });
        (left, written)
    }

    /// The items from `first` on came to a session: each counts as sent, whatever filters, credits
    /// and those before it make of it (spec/stats.md §5). `more` counts what else there is.
    pub(super) fn count_sent(
        &mut self,
        route: u32,
        (mode, items, first): (Mode, &VecDeque<Pending>, usize),
        more: impl FnOnce(&mut Sums),
    ) {
        let count = (items.len() - first) as u64;
        let blocks = match self.settings.message_block_size {
            0 => 0,
            _ => {
                let items = items.range(first..).map(|pending| &pending.item);
                items.map(|item| self.item_blocks(item, super::limited::length(item, mode))).sum()
            }
        };
        self.count(route, |sums| {
            sums.sent += count;
            sums.http_response_sent += if mode == Mode::Response { count } else { 0 };
            sums.blocks_sent += blocks;
            more(sums);
        });
    }

    /// Response holds: the first item that answers a session ends it.
    fn response_window(
        &mut self,
        items: &VecDeque<Pending>,
        subscribers: &[Subscriber],
    ) -> (Left, usize) {
        let mut left = Left::default();
        let mut written = 0;
        let mut sizes = Sizes::default();
        for subscriber in subscribers {
            let first = first_for(items, *subscriber);
            let Some(session) = self.sessions.at_mut(subscriber.session) else { continue };
            if first == items.len() {
                continue;
            }
            let route = session.route;
            let plain = items.get(first).and_then(|pending| whole_answer(&pending.item));
            let simple = session.queue.is_none()
                && !session.flags.has(Flags::SPECIAL)
                && !session.flags.has(Flags::PAUSING)
                && !session.flags.has(Flags::HEAD_SENT);
            let headers = session.hold.as_ref().filter(|h| h.unconfirmed == 0).map(|h| h.headers);
            let credits = session.credits as usize;
            let came = (Mode::Response, items, first);
            match (plain, headers) {
                (Some(body), Some(headers)) if simple && credits >= body.len() => {
                    let length = body.len() as u64;
                    written += body.len() / 64 + 1;
                    self.gather(subscriber.session, (first as u32, headers));
                    self.measure(&mut sizes, items, first, headers);
                    self.count_sent(route, came, |sums| {
                        sums.counters.client_header_bytes_sent += sizes.head;
                        sums.counters.client_content_bytes_sent += length;
                    });
                    left.ended.push(subscriber.session);
                }
                _ => {
                    left.slow.push((subscriber.session, first));
                    self.count_sent(route, came, |_| {});
                }
            }
        }
        let sets = &self.header_sets;
        self.group.write(&self.sessions, &mut self.peers, |f, (at, set)| {
            let Some(format) = items.get(at as usize).and_then(|p| p.item.response.as_ref()) else {
                return;
            };
            let Body::Whole(body) = &format.body else { return };
            let base = sets.get(set).cloned().unwrap_or_default();
            let merged = base.answer(&format.headers, format.code, body.len());
            f.status(format.code, &format.reason);
            f.headers(merged.iter().map(|(name, value)| (name, value))).body(body);
        });
        (left, written)
    }

    /// Measures the answer that an item makes with a set of headers; most often it is the one that
    /// was measured for the session before.
    fn measure(&self, sizes: &mut Sizes, items: &VecDeque<Pending>, at: usize, headers: u32) {
        if sizes.of == Some((at, headers)) {
            return;
        }
        let Some(item) = items.get(at).map(|pending| &pending.item) else { return };
        let Some(format) = &item.response else { return };
        let length = super::limited::length(item, Mode::Response);
        let base = self.header_sets.get(headers).cloned().unwrap_or_default();
        let merged = base.answer(&format.headers, format.code, length);
        *sizes = Sizes {
            of: Some((at, headers)),
            head: super::answer::head_size(format.code, &format.reason, &merged),
        };
    }
}

/// What an answer counts in the stats.
#[derive(Debug, Default)]
struct Sizes {
    /// The item's place and the set of headers.
    of: Option<(usize, u32)>,
    head: u64,
}

/// The body of an item that answers a response hold as it is.
fn whole_answer(item: &Item) -> Option<&Bytes> {
    let format = item.response.as_ref().filter(|format| format.action == Action::Send)?;
    match &format.body {
        Body::Whole(body) if format.content_filters.is_none() => Some(body),
        _ => None,
    }
}

/// Where the items begin that a subscriber is to get.
pub(super) fn first_for(items: &VecDeque<Pending>, subscriber: Subscriber) -> usize {
    if subscriber.session == NONE {
        return items.len();
    }
    // Numbers wrap around, so they are compared by distance.
    items
        .iter()
        .take_while(|pending| pending.seq.wrapping_sub(subscriber.join) > u32::MAX / 2)
        .count()
}

/// The stream contents of the items of a pass.
struct Bodies<'a> {
    pieces: Vec<&'a [u8]>,
    /// Bytes before each piece, and in all.
    before: Vec<usize>,
    /// The first item that ends the response.
    close: Option<usize>,
}

impl<'a> Bodies<'a> {
    fn of(items: &'a VecDeque<Pending>) -> Self {
        let format = |pending: &'a Pending| pending.item.stream.as_ref();
        let pieces: Vec<&[u8]> =
            items.iter().map(|p| format(p).map_or(&[][..], |f| &f.content)).collect();
        let mut before = vec![0];
        before.extend(pieces.iter().scan(0, |sum, piece| {
            *sum += piece.len();
            Some(*sum)
        }));
        let close = items.iter().position(|p| format(p).is_some_and(|f| f.action == Action::Close));
        Self { pieces, before, close }
    }

    fn length(&self, range: &Range<usize>) -> usize {
        self.before[range.end] - self.before[range.start]
    }

    /// The items from `first` on that fit into the credits, not beyond one that ends the
    /// response; and whether it does.
    fn fitting(&self, first: usize, credits: usize) -> (Range<usize>, bool) {
        // Beyond a first close lie only items for sessions that came after it; they are served
        // one by one.
        let end = match self.close {
            Some(close) if first <= close => close + 1,
            Some(_) => first,
            None => self.pieces.len(),
        };
        let end = match self.before[end] - self.before[first] <= credits {
            true => end,
            false => self.before.partition_point(|b| *b <= self.before[first] + credits) - 1,
        };
        let end = end.max(first);
        (first..end, end > first && self.close == Some(end - 1))
    }
}
