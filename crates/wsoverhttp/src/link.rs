//! One conversation: when a request is due, what is in it, and what its response means.

use std::num::{NonZeroU32, NonZeroU64};

use crate::waiting::{Offer, Waiting};
use crate::{CONTENT_TYPE, Event, Kind, events};

/// Shortest time between two requests that are sent for keep-alive alone.
const INTERVAL_MIN_S: u64 = 20;

/// How often a failed request is repeated, after 1, 2, 4, ... seconds.
const RETRIES_MAX: u8 = 5;

/// Values that a backend may store here.
const META_MAX: usize = 64;

/// A request to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its body.
    pub body: Vec<u8>,
    /// Content bytes in it that were offered before; a header tells them unless they are 0.
    pub replayed: usize,
}

/// What a response brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The backend accepted the connection with this response.
    pub opened: bool,
    /// For the client, in order: messages, pings, pongs, and perhaps one close at the end.
    pub events: Vec<Event<'a>>,
    /// Bytes of the client's messages that the backend has now.
    pub accepted: usize,
    /// Both sides have closed.
    pub finished: bool,
}

/// Why a conversation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// At the start: the response goes to the client as it is.
    Refused,
    /// The connection ends abnormally; what was wrong.
    Broken(&'static str),
}

/// How a request failed that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing of it can have been seen: no connection, no TLS.
    NotSent,
    /// The backend may have seen it.
    Unclear,
}

/// What to do about a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Link::is_due`] says when it is sent again.
    Repeat,
    /// The conversation is over.
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// The client has not closed.
    No,
    /// Its close waits to be sent.
    Waiting,
    /// The backend has it.
    Done,
}

/// What the backend stores here: names behind `Meta-`, and values.
#[derive(Debug, Default)]
struct Meta(Vec<(String, Vec<u8>)>);

#[derive(Clone, Copy, Debug, Default)]
struct Running {
    offer: Offer,
    close: bool,
}

/// The conversation of one client with its backend.
#[derive(Debug)]
pub struct Link {
    open: bool,
    asked: bool,
    peer_closed: bool,
    refresh: bool,
    one_event: bool,
    close: Close,
    retries: u8,
    interval_s: Option<NonZeroU32>,
    poll_at_ms: Option<NonZeroU64>,
    retry_at_ms: Option<NonZeroU64>,
    /// Bytes of content that were offered; a request has at most `CONTENT_MAX` and one message.
    replay: u32,
    // Of many conversations few are in the middle of something.
    waiting: Option<Box<Waiting>>,
    running: Option<Box<Running>>,
    close_content: Box<[u8]>,
    meta: Option<Box<Meta>>,
}

impl Link {
    /// A conversation that has not begun. `one_event`: at most one event a request.
    pub fn new(one_event: bool) -> Self {
        Self {
            open: false,
            asked: false,
            peer_closed: false,
            refresh: false,
            one_event,
            close: Close::No,
            retries: 0,
            interval_s: None,
            poll_at_ms: None,
            retry_at_ms: None,
            replay: 0,
            waiting: None,
            running: None,
            close_content: Box::default(),
            meta: None,
        }
    }

    /// Whether the backend accepted the connection.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a request is under way.
    pub fn is_asking(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the client's close still has to reach the backend.
    pub fn is_closing(&self) -> bool {
        self.open && self.close == Close::Waiting
    }

    /// `Meta-*` headers of requests: name behind `Meta-`, and value.
    pub fn meta(&self) -> &[(String, Vec<u8>)] {
        self.meta.as_ref().map_or(&[], |meta| &meta.0)
    }

    /// Takes a piece of a message, a ping or a pong of the client.
    ///
    /// # Errors
    /// What does not fit; the connection is to end then.
    pub fn push(&mut self, kind: Kind, data: &[u8], more: bool) -> Result<(), &'static str> {
        self.waiting.get_or_insert_default().push(kind, data, more)
    }

    /// Takes the client's close. `content`: code and reason, or nothing.
    pub fn push_close(&mut self, content: &[u8]) {
        if self.close == Close::No {
            self.close = Close::Waiting;
            self.close_content = content.into();
        }
    }

    /// Asks the backend as soon as no request is under way.
    pub fn refresh(&mut self) {
        self.refresh = true;
    }

    /// Whether a request is to be sent. `may_read`: the client has taken what came before.
    pub fn is_due(&self, now_ms: u64, may_read: bool) -> bool {
        if self.running.is_some() {
            return false;
        }
        if let Some(at) = self.retry_at_ms {
            return at.get() <= now_ms;
        }
        let polls = self.poll_at_ms.is_some_and(|at| at.get() <= now_ms);
        if !self.open {
            return !self.asked || polls;
        }
        let messages = self.waiting.as_ref().is_some_and(|waiting| waiting.has_new());
        let something = messages || self.close == Close::Waiting;
        (something && may_read) || self.refresh || polls
    }

    /// When [`Link::is_due`] may turn true by time alone.
    pub fn next_deadline(&self) -> Option<u64> {
        let at = if self.running.is_some() { None } else { self.retry_at_ms.or(self.poll_at_ms) };
        at.map(NonZeroU64::get)
    }

    /// The request to send now.
    pub fn request(&mut self) -> Request {
        let mut body = Vec::new();
        (self.refresh, self.retry_at_ms, self.poll_at_ms) = (false, None, None);
        self.asked = true;
        if !self.open {
            events::write(&mut body, Kind::Open, b"");
            self.running = Some(Box::default());
            return Request { body, replayed: 0 };
        }
        let messages_max = if self.one_event { 1 } else { usize::MAX };
        let nothing = Offer { everything: true, ..Offer::default() };
        let waiting = self.waiting.as_mut();
        let offer = waiting.map_or(nothing, |waiting| waiting.offer(&mut body, messages_max));
        let room = offer.messages < messages_max && offer.everything;
        let close = room && self.close == Close::Waiting;
        if close {
            events::write(&mut body, Kind::Close, &self.close_content);
        }
        let replayed = offer.content.min(self.replay as usize);
        self.replay = self.replay.max(saturated(offer.content));
        self.running = Some(Box::new(Running { offer, close }));
        Request { body, replayed }
    }

    /// The response to the request under way. `header` gives the first value of a header by its
    /// name in lower case; `headers` gives them all. `jitter_ms`: 0 to 999.
    ///
    /// # Errors
    /// What ends the conversation.
    pub fn response<'a>(
        &mut self,
        now_ms: u64,
        code: u16,
        headers: &[(&str, &[u8])],
        body: &'a [u8],
    ) -> Result<Reply<'a>, Failure> {
        let Some(running) = self.running.take() else { return Ok(Reply::default()) };
        let header = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| *v)
        };
        if code != 200 || !header("content-type").is_some_and(is_events) {
            return Err(match self.open {
                true => Failure::Broken("the response is not 200 with WebSocket events"),
                false => Failure::Refused,
            });
        }
        self.note_headers(headers, header("keep-alive-interval"));
        let events = events::parse(body).map_err(Failure::Broken)?;
        let mut reply = Reply::default();
        let mut events = events.as_slice();
        if self.open {
            reply.accepted = self.settle(*running, header("content-bytes-accepted"), now_ms)?;
        } else {
            match events.split_first() {
                None if self.interval_s.is_some() => {}
                Some((first, rest)) if first.kind == Kind::Open => {
                    (self.open, reply.opened, events) = (true, true, rest);
                }
                _ => return Err(Failure::Broken("the first event is not OPEN")),
            }
        }
        self.take_events(events, &mut reply)?;
        let closed = self.close == Close::Done;
        if running.close && closed && !self.peer_closed && self.interval_s.is_none() {
            return Err(Failure::Broken("a close was not answered"));
        }
        reply.finished = closed && self.peer_closed;
        let interval_ms = self.interval_s.map(|seconds| u64::from(seconds.get()) * 1_000);
        self.poll_at_ms = interval_ms.and_then(|interval_ms| NonZeroU64::new(now_ms + interval_ms));
        if self.retry_at_ms.is_none() {
            self.retries = 0;
        }
        Ok(reply)
    }

    /// The events behind OPEN, up to a close.
    fn take_events<'a>(
        &mut self,
        events: &[Event<'a>],
        reply: &mut Reply<'a>,
    ) -> Result<(), Failure> {
        for event in events {
            match event.kind {
                Kind::Open => return Err(Failure::Broken("OPEN came twice")),
                Kind::Disconnect => return Err(Failure::Broken("the backend disconnected")),
                Kind::Close => {
                    reply.events.push(*event);
                    self.peer_closed = true;
                    break;
                }
                _ => reply.events.push(*event),
            }
        }
        Ok(())
    }

    /// Keep-alive and stored values; every response may set them.
    fn note_headers(&mut self, headers: &[(&str, &[u8])], interval: Option<&[u8]>) {
        if let Some(value) = interval {
            let seconds =
                std::str::from_utf8(value).ok().and_then(|v| v.trim().parse::<u64>().ok());
            let seconds = seconds.filter(|s| *s > 0).map(|s| s.clamp(INTERVAL_MIN_S, 1 << 31));
            self.interval_s = seconds.and_then(|s| NonZeroU32::new(s as u32));
        }
        const PREFIX: &str = "set-meta-";
        for (name, value) in headers {
            let start = name.get(..PREFIX.len());
            if !start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
                continue;
            }
            let name = &name[PREFIX.len()..];
            let meta = &mut self.meta.get_or_insert_default().0;
            meta.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            if !(value.is_empty() || name.is_empty()) && meta.len() < META_MAX {
                meta.push((name.to_owned(), value.to_vec()));
            }
        }
    }

    /// Settles what the backend took of a request (spec §12.4, 2). Gives the bytes of messages.
    fn settle(
        &mut self,
        running: Running,
        accepted: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<usize, Failure> {
        let offer = running.offer;
        let closing = if running.close { self.close_content.len() } else { 0 };
        let offered = offer.content + closing;
        let accepted = match accepted {
            None => offered,
            Some(value) => {
                let number = std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok());
                number.ok_or(Failure::Broken("Content-Bytes-Accepted is no number"))?
            }
        };
        if accepted > offered {
            return Err(Failure::Broken("more bytes were accepted than offered"));
        }
        let of_messages = accepted.min(offer.content);
        if !offer.everything && offer.content > 0 && of_messages == 0 {
            return Err(Failure::Broken("nothing was accepted, and more waits"));
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.accepted(offer, of_messages);
        }
        self.waiting.take_if(|waiting| waiting.is_empty());
        self.replay = self.replay.saturating_sub(saturated(of_messages));
        if running.close {
            if of_messages == offer.content {
                if accepted < offered {
                    return Err(Failure::Broken("the close was not accepted"));
                }
                self.close = Close::Done;
            } else if of_messages == 0 {
                // Again, but not at once and not for ever.
                self.repeat_later(now_ms, 0)?;
            }
        }
        Ok(of_messages)
    }

    fn repeat_later(&mut self, now_ms: u64, jitter_ms: u64) -> Result<(), Failure> {
        if self.retries >= RETRIES_MAX {
            return Err(Failure::Broken("the backend does not get on"));
        }
        self.retry_at_ms = NonZeroU64::new(now_ms + (1_000 << self.retries) + jitter_ms);
        self.retries += 1;
        Ok(())
    }

    /// The request under way got no response. `jitter_ms`: 0 to 999.
    pub fn failed(&mut self, now_ms: u64, trouble: Trouble, jitter_ms: u64) -> Outcome {
        self.running = None;
        let again = self.open && trouble == Trouble::NotSent;
        match again && self.repeat_later(now_ms, jitter_ms).is_ok() {
            true => Outcome::Repeat,
            false => Outcome::GiveUp,
        }
    }

    /// The body of the request that tells the backend of an abnormal end; nothing if it knows of
    /// the end, or never knew of the connection.
    pub fn disconnect(&self) -> Option<Vec<u8>> {
        let over = self.close == Close::Done || self.peer_closed;
        (self.open && !over).then(|| {
            let mut body = Vec::new();
            events::write(&mut body, Kind::Disconnect, b"");
            body
        })
    }
}

fn saturated(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// The media type, with or without parameters.
fn is_events(value: &[u8]) -> bool {
    let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}
