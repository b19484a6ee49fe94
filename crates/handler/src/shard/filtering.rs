//! Filters that ask a backend about an item (spec/grip.md §9). The session's later items wait
//! behind it, everybody else's go on. Questions take turns by URL, at a limited rate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::Item;
use grip::filter::{self, Outcome};

use super::Shard;
use super::fetch::{Ask, Purpose};
use super::links::same_origin;
use super::session::QUEUE_MAX;

/// Questions in one batch, and milliseconds between batches, of the whole handler.
const BATCH: usize = 3;
const BATCH_MS: u64 = 25;

/// Items that may wait behind a question to a WebSocket.
const SOCKET_QUEUE_MAX: usize = 1_000;

/// Whose item it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A held HTTP session.
    Session(Key),
    /// A WebSocket.
    Socket(Key),
}

/// What an item means for one session.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It is delivered.
    Content(Bytes),
    /// The filter of this number asks its backend first.
    Ask { filter: usize, content: Bytes },
    /// It is not delivered.
    Nothing,
    /// It cannot be delivered; with debug the session ends with this text.
    Failed(String),
    /// The ids do not follow each other.
    Conflict,
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Send(content) => Self::Content(content),
            Outcome::Drop => Self::Nothing,
            Outcome::Failed(text) => Self::Failed(format!("filter error: {text}")),
            Outcome::Ask { filter, content } => Self::Ask { filter, content },
        }
    }
}

/// An item about which a backend is asked, and what came after it.
#[derive(Debug)]
pub(crate) struct Filtering {
    channel: u32,
    item: Arc<Item>,
    /// Number and name of the filter.
    filter: usize,
    name: String,
    content: Bytes,
    /// The question; none yet while it waits for its turn.
    fetch: Option<Key>,
    later: VecDeque<(u32, Arc<Item>)>,
}

/// Questions that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Questions {
    by_url: BTreeMap<String, VecDeque<Owner>>,
    /// The URL that was served last.
    last: String,
    /// Questions that may still go in this batch.
    left: usize,
    /// When the next batch may go.
    next: u64,
}

impl Questions {
    fn push(&mut self, url: String, owner: Owner) {
        self.by_url.entry(url).or_default().push_back(owner);
    }

    /// The next in turn, with its URL.
    fn pop(&mut self) -> Option<(String, Owner)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.by_url.range::<String, _>((Excluded(&self.last), Unbounded)).next();
        let url = after.or_else(|| self.by_url.iter().next()).map(|(url, _)| url.clone())?;
        let queue = self.by_url.get_mut(&url)?;
        let owner = queue.pop_front()?;
        if queue.is_empty() {
            self.by_url.remove(&url);
        }
        self.last.clone_from(&url);
        Some((url, owner))
    }

    pub(super) fn due(&self) -> Option<u64> {
        (!self.by_url.is_empty()).then_some(self.next)
    }
}

impl Shard {
    fn filtering(&mut self, owner: Owner) -> Option<&mut Option<Box<Filtering>>> {
        match owner {
            Owner::Session(key) => {
                let extra = self.sessions.get_mut(key)?.extra.as_mut()?;
                Some(&mut extra.filtering)
            }
            Owner::Socket(key) => {
                let extra = self.sockets.get_mut(key)?.extra.as_mut()?;
                Some(&mut extra.filtering)
            }
        }
    }

    /// Lets an item wait behind the one about which a backend is asked; false if none is.
    pub(super) fn filter_later(&mut self, owner: Owner, channel: u32, item: &Arc<Item>) -> bool {
        let Some(Some(filtering)) = self.filtering(owner) else { return false };
        let max = match owner {
            Owner::Session(_) => QUEUE_MAX,
            Owner::Socket(_) => SOCKET_QUEUE_MAX,
        };
        if filtering.later.len() < max {
            filtering.later.push_back((channel, item.clone()));
        } else {
            self.drops.queue_full += 1;
            log::debug!("publish queue at max while a filter is asked, dropping");
        }
        true
    }

    /// A filter is to ask its backend about `content`.
    pub(super) fn ask_filter(
        &mut self,
        now: u64,
        owner: Owner,
        channel: u32,
        item: &Arc<Item>,
        filter: usize,
        content: Bytes,
    ) {
        let Some((name, url)) = self.question(owner, channel, filter) else { return };
        let filtering = Filtering {
            channel,
            item: item.clone(),
            filter,
            name,
            content,
            fetch: None,
            later: VecDeque::new(),
        };
        let Some(place) = self.filtering(owner) else { return };
        *place = Some(Box::new(filtering));
        match url {
            Ok(url) => {
                self.questions.push(url, owner);
                self.ask_due(now);
            }
            Err(text) => self.filter_failed(now, owner, text),
        }
    }

    /// The filter's name, and where it asks.
    fn question(
        &self,
        owner: Owner,
        channel: u32,
        filter: usize,
    ) -> Option<(String, Result<String, String>)> {
        let (filters, meta, base) = match owner {
            Owner::Session(key) => {
                let extra = self.sessions.get(key)?.extra.as_deref()?;
                let own = extra.channels.iter().find(|own| own.channel == channel)?;
                (&own.filters[..], &extra.meta, extra.links.as_deref()?.base.as_str())
            }
            Owner::Socket(key) => {
                let socket = self.sockets.get(key)?;
                (socket.filters(channel), &socket.extra.as_deref()?.meta, &*socket.uri)
            }
        };
        Some((filters.get(filter)?.clone(), filter::url(meta, base)))
    }

    /// Sends the questions whose turn it is.
    pub(super) fn ask_due(&mut self, now: u64) {
        if now >= self.questions.next {
            let shards = self.settings.workers.max(1) as u64;
            self.questions.left = BATCH;
            self.questions.next = now + BATCH_MS * shards;
        }
        while self.questions.left > 0 {
            let Some((url, owner)) = self.questions.pop() else { break };
            if self.send_question(now, &url, owner) {
                self.questions.left -= 1;
            }
        }
    }

    /// False: nobody waits for the answer any more.
    fn send_question(&mut self, now: u64, url: &str, owner: Owner) -> bool {
        let Some(Some(filtering)) = self.filtering(owner) else { return false };
        if filtering.fetch.is_some() {
            return false;
        }
        let body = match filtering.name.as_str() {
            "http-modify" => filtering.content.clone(),
            _ => Bytes::new(),
        };
        let item = filtering.item.clone();
        let Some(ask) = self.question_ask(url, owner, &item, body) else { return false };
        let fetch = self.fetch(now, Purpose::Filter(owner), ask);
        if let Some(Some(filtering)) = self.filtering(owner) {
            filtering.fetch = Some(fetch);
        }
        true
    }

    fn question_ask(&self, url: &str, owner: Owner, item: &Item, body: Bytes) -> Option<Ask> {
        let published: BTreeMap<&str, &str> =
            item.meta.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut ask = Ask { method: "POST", url: url.to_owned(), body, ..Ask::default() };
        let meta = match owner {
            Owner::Session(key) => {
                let extra = self.sessions.get(key)?.extra.as_deref()?;
                let links = extra.links.as_deref()?;
                ask.route.clone_from(&links.route);
                ask.trusted = links.trusted;
                ask.prefer_internal = same_origin(&links.uri, url);
                ask.headers = extra.last_ids();
                &extra.meta
            }
            Owner::Socket(key) => {
                let socket = self.sockets.get(key)?;
                let profile = self.profiles.get(socket.profile)?;
                ask.route.clone_from(&profile.route);
                ask.trusted = profile.trusted;
                ask.prefer_internal = same_origin(&socket.uri.replacen("ws", "http", 1), url);
                &socket.extra.as_deref()?.meta
            }
        };
        for (name, text) in [
            ("Sub-Meta", serde_json::to_string(meta)),
            ("Pub-Meta", serde_json::to_string(&published)),
        ] {
            ask.headers.push((name, text.ok()?));
        }
        Some(ask)
    }

    /// A backend answered: status, whether the item is to be dropped, body.
    pub(super) fn filter_answered(
        &mut self,
        now: u64,
        owner: Owner,
        code: u16,
        drop: bool,
        body: Bytes,
    ) {
        let Some(filtering) = self.filtering(owner).and_then(Option::take) else { return };
        let content = filtering.content.clone();
        let step = match filter::answered(&filtering.name, code, drop, body, content) {
            Outcome::Send(content) => {
                let (item, channel, next) =
                    (&filtering.item, filtering.channel, filtering.filter + 1);
                match owner {
                    Owner::Session(key) => self.run_filters(key, channel, item, content, next),
                    Owner::Socket(key) => {
                        self.run_socket_filters(key, channel, item, content, next)
                    }
                }
            }
            outcome => Step::from(outcome),
        };
        self.filter_over(now, owner, *filtering, step);
    }

    /// A backend could not be asked, or gave no answer.
    pub(super) fn filter_failed(&mut self, now: u64, owner: Owner, cause: String) {
        let Some(filtering) = self.filtering(owner).and_then(Option::take) else { return };
        let text = format!("filter error: {}: {cause}", filtering.name);
        self.filter_over(now, owner, *filtering, Step::Failed(text));
    }

    fn filter_over(&mut self, now: u64, owner: Owner, filtering: Filtering, step: Step) {
        let Filtering { channel, item, later, .. } = filtering;
        match owner {
            Owner::Session(key) => self.session_step(now, key, channel, &item, step),
            Owner::Socket(key) => self.socket_step(now, key, channel, &item, step),
        }
        for (channel, item) in later {
            match owner {
                Owner::Session(key) => self.deliver_alone(now, key, channel, &[item]),
                Owner::Socket(key) => self.deliver_to_socket(now, key, channel, &[item]),
            }
        }
        if let Owner::Session(key) = owner {
            self.flush(now, key);
            self.resume_next(now, key);
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn end_filtering(&mut self, now: u64, owner: Owner) {
        let taken = self.filtering(owner).and_then(Option::take);
        if let Some(fetch) = taken.and_then(|filtering| filtering.fetch) {
            self.drop_fetch(now, fetch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_take_turns() {
        let mut questions = Questions::default();
        let owner = |index| Owner::Socket(Key { index, generation: 0 });
        for (url, index) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)] {
            questions.push(url.to_owned(), owner(index));
        }
        let turns: Vec<Owner> =
            std::iter::from_fn(|| questions.pop()).map(|(_, owner)| owner).collect();
        assert_eq!(turns, [1, 4, 5, 2, 3].map(owner));
        assert_eq!(questions.due(), None);
    }
}
