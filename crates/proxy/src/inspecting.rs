//! Asking the handler about requests before their backends are (spec/proxy.md §7.1,
//! spec/internal-rpc.md §3).

use evloop::arena::Key;
use zhttp::Packet;
use zrpc::{Response, inspect};

use crate::accept::{key_text, parse_key};
use crate::session::{Inspected, Session, Stage};
use crate::timers::CALL_MS;
use crate::uri::Uri;
use crate::{Output, Proxy};

/// Bytes of the body that the handler sees before the backend does.
pub(crate) const INSPECT_BODY_MAX: usize = 10_000;

/// How often a handler that does not answer is called.
const PROBE_MS: u64 = 100;

/// Whether the handler answers at all.
#[derive(Debug, Default)]
pub(crate) struct Inspector {
    /// Calls that sessions wait for.
    waiting: u32,
    answered_ms: u64,
    /// It does not: requests do not wait for it. Some calls are made all the same, and an answer
    /// ends it.
    down: bool,
    probe_ms: u64,
}

impl Inspector {
    fn answered(&mut self, now: u64) {
        self.waiting = self.waiting.saturating_sub(1);
        (self.answered_ms, self.down) = (now, false);
    }

    fn failed(&mut self, now: u64) {
        self.waiting = self.waiting.saturating_sub(1);
        self.down |= self.waiting == 0 || now.saturating_sub(self.answered_ms) >= CALL_MS;
    }
}

/// Whether the handler is to be asked when more of the body is there (spec/proxy.md §7.1).
pub(crate) fn lacks_body(session: &Session) -> bool {
    session.stage == Stage::Inspecting
        && !session.internal
        && session.entry.as_ref().is_some_and(|entry| entry.route.session)
        && session.exchange.request_more
        && session.exchange.body.len() < INSPECT_BODY_MAX
}

impl Proxy {
    /// Whether the handler may know something about the request that matters (design, rule 2).
    pub(crate) fn wants_inspect(&self, entry: &crate::Entry, packet: &Packet<'_>) -> bool {
        self.settings.inspect_all
            || entry.route.session
            || crate::retry::Passthrough::of(packet).is_some_and(|p| p.auto_share)
    }

    /// Asks the handler about the request; it goes on with the reply, or without one. Where a
    /// session is looked for, the call waits for the first part of the body, however slow its
    /// client is.
    pub(crate) fn inspect(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Inspecting;
        if !lacks_body(session) {
            self.call_inspect(key);
        }
    }

    /// Sends the call. While the handler does not answer, nobody waits for it.
    pub(crate) fn call_inspect(&mut self, key: Key) {
        if self.inspector.down && self.now < self.inspector.probe_ms {
            return self.inspected(key, None);
        }
        let Some(session) = self.sessions.get(key) else { return };
        let Some(packet) = session.packet() else { return };
        let args = inspect::Args {
            method: packet.method,
            uri: &session.uri(),
            headers: packet.headers,
            body: &session.exchange.body[..session.exchange.body.len().min(INSPECT_BODY_MAX)],
            truncated: session.exchange.request_more
                || session.exchange.body.len() > INSPECT_BODY_MAX,
            get_session: session.entry.as_ref().is_some_and(|entry| entry.route.session),
            auto_share: crate::retry::Passthrough::of(&packet).is_some_and(|p| p.auto_share),
        };
        let mut payload = Vec::new();
        zrpc::write_request(&mut payload, None, Some(&key_text(key)), inspect::METHOD, |w| {
            args.write(w);
        });
        self.outputs.push_back(Output::Inspect { key, payload });
        if self.inspector.down {
            self.inspector.probe_ms = self.now + PROBE_MS;
            return self.inspected(key, None);
        }
        self.inspector.waiting += 1;
        self.timers.calls.push(self.now, key);
    }

    /// A reply on the inspect socket.
    pub fn inspect_reply(&mut self, now: u64, payload: &[u8]) {
        self.now = now;
        let reply = match Response::parse(payload) {
            Ok(reply) => reply,
            Err(cause) => {
                self.drops.malformed += 1;
                return log::warn!("{}", cause.skipping("zrpc client"));
            }
        };
        let Some(key) = reply.id.and_then(parse_key) else { return };
        if matches!(reply.result, Err(("service-unavailable" | "timeout", _))) {
            return self.inspect_failed(now, key);
        }
        self.inspector.answered(now);
        let known = reply.result.ok().and_then(|value| inspect::Reply::parse(value).ok());
        self.inspected(key, known);
    }

    /// Nobody takes the call, or nobody answers it.
    pub fn inspect_failed(&mut self, now: u64, key: Key) {
        self.now = now;
        if self.is_inspecting(key) {
            self.inspector.failed(now);
            self.inspected(key, None);
        }
    }

    fn is_inspecting(&self, key: Key) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|s| s.stage == Stage::Inspecting && !lacks_body(s))
    }

    pub(crate) fn inspected(&mut self, key: Key, known: Option<inspect::Reply<'_>>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.stage != Stage::Inspecting {
            return;
        }
        if let Some(known) = known {
            session.exchange.inspected = Some(Box::new(keep_inspected(&known)));
            self.prepare_again(key);
        }
        self.start_or_join(key);
    }

    /// Makes the backend's headers anew, now that more is known.
    fn prepare_again(&mut self, key: Key) {
        let now_s = self.now_s();
        let Some(session) = self.sessions.get_mut(key) else { return };
        // Taken out for a moment, because the session changes while it is read.
        let packet = std::mem::take(&mut session.exchange.packet);
        if let (Some(entry), Ok(request)) = (session.entry.clone(), Packet::parse(&packet))
            && let Some(mut uri) = Uri::parse(request.uri)
        {
            uri.secure = session.https;
            let peer_address = request.peer_address;
            session.prepare(&self.settings, now_s, request.headers, &uri, &entry, peer_address);
        }
        session.exchange.packet = packet;
    }
}

pub(crate) fn keep_inspected(known: &inspect::Reply<'_>) -> Inspected {
    Inspected {
        sharing_key: known.sharing_key.filter(|key| !key.is_empty()).map(Box::from),
        session_id: known.sid.map(<[u8]>::to_vec),
        last_ids: known.last_ids.iter().map(|(c, id)| ((*c).to_owned(), id.to_vec())).collect(),
        user_data: known.user_data.map(<[u8]>::to_vec),
    }
}

pub(crate) fn reply_of(known: &Inspected) -> inspect::Reply<'_> {
    inspect::Reply {
        no_proxy: false,
        sharing_key: known.sharing_key.as_deref(),
        sid: known.session_id.as_deref(),
        last_ids: known.last_ids.iter().map(|(c, id)| (c.as_str(), id.as_slice())).collect(),
        user_data: known.user_data.as_deref(),
    }
}
