//! Sessions that the handler gives back, and its own requests
//! (spec/internal-rpc.md §5, §9; spec/proxy.md §7.4, §8).

use std::sync::Arc;

use crossorigin::Jsonp;
use routes::Destination;
use zhttp::{Ext, Head, Id, Kind, MAX_ID_BYTES, Packet};
use zrpc::retry;

use crate::cross::Cross;
use crate::inspecting::keep_inspected;
use crate::rare::Rare;
use crate::routing::Entry;
use crate::session::{Exchange, Session, Stage, range_of};
use crate::uri::{Uri, split_port};
use crate::{Endpoint, Proxy};

/// The `passthrough` field of a request of the handler.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passthrough<'a> {
    route: &'a str,
    prefer_internal: bool,
    trusted: bool,
    pub auto_share: bool,
}

impl<'a> Passthrough<'a> {
    /// Reads the field, if the request has it.
    pub fn of(packet: &Packet<'a>) -> Option<Self> {
        let map = tnetstring::parse(packet.passthrough?).ok()?.0.as_map()?;
        let mut found = Self::default();
        for entry in map.iter() {
            match entry.ok()? {
                ("route", value) => found.route = value.as_str().unwrap_or_default(),
                ("prefer-internal", value) => {
                    found.prefer_internal = value.as_bool().unwrap_or(false);
                }
                ("trusted", value) => found.trusted = value.as_bool().unwrap_or(false),
                ("auto-share", value) => found.auto_share = value.as_bool().unwrap_or(false),
                _ => {}
            }
        }
        Some(found)
    }
}

impl Proxy {
    /// A message of the retry socket, without its envelope.
    pub fn retry(&mut self, now: u64, payload: &[u8]) {
        self.now = now;
        let packet = match retry::Packet::parse(payload) {
            Ok(packet) => packet,
            Err(cause) => {
                self.drops.malformed += 1;
                return log::warn!("{}", cause.skipping("retry"));
            }
        };
        for state in &packet.requests {
            self.take_back(&packet, state);
        }
    }

    /// Makes the session anew and asks a backend again.
    fn take_back(&mut self, packet: &retry::Packet<'_>, state: &zrpc::Session<'_>) {
        if state.rid.id.len() > MAX_ID_BYTES {
            self.drops.malformed += 1;
            return log::warn!("retry: received message with invalid format (rid), skipping");
        }
        let ext = Ext { multi: state.multi, batch: state.batch, quiet: false };
        let Some(peer) = self.peers.intern(state.rid.sender, false, ext) else {
            self.drops.refused += 1;
            return log::warn!("too many peers, retry skipped");
        };
        let Some(mut uri) = Uri::parse(packet.request.uri) else {
            self.drops.malformed += 1;
            return log::warn!("retry: received message with invalid format (uri), skipping");
        };
        if let Some(key) = self.find(peer, state.rid.id) {
            log::warn!("retry of a session that is here, ending the earlier one");
            self.drop_session(key);
        }
        uri.secure |= state.https;
        let mut session = session_of(packet, state, peer, self.now);
        session.https = uri.secure;
        session.entry = self.retry_route(packet.route, &uri);
        session.exchange.inspected =
            packet.inspect.as_ref().map(|known| Box::new(keep_inspected(known)));
        if let Some(entry) = session.entry.clone() {
            let headers = packet.request.headers;
            let now_s = self.now_s();
            let address = state.peer_address;
            session.prepare(&self.settings, now_s, headers, &uri, &entry, address);
        }
        let routed = session.entry.is_some();
        let key = self.insert(session);
        // The client's side learns who has the session now.
        self.send_kind(key, Kind::KeepAlive);
        if !routed {
            return self.answer_plain(key, 502, "Route not found");
        }
        self.count_start(key, false);
        self.start_or_join(key);
    }

    fn retry_route(&self, id: Option<&str>, uri: &Uri<'_>) -> Option<Arc<Entry>> {
        match id.map(|id| self.routes.by_id(id, uri.path)) {
            Some(Ok(entry)) => Some(Arc::clone(entry)),
            Some(Err(false)) => None,
            Some(Err(true)) | None => self.route_by_host(uri),
        }
    }

    /// The route of a request of the handler (spec/proxy.md §8).
    pub(crate) fn internal_route(&self, packet: &Packet<'_>, uri: &Uri<'_>) -> Option<Arc<Entry>> {
        let wanted = Passthrough::of(packet)?;
        match self.routes.by_id(wanted.route, uri.path) {
            Ok(entry) if wanted.prefer_internal => Some(Arc::clone(entry)),
            Ok(entry) => Some(direct(entry, uri, wanted.trusted)),
            Err(_) => {
                let entry = self.routes.by_id_any(wanted.route)?;
                Some(direct(entry, uri, wanted.trusted))
            }
        }
    }
}

/// A route to the host of the URI itself, signed as `like` is.
fn direct(like: &Entry, uri: &Uri<'_>, trusted: bool) -> Arc<Entry> {
    let (host, port) = split_port(uri.authority);
    let port = port.unwrap_or(if uri.secure { 443 } else { 80 });
    let target = routes::Target {
        destination: Destination::Host(host.to_owned(), port),
        ssl: uri.secure,
        trusted,
        trust_connect_host: false,
        insecure: false,
        host: String::new(),
        subscribe: Vec::new(),
        over_http: false,
        one_event: false,
        ipc_file_mode: None,
        client_cert: String::new(),
        client_key: String::new(),
    };
    // None of its options is for other hosts.
    let route = routes::Route {
        explicit_id: false,
        path_remove: 0,
        path_replace: String::new(),
        as_host: String::new(),
        debug: false,
        auto_cross_origin: false,
        session: false,
        sockjs: String::new(),
        headers: Vec::new(),
        orig_headers: false,
        grip: true,
        targets: vec![target],
        ..routes::Route::clone(&like.route)
    };
    let plain = Endpoint { host: host.to_owned(), port, tls: None, deny_internal: !trusted };
    let endpoint = (!uri.secure).then(|| Arc::new(plain));
    Arc::new(Entry {
        route: Arc::new(route),
        signer: like.signer.clone(),
        stats: None,
        endpoints: vec![endpoint],
    })
}

/// What the first pass found about cross-origin.
fn cross(state: &zrpc::Session<'_>) -> Cross {
    let callback = state.jsonp_callback.and_then(|text| std::str::from_utf8(text).ok());
    let jsonp = callback.map(|callback| Jsonp::new(callback, state.jsonp_extended_response));
    Cross { on: state.auto_cross_origin, jsonp: jsonp.map(Box::new) }
}

/// The session that a retry packet describes. Its first packet is made anew, so that everything
/// after this works as for any other session.
fn session_of(
    packet: &retry::Packet<'_>,
    state: &zrpc::Session<'_>,
    peer: u32,
    now: u64,
) -> Session {
    let request = &packet.request;
    let unreported = u64::try_from(state.unreported_time_ms.unwrap_or_default()).unwrap_or(0);
    let ids = [Id { id: state.rid.id, seq: Some(0) }];
    let head = Head { from: state.rid.sender, ids: &ids, ext: Ext::default() };
    let mut bytes = Vec::with_capacity(512);
    zhttp::write(&mut bytes, &head, |fields| {
        fields.method(request.method).uri(request.uri).headers(request.headers.iter());
        fields.str("peer-address", state.peer_address).user_data(state.user_data);
    });
    let bytes: Box<[u8]> = bytes.into();
    let texts =
        Packet::parse(&bytes).map(|p| (range_of(&bytes, p.method), range_of(&bytes, p.uri)));
    let (method, uri) = texts.unwrap_or((0..0, 0..0));
    Session {
        peer,
        id: state.rid.id.into(),
        router: state.router_resp,
        internal: false,
        in_seq: state.in_seq,
        out_seq: state.out_seq,
        credits: state.out_credits,
        owed_credits: 0,
        last_in_ms: now,
        stage: Stage::Asked,
        user_data: state.user_data.map(Box::from),
        entry: None,
        target: 0,
        trusted: false,
        debug: state.debug,
        https: false,
        is_retry: true,
        backend: false,
        exchange: Rare::new(Exchange {
            packet: bytes,
            method,
            uri,
            first_credits: state.out_credits,
            body: request.body.to_vec(),
            cross: cross(state),
            ..Exchange::default()
        }),
        zmq: None,
        ws: None,
        counters: Rare::default(),
        counted: false,
        minute_ms: now.saturating_sub(unreported),
        away: None,
    }
}
