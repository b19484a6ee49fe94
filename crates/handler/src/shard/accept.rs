//! `accept`: a proxy hands client sessions over (spec/internal-rpc.md §4).

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use evloop::arena::Key;
use grip::{Channel, HoldMode, Instruct, KeepAliveMode, ResponseHead};
use stats::Mode;
use tnetstring::Writer;
use zrpc::{Request, accept, inspect, write_error, write_success};

use super::Shard;
use super::cross::{Cross, jsonp_of, with_cors};
use super::heads::HeadSet;
use super::session::{
    Extra, ExtraChannel, Flags, Hold, Links, LogRules, NEVER, Named, Origin, Session, SessionId,
    Subs,
};
use super::timers::tenths;
use crate::intern::NONE;
use crate::message::{Envelope, Output, ToHub};

/// What is the same for all sessions of one call.
struct Plan {
    mode: HoldMode,
    instruct: Instruct,
    /// The headers of sessions that get CORS headers.
    cors: Option<grip::Headers>,
    /// Full names, implicit channels first.
    channels: Vec<String>,
    /// How many of the listed ones count.
    listed_max: usize,
    /// Filters and prev-ids, where there are any.
    extras: Vec<(usize, Channel)>,
    uri: Box<str>,
    origin: Option<Arc<Origin>>,
    route: stats::Route,
    response_sent: bool,
    /// The proxy counted the sessions' minutes.
    minutes_counted: bool,
    /// What links need.
    base: String,
    route_id: Box<str>,
    prefix: Box<str>,
    implicit: Vec<String>,
    trusted: bool,
    log: LogRules,
    /// Why the initial body cannot be sent.
    failure: Option<Box<str>>,
    named: Option<Box<Named>>,
    /// A stream of which the client wants the head alone: it is over with that.
    head_only: bool,
}

/// Why a call is refused: condition and text.
type Refusal = (&'static str, String);

impl Shard {
    /// Takes a call of a proxy on the accept or the inspect socket; the answer is an output.
    pub fn call(&mut self, now: u64, envelope: Envelope, payload: &[u8]) {
        let request = match Request::parse(payload) {
            Ok(request) => request,
            Err(error) => {
                self.drops.bad_calls += 1;
                log::warn!("{}", error.skipping("zrpc server"));
                return;
            }
        };
        match request.method {
            accept::METHOD if self.stopping => {
                self.refuse(envelope, &request, "service-unavailable", None);
            }
            accept::METHOD => self.accept(now, envelope, &request),
            inspect::METHOD => self.inspect(envelope, &request),
            "conn-max" => {
                if let Ok(Some(list)) = request.args.get("conn-max") {
                    self.conn_max(list);
                }
            }
            _ => self.refuse(envelope, &request, "method-not-found", None),
        }
    }

    pub(super) fn answer_call(&mut self, envelope: Envelope, payload: Vec<u8>) {
        self.out.push(Output::Reply { shard: self.number, envelope, payload });
    }

    pub(super) fn refuse(
        &mut self,
        envelope: Envelope,
        request: &Request<'_>,
        condition: &str,
        text: Option<&str>,
    ) {
        if request.id.is_none() {
            return;
        }
        let mut payload = Vec::new();
        write_error(&mut payload, request.id, condition, text.map(str::as_bytes));
        self.answer_call(envelope, payload);
    }

    /// The maxima of a proxy, before anything else (spec/internal-rpc.md §4.4).
    fn conn_max(&mut self, list: tnetstring::Value<'_>) {
        let Some(list) = list.as_list() else { return };
        for map in list.iter().flatten().filter_map(|value| value.as_map()) {
            let Ok(packet) = stats::Packet::from_map("conn-max", map) else { continue };
            if let stats::Body::ConnMax { max, ttl, .. } = packet.body {
                self.to_hub.push(ToHub::ConnMax {
                    from: packet.from.to_owned(),
                    route: packet.route.map(Arc::from),
                    max,
                    ttl_s: ttl,
                });
            }
        }
    }

    fn accept(&mut self, now: u64, envelope: Envelope, request: &Request<'_>) {
        if let Ok(Some(list)) = request.args.get("conn-max") {
            self.conn_max(list);
        }
        let args = match accept::Args::parse(request.args) {
            Ok(args) => args,
            Err(error) => {
                self.drops.bad_calls += 1;
                log::warn!("refusing an accept call: {error}");
                return self.refuse(envelope, request, "bad-request", None);
            }
        };
        let named = self.note_session(&args);
        match self.plan(&args, request.from, named) {
            Err((condition, text)) => self.refuse(envelope, request, condition, Some(&text)),
            Ok(None) => self.no_hold(envelope, request, &args),
            Ok(Some(plan)) => {
                let mut payload = Vec::new();
                write_success(&mut payload, request.id, |w| accept::Reply::Accepted.write(w));
                self.answer_call(envelope, payload);
                for session in &args.requests {
                    self.take_over(now, &plan, session);
                }
                self.forget_outdated();
            }
        }
    }

    /// What the call asks for; nothing if there is no hold.
    fn plan(
        &self,
        args: &accept::Args<'_>,
        from: Option<&[u8]>,
        named: Option<Box<Named>>,
    ) -> Result<Option<Plan>, Refusal> {
        for session in &args.requests {
            let addresses = [session.peer_address, session.logical_peer_address];
            if addresses.iter().any(|a| !a.is_empty() && a.parse::<IpAddr>().is_err()) {
                return Err(("bad-request", "invalid peer address".to_owned()));
            }
        }
        let mut instruct = parse_instruct(args).map_err(|text| ("bad-format", text))?;
        let mode = match (instruct.hold, &instruct.next) {
            (Some(mode), _) => mode,
            (None, Some(_)) => HoldMode::Stream,
            (None, None) => return Ok(None),
        };
        let head_only = mode == HoldMode::Stream && args.request.method == "HEAD";
        let (channels, extras) = match instruct.hold {
            Some(_) if !head_only => self.full_channels(args, &instruct)?,
            // Only paging: there is nothing to subscribe to yet.
            _ => (Vec::new(), Vec::new()),
        };
        let mut failure = None;
        if head_only {
            instruct.next = None;
            instruct.reply.body.clear();
        } else if mode == HoldMode::Stream {
            // It shows only in the stream (spec/grip.md §5).
            let body = filtered_body(&instruct);
            instruct.reply.body = body.unwrap_or_else(|(_, text)| {
                failure = Some(text.into());
                Vec::new()
            });
        }
        let route = args.route.filter(|_| args.separate_stats).map(Arc::from);
        Ok(Some(Plan {
            mode,
            channels,
            listed_max: self.settings.subscriptions_max,
            extras,
            uri: args.orig_request.uri.into(),
            origin: (mode == HoldMode::Response).then(|| Arc::new(origin(args, from))),
            route,
            response_sent: args.response_sent,
            minutes_counted: keeps_minutes(args),
            base: args.request.uri.to_owned(),
            route_id: args.route.unwrap_or_default().into(),
            prefix: args.channel_prefix.unwrap_or_default().into(),
            implicit: args.channels.iter().map(|channel| (*channel).to_owned()).collect(),
            trusted: args.trusted,
            log: LogRules::new(args.log_level, args.separate_stats),
            failure,
            named,
            head_only,
            cors: with_cors(args, &instruct.reply.headers),
            instruct,
        }))
    }

    /// Implicit channels, then the listed ones with the route's prefix, cut to the maximum.
    #[expect(clippy::type_complexity, reason = "names, and the few that need more")]
    fn full_channels(
        &self,
        args: &accept::Args<'_>,
        instruct: &Instruct,
    ) -> Result<(Vec<String>, Vec<(usize, Channel)>), Refusal> {
        let max = self.settings.subscriptions_max;
        if instruct.channels.len() > max {
            log::debug!("httpsession: too many subscriptions");
        }
        let prefix = args.channel_prefix.unwrap_or_default();
        let mut names: Vec<String> = args.channels.iter().map(|c| (*c).to_owned()).collect();
        let mut extras = Vec::new();
        for channel in instruct.channels.iter().take(max) {
            let name = [prefix, &channel.name].concat();
            // Of a channel that is listed twice the later one counts.
            extras.retain(|(at, _): &(usize, Channel)| names[*at] != name);
            if channel.prev_id.is_some() || !channel.filters.is_empty() {
                extras.push((names.len(), channel.clone()));
            }
            names.push(name);
        }
        Ok((names, extras))
    }

    /// Without a hold the proxy sends the response itself.
    fn no_hold(&mut self, envelope: Envelope, request: &Request<'_>, args: &accept::Args<'_>) {
        let Ok(instruct) = parse_instruct(args) else { return };
        let body = match filtered_body(&instruct) {
            Ok(body) => body,
            Err((condition, text)) => {
                return self.refuse(envelope, request, condition, Some(&text));
            }
        };
        let mut payload = Vec::new();
        write_success(&mut payload, request.id, |w| {
            w.map(|w| {
                if !args.response_sent {
                    write_response(w, &instruct.reply, &body);
                }
            });
        });
        self.answer_call(envelope, payload);
    }

    /// Makes the session of one client and starts its hold when its channels are confirmed.
    fn take_over(&mut self, now: u64, plan: &Plan, from: &zrpc::Session<'_>) {
        let peer = self.peers.intern(from.rid.sender);
        self.peers.announced(peer, from.multi, from.batch);
        if let Some(old) = self.find(peer, from.rid.id) {
            self.remove(now, old, false);
        }
        let session = self.new_session(now, plan, from, peer);
        let minute_counted = plan.minutes_counted || from.unreported_time_ms.is_some();
        let key = self.insert(session, minute_counted);
        let mode = match plan.mode {
            HoldMode::Response => Mode::Response,
            HoldMode::Stream => Mode::Stream,
        };
        let unconfirmed = self.subscribe(key, mode, &plan.channels);
        self.place_extras(key, plan);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(hold) = &mut session.hold {
            hold.unconfirmed = unconfirmed;
        }
        if unconfirmed == 0 {
            self.begin(now, key);
        }
        self.schedule(key);
    }

    fn new_session(
        &mut self,
        now: u64,
        plan: &Plan,
        from: &zrpc::Session<'_>,
        peer: u32,
    ) -> Session {
        let keep_alive = plan.instruct.keep_alive.clone();
        let keep_alive = keep_alive.filter(|_| plan.mode == HoldMode::Stream);
        let idle = keep_alive.as_ref().is_some_and(|k| k.mode == KeepAliveMode::Idle);
        let reply = &plan.instruct.reply;
        let dressed = from.auto_cross_origin && from.jsonp_callback.is_none();
        let headers = match plan.cors.as_ref().filter(|_| dressed) {
            Some(cors) => HeadSet::with_cors(cors.clone(), &reply.headers),
            None => reply.headers.clone().into(),
        };
        let alone = from.user_data.is_some() || from.jsonp_callback.is_some();
        let mut flags = Flags::default();
        for (flag, on) in [
            (Flags::ROUTER, from.router_resp),
            (Flags::RESPONSE, plan.mode == HoldMode::Response),
            (Flags::SSL, from.https),
            (Flags::DEBUG, from.debug || self.settings.debug),
            (Flags::RETRY, from.is_retry),
            (Flags::SPECIAL, plan.is_special() || alone),
            (Flags::HEAD_SENT, plan.response_sent || from.response_code.is_some()),
            (Flags::IDLE_MODE, idle),
            (Flags::FINISHING, plan.head_only),
        ] {
            flags.set(flag, on);
        }
        let unreported = from.unreported_time_ms.and_then(|ms| u64::try_from(ms).ok());
        Session {
            id: SessionId::new(from.rid.id),
            peer,
            flags,
            in_seq: from.in_seq,
            out_seq: from.out_seq,
            credits: from.out_credits,
            heard: tenths(now),
            deadline: NEVER,
            wheel: NEVER,
            minute: tenths(now.saturating_sub(unreported.unwrap_or_default())),
            route: self.route(plan.route.clone()),
            keep_alive: keep_alive.map_or(NONE, |keep_alive| self.keep_alives.acquire(keep_alive)),
            subs: Subs::NONE,
            address: from.logical_peer_address.parse().ok(),
            queue: None,
            hold: Some(Box::new(Hold {
                uri: plan.uri.clone(),
                code: reply.code,
                reason: reply.reason.as_str().into(),
                headers: self.header_sets.acquire(headers),
                body: Bytes::copy_from_slice(&reply.body),
                unconfirmed: 0,
                timeout_s: plan.instruct.timeout_s,
                origin: plan.origin.clone(),
                failure: plan.failure.clone(),
                log: plan.log,
                cross: Cross::of(from),
            })),
            extra: extra(plan, from),
        }
    }

    /// Fills in which channels the filters and prev-ids belong to.
    fn place_extras(&mut self, key: Key, plan: &Plan) {
        if plan.extras.is_empty() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(extra) = &mut session.extra else { return };
        for sub in session.subs.as_slice() {
            let Some(channel) = self.channels.at(sub.channel) else { continue };
            let given = plan.extras.iter().find(|(at, _)| plan.channels[*at] == *channel.name);
            if let Some((_, given)) = given {
                extra.channels.push(ExtraChannel {
                    channel: sub.channel,
                    name: given.name.as_str().into(),
                    filters: given.filters.clone(),
                    prev_id: given.prev_id.as_deref().map(Box::from),
                });
            }
        }
    }
}

impl Plan {
    /// Whether items have to be looked at for each session.
    fn is_special(&self) -> bool {
        !self.extras.is_empty() || (self.mode == HoldMode::Stream && self.instruct.next.is_some())
    }

    fn links(&self) -> Option<Box<Links>> {
        let next = self.instruct.next.clone().filter(|_| self.mode == HoldMode::Stream);
        let mut filters = self.extras.iter().flat_map(|(_, channel)| &channel.filters);
        let asks = filters.any(|filter| grip::filter::needs_request(filter));
        if next.is_none() && self.instruct.gone.is_none() && !asks {
            return None;
        }
        Some(Box::new(Links {
            next,
            gone: self.instruct.gone.as_deref().map(Box::from),
            handed_back: None,
            uri: self.uri.clone(),
            base: self.base.clone(),
            route: self.route_id.clone(),
            prefix: self.prefix.clone(),
            implicit: self.implicit.clone(),
            trusted: self.trusted,
            log: self.log,
            paging: self.instruct.hold.is_none(),
            due: NEVER,
            round: None,
            fetch: None,
            updating: false,
            again: false,
            missed: 0,
            tries: 0,
            heard: Vec::new(),
            paused: Vec::new(),
        }))
    }
}

fn extra(plan: &Plan, from: &zrpc::Session<'_>) -> Option<Box<Extra>> {
    let links = plan.links();
    let jsonp = jsonp_of(from).filter(|_| plan.mode == HoldMode::Stream).map(Box::new);
    let plain = plan.extras.is_empty() && links.is_none() && plan.named.is_none();
    let plain = plain && jsonp.is_none();
    if from.user_data.is_none() && plain {
        return None;
    }
    Some(Box::new(Extra {
        user_data: from.user_data.map(Box::from),
        meta: plan.instruct.meta.clone(),
        names: names(&plan.instruct, &plan.implicit, plan.listed_max),
        channels: Vec::new(),
        links,
        named: plan.named.clone(),
        jsonp,
        filtering: None,
    }))
}

/// Names of the channels of a session, at most `max` listed ones, as the backend knows them.
pub(super) fn names(instruct: &Instruct, implicit: &[String], max: usize) -> Vec<String> {
    let listed = instruct.channels.iter().take(max).map(|channel| &channel.name);
    listed.chain(implicit).cloned().collect()
}

/// The backend's body after the filters of the channels that are for responses
/// (spec/grip.md §9).
fn filtered_body(instruct: &Instruct) -> Result<Vec<u8>, Refusal> {
    let mut filters = instruct.channels.iter().flat_map(|channel| &channel.filters);
    if !filters.any(|filter| filter == "build-id") {
        return Ok(instruct.reply.body.clone());
    }
    let context = grip::filter::Context { meta: &instruct.meta, channels: &[], prev_ids: None };
    grip::filter::build_id(&instruct.reply.body, &context)
        .map_err(|error| ("bad-format", format!("filter error: build-id: {error}")))
}

fn parse_instruct(args: &accept::Args<'_>) -> Result<Instruct, String> {
    let headers: Vec<(&str, &[u8])> = args.response.headers.iter().collect();
    Instruct::parse(args.request.uri, &head(args, &headers))
}

/// The backend's response as GRIP looks at it.
pub(super) fn head<'a>(
    args: &accept::Args<'a>,
    headers: &'a [(&'a str, &'a [u8])],
) -> ResponseHead<'a> {
    let accept::Args { response, .. } = args;
    ResponseHead { code: response.code, reason: response.reason, headers, body: response.body }
}

/// A proxy that tells no single connections keeps all minutes; it says so by two maxima, with the
/// sessions and without. Ours tells one, and names what it keeps (spec/stats.md §6).
fn keeps_minutes(args: &accept::Args<'_>) -> bool {
    let list = args.conn_max.as_ref().and_then(tnetstring::Value::as_list);
    list.is_some_and(|list| list.iter().count() > 1)
}

fn origin(args: &accept::Args<'_>, from: Option<&[u8]>) -> Origin {
    let request = &args.orig_request;
    let mut headers = Writer::new();
    headers.list(|w| w.raw(request.headers.raw()));
    let inspect = args.inspect.as_ref().map(|inspect| {
        let mut w = Writer::new();
        inspect.write(&mut w);
        w.into_vec().into()
    });
    Origin {
        proxy: from.unwrap_or_default().into(),
        method: request.method.into(),
        uri: request.uri.into(),
        headers: headers.into_vec().into(),
        body: Bytes::copy_from_slice(request.body),
        route: args.route.map(Box::from),
        inspect,
    }
}

fn write_response(w: &mut Writer, reply: &grip::Reply, body: &[u8]) {
    w.str("response");
    w.map(|w| {
        w.str("code");
        w.int(reply.code.into());
        w.str("reason");
        w.str(&reply.reason);
        w.str("headers");
        w.list(|w| {
            for (name, value) in &reply.headers {
                w.list(|w| {
                    w.str(name);
                    w.bytes(value);
                });
            }
        });
        w.str("body");
        w.bytes(body);
    });
}
