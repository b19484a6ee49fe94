//! Holds begin, and response holds are answered (spec/grip.md §7 and §8.1).

use bytes::Bytes;
use evloop::arena::Key;
use grip::{Body, Headers, Item};
use zhttp::Kind;

use super::Shard;
use super::cross;
use super::session::{Flags, Hold};
use super::timers::tenths;

/// The body of an error answer (spec/grip.md §8.5).
const ERROR_BODY: &str = "Error while proxying to origin.\n";

impl Shard {
    /// All channels of a new session are confirmed: from now on nothing is missed.
    pub(super) fn begin(&mut self, now: u64, key: Key) {
        self.log_subscribed(key);
        let conflict = self.conflicts(key, |_| true);
        if conflict && self.sessions.get(key).is_some_and(|s| s.flags.has(Flags::RESPONSE)) {
            return self.retry_unclaimed(now, key);
        }
        if conflict {
            self.update_later(now, key);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.flags.has(Flags::RESPONSE) {
            let timeout = session.hold.as_ref().map_or(0, |hold| hold.timeout_s);
            session.deadline = tenths(now).saturating_add(timeout.saturating_mul(10));
            self.claim(key);
            self.schedule(key);
            return;
        }
        if session.flags.has(Flags::HEAD_SENT) {
            self.claim(key);
            self.go_live(now, key);
            return self.refuse_prev_ids(now, key);
        }
        let failure = session.hold.as_mut().and_then(|hold| hold.failure.take());
        self.wrap_start(key);
        self.send_start(now, key);
        match failure {
            Some(text) => self.fail_stream(now, key, &text),
            None => self.refuse_prev_ids(now, key),
        }
    }

    fn log_subscribed(&self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(hold) = &session.hold else { return };
        let retry = if session.flags.has(Flags::RETRY) { " retry" } else { "" };
        for sub in session.subs.as_slice() {
            if let Some(channel) = self.channels.at(sub.channel) {
                let line = || format!("subscribe {} channel={}{retry}", hold.uri, channel.name);
                hold.log.write(line);
            }
        }
    }

    /// A packet without content makes the connection manager ours.
    fn claim(&mut self, key: Key) {
        self.write_one(key.index, |f| {
            f.kind(Kind::KeepAlive);
        });
    }

    /// A stream that counts on ids needs a way to catch up.
    pub(super) fn refuse_prev_ids(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let extra = session
            .extra
            .as_ref()
            .filter(|extra| extra.links.as_ref().is_none_or(|links| links.next.is_none()));
        let name = extra.and_then(|e| e.channels.iter().find(|c| c.prev_id.is_some()));
        if let Some(channel) = name {
            let name = &channel.name;
            let text = format!("channel '{name}' specifies prev-id, but no next link found");
            self.fail_stream(now, key, &text);
        }
    }

    /// Sends a stream's head and its first body as far as credits allow.
    pub(super) fn send_start(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(hold) = &mut session.hold else { return };
        let part = hold.body.split_to(hold.body.len().min(session.credits as usize));
        let done = hold.body.is_empty();
        session.credits -= part.len() as u32;
        let first = !session.flags.has(Flags::HEAD_SENT);
        session.flags.set(Flags::HEAD_SENT, true);
        if first || !part.is_empty() {
            self.write_start(key, first, &part);
        }
        if done {
            self.go_live(now, key);
        }
    }

    fn write_start(&mut self, key: Key, first: bool, part: &[u8]) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(hold) = session.hold.as_deref() else { return };
        let headers = self.header_sets.get(hold.headers).cloned().unwrap_or_default().headers;
        let (code, reason) = (hold.code, hold.reason.clone());
        let route = session.route;
        self.write_one(key.index, |f| {
            if first {
                f.status(code, &reason).headers(headers.iter().map(|(n, v)| (n, v)));
            }
            f.body(part).flag("more", true);
        });
        let head = if first { head_size(code, &reason, &headers) } else { 0 };
        self.count(route, |sums| {
            sums.counters.client_header_bytes_sent += head;
            sums.counters.client_content_bytes_sent += part.len() as u64;
        });
    }

    /// The stream's first body is sent: it keeps no more than it needs from here on.
    fn go_live(&mut self, now: u64, key: Key) {
        self.drop_hold(key);
        self.restart_keep_alive(now, key.index);
        self.flush(now, key);
        self.follow(now, key);
    }

    fn drop_hold(&mut self, key: Key) -> Option<Box<Hold>> {
        let hold = self.sessions.get_mut(key)?.hold.take()?;
        self.header_sets.release(hold.headers);
        Some(hold)
    }

    /// Answers a response hold with an item.
    pub(super) fn answer_with(&mut self, now: u64, key: Key, item: &Item, body: Bytes) {
        let Some(format) = &item.response else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(hold) = session.hold.as_deref() else { return };
        let body = match &format.body {
            Body::Whole(_) => body,
            Body::Patch(operations) => match grip::jsonpatch::patch_body(&hold.body, operations) {
                Ok(body) => body.into(),
                Err(error) => {
                    log::debug!("httpsession: {error}");
                    Bytes::new()
                }
            },
        };
        let base = self.header_sets.get(hold.headers).cloned().unwrap_or_default();
        let headers = base.answer(&format.headers, format.code, body.len());
        self.respond(now, key, format.code, &format.reason, &headers, body);
    }

    /// The time of a response hold is over: it gets what the backend instructed.
    pub(super) fn time_out(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.flags.has(Flags::PAUSING) {
            return self.schedule(key);
        }
        let Some(hold) = session.hold.as_deref() else { return };
        let base = self.header_sets.get(hold.headers).cloned().unwrap_or_default();
        let (code, reason, body) = (hold.code, hold.reason.clone(), hold.body.clone());
        let headers = base.answer(&Headers::new(), code, body.len());
        self.respond(now, key, code, &reason, &headers, body);
    }

    /// Ends a response hold because of an error (spec/grip.md §8.5).
    pub(super) fn fail_response(&mut self, now: u64, key: Key, text: &str) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(hold) = session.hold.as_deref() else { return };
        let body = match session.flags.has(Flags::DEBUG) {
            true => format!("{text}\n"),
            false => ERROR_BODY.to_owned(),
        };
        let base = self.header_sets.get(hold.headers).cloned().unwrap_or_default();
        let plain = vec![("Content-Type".to_owned(), b"text/plain".to_vec())];
        let headers = base.answer(&plain, 502, body.len());
        self.respond(now, key, 502, "Bad Gateway", &headers, body.into());
    }

    /// Sends a whole response; what exceeds the credits follows as they come.
    fn respond(
        &mut self,
        now: u64,
        key: Key,
        code: u16,
        reason: &str,
        headers: &Headers,
        body: Bytes,
    ) {
        let hold = self.drop_hold(key);
        let jsonp = hold.and_then(|hold| hold.cross).and_then(|cross| cross.jsonp);
        let Some(mut jsonp) = jsonp else {
            return self.send_answer(now, key, code, reason, headers, body);
        };
        let (headers, body) = cross::wrap(&mut jsonp, code, reason, headers, &body);
        self.send_answer(now, key, 200, "OK", &headers, body.into());
    }

    fn send_answer(
        &mut self,
        now: u64,
        key: Key,
        code: u16,
        reason: &str,
        headers: &Headers,
        mut body: Bytes,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let part = body.split_to(body.len().min(session.credits as usize));
        session.credits -= part.len() as u32;
        let more = !body.is_empty();
        let route = session.route;
        if more {
            session.flags.set(Flags::FINISHING, true);
            session.enqueue(body);
        }
        self.write_one(key.index, |f| {
            f.status(code, reason).headers(headers.iter().map(|(n, v)| (n, v)));
            f.body(&part).flag("more", more);
        });
        self.count(route, |sums| {
            sums.counters.client_header_bytes_sent += head_size(code, reason, headers);
            sums.counters.client_content_bytes_sent += part.len() as u64;
        });
        if !more {
            self.remove(now, key, false);
        }
    }
}

/// The estimate of spec/stats.md §5.
pub(super) fn head_size(code: u16, reason: &str, headers: &Headers) -> u64 {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    (code.to_string().len() + reason.len() + headers) as u64
}
