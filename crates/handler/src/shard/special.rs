//! Items for sessions that cannot be served together with others: something waits already, the
//! response has not begun, or filters and prev-ids have to be looked at.

use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::filter::{self, Context, Outcome};
use grip::{Action, Body, HoldMode, Item};

use super::Shard;
use super::session::{Flags, Session};

/// What an item means for one session.
enum Verdict {
    Content(Bytes),
    Nothing,
    /// With debug: the session ends with this text.
    Fail(String),
    /// The ids do not follow each other.
    Conflict,
}

impl Shard {
    /// Delivers items of one channel, in order, to one session.
    pub(super) fn deliver_alone(&mut self, now: u64, key: Key, channel: u32, items: &[Arc<Item>]) {
        for item in items {
            let Some(session) = self.sessions.get_mut(key) else { return };
            if session.flags.has(Flags::PAUSING) || session.flags.has(Flags::FINISHING) {
                return;
            }
            match session.mode() {
                HoldMode::Stream => self.stream_item(now, key, channel, item),
                HoldMode::Response => self.response_item(now, key, channel, item),
            }
        }
        self.flush(now, key);
    }

    fn stream_item(&mut self, now: u64, key: Key, channel: u32, item: &Arc<Item>) {
        let Some(format) = &item.stream else { return };
        if self.pause_item(key, channel, item) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let filters = format.content_filters.as_deref();
        let verdict = judge(session, channel, item, format.content.clone(), filters);
        let route = session.route;
        match verdict {
            Verdict::Content(_) if format.action == Action::Close => {
                session.flags.set(Flags::FINISHING, true);
                self.flush(now, key);
            }
            Verdict::Content(_) if format.action == Action::Hint => self.follow_conflict(now, key),
            Verdict::Content(_) if format.action == Action::Refresh => {}
            Verdict::Content(content) => {
                self.count(route, |sums| sums.sent += 1);
                let Some(session) = self.sessions.get_mut(key) else { return };
                if content.is_empty() {
                    self.restart_if_idle(now, key);
                } else if !session.enqueue(content) {
                    self.drops.queue_full += 1;
                    log::debug!("httpsession: publish queue at max, dropping");
                }
            }
            Verdict::Fail(text) => self.fail_stream(now, key, &text),
            Verdict::Conflict => {
                self.forget_last_id(channel);
                self.follow_conflict(now, key);
            }
            Verdict::Nothing => {}
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
        self.drops.filter_failed += 1;
        if session.flags.has(Flags::DEBUG) {
            session.enqueue(format!("\n\n{text}\n").into());
        }
        session.flags.set(Flags::FINISHING, true);
        self.flush(now, key);
    }

    fn response_item(&mut self, now: u64, key: Key, channel: u32, item: &Item) {
        let Some(format) = &item.response else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let whole = match &format.body {
            Body::Whole(body) => body.clone(),
            Body::Patch(_) => Bytes::new(),
        };
        let filters = format.content_filters.as_deref();
        match judge(session, channel, item, whole, filters) {
            Verdict::Content(body) => match format.action {
                Action::Send => self.answer_with(now, key, item, body),
                Action::Hint => self.retry(key),
                Action::Close | Action::Refresh => {}
            },
            Verdict::Fail(text) => self.fail_response(now, key, &text),
            Verdict::Conflict => {
                self.forget_last_id(channel);
                self.retry(key);
            }
            Verdict::Nothing => {}
        }
    }
}

/// Looks at prev-id and filters of the subscription through which the item comes.
fn judge(
    session: &mut Session,
    channel: u32,
    item: &Item,
    content: Bytes,
    wanted: Option<&[String]>,
) -> Verdict {
    let debug = session.flags.has(Flags::DEBUG);
    let Some(extra) = &mut session.extra else {
        return agree(&[], wanted, debug).unwrap_or(Verdict::Content(content));
    };
    let prev_ids: Vec<(String, String)> = extra
        .channels
        .iter()
        .filter_map(|c| Some((c.name.to_string(), c.prev_id.as_deref()?.to_owned())))
        .collect();
    let Some(own) = extra.channels.iter_mut().find(|own| own.channel == channel) else {
        return agree(&[], wanted, debug).unwrap_or(Verdict::Content(content));
    };
    if own.prev_id.is_some() {
        if own.prev_id.as_deref() != item.prev_id.as_deref() {
            let (got, expected) = (item.prev_id.as_deref(), own.prev_id.as_deref());
            let (got, expected) = (got.unwrap_or_default(), expected.unwrap_or_default());
            log::debug!("last ID inconsistency (got={got}, expected={expected}), retrying");
            return Verdict::Conflict;
        }
        own.prev_id = item.id.as_deref().map(Box::from);
    }
    let filters = own.filters.clone();
    if let Some(verdict) = agree(&filters, wanted, debug) {
        return verdict;
    }
    let names: Vec<&str> = extra.names.iter().map(String::as_str).collect();
    let ids: Vec<(&str, &str)> = prev_ids.iter().map(|(n, i)| (n.as_str(), i.as_str())).collect();
    let context = Context { meta: &extra.meta, channels: &names, prev_ids: &ids };
    match filter::run(&filters, item, content, &context) {
        Outcome::Send(content) => Verdict::Content(content),
        Outcome::Drop => Verdict::Nothing,
        Outcome::Failed(text) if debug => Verdict::Fail(format!("filter error: {text}")),
        Outcome::Failed(text) => {
            log::debug!("dropping an item: filter error: {text}");
            Verdict::Nothing
        }
    }
}

/// Whether the item asks for other content filters than the subscription has.
fn agree(filters: &[String], wanted: Option<&[String]>, debug: bool) -> Option<Verdict> {
    let wanted = wanted?;
    let own: Vec<&String> = filters.iter().filter(|f| filter::is_content(f)).collect();
    if own.iter().copied().eq(wanted.iter()) {
        return None;
    }
    if !debug {
        return Some(Verdict::Nothing);
    }
    let own: Vec<&str> = own.iter().map(|f| f.as_str()).collect();
    let (own, wanted) = (own.join(","), wanted.join(","));
    let text = format!("content filter mismatch: subscription={own} message={wanted}");
    Some(Verdict::Fail(text))
}
