//! Handing sessions over to the handler (spec/proxy.md §7.3; spec/internal-rpc.md §4).

use evloop::arena::Key;
use stats::Route as StatsRoute;
use zhttp::{Kind, Packet};
use zrpc::accept::{self, Reply};
use zrpc::{HttpRequest, HttpResponse, Response, Rid};

use crate::backend::{BODY_KEPT_MAX, ORIGIN_ERROR};
use crate::inspecting::reply_of;
use crate::peers::NOBODY;
use crate::response::Head;
use crate::session::{Away, Session, Stage};
use crate::{Output, Proxy, forward, log_line};

const UNAVAILABLE: &str = "Accept service unavailable.";

impl Proxy {
    /// The whole response of a backend is there and has instructions.
    pub(crate) fn hold(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.exchange.body_dropped || session.exchange.body.len() > BODY_KEPT_MAX {
            let text = "Request too large to accept GRIP instruct.";
            return self.answer_plain(key, 400, text);
        }
        self.close_share(key);
        for &client in self.clients_of(key).iter() {
            let Some(session) = self.sessions.get_mut(client) else { continue };
            // Nothing was sent: the handler's first packet is acknowledgement, claim and answer.
            match session.acknowledged() {
                true => self.pause_client(client),
                false => session.stage = Stage::Accepting,
            }
        }
        self.accept_if_paused(key);
    }

    /// The client's side waits for the new owner.
    pub(crate) fn client_paused(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Accepting;
        let asker = session.asker(key);
        self.accept_if_paused(asker);
    }

    /// Calls `accept` once no client's side that has the response may be spoken to.
    pub(crate) fn accept_if_paused(&mut self, key: Key) {
        let waits =
            |key: &Key| self.sessions.get(*key).is_some_and(|s| s.stage != Stage::Accepting);
        match self.clients_of(key).iter().any(waits) {
            true => self.sessions.get_mut(key).into_iter().for_each(|s| s.stage = Stage::Pausing),
            false => self.call_accept(key),
        }
    }

    /// Stops the client's side until the new owner speaks.
    pub(crate) fn pause_client(&mut self, key: Key) {
        self.send_kind(key, Kind::HandoffStart);
        if let Some(session) = self.sessions.get_mut(key) {
            session.stage = Stage::Pausing;
        }
    }

    /// Calls `accept` with everything needed to go on with the session.
    fn call_accept(&mut self, key: Key) {
        let clients = self.clients_of(key);
        // The last list has all of them in it.
        let maxima = clients.iter().filter_map(|client| self.count_away(*client)).last();
        let payload = self.accept_payload(key, &clients, maxima.as_deref());
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.stage = Stage::Accepting;
        let Some(payload) = payload else {
            return self.answer_plain(key, 500, UNAVAILABLE);
        };
        // The handler has its copy; what is needed here is the way back.
        session.exchange.headers = zhttp::HeaderBuf::new();
        if let Some(held) = &mut session.exchange.held {
            (held.body, held.headers) = (Vec::new(), zhttp::HeaderBuf::new());
        }
        self.timers.calls.push(self.now, key);
        self.outputs.push_back(Output::Accept { key, payload });
    }

    /// Nobody takes the call.
    pub fn accept_failed(&mut self, now: u64, key: Key) {
        self.now = now;
        if self.sessions.get(key).is_some_and(|session| session.stage == Stage::Accepting) {
            self.for_each_client(key, |proxy, key| {
                proxy.accept_error(key, 500, UNAVAILABLE, UNAVAILABLE);
            });
        }
    }

    /// Does what the handler's word about a response means for each of its clients.
    fn for_each_client(&mut self, key: Key, act: impl Fn(&mut Self, Key)) {
        let clients = self.clients_of(key);
        if let Some(session) = self.sessions.get_mut(key).filter(|s| s.peer == NOBODY) {
            session.stage = Stage::Answering;
        }
        clients.iter().for_each(|client| act(self, *client));
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
                return log::warn!("{}", cause.skipping("zrpc client"));
            }
        };
        let Some(key) = reply.id.and_then(parse_key) else { return };
        if !self.sessions.get(key).is_some_and(|session| session.stage == Stage::Accepting) {
            return;
        }
        match reply.result {
            Ok(value) => self.accept_answered(key, Reply::parse(value)),
            Err(("bad-format", value)) if accept::error_text(value).is_some() => {
                let text = accept::error_text(value).unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                let debug = format!("Failed to parse accept instructions: {text}");
                self.for_each_client(key, |proxy, key| {
                    proxy.accept_error(key, 502, ORIGIN_ERROR, &debug);
                });
            }
            Err((condition, _)) => {
                log::debug!("accept failed: {condition}");
                self.accept_failed(now, key);
            }
        }
    }

    fn accept_answered(&mut self, key: Key, reply: Result<Reply<'_>, zrpc::Error>) {
        match reply {
            Ok(Reply::Accepted) => self.for_each_client(key, Self::accepted),
            Ok(Reply::Response(response)) => {
                self.for_each_client(key, |proxy, key| proxy.not_held(key, &response));
            }
            Ok(Reply::Nothing) => self.for_each_client(key, Self::nothing_to_say),
            Err(cause) => {
                log::warn!("accept: invalid reply ({cause})");
                self.accept_failed(self.now, key);
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
        self.count_back(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.was_sent_first() {
            session.exchange.held = None;
            session.stage = Stage::Answering;
            session.exchange.out.body.clear();
            session.exchange.out.start = 0;
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
        self.count_back(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.was_sent_first() {
            session.exchange.held = None;
            session.stage = Stage::Answering;
            session.dress_end();
            return self.dirty.push(key);
        }
        self.answer_plain(key, 500, UNAVAILABLE);
    }

    /// The session goes on here with an error, if it can still be told.
    fn accept_error(&mut self, key: Key, code: u16, text: &str, debug: &str) {
        self.count_back(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.was_sent_first() {
            return self.answer_error(key, code, text, debug);
        }
        session.stage = Stage::Answering;
        session.exchange.held = None;
        if !session.debug {
            return self.end_uncleanly(key);
        }
        let text = if code == 500 { "Accept service unavailable" } else { debug };
        session.exchange.out.body.clear();
        session.exchange.out.start = 0;
        session.dress_piece(format!("\n\n{text}\n").as_bytes());
        session.dress_end();
        self.dirty.push(key);
    }

    /// The call (spec/internal-rpc.md §4.1); nothing if no client is left.
    fn accept_payload(&self, key: Key, clients: &[Key], maxima: Option<&[u8]>) -> Option<Vec<u8>> {
        let session = self.sessions.get(key)?;
        let packet = session.packet()?;
        let held = session.exchange.held.as_ref()?;
        let route = &session.entry.as_ref()?.route;
        let target = route.targets.get(session.target)?;
        let place = session.exchange.place.as_ref()?;
        let scheme = if session.https { "https" } else { "http" };
        let (uri, orig_uri) =
            (format!("{scheme}://{}{}", place.authority, place.target), session.uri());
        let request = |uri, headers| HttpRequest {
            method: session.method(),
            uri,
            headers,
            body: session.exchange.body.as_slice(),
        };
        let state = |client: &Key| {
            let one = self.sessions.get(*client)?;
            // Only clients that share a request have packets of their own.
            let own = if *client == key { packet } else { one.packet()? };
            self.state_of(one, &own, held.sent_code)
        };
        let args = accept::Args {
            requests: clients.iter().filter_map(state).collect(),
            request: request(uri.as_str(), session.exchange.headers.as_headers()),
            orig_request: request(&orig_uri, packet.headers),
            response: HttpResponse {
                code: held.code,
                reason: &held.reason,
                headers: held.headers.as_headers(),
                body: &held.body,
            },
            inspect: session.exchange.inspected.as_deref().map(reply_of),
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
        if args.requests.is_empty() {
            return None;
        }
        let mut payload = Vec::with_capacity(1_024 + held.body.len());
        let from = Some(self.settings.instance_id.as_bytes());
        zrpc::write_request(&mut payload, from, Some(&key_text(key)), accept::METHOD, |w| {
            args.write(w);
        });
        Some(payload)
    }

    /// Everything that the handler needs to go on with the session of a client.
    fn state_of<'a>(
        &'a self,
        session: &'a Session,
        packet: &Packet<'a>,
        sent_code: Option<u16>,
    ) -> Option<zrpc::Session<'a>> {
        let peer = self.peers.get(session.peer)?;
        let (headers, address, trusted) = (packet.headers, packet.peer_address, session.trusted);
        let jsonp = session.exchange.cross.jsonp.as_ref();
        let logical = forward::logical_address(headers, &self.settings, trusted, address);
        // The handler counts no minute then, and goes on from there (spec/stats.md §6).
        let kept = session.away == Some(Away::MinuteKept);
        let unreported = kept.then(|| self.now.saturating_sub(session.minute_ms));
        Some(zrpc::Session {
            rid: Rid { sender: &peer.id, id: &session.id },
            in_seq: session.in_seq,
            out_seq: session.out_seq,
            out_credits: session.credits,
            response_code: sent_code,
            router_resp: session.router,
            multi: peer.multi,
            batch: peer.batch,
            user_data: packet.user_data,
            peer_address: address,
            logical_peer_address: logical,
            https: session.https,
            debug: session.debug,
            is_retry: session.is_retry,
            auto_cross_origin: session.exchange.cross.on,
            jsonp_callback: jsonp.map(|jsonp| jsonp.callback().as_bytes()),
            jsonp_extended_response: jsonp.is_some_and(|jsonp| jsonp.is_extended()),
            unreported_time_ms: unreported.and_then(|ms| i64::try_from(ms).ok()),
        })
    }

    /// The stats route of a session.
    pub(crate) fn stats_route(session: &Session) -> StatsRoute {
        session.entry.as_ref().and_then(|entry| entry.stats.clone())
    }
}

/// The id of a call: its session's key.
pub(crate) fn key_text(key: Key) -> Vec<u8> {
    format!("{:x}-{:x}", key.index, key.generation).into_bytes()
}

pub(crate) fn parse_key(id: &[u8]) -> Option<Key> {
    let (index, generation) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(Key { index: number(index)?, generation: number(generation)? })
}
