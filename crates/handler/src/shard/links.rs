//! Next and gone links of sessions (spec/grip.md §8.3, §8.4): when they are followed, and what
//! comes of it.

use bytes::Bytes;
use evloop::arena::Key;
use grip::{Action, HoldMode, Instruct, Item, KeepAliveMode};
use stats::Mode;
use std::sync::Arc;

use super::Shard;
use super::accept::names;
use super::fetch::{Ask, Purpose};
use super::rounds::leave_round;
use super::session::{Extra, ExtraChannel, Flags, Links, NEVER, QUEUE_MAX, Session};
use super::timers::tenths;
use crate::intern::NONE;

/// Tries of a next link after the first one.
const TRIES_MAX: u8 = 5;

impl Shard {
    fn links(&mut self, key: Key) -> Option<&mut Links> {
        self.sessions.get_mut(key)?.extra.as_mut()?.links.as_deref_mut()
    }

    /// A stream runs: its timer starts, or the next part is fetched at once.
    pub(super) fn follow(&mut self, now: u64, key: Key) {
        let Some(links) = self.links(key).filter(|links| !links.updating) else { return };
        if links.paging || links.again {
            return self.start_when_ready(now, key);
        }
        self.arm_next(now, key);
    }

    /// Looks whether the next link is due.
    pub(super) fn look_at_next(&mut self, now: u64, key: Key) {
        let Some(links) = self.links(key) else { return };
        if links.due > tenths(now) {
            return;
        }
        let updating = links.updating;
        self.disarm_next(key);
        if updating {
            return self.start_next(now, key);
        }
        match self.heard_all(key) {
            true => self.arm_next(now, key),
            false => self.start_when_ready(now, key),
        }
    }

    /// Whether every channel of a stream sent something since its timer began: it is up to date,
    /// and its backend is not asked this time (spec/grip.md §8.3). Begins to count anew.
    fn heard_all(&mut self, key: Key) -> bool {
        let Some(links) = self.links(key) else { return false };
        let heard = std::mem::take(&mut links.heard);
        let subs = self.sessions.get(key).map_or(&[][..], |session| session.subs.as_slice());
        !subs.is_empty() && subs.iter().all(|sub| heard.contains(&sub.channel))
    }

    /// Something of the channel was sent to the stream.
    pub(super) fn note_heard(&mut self, key: Key, channel: u32) {
        let Some(links) = self.links(key).filter(|links| links.next.is_some()) else { return };
        if !links.heard.contains(&channel) {
            links.heard.push(channel);
        }
    }

    /// The client takes data again.
    pub(super) fn restart_next(&mut self, now: u64, key: Key) {
        let Some(links) = self.links(key).filter(|links| !links.updating) else { return };
        if links.again || links.paging {
            self.start_next(now, key);
        } else if links.due == NEVER {
            self.arm_next(now, key);
        }
    }

    /// An item of the channel was dropped while a link is followed: where ids are followed it is
    /// fetched afterwards, behind those that were kept.
    fn fetch_later(&mut self, now: u64, key: Key, channel: u32) {
        let extra = self.sessions.get(key).and_then(|session| session.extra.as_ref());
        let mut channels = extra.iter().flat_map(|extra| &extra.channels);
        if channels.any(|own| own.channel == channel && own.prev_id.is_some()) {
            self.note_missed(now, key);
            self.start_when_ready(now, key);
        }
    }

    /// What held the next link up may be over.
    pub(super) fn resume_next(&mut self, now: u64, key: Key) {
        if self.links(key).is_some_and(|links| links.again) {
            self.start_when_ready(now, key);
        }
    }

    /// Notes that something is missing from now on.
    pub(super) fn note_missed(&mut self, now: u64, key: Key) {
        if let Some(links) = self.links(key) {
            links.missed = now;
        }
    }

    /// An item of the channel could not be kept for the stream. Where ids are followed, its content
    /// goes on before that item, which is fetched when the client has taken what waits.
    pub(super) fn fetch_dropped(&mut self, now: u64, key: Key, channel: u32, item: &Item) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let channels = session.extra.iter_mut().flat_map(|extra| &mut extra.channels);
        let own = channels.filter(|own| own.channel == channel).find(|own| own.prev_id.is_some());
        let Some(own) = own else { return };
        own.prev_id = item.prev_id.as_deref().map(Box::from);
        self.note_missed(now, key);
        self.start_when_ready(now, key);
    }

    /// Follows the next link, if there is one, as soon as the stream runs, its client has taken
    /// what there is, no filter is asked about an item, and no fetch is under way.
    pub(super) fn start_when_ready(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let filtering = session.extra.as_ref().is_some_and(|extra| extra.filtering.is_some());
        let ready = session.hold.is_none() && session.queue.is_none() && !filtering;
        let Some(links) = self.links(key).filter(|links| links.next.is_some()) else { return };
        match ready && !links.updating {
            true => self.start_next(now, key),
            false => links.again = true,
        }
    }

    fn start_next(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(extra) = session.extra.as_deref_mut() else { return };
        let headers = extra.last_ids();
        let Some(links) = extra.links.as_deref_mut() else { return };
        let Some(next) = links.next.clone() else { return };
        leave_round(&mut self.rounds, links);
        (links.updating, links.again) = (true, false);
        links.heard.clear();
        log::debug!("httpsession: next: {}", next.url);
        let ask = Ask {
            method: "GET",
            headers,
            body: Bytes::new(),
            route: links.route.clone(),
            prefer_internal: same_origin(&links.uri, &next.url),
            trusted: links.trusted,
            log: links.log,
            // Not with a request of another shard that may have gone before.
            auto_share: links.missed == 0,
            since: links.missed,
            url: next.url,
        };
        let fetch = self.fetch(now, Purpose::Next(vec![key]), ask);
        if let Some(links) = self.links(key) {
            links.fetch = Some(fetch);
        }
    }

    /// No fetch runs for the session any more.
    pub(super) fn next_over(&mut self, key: Key) {
        if let Some(links) = self.links(key) {
            links.fetch = None;
            links.updating = false;
        }
    }

    /// A next link could not be fetched: again a little later, or the stream ends. `random`,
    /// tenths of a second, is the same for all who asked together, so that they do again.
    pub(super) fn next_failed(&mut self, now: u64, key: Key, relayed: bool, random: u32) {
        let Some(links) = self.links(key) else { return };
        links.fetch = None;
        log::debug!("httpsession: failed to retrieve next link");
        if relayed || links.tries >= TRIES_MAX {
            self.next_over(key);
            return self.fail_stream(now, key, "Failed to retrieve next link.");
        }
        let wait = 10 * (1 << links.tries) + random;
        links.tries += 1;
        links.due = tenths(now) + wait;
        log::debug!("httpsession: trying again in {}ms", wait * 100);
        self.schedule(key);
    }

    /// A next link was fetched whole: its instruction replaces the old one.
    pub(super) fn next_done(&mut self, now: u64, key: Key, url: &str, instruct: &Instruct) {
        self.next_over(key);
        let Some(links) = self.links(key) else { return };
        links.tries = 0;
        if !links.again {
            links.missed = 0;
        }
        links.next = instruct.next.clone();
        links.paging = instruct.hold.is_none();
        url.clone_into(&mut links.base);
        match (instruct.hold, links.paging && links.next.is_some()) {
            (Some(HoldMode::Stream), _) => self.hold_anew(now, key, instruct),
            (_, true) => self.start_when_ready(now, key),
            _ => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.flags.set(Flags::FINISHING, true);
                }
                self.flush(now, key);
            }
        }
    }

    /// Channels, filters, keep-alive and timers of the new instruction.
    fn hold_anew(&mut self, now: u64, key: Key, instruct: &Instruct) {
        let Some(links) = self.links(key) else { return };
        let (prefix, uri, log) = (links.prefix.clone(), links.uri.clone(), links.log);
        let mut names = links.implicit.clone();
        let used =
            &instruct.channels[..instruct.channels.len().min(self.settings.subscriptions_max)];
        names.extend(used.iter().map(|channel| [&*prefix, &channel.name].concat()));
        let before = self.channels_of(key);
        self.subscribe(key, Mode::Stream, &names);
        let after = self.channels_of(key);
        for (index, name) in &after {
            if !before.iter().any(|(known, _)| known == index) {
                log.write(|| format!("subscribe {uri} channel={name}"));
            }
        }
        let channels = after
            .iter()
            .filter_map(|(index, name)| {
                let given = used.iter().rev().find(|c| [&*prefix, &c.name].concat() == **name)?;
                Some(ExtraChannel {
                    channel: *index,
                    name: given.name.as_str().into(),
                    filters: given.filters.clone(),
                    prev_id: given.prev_id.as_deref().map(Box::from),
                })
            })
            .collect();
        self.take_instruct(key, instruct, channels);
        self.restart_keep_alive(now, key.index);
        self.arm_next(now, key);
        self.examine_paused(now, key);
        self.catch_up(now, key, |channel| !before.iter().any(|(known, _)| *known == channel));
        self.refuse_prev_ids(now, key);
    }

    /// A stream came onto channels: what was published between its backend's answer and that is
    /// missed. On those that it stays on, items waited meanwhile.
    pub(super) fn catch_up(&mut self, now: u64, key: Key, is_new: impl Fn(u32) -> bool) {
        if self.conflicts(key, is_new) {
            self.update_later(now, key);
        }
    }

    fn channels_of(&self, key: Key) -> Vec<(u32, Arc<str>)> {
        let subs = self.sessions.get(key).map_or(&[][..], |session| session.subs.as_slice());
        let named = |index| self.channels.at(index).map(|channel| (index, channel.name.clone()));
        subs.iter().filter_map(|sub| named(sub.channel)).collect()
    }

    fn take_instruct(&mut self, key: Key, instruct: &Instruct, channels: Vec<ExtraChannel>) {
        let keep_alive = instruct.keep_alive.clone();
        let idle = keep_alive.as_ref().is_some_and(|k| k.mode == KeepAliveMode::Idle);
        let number = keep_alive.map_or(NONE, |keep_alive| self.keep_alives.acquire(keep_alive));
        let max = self.settings.subscriptions_max;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let old = std::mem::replace(&mut session.keep_alive, number);
        session.deadline = NEVER;
        session.flags.set(Flags::IDLE_MODE, idle);
        if let Some(extra) = &mut session.extra {
            extra.meta = instruct.meta.clone();
            let implicit = extra.links.as_ref().map_or(&[][..], |links| &links.implicit);
            extra.names = names(instruct, implicit, max);
            extra.channels = channels;
        }
        self.keep_alives.release(old);
    }

    /// Items that came while the link was followed: those that its content covers are left
    /// out, then they go the ordinary way.
    fn examine_paused(&mut self, now: u64, key: Key) {
        let Some(links) = self.links(key) else { return };
        let again = std::mem::take(&mut links.again);
        let mut paused = std::mem::take(&mut links.paused);
        let Some(session) = self.sessions.get(key) else { return };
        let follows = paused.iter().position(|(channel, item)| follows(session, *channel, item));
        let kept = paused.split_off(follows.unwrap_or(paused.len()));
        let missed = goes_beyond(session, &paused);
        for (channel, item) in kept {
            self.deliver_alone(now, key, channel, &[item]);
        }
        if again {
            self.start_when_ready(now, key);
        } else if missed {
            // Not at once: where much is published the answer is often ahead of the items.
            self.update_later(now, key);
        }
    }

    /// Puts an item aside while a link is followed, or is to be; false if none is.
    pub(super) fn pause_item(
        &mut self,
        now: u64,
        key: Key,
        channel: u32,
        item: &Arc<Item>,
    ) -> bool {
        let links = self.links(key).filter(|links| links.updating || links.again);
        let Some(links) = links else { return false };
        let is_hint = item.stream.as_ref().is_some_and(|format| format.action == Action::Hint);
        if is_hint && !links.updating {
            // What is to be fetched comes after it.
            links.paused.clear();
        } else if links.paused.len() < QUEUE_MAX {
            links.paused.push((channel, item.clone()));
        } else {
            self.drops.queue_full += 1;
            log::debug!("httpsession: publish queue at max, dropping");
            self.fetch_later(now, key, channel);
        }
        true
    }

    /// Forgets what waits in the session: it will be fetched.
    pub(super) fn forget_paused(&mut self, key: Key) {
        if let Some(links) = self.links(key) {
            links.paused.clear();
        }
    }

    /// The session is over: its fetch is given up, and the gone link told.
    pub(super) fn end_links(&mut self, now: u64, key: Key, session: &mut Session) {
        let extra = session.extra.as_deref_mut();
        let Some(mut links) = extra.and_then(|extra: &mut Extra| extra.links.take()) else {
            return;
        };
        leave_round(&mut self.rounds, &mut links);
        if let Some(fetch) = links.fetch {
            self.leave_fetch(now, fetch, key);
        }
        let Some(gone) = &links.gone else { return };
        let ask = Ask {
            method: "POST",
            url: gone.to_string(),
            route: links.route.clone(),
            prefer_internal: same_origin(&links.uri, gone),
            trusted: links.trusted,
            ..Ask::default()
        };
        self.fetch(now, Purpose::Gone(links.handed_back.take()), ask);
    }
}

/// Whether an item goes on where the channel's content ends.
fn follows(session: &Session, channel: u32, item: &Item) -> bool {
    if !session.subs.as_slice().iter().any(|sub| sub.channel == channel) {
        return false;
    }
    let channels = session.extra.iter().flat_map(|extra| &extra.channels);
    let own = channels.filter(|own| own.channel == channel).find_map(|own| own.prev_id.as_deref());
    own.is_none_or(|id| item.prev_id.as_deref() == Some(id))
}

/// Whether items that do not follow are not what the content of their channels ends with either:
/// it may lack the last of them.
fn goes_beyond(session: &Session, items: &[(u32, Arc<Item>)]) -> bool {
    let mut channels = session.extra.iter().flat_map(|extra| &extra.channels);
    channels.any(|own| {
        let last = items.iter().rev().find(|(channel, _)| *channel == own.channel);
        own.prev_id.is_some()
            && last.is_some_and(|(_, item)| item.id.as_deref() != own.prev_id.as_deref())
    })
}

/// Whether two URLs have scheme, host and port in common.
pub(super) fn same_origin(a: &str, b: &str) -> bool {
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

pub(super) fn origin(url: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.split(['/', '?', '#']).next()?;
    let default = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    Some((scheme, host.to_ascii_lowercase(), port))
}

/// The path of a URL, without its query.
pub(super) fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_with_their_default_ports() {
        assert!(same_origin("http://H:80/a", "http://h/b?c"));
        assert!(same_origin("http://[::1]/a", "http://[::1]:80/"));
        assert!(!same_origin("http://h/a", "https://h/a"));
        assert!(!same_origin("http://h/a", "http://h:8080/a"));
        assert!(!same_origin("nothing", "nothing"));
    }

    #[test]
    fn paths_end_before_the_query() {
        for (url, expected) in [
            ("http://h/a/b?c=/d", "/a/b"),
            ("http://h", "/"),
            ("http://h:1/#x", "/"),
            ("/p?q", "/p"),
        ] {
            assert_eq!(path(url), expected);
        }
    }
}
