//! Items for sessions that cannot be served together with others: something waits already, the
//! response has not begun, or filters and prev-ids have to be looked at.

use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::filter::{self, Context};
use grip::{Action, Body, Item};
use stats::Mode;

use super::Shard;
use super::filtering::{Owner, Step};
use super::session::{Extra, Flags};

impl Shard {
    /// Delivers items of one channel, in order, to one session.
    pub(super) fn deliver_alone(&mut self, now: u64, key: Key, channel: u32, items: &[Arc<Item>]) {
        for item in items {
            let Some(session) = self.sessions.get(key) else { return };
            if session.flags.has(Flags::PAUSING) || session.flags.has(Flags::FINISHING) {
                return;
            }
            let (content, filters) = match session.mode() {
                Mode::Response => match &item.response {
                    Some(format) => (whole(&format.body), &format.content_filters),
                    None => continue,
                },
                _ => match &item.stream {
                    Some(format) => (format.content.clone(), &format.content_filters),
                    None => continue,
                },
            };
            if self.filter_later(Owner::Session(key), channel, item)
                || self.pause_item(now, key, channel, item)
            {
                continue;
            }
            let step = self.judge(key, channel, item, content, filters.as_deref());
            self.session_step(now, key, channel, item, step);
        }
        self.flush(now, key);
    }

    /// Looks at prev-id and filters of the subscription through which the item comes.
    fn judge(
        &mut self,
        key: Key,
        channel: u32,
        item: &Item,
        content: Bytes,
        wanted: Option<&[String]>,
    ) -> Step {
        let Some(session) = self.sessions.get_mut(key) else { return Step::Nothing };
        let channels = session.extra.as_deref_mut().map(|extra| &mut extra.channels);
        let own = channels.and_then(|list| list.iter_mut().find(|own| own.channel == channel));
        let Some(own) = own else {
            return filter::agree(&[], wanted)
                .map_or_else(Step::Failed, |()| Step::Content(content));
        };
        if let Some(expected) = own.prev_id.as_deref() {
            let got = item.prev_id.as_deref();
            if got != Some(expected) {
                let got = got.unwrap_or_default();
                log::debug!("last ID inconsistency (got={got}, expected={expected}), retrying");
                return Step::Conflict;
            }
        }
        // Filters see the item's own id: it is where the content ends that they pass on.
        own.follow(item);
        if let Err(text) = filter::agree(&own.filters, wanted) {
            return Step::Failed(text);
        }
        self.run_filters(key, channel, item, content, 0)
    }

    /// Runs the filters of a channel from number `from` on.
    pub(super) fn run_filters(
        &self,
        key: Key,
        channel: u32,
        item: &Item,
        content: Bytes,
        from: usize,
    ) -> Step {
        let extra = self.sessions.get(key).and_then(|session| session.extra.as_deref());
        let Some(extra) = extra else { return Step::Content(content) };
        let own = extra.channels.iter().find(|own| own.channel == channel);
        let Some(own) = own.filter(|own| own.filters.len() > from) else {
            return Step::Content(content);
        };
        let Extra { meta, names, channels, .. } = extra;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let ids: Vec<(&str, &str)> =
            channels.iter().filter_map(|c| Some((&*c.name, c.prev_id.as_deref()?))).collect();
        let context = Context { meta, channels: &names, prev_ids: Some(&ids) };
        Step::from(filter::run(&own.filters, from, item, content, &context))
    }

    /// Does what the filters came to.
    pub(super) fn session_step(
        &mut self,
        now: u64,
        key: Key,
        channel: u32,
        item: &Arc<Item>,
        step: Step,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.flags.has(Flags::PAUSING) || session.flags.has(Flags::FINISHING) {
            return;
        }
        let (mode, debug) = (session.mode(), session.flags.has(Flags::DEBUG));
        match (step, mode) {
            (Step::Content(body), Mode::Response) => self.response_item(now, key, item, body),
            (Step::Content(content), _) => self.stream_item(now, key, channel, item, content),
            (Step::Ask { filter, content }, _) => {
                self.ask_filter(now, Owner::Session(key), channel, item, filter, content);
            }
            (Step::Failed(text), Mode::Response) if debug => self.fail_response(now, key, &text),
            (Step::Failed(text), _) if debug => self.fail_stream(now, key, &text),
            (Step::Failed(text), _) => {
                self.drops.filter_failed += 1;
                log::debug!("dropping an item: {text}");
            }
            (Step::Conflict, _) => {
                self.forget_last_id(channel);
                self.forget_paused(key);
                self.update_later(now, key);
            }
            (Step::Nothing, _) => {}
        }
    }

    fn stream_item(&mut self, now: u64, key: Key, channel: u32, item: &Item, content: Bytes) {
        let Some(format) = &item.stream else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        match format.action {
            Action::Close => {
                session.flags.set(Flags::FINISHING, true);
                self.flush(now, key);
            }
            Action::Hint => {
                self.forget_paused(key);
                self.note_missed(now, key);
                self.start_when_ready(now, key);
            }
            Action::Refresh => {}
            Action::Send => {
                self.note_heard(key, channel);
                if content.is_empty() {
                    self.restart_if_idle(now, key);
                } else if !self.enqueue(now, key, content) {
                    self.fetch_dropped(now, key, channel, item);
                }
            }
        }
    }

    /// Blocks of an item whose content has so many bytes, where blocks are counted.
    pub(super) fn item_blocks(&self, item: &Item, length: usize) -> u64 {
        match self.settings.message_block_size {
            0 => 0,
            block => item.size.unwrap_or(length as u64).div_ceil(block),
        }
    }

    fn forget_last_id(&mut self, channel: u32) {
        if let Some(channel) = self.channels.at_mut(channel) {
            channel.last_id = None;
            self.to_hub.push(crate::message::ToHub::Forget { hub: channel.hub });
        }
    }

    fn restart_if_idle(&mut self, now: u64, key: Key) {
        let idle = self.sessions.get(key).is_some_and(|s| {
            s.flags.has(Flags::IDLE_MODE) && s.queue.is_none() && s.hold.is_none()
        });
        if idle {
            self.restart_keep_alive(now, key.index);
        }
    }

    /// Ends a stream because of an error; with debug the text is its last piece.
    pub(super) fn fail_stream(&mut self, now: u64, key: Key, text: &str) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.flags.has(Flags::DEBUG) {
            let text = session.dressed(format!("\n\n{text}\n").into());
            session.enqueue(text);
        }
        session.flags.set(Flags::FINISHING, true);
        self.flush(now, key);
    }

    fn response_item(&mut self, now: u64, key: Key, item: &Item, body: Bytes) {
        let Some(format) = &item.response else { return };
        match format.action {
            Action::Send => self.answer_with(now, key, item, body),
            Action::Hint => self.retry(now, key),
            Action::Close | Action::Refresh => {}
        }
    }
}

/// What the filters of a response are run over; a patch has nothing for them.
fn whole(body: &Body) -> Bytes {
    match body {
        Body::Whole(body) => body.clone(),
        Body::Patch(_) => Bytes::new(),
    }
}
