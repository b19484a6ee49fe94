//! The SockJS server (spec/proxy.md §10): requests under a route's `sockjs` prefix become answers
//! of the proxy, or WebSockets to the route's targets. The protocol itself is the crate of the
//! same name.
//!
//! A session whose client polls is a [`Poll`] with a WebSocket session that has no connection of
//! its own (`NOBODY`): what would go to the connection manager goes to the poll (`upstream`), and
//! requests over HTTP (`http`) come and go beside it. It lives in the worker that its name
//! belongs to, whichever worker a request came to.

mod framed;
mod http;
mod polls;
mod upstream;

use std::hash::{DefaultHasher, Hasher as _};

use evloop::arena::Key;
use routes::{Proto, Route};
use sockjs::{Request, Socket, Transport};
use zhttp::{HeaderBuf, Id, Packet};

pub(crate) use framed::Shape;
pub(crate) use polls::Polls;

use crate::arrival::new_session;
use crate::routing::Entry;
use crate::session::Session;
use crate::uri::Uri;
use crate::ws::{Cid, Ws};
use crate::{Output, Proxy};

/// What a request over HTTP is about.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Where the path goes on behind the route's prefix.
    path_start: usize,
    /// The function that the client's page waits for.
    callback: Option<String>,
    /// The session whose frame it waits for, or that is to take its messages.
    poll: Option<Key>,
}

impl Ask {
    /// The session whose frame it waits for, or that is to take its messages.
    pub fn poll(&self) -> Option<Key> {
        self.poll
    }

    /// A request that is answered without looking at it.
    fn unread() -> Box<Self> {
        Box::new(Self { path_start: 0, callback: None, poll: None })
    }
}

/// Where the path goes on behind the prefix; nothing if the request is none of SockJS. A slash at
/// the end of the prefix belongs to what follows.
pub(crate) fn path_start(prefix: &str, path: &str) -> Option<usize> {
    let under = !prefix.is_empty() && path.starts_with(prefix);
    under.then(|| prefix.len() - usize::from(prefix.ends_with('/')))
}

/// Which of `workers` has the session of that name.
fn owner(id: &str, workers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    (hasher.finish() % workers.max(1) as u64) as usize
}

/// The packet of a WebSocket to the route's target, in the place of the client's request.
/// `path`: in the place of a missing `sockjs_as_path`.
fn as_websocket(packet: &Packet<'_>, uri: &Uri<'_>, route: &Route, path: &str) -> Vec<u8> {
    let scheme = if uri.secure { "wss" } else { "ws" };
    let path = if route.sockjs_as_path.is_empty() { path } else { &route.sockjs_as_path };
    let query = uri.query.map(|query| format!("?{query}")).unwrap_or_default();
    let uri = format!("{scheme}://{}{path}{query}", uri.authority);
    let mut headers = HeaderBuf::new();
    for (name, value) in packet.headers.iter() {
        if !name.eq_ignore_ascii_case("content-length") {
            headers.push(name, value);
        }
    }
    let ids: Vec<Id<'_>> = packet.ids.iter().collect();
    let head = zhttp::Head { from: packet.from, ids: &ids, ext: zhttp::Ext::default() };
    let mut out = Vec::with_capacity(512);
    zhttp::write(&mut out, &head, |fields| {
        fields.method("GET").uri(&uri).header_list(headers.as_headers()).credits(packet.credits);
        fields.flag("router-resp", packet.router_resp).str("peer-address", packet.peer_address);
    });
    out
}

impl Proxy {
    /// A request under the prefix of a route. `bytes`: the packet.
    pub(crate) fn sockjs_arrived(
        &mut self,
        mut session: Session,
        bytes: &[u8],
        packet: &Packet<'_>,
        uri: &Uri<'_>,
        entry: &Entry,
    ) {
        let start = path_start(&entry.route.sockjs, uri.path).unwrap_or_default();
        let rest = uri.path.get(start..).unwrap_or_default();
        if uri.proto == Proto::Ws {
            return match sockjs::socket(rest) {
                Some(socket) => self.sockjs_socket(session, packet, uri, entry, socket),
                None => self.sockjs_refuse_socket(session),
            };
        }
        if let Request::Session { id, .. } = sockjs::request(packet.method, rest) {
            let worker = owner(id, self.settings.workers);
            if worker != self.settings.worker {
                return self.outputs.push_back(Output::Elsewhere { worker, message: bytes.into() });
            }
        }
        let ask = Ask { path_start: start, callback: None, poll: None };
        session.exchange.sockjs = Some(Box::new(ask));
        self.sockjs_request(session, packet.more);
    }

    /// A WebSocket for a target of the route.
    fn sockjs_socket(
        &mut self,
        mut session: Session,
        packet: &Packet<'_>,
        uri: &Uri<'_>,
        entry: &Entry,
        socket: Socket,
    ) {
        let path = format!("{}/websocket", entry.route.sockjs.trim_end_matches('/'));
        let bytes = as_websocket(packet, uri, &entry.route, &path);
        let Ok(packet) = Packet::parse(&bytes) else { return };
        let Some(mut uri) = Uri::parse(packet.uri) else { return };
        uri.secure = session.https;
        let again = new_session(&bytes, &packet, session.peer, false, self.now);
        session.replace_request(again);
        let mut ws = self.new_ws(&session, &packet);
        if socket == Socket::Framed {
            ws.shape = Shape::framed();
        }
        session.ws = Some(Box::new(ws));
        self.admit(session, &packet, &uri, entry);
    }

    /// There is no such WebSocket.
    fn sockjs_refuse_socket(&mut self, mut session: Session) {
        let ws = Ws::new(Cid::new(self.random.bytes()), "");
        session.ws = Some(Box::new(ws));
        session.exchange.sockjs = Some(Ask::unread());
        let answer = sockjs::Answer::not_found();
        let key = self.insert(session);
        let headers = answer.headers.as_headers();
        self.refuse_websocket(key, answer.code, answer.reason, headers, &answer.body);
    }

    /// A request of another worker, for a session that this one has.
    pub fn handed_request(&mut self, now: u64, message: &[u8]) {
        match Packet::parse(message).is_ok_and(|packet| is_of_handler(&packet)) {
            true => self.internal_request(now, message),
            false => self.request(now, message),
        }
    }

    /// The worker that has a request's session takes no more at this time.
    pub fn not_handed(&mut self, now: u64, message: &[u8]) {
        self.now = now;
        let Ok(packet) = Packet::parse(message) else { return };
        let internal = is_of_handler(&packet);
        let Some(peer) = self.peers.intern(packet.from, internal, packet.ext) else { return };
        let mut session = new_session(message, &packet, peer, internal, now);
        session.exchange.sockjs = Some(Ask::unread());
        let key = self.insert(session);
        self.answer_plain(key, 503, "Service Unavailable");
    }
}

/// Whether a packet is a request of the handler's own, whose answer leaves by other sockets: no
/// connection manager sends that field (spec/zhttp.md §3.1).
fn is_of_handler(packet: &Packet<'_>) -> bool {
    packet.passthrough.is_some()
}

/// Whether a transport waits for frames.
fn is_poll(transport: Transport) -> bool {
    matches!(transport, Transport::Xhr | Transport::Jsonp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let start = |prefix: &str, path: &str| {
            path_start(prefix, path).map(|start| path[start..].to_owned())
        };
        assert_eq!(start("/sj", "/sj/info").as_deref(), Some("/info"));
        assert_eq!(start("/sj", "/sj").as_deref(), Some(""));
        assert_eq!(start("/sj", "/sjx").as_deref(), Some("x"));
        assert_eq!(start("/sj/", "/sj/info").as_deref(), Some("/info"));
        assert_eq!(start("/", "/info").as_deref(), Some("/info"));
        assert_eq!(start("/sj", "/s").or(start("", "/info")), None);
    }

    #[test]
    fn every_session_has_one_owner() {
        assert_eq!(owner("a", 1), 0);
        assert!((0..100).all(|n| owner(&n.to_string(), 3) == owner(&n.to_string(), 3)));
        assert!((0..3).all(|worker| (0..100).any(|n| owner(&n.to_string(), 3) == worker)));
    }
}
