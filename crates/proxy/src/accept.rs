//! Handing sessions over to the handler, and asking it about requests
//! (spec/proxy.md §7; spec/internal-rpc.md §3, §4).

use evloop::arena::Key;
use stats::Route as StatsRoute;
use zhttp::{Kind, Packet};
use zrpc::accept::{self, Reply};
use zrpc::{HttpRequest, HttpResponse, Response, Rid, inspect};

use crate::backend::ORIGIN_ERROR;
use crate::peers::Peer;
use crate::response::Head;
use crate::session::{Away, Inspected, Session, Stage};
use crate::uri::Uri;
use crate::{Output, Proxy, forward, log_line};

/// Bytes of the body that the handler sees before the backend does.
const INSPECT_BODY_MAX: usize = 10_000;

const UNAVAILABLE: &str = "Accept service unavailable.";

/// Whether the handler is to be asked when more of the body is there (spec/proxy.md §7.1).
pub(crate) fn lacks_body(session: &Session) -> bool {
    session.stage == Stage::Inspecting
        && session.entry.as_ref().is_some_and(|entry| entry.route.session)
        && session.request_more
        && session.body.len() < INSPECT_BODY_MAX
}

impl Proxy {
    /// The whole response of a backend is there and has instructions.
    pub(crate) fn hold(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.body_dropped {
            let text = "Request too large to accept GRIP instruct.";
            return self.answer_plain(key, 400, text);
        }
        // Nothing was sent: the handler's first packet is acknowledgement, claim and answer.
        if session.acknowledged() { self.pause_client(key) } else { self.call_accept(key) }
    }

    /// Stops the client's side until the new owner speaks.
    pub(crate) fn pause_client(&mut self, key: Key) {
        self.send_kind(key, Kind::HandoffStart);
        if let Some(session) = self.sessions.get_mut(key) {
            session.stage = Stage::Pausing;
        }
    }

    /// Calls `accept` with everything needed to go on with the session.
    pub(crate) fn call_accept(&mut self, key: Key) {
        let maxima = self.count_away(key);
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Accepting;
        let Some(peer) = self.peers.get(session.peer) else { return };
        let state = state_of(session, peer, &self.settings, now);
        let payload = accept_payload(&self.settings, key, session, state, maxima.as_deref());
        let Some(payload) = payload else {
            return self.answer_plain(key, 500, UNAVAILABLE);
        };
        // The handler has its copy; what is needed here is the way back.
        session.headers = zhttp::HeaderBuf::new();
        if let Some(held) = &mut session.held {
            (held.body, held.headers) = (Vec::new(), zhttp::HeaderBuf::new());
        }
        self.timers.calls.push(self.now, key);
        self.outputs.push_back(Output::Accept { key, payload });
    }

    /// Nobody takes the call.
    pub fn accept_failed(&mut self, now: u64, key: Key) {
        self.now = now;
        if self.sessions.get(key).is_some_and(|session| session.stage == Stage::Accepting) {
            self.count_back(key);
            self.accept_error(key, 500, UNAVAILABLE, UNAVAILABLE);
        }
    }

    /// Every outstanding call of the handler's that left is given up by that time.
    pub fn handler_gone(&mut self, now: u64, give_up_ms: u64) {
        self.now = now;
        self.timers.calls.shorten(now + give_up_ms);
    }

    /// A reply on the accept socket.
    pub fn accept_reply(&mut self, now: u64, payload: &[u8]) {
        self.now = now;
        let reply = match Response::parse(payload) {
            Ok(reply) => reply,
            Err(cause) => {
                self.drops.malformed += 1;
                return log::warn!(
                    "zrpc client: received message with invalid format ({cause}), skipping"
                );
            }
        };
        let Some(key) = reply.id.and_then(parse_key) else { return };
        if !self.sessions.get(key).is_some_and(|session| session.stage == Stage::Accepting) {
            return;
        }
        let parsed = reply.result.map(Reply::parse);
        if !matches!(parsed, Ok(Ok(Reply::Accepted))) {
            self.count_back(key);
        }
        match parsed {
            Ok(reply) => match reply {
                Ok(Reply::Accepted) => self.accepted(key),
                Ok(Reply::Response(response)) => self.not_held(key, &response),
                Ok(Reply::Nothing) => self.nothing_to_say(key),
                Err(cause) => {
                    log::warn!("accept: invalid reply ({cause})");
                    self.accept_error(key, 500, UNAVAILABLE, UNAVAILABLE);
                }
            },
            Err(("bad-format", value)) if accept::error_text(value).is_some() => {
                let text = accept::error_text(value).unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                let debug = format!("Failed to parse accept instructions: {text}");
                self.accept_error(key, 502, ORIGIN_ERROR, &debug);
            }
            Err((condition, _)) => {
                log::debug!("accept failed: {condition}");
                self.accept_error(key, 500, UNAVAILABLE, UNAVAILABLE);
            }
        }
    }

    /// The session is the handler's now; nothing of it stays here.
    fn accepted(&mut self, key: Key) {
        let Some(mut session) = self.remove(key) else { return };
        self.count_end(&mut session, true);
        self.totals.ended(&session, log_line::Outcome::Accept);
        log_line::write(&self.settings, &session, log_line::Outcome::Accept);
    }

    /// The handler made an ordinary response of it.
    fn not_held(&mut self, key: Key, response: &HttpResponse<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.was_sent_first() {
            session.held = None;
            session.stage = Stage::Answering;
            session.out.body.clear();
            session.out.start = 0;
            session.dress_piece(response.body);
            session.dress_end();
            return self.dirty.push(key);
        }
        let mut headers = zhttp::HeaderBuf::new();
        response.headers.iter().for_each(|(name, value)| headers.push(name, value));
        let head = Head { code: response.code, reason: response.reason.to_owned(), headers };
        self.answer(key, head, response.body.to_vec());
    }

    fn nothing_to_say(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.was_sent_first() {
            session.held = None;
            session.stage = Stage::Answering;
            session.dress_end();
            return self.dirty.push(key);
        }
        self.answer_plain(key, 500, UNAVAILABLE);
    }

    /// The session goes on here with an error, if it can still be told.
    fn accept_error(&mut self, key: Key, code: u16, text: &str, debug: &str) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.was_sent_first() {
            return self.answer_error(key, code, text, debug);
        }
        session.stage = Stage::Answering;
        session.held = None;
        if !session.debug {
            return self.end_uncleanly(key);
        }
        let text = if code == 500 { "Accept service unavailable" } else { debug };
        session.out.body.clear();
        session.out.start = 0;
        session.dress_piece(format!("\n\n{text}\n").as_bytes());
        session.dress_end();
        self.dirty.push(key);
    }

    /// Whether the handler may know something about the request that matters (design, rule 2).
    pub(crate) fn wants_inspect(&self, entry: &crate::Entry, packet: &Packet<'_>) -> bool {
        self.settings.inspect_all
            || entry.route.session
            || crate::retry::Passthrough::of(packet).is_some_and(|p| p.auto_share)
    }

    /// Asks the handler about the request; it goes on with the reply, or without one. Where a
    /// session is looked for, the call waits for the first part of the body.
    pub(crate) fn inspect(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Inspecting;
        match lacks_body(session) {
            true => self.timers.calls.push(self.now, key),
            false => self.call_inspect(key),
        }
    }

    /// Sends the call.
    pub(crate) fn call_inspect(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(packet) = session.packet() else { return };
        let args = inspect::Args {
            method: packet.method,
            uri: packet.uri,
            headers: packet.headers,
            body: &session.body[..session.body.len().min(INSPECT_BODY_MAX)],
            truncated: session.request_more || session.body.len() > INSPECT_BODY_MAX,
            get_session: session.entry.as_ref().is_some_and(|entry| entry.route.session),
            auto_share: crate::retry::Passthrough::of(&packet).is_some_and(|p| p.auto_share),
        };
        let mut payload = Vec::new();
        zrpc::write_request(&mut payload, None, Some(&key_text(key)), inspect::METHOD, |w| {
            args.write(w);
        });
        self.timers.calls.push(self.now, key);
        self.outputs.push_back(Output::Inspect { key, payload });
    }

    /// A reply on the inspect socket.
    pub fn inspect_reply(&mut self, now: u64, payload: &[u8]) {
        self.now = now;
        let Ok(reply) = Response::parse(payload) else {
            self.drops.malformed += 1;
            return log::warn!("zrpc client: received message with invalid format, skipping");
        };
        let Some(key) = reply.id.and_then(parse_key) else { return };
        let known = reply.result.ok().and_then(|value| inspect::Reply::parse(value).ok());
        self.inspected(key, known);
    }

    /// Nobody takes the call.
    pub fn inspect_failed(&mut self, now: u64, key: Key) {
        self.now = now;
        self.inspected(key, None);
    }

    pub(crate) fn inspected(&mut self, key: Key, known: Option<inspect::Reply<'_>>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.stage != Stage::Inspecting {
            return;
        }
        if let Some(known) = known {
            session.inspected = Some(Box::new(keep_inspected(&known)));
            self.prepare_again(key);
        }
        self.start_target(key);
    }

    /// Makes the backend's headers anew, now that more is known.
    fn prepare_again(&mut self, key: Key) {
        let now_s = self.now_s();
        let Some(session) = self.sessions.get_mut(key) else { return };
        // Taken out for a moment, because the session changes while it is read.
        let packet = std::mem::take(&mut session.packet);
        if let (Some(entry), Ok(request)) = (session.entry.clone(), Packet::parse(&packet))
            && let Some(mut uri) = Uri::parse(request.uri)
        {
            uri.secure = session.https;
            let peer_address = request.peer_address;
            session.prepare(&self.settings, now_s, request.headers, &uri, &entry, peer_address);
        }
        session.packet = packet;
    }

    /// The stats route of a session.
    pub(crate) fn stats_route(session: &Session) -> StatsRoute {
        session.entry.as_ref().and_then(|entry| entry.stats.clone())
    }
}

pub(crate) fn keep_inspected(known: &inspect::Reply<'_>) -> Inspected {
    Inspected {
        session_id: known.sid.map(<[u8]>::to_vec),
        last_ids: known.last_ids.iter().map(|(c, id)| ((*c).to_owned(), id.to_vec())).collect(),
        user_data: known.user_data.map(<[u8]>::to_vec),
    }
}

/// The id of a call: its session's key.
fn key_text(key: Key) -> Vec<u8> {
    format!("{:x}-{:x}", key.index, key.generation).into_bytes()
}

fn parse_key(id: &[u8]) -> Option<Key> {
    let (index, generation) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(Key { index: number(index)?, generation: number(generation)? })
}

/// The call (spec/internal-rpc.md §4.1).
fn accept_payload(
    settings: &crate::Settings,
    key: Key,
    session: &Session,
    state: Option<zrpc::Session<'_>>,
    maxima: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let packet = session.packet()?;
    let held = session.held.as_ref()?;
    let route = &session.entry.as_ref()?.route;
    let target = route.targets.get(session.target)?;
    let place = session.place.as_ref()?;
    let scheme = if session.https { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", place.authority, place.target);
    let request = |uri, headers| HttpRequest {
        method: session.method(),
        uri,
        headers,
        body: session.body.as_slice(),
    };
    let args = accept::Args {
        requests: vec![state?],
        request: request(uri.as_str(), session.headers.as_headers()),
        orig_request: request(session.uri(), packet.headers),
        response: HttpResponse {
            code: held.code,
            reason: &held.reason,
            headers: held.headers.as_headers(),
            body: &held.body,
        },
        inspect: session.inspected.as_deref().map(reply_of),
        route: Some(&route.id),
        separate_stats: route.explicit_id,
        channel_prefix: Some(route.prefix.as_str()).filter(|prefix| !prefix.is_empty()),
        log_level: (route.log_level >= 0).then_some(route.log_level.into()),
        channels: target.subscribe.iter().map(String::as_str).collect(),
        trusted: target.trusted,
        use_session: route.session,
        response_sent: held.sent_code.is_some(),
        conn_max: maxima.and_then(|list| tnetstring::parse_all(list).ok()),
    };
    let mut payload = Vec::with_capacity(1_024 + held.body.len());
    let from = Some(settings.instance_id.as_bytes());
    zrpc::write_request(&mut payload, from, Some(&key_text(key)), accept::METHOD, |w| {
        args.write(w);
    });
    Some(payload)
}

/// Everything that the handler needs to go on with the session.
fn state_of<'a>(
    session: &'a Session,
    peer: &'a Peer,
    settings: &crate::Settings,
    now: u64,
) -> Option<zrpc::Session<'a>> {
    let (packet, held) = (session.packet()?, session.held.as_ref()?);
    let (headers, address) = (packet.headers, packet.peer_address);
    let jsonp = session.cross.jsonp.as_ref();
    // The handler counts no minute then, and goes on from there (spec/stats.md §6).
    let kept = session.away == Some(Away::MinuteKept);
    let unreported = kept.then(|| now.saturating_sub(session.minute_ms));
    Some(zrpc::Session {
        rid: Rid { sender: &peer.id, id: &session.id },
        in_seq: session.in_seq,
        out_seq: session.out_seq,
        out_credits: session.credits,
        response_code: held.sent_code,
        router_resp: session.router,
        multi: peer.multi,
        batch: peer.batch,
        user_data: packet.user_data,
        peer_address: address,
        logical_peer_address: forward::logical_address(headers, settings, session.trusted, address),
        https: session.https,
        debug: session.debug,
        is_retry: session.is_retry,
        auto_cross_origin: session.cross.on,
        jsonp_callback: jsonp.map(|jsonp| jsonp.callback().as_bytes()),
        jsonp_extended_response: jsonp.is_some_and(|jsonp| jsonp.is_extended()),
        unreported_time_ms: unreported.and_then(|ms| i64::try_from(ms).ok()),
    })
}

fn reply_of(known: &Inspected) -> inspect::Reply<'_> {
    inspect::Reply {
        no_proxy: false,
        sharing_key: None,
        sid: known.session_id.as_deref(),
        last_ids: known.last_ids.iter().map(|(c, id)| (c.as_str(), id.as_slice())).collect(),
        user_data: known.user_data.as_deref(),
    }
}
