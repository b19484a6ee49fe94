//! What `accept` and the retry packet share: the state of a client session that changes its
//! owner (spec/internal-rpc.md §4.1, §5), and HTTP messages in maps.

use tnetstring::{Map, Value, Writer};
use zhttp::Headers;

use crate::fields::{Error, bytes, headers, int, map, need, text, truth, uint};

/// Names a client session: who holds its connection, and its id there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rid<'a> {
    /// Instance id of the connection manager.
    pub sender: &'a [u8],
    /// ZHTTP session id.
    pub id: &'a [u8],
}

impl<'a> Rid<'a> {
    fn parse(value: Value<'a>) -> Result<Self, Error> {
        let map = map("rid", value)?;
        let (mut sender, mut id) = (None, None);
        for entry in map.iter() {
            match entry? {
                ("sender", value) => sender = Some(bytes("sender", value)?),
                ("id", value) => id = Some(bytes("id", value)?),
                _ => {}
            }
        }
        Ok(Self { sender: need("sender", sender)?, id: need("id", id)? })
    }

    fn write(&self, w: &mut Writer) {
        w.map(|w| {
            w.str("sender");
            w.bytes(self.sender);
            w.str("id");
            w.bytes(self.id);
        });
    }
}

/// A client session as it is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session<'a> {
    /// Which session.
    pub rid: Rid<'a>,
    /// Next sequence number expected from the client's side.
    pub in_seq: u32,
    /// Next sequence number to send to the client's side; 0 if nothing was sent yet.
    pub out_seq: u32,
    /// Bytes of body that may be sent.
    pub out_credits: u32,
    /// Status of the response whose head was sent already.
    pub response_code: Option<u16>,
    /// Responses go through the ROUTER socket, else through PUB.
    pub router_resp: bool,
    /// The client's side announced `multi` (ours only; absent means not known).
    pub multi: bool,
    /// The client's side announced `batch` (ours only).
    pub batch: bool,
    /// Encoded frame to be copied into every packet.
    pub user_data: Option<&'a [u8]>,
    /// Textual address of the peer; empty if unknown.
    pub peer_address: &'a str,
    /// Textual address after the X-Forwarded-For rules; empty if unknown.
    pub logical_peer_address: &'a str,
    /// The client's side is TLS.
    pub https: bool,
    /// Error texts may tell the cause.
    pub debug: bool,
    /// The session came back by a retry.
    pub is_retry: bool,
    /// CORS headers are to be added.
    pub auto_cross_origin: bool,
    /// JSON-P callback.
    pub jsonp_callback: Option<&'a [u8]>,
    /// JSON-P in extended form.
    pub jsonp_extended_response: bool,
    /// Milliseconds of connection time not reported yet.
    pub unreported_time_ms: Option<i64>,
}

impl<'a> Session<'a> {
    /// Reads an entry of `requests`.
    pub(crate) fn parse(value: Value<'a>) -> Result<Self, Error> {
        let map = map("requests", value)?;
        let mut session = Self::default();
        let mut seen = [false; 4];
        for entry in map.iter_raw() {
            let (key, frame) = entry?;
            let value = tnetstring::parse(frame)?.0;
            match key {
                "rid" => (session.rid, seen[0]) = (Rid::parse(value)?, true),
                "in-seq" => (session.in_seq, seen[1]) = (uint("in-seq", value)?, true),
                "out-seq" => (session.out_seq, seen[2]) = (uint("out-seq", value)?, true),
                "out-credits" => {
                    // The reference may have gone below zero.
                    let credits = int("out-credits", value)?.clamp(0, u32::MAX.into());
                    (session.out_credits, seen[3]) = (credits as u32, true);
                }
                "user-data" => session.user_data = Some(frame),
                _ => session.set(key, value)?,
            }
        }
        let required = ["rid", "in-seq", "out-seq", "out-credits"];
        match seen.iter().position(|seen| !seen) {
            Some(missing) => Err(Error::Missing(required[missing])),
            None => Ok(session),
        }
    }

    fn set(&mut self, key: &str, value: Value<'a>) -> Result<(), Error> {
        match key {
            "response-code" => {
                // -1 says that no head was sent.
                self.response_code = u16::try_from(int("response-code", value)?).ok();
            }
            "router-resp" => self.router_resp = truth("router-resp", value)?,
            "multi" => self.multi = truth("multi", value)?,
            "batch" => self.batch = truth("batch", value)?,
            "peer-address" => self.peer_address = text("peer-address", value)?,
            "logical-peer-address" => {
                self.logical_peer_address = text("logical-peer-address", value)?;
            }
            "https" => self.https = truth("https", value)?,
            "debug" => self.debug = truth("debug", value)?,
            "is-retry" => self.is_retry = truth("is-retry", value)?,
            "auto-cross-origin" => self.auto_cross_origin = truth("auto-cross-origin", value)?,
            "jsonp-callback" => self.jsonp_callback = Some(bytes("jsonp-callback", value)?),
            "jsonp-extended-response" => {
                self.jsonp_extended_response = truth("jsonp-extended-response", value)?;
            }
            "unreported-time" => self.unreported_time_ms = Some(int("unreported-time", value)?),
            _ => {}
        }
        Ok(())
    }

    /// Writes an entry of `requests`.
    pub(crate) fn write(&self, w: &mut Writer) {
        w.map(|w| {
            w.str("rid");
            self.rid.write(w);
            for (name, n) in [
                ("in-seq", self.in_seq),
                ("out-seq", self.out_seq),
                ("out-credits", self.out_credits),
            ] {
                w.str(name);
                w.int(n.into());
            }
            if let Some(code) = self.response_code {
                w.str("response-code");
                w.int(code.into());
            }
            for (name, set) in [
                ("router-resp", self.router_resp),
                ("multi", self.multi),
                ("batch", self.batch),
                ("https", self.https),
                ("debug", self.debug),
                ("is-retry", self.is_retry),
                ("auto-cross-origin", self.auto_cross_origin),
                ("jsonp-extended-response", self.jsonp_extended_response),
            ] {
                flag(w, name, set);
            }
            self.write_rest(w);
        });
    }

    fn write_rest(&self, w: &mut Writer) {
        for (name, text) in [
            ("peer-address", self.peer_address),
            ("logical-peer-address", self.logical_peer_address),
        ] {
            optional(w, name, (!text.is_empty()).then_some(text.as_bytes()));
        }
        optional(w, "jsonp-callback", self.jsonp_callback);
        if let Some(frame) = self.user_data {
            w.str("user-data");
            w.raw(frame);
        }
        if let Some(ms) = self.unreported_time_ms {
            w.str("unreported-time");
            w.int(ms);
        }
    }
}

/// A boolean that is written only if true.
pub(crate) fn flag(w: &mut Writer, name: &str, set: bool) {
    if set {
        w.str(name);
        w.bool(true);
    }
}

/// A string that is written only if there.
pub(crate) fn optional(w: &mut Writer, name: &str, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        w.str(name);
        w.bytes(bytes);
    }
}

/// The sessions of a `requests` list.
pub(crate) fn sessions<'a>(value: Value<'a>) -> Result<Vec<Session<'a>>, Error> {
    let list = value.as_list().ok_or(Error::Type("requests"))?;
    list.iter().map(|entry| Session::parse(entry?)).collect()
}

/// Writes a `requests` list.
pub(crate) fn write_sessions(w: &mut Writer, sessions: &[Session<'_>]) {
    w.str("requests");
    w.list(|w| sessions.iter().for_each(|session| session.write(w)));
}

/// A request in a map: `method`, `uri`, `headers`, `body`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// Method, never empty.
    pub method: &'a str,
    /// Absolute URI.
    pub uri: &'a str,
    /// Headers in order.
    pub headers: Headers<'a>,
    /// Whole body.
    pub body: &'a [u8],
}

impl<'a> HttpRequest<'a> {
    /// Reads the map under `field`. The headers of a retry packet may be absent.
    pub(crate) fn parse(
        field: &'static str,
        value: Value<'a>,
        headers_required: bool,
    ) -> Result<Self, Error> {
        let (mut method, mut uri, mut list, mut body) = (None, None, None, None);
        for entry in map(field, value)?.iter() {
            match entry? {
                ("method", value) => method = Some(text("method", value)?),
                ("uri", value) => uri = Some(text("uri", value)?),
                ("headers", value) => list = Some(headers("headers", value)?),
                ("body", value) => body = Some(bytes("body", value)?),
                _ => {}
            }
        }
        if !headers_required {
            list = list.or(Some(Headers::EMPTY));
        }
        Ok(Self {
            method: need("method", method.filter(|method| !method.is_empty()))?,
            uri: need("uri", uri)?,
            headers: need("headers", list)?,
            body: need("body", body)?,
        })
    }

    /// Writes the map under `field`.
    pub(crate) fn write(&self, w: &mut Writer, field: &str) {
        w.str(field);
        w.map(|w| {
            w.str("method");
            w.str(self.method);
            w.str("uri");
            w.str(self.uri);
            write_message(w, self.headers, self.body);
        });
    }
}

/// A response in a map: `code`, `reason`, `headers`, `body`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpResponse<'a> {
    /// Status.
    pub code: u16,
    /// Reason, perhaps empty.
    pub reason: &'a str,
    /// Headers in order.
    pub headers: Headers<'a>,
    /// Body, perhaps empty.
    pub body: &'a [u8],
}

impl<'a> HttpResponse<'a> {
    /// Reads the fields of a response map; `code` absent means no response.
    pub(crate) fn parse_fields(map: Map<'a>) -> Result<(Option<u16>, Self), Error> {
        let mut code = None;
        let mut response = Self { code: 0, reason: "", headers: Headers::EMPTY, body: b"" };
        for entry in map.iter() {
            match entry? {
                ("code", value) => code = Some(uint("code", value)?),
                ("reason", value) => response.reason = text("reason", value)?,
                ("headers", value) => response.headers = headers("headers", value)?,
                ("body", value) => response.body = bytes("body", value)?,
                _ => {}
            }
        }
        response.code = code.unwrap_or(0);
        Ok((code, response))
    }

    /// Writes the map under `response`.
    pub(crate) fn write(&self, w: &mut Writer) {
        w.str("response");
        w.map(|w| {
            w.str("code");
            w.int(self.code.into());
            w.str("reason");
            w.str(self.reason);
            write_message(w, self.headers, self.body);
        });
    }
}

fn write_message(w: &mut Writer, headers: Headers<'_>, body: &[u8]) {
    w.str("headers");
    w.list(|w| w.raw(headers.raw()));
    w.str("body");
    w.bytes(body);
}
