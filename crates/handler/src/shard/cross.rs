//! Automatic cross-origin on holds (spec/proxy.md §9): the head gets CORS headers when the hold
//! begins, the answer of a response hold is wrapped as JSON-P.

use crossorigin::{Jsonp, cors};
use grip::Headers;
use zhttp::HeaderBuf;
use zrpc::accept;

/// What a hold has of it; boxed, since few have any.
#[derive(Debug)]
pub(crate) struct Cross {
    pub(crate) on: bool,
    pub(crate) jsonp: Option<Jsonp>,
}

impl Cross {
    /// What the proxy said about a session.
    pub(crate) fn of(from: &zrpc::Session<'_>) -> Option<Box<Self>> {
        let callback = from.jsonp_callback.and_then(|text| std::str::from_utf8(text).ok());
        let jsonp = callback.map(|text| Jsonp::new(text, from.jsonp_extended_response));
        let any = from.auto_cross_origin || jsonp.is_some();
        any.then(|| Box::new(Self { on: from.auto_cross_origin, jsonp }))
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
