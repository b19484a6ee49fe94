//! Automatic cross-origin on sessions (spec/proxy.md §9).

use crossorigin::{Converted, Jsonp, Options, convert, cors};
use routes::{JsonpMode, Route};
use zhttp::{Ext, HeaderBuf, Id, Packet};

use crate::Proxy;
use crate::response::Head;
use crate::session::Session;
use crate::uri::Uri;

/// How JSON-P is done for a request without a route, which is told so (spec/routes.md §3).
const UNROUTED: Options<'_> = Options {
    callback_parameter: "callback",
    body_parameter: "",
    default_callback: "",
    default_method: "GET",
    extended: true,
};

/// What a session has of it.
#[derive(Debug, Default)]
pub(crate) struct Cross {
    /// CORS headers go to the client.
    pub on: bool,
    /// The response is wrapped.
    pub jsonp: Option<Box<Jsonp>>,
}

impl Session {
    /// A head as the client gets it, before a body that comes in pieces.
    pub fn dress(&mut self, mut head: Head) -> Head {
        let exchange = &mut *self.exchange;
        if let Some(jsonp) = &exchange.cross.jsonp {
            let headers = head.headers.as_headers();
            jsonp.begin(&mut exchange.out.body, head.code, &head.reason, headers);
            return wrapped(Jsonp::headers(headers, None));
        }
        self.add_cors(&mut head.headers);
        head
    }

    /// A whole response as the client gets it.
    pub fn dress_whole(&mut self, mut head: Head, body: Vec<u8>) -> (Head, Vec<u8>) {
        if let Some(jsonp) = &mut self.exchange.cross.jsonp {
            let headers = head.headers.as_headers();
            let (headers, body) = jsonp.whole(head.code, &head.reason, headers, &body);
            return (wrapped(headers), body);
        }
        self.add_cors(&mut head.headers);
        (head, body)
    }

    /// A piece of the body.
    pub fn dress_piece(&mut self, data: &[u8]) {
        let exchange = &mut *self.exchange;
        match &mut exchange.cross.jsonp {
            Some(jsonp) => jsonp.piece(&mut exchange.out.body, data),
            None => exchange.out.body.extend_from_slice(data),
        }
    }

    /// The end of a body that came in pieces. If the handler is to go on with it, the call of
    /// JSON-P stays open.
    pub fn dress_end(&mut self) {
        let goes_on = self.was_sent_first();
        let exchange = &mut *self.exchange;
        if let Some(jsonp) = &mut exchange.cross.jsonp {
            match goes_on {
                true => jsonp.let_go(&mut exchange.out.body),
                false => jsonp.end(&mut exchange.out.body),
            }
        }
        self.exchange.out.ended = true;
    }

    fn add_cors(&self, headers: &mut HeaderBuf) {
        if self.exchange.cross.on
            && let Some(packet) = self.packet()
        {
            cors::add(packet.headers, headers);
        }
    }
}

fn wrapped(headers: HeaderBuf) -> Head {
    Head { code: 200, reason: "OK".into(), headers }
}

impl Proxy {
    /// The request that a JSON-P request means, as a packet in the place of `packet`. `route`: the
    /// request's, if it has one.
    ///
    /// # Errors
    /// The text of the answer 400.
    pub(crate) fn take_jsonp(
        &self,
        packet: &Packet<'_>,
        uri: &Uri<'_>,
        route: Option<&Route>,
    ) -> Result<Option<(Vec<u8>, Jsonp)>, &'static str> {
        let options = route.map_or(UNROUTED, |route| Options {
            callback_parameter: &route.jsonp_callback,
            body_parameter: &route.jsonp_body,
            default_callback: &route.jsonp_default_callback,
            default_method: &route.jsonp_default_method,
            extended: route.jsonp_mode == JsonpMode::Extended,
        });
        if packet.method != "GET" {
            return Ok(None);
        }
        let converted = convert(packet.uri, uri.authority, packet.headers, &options)?;
        Ok(converted.map(|converted| (rewritten(packet, &converted), converted.jsonp)))
    }
}

/// The first packet again, with another request in it.
fn rewritten(packet: &Packet<'_>, converted: &Converted) -> Vec<u8> {
    let ids: Vec<Id<'_>> = packet.ids.iter().collect();
    let head = zhttp::Head { from: packet.from, ids: &ids, ext: Ext::default() };
    let mut out = Vec::with_capacity(512);
    zhttp::write(&mut out, &head, |fields| {
        fields.method(&converted.method).uri(&converted.uri);
        fields.header_list(converted.headers.as_headers()).body(&converted.body);
        fields.credits(packet.credits).flag("router-resp", packet.router_resp);
        fields.flag("stream", packet.stream).user_data(packet.user_data);
        fields.str("peer-address", packet.peer_address);
    });
    out
}
