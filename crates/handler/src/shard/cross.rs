//! Automatic cross-origin on holds (spec/proxy.md §9): the head gets CORS headers when the hold
//! begins. As JSON-P, the answer of a response hold is wrapped whole; the body of a stream is one
//! argument that grows, so each piece is escaped by itself and the call is closed at the end.

use bytes::Bytes;
use crossorigin::{Jsonp, cors};
use evloop::arena::Key;
use grip::Headers;
use zhttp::HeaderBuf;
use zrpc::accept;

use super::Shard;
use super::session::Session;

/// What a hold has of it; boxed, since few have any.
#[derive(Debug)]
pub(crate) struct Cross {
    pub(crate) on: bool,
    pub(crate) jsonp: Option<Jsonp>,
}

impl Cross {
    /// What the proxy said about a session.
    pub(crate) fn of(from: &zrpc::Session<'_>) -> Option<Box<Self>> {
        let jsonp = jsonp_of(from);
        let any = from.auto_cross_origin || jsonp.is_some();
        any.then(|| Box::new(Self { on: from.auto_cross_origin, jsonp }))
    }
}

/// The call that the client of a session waits for.
pub(crate) fn jsonp_of(from: &zrpc::Session<'_>) -> Option<Jsonp> {
    let callback = std::str::from_utf8(from.jsonp_callback?).ok()?;
    Some(Jsonp::new(callback, from.jsonp_extended_response))
}

impl Session {
    fn jsonp(&mut self) -> Option<&mut Jsonp> {
        self.extra.as_mut()?.jsonp.as_deref_mut()
    }

    /// A piece of a stream's body as the client gets it.
    pub(super) fn dressed(&mut self, body: Bytes) -> Bytes {
        let Some(jsonp) = self.jsonp() else { return body };
        let mut out = Vec::with_capacity(body.len() + 16);
        jsonp.piece(&mut out, &body);
        out.into()
    }

    /// The stream ends: so does the call, behind everything that waits.
    pub(super) fn close_call(&mut self) {
        let jsonp = self.extra.as_mut().and_then(|extra| extra.jsonp.take());
        if let Some(mut jsonp) = jsonp {
            let mut out = Vec::new();
            jsonp.end(&mut out);
            self.queue.get_or_insert_default().items.push_back(out.into());
        }
    }
}

impl Shard {
    /// Makes the head and the first body of a stream those of a call, if its client wants one.
    pub(super) fn wrap_start(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let jsonp = session.extra.as_mut().and_then(|extra| extra.jsonp.as_mut());
        let (Some(jsonp), Some(hold)) = (jsonp, &mut session.hold) else { return };
        let headers =
            self.header_sets.get(hold.headers).map(|set| encoded(&set.headers)).unwrap_or_default();
        let mut body = Vec::new();
        jsonp.begin(&mut body, hold.code, &hold.reason, headers.as_headers());
        jsonp.piece(&mut body, &hold.body);
        (hold.code, hold.reason, hold.body) = (200, "OK".into(), body.into());
        let outside = decoded(&Jsonp::headers(headers.as_headers(), None));
        let inside = std::mem::replace(&mut hold.headers, self.header_sets.acquire(outside.into()));
        self.header_sets.release(inside);
    }
}

fn encoded(headers: &Headers) -> HeaderBuf {
    let mut out = HeaderBuf::new();
    headers.iter().for_each(|(name, value)| out.push(name, value));
    out
}

fn decoded(headers: &HeaderBuf) -> Headers {
    headers.as_headers().iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// The headers of a hold with those of CORS; nothing if no session of the call wants them.
pub(crate) fn with_cors(args: &accept::Args<'_>, headers: &Headers) -> Option<Headers> {
    let wanted = |s: &zrpc::Session<'_>| s.auto_cross_origin && s.jsonp_callback.is_none();
    args.requests.iter().any(wanted).then(|| {
        let mut all = encoded(headers);
        cors::add(args.orig_request.headers, &mut all);
        decoded(&all)
    })
}

/// A whole answer as JSON-P: headers and body; its status is 200 OK.
pub(crate) fn wrap(
    jsonp: &mut Jsonp,
    code: u16,
    reason: &str,
    headers: &Headers,
    body: &[u8],
) -> (Headers, Vec<u8>) {
    let (headers, body) = jsonp.whole(code, reason, encoded(headers).as_headers(), body);
    (decoded(&headers), body)
}
