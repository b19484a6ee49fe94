//! Reading a packet.

use std::fmt;

use tnetstring::{List, Value, Writer};

use crate::ids::Ids;
use crate::{MAX_HEADERS, MAX_ID_BYTES};

/// What a packet does (spec/zhttp.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No `type`: a request, a response, body bytes, or part of a WebSocket message.
    Data,
    /// The session ends with a condition.
    Error,
    /// Grants credits.
    Credit,
    /// Refreshes the session.
    KeepAlive,
    /// The session ends at once.
    Cancel,
    /// The sender passes its role on.
    HandoffStart,
    /// The answer to a hand-off start.
    HandoffProceed,
    /// WebSocket close.
    Close,
    /// WebSocket ping.
    Ping,
    /// WebSocket pong.
    Pong,
    /// A `type` that is none of these.
    Unknown,
}

const KIND_NAMES: [(Kind, &str); 9] = [
    (Kind::Error, "error"),
    (Kind::Credit, "credit"),
    (Kind::KeepAlive, "keep-alive"),
    (Kind::Cancel, "cancel"),
    (Kind::HandoffStart, "handoff-start"),
    (Kind::HandoffProceed, "handoff-proceed"),
    (Kind::Close, "close"),
    (Kind::Ping, "ping"),
    (Kind::Pong, "pong"),
];

impl Kind {
    /// The value of the `type` field; nothing for data.
    pub fn name(self) -> Option<&'static str> {
        KIND_NAMES.iter().find(|(kind, _)| *kind == self).map(|(_, name)| *name)
    }

    fn parse(name: &[u8]) -> Self {
        KIND_NAMES.iter().find(|(_, n)| n.as_bytes() == name).map_or(Self::Unknown, |(k, _)| *k)
    }
}

/// The extension flags of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ext {
    /// The sender understands packets with several ids.
    pub multi: bool,
    /// The sender understands several packets in one ZeroMQ message (ours only).
    pub batch: bool,
    /// A hint to log less.
    pub quiet: bool,
}

impl Ext {
    /// What every packet of this product announces.
    pub const OURS: Self = Self { multi: true, batch: true, quiet: false };
}

/// Header names and values in order, checked when the packet was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a>(List<'a>);

impl<'a> Headers<'a> {
    /// No headers.
    pub const EMPTY: Self = Self(List::EMPTY);

    /// Reads a list of two-element lists of strings.
    pub fn parse(value: Value<'a>) -> Result<Self, Error> {
        let list = value.as_list().ok_or(Error::Type("headers", "list"))?;
        let mut count = 0;
        for item in list.iter() {
            parse_header(item?)?;
            count += 1;
            if count > MAX_HEADERS {
                return Err(Error::TooManyHeaders);
            }
        }
        Ok(Self(list))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The encoded items, to be copied into another packet as they are.
    pub fn raw(&self) -> &'a [u8] {
        self.0.raw()
    }

    /// Name and value of each, order and case as sent.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        // Items were checked when the list was parsed.
        self.0.iter().flatten().filter_map(|item| parse_header(item).ok())
    }

    /// The value of the first header of that name, compared without case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Headers that are kept or made here, encoded as a packet has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderBuf(Vec<u8>);

impl HeaderBuf {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one header.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let mut w = Writer::append_to(std::mem::take(&mut self.0));
        w.list(|w| {
            w.str(name);
            w.bytes(value);
        });
        self.0 = w.into_vec();
    }

    /// The headers, to be read or written.
    pub fn as_headers(&self) -> Headers<'_> {
        Headers(List::from_raw(&self.0))
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Headers that are kept for long: no room for more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeptHeaders(Box<[u8]>);

impl KeptHeaders {
    /// The headers, to be read or written.
    pub fn as_headers(&self) -> Headers<'_> {
        Headers(List::from_raw(&self.0))
    }
}

impl From<HeaderBuf> for KeptHeaders {
    fn from(headers: HeaderBuf) -> Self {
        Self(headers.0.into())
    }
}

impl From<Headers<'_>> for HeaderBuf {
    fn from(headers: Headers<'_>) -> Self {
        Self(headers.raw().to_vec())
    }
}

fn parse_header(item: Value<'_>) -> Result<(&str, &[u8]), Error> {
    let list = item.as_list().ok_or(Error::Type("header item", "list"))?;
    let mut parts = list.iter();
    let (Some(name), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Error::HeaderSize);
    };
    let name = name?.as_bytes().ok_or(Error::Type("header name", "string"))?;
    let name = std::str::from_utf8(name).map_err(|_| Error::Utf8("header name"))?;
    Ok((name, value?.as_bytes().ok_or(Error::Type("header value", "string"))?))
}

/// One packet of either direction, borrowing from the message it came in. A field that the
/// packet lacks has its default (spec/zhttp.md §3).
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The sender's instance id, where replies go; empty in req mode.
    pub from: &'a [u8],
    /// The sessions it is for.
    pub ids: Ids<'a>,
    /// What it does.
    pub kind: Kind,
    /// What the sender understands.
    pub ext: Ext,
    /// Bytes of body that the receiver may send in addition.
    pub credits: u32,
    /// More data packets of this body or message follow.
    pub more: bool,
    /// The requester takes a streamed response.
    pub stream: bool,
    /// Responses shall come through the ROUTER socket.
    pub router_resp: bool,
    /// Request method.
    pub method: &'a str,
    /// Absolute request URI.
    pub uri: &'a str,
    /// Request or response headers.
    pub headers: Headers<'a>,
    /// Body or message bytes.
    pub body: &'a [u8],
    /// Response status, or WebSocket close code.
    pub code: Option<u16>,
    /// Response reason.
    pub reason: &'a str,
    /// WebSocket message type, `text` or `binary`.
    pub content_type: &'a [u8],
    /// The cause of an error.
    pub condition: &'a str,
    /// Textual address of the client.
    pub peer_address: &'a str,
    /// Port of the client.
    pub peer_port: Option<u16>,
    /// Host to connect to instead of the URI's.
    pub connect_host: &'a str,
    /// Port to connect to, with `connect_host`.
    pub connect_port: u16,
    /// Skip the list of internal addresses that are refused.
    pub ignore_policies: bool,
    /// Check the certificate against `connect_host`.
    pub trust_connect_host: bool,
    /// Do not check the certificate.
    pub ignore_tls_errors: bool,
    /// PEM certificate chain to show to the backend; empty for none.
    pub client_cert: &'a str,
    /// PEM private key of it.
    pub client_key: &'a str,
    /// Follow redirects instead of passing them on.
    pub follow_redirects: bool,
    /// Opaque frame, copied into every response packet.
    pub user_data: Option<&'a [u8]>,
    /// Frame of an internal request of the handler; its presence marks the request.
    pub passthrough: Option<&'a [u8]>,
}

/// Why a packet was refused. The texts are those that log readers know (spec/zhttp.md §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It does not start with `T`.
    Format,
    /// It is no tnetstring map.
    Frame(tnetstring::Error),
    /// It is a frame of this type, not a map.
    NoMap(&'static str),
    /// A field has another type than it must have.
    Type(&'static str, &'static str),
    /// A text field is no UTF-8.
    Utf8(&'static str),
    /// A number is below zero.
    Negative(&'static str),
    /// A number is wider than its field.
    TooLarge(&'static str),
    /// More than 128 sessions.
    TooManyIds,
    /// More than 64 headers.
    TooManyHeaders,
    /// A header has not two parts.
    HeaderSize,
    /// An instance id of more than 64 bytes.
    FromTooLong,
    /// A session id of more than 64 bytes.
    IdTooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("unrecognized data format"),
            Self::Frame(error) => error.fmt(f),
            Self::NoMap(kind) => write!(f, "wrong type {kind}, expected map"),
            Self::Type("id", _) => f.write_str("id must be of type map or string"),
            Self::Type(field, kind) => write!(f, "{field} must be of type {kind}"),
            Self::Utf8(field) => write!(f, "{field} must be a utf-8 string"),
            Self::Negative(field) => write!(f, "{field} must not be negative"),
            Self::TooLarge(field) => write!(f, "{field} is too large"),
            Self::TooManyIds => f.write_str("too many ids"),
            Self::TooManyHeaders => f.write_str("too many headers"),
            Self::HeaderSize => f.write_str("header item must have size 2"),
            Self::FromTooLong => f.write_str("from address too long"),
            Self::IdTooLong => f.write_str("request id too long"),
        }
    }
}

impl std::error::Error for Error {}

impl From<tnetstring::Error> for Error {
    fn from(error: tnetstring::Error) -> Self {
        Self::Frame(error)
    }
}

impl<'a> Packet<'a> {
    /// A packet in which every field has its default.
    const EMPTY: Self = Self {
        from: b"",
        ids: Ids::NONE,
        kind: Kind::Data,
        ext: Ext { multi: false, batch: false, quiet: false },
        credits: 0,
        more: false,
        stream: false,
        router_resp: false,
        method: "",
        uri: "",
        headers: Headers::EMPTY,
        body: b"",
        code: None,
        reason: "",
        content_type: b"",
        condition: "",
        peer_address: "",
        peer_port: None,
        connect_host: "",
        connect_port: 0,
        ignore_policies: false,
        trust_connect_host: false,
        ignore_tls_errors: false,
        client_cert: "",
        client_key: "",
        follow_redirects: false,
        user_data: None,
        passthrough: None,
    };

    /// Reads the packet at the start of `input`, beginning with its `T`. Bytes after it are
    /// ignored; [`split`] finds packets that follow.
    pub fn parse(input: &'a [u8]) -> Result<Self, Error> {
        let frame = input.strip_prefix(b"T").ok_or(Error::Format)?;
        let (root, _) = tnetstring::parse(frame)?;
        let map = root.as_map().ok_or(Error::NoMap(root.type_name()))?;
        let mut packet = Self::EMPTY;
        let (mut id, mut seq) = (None, None);
        for entry in map.iter_raw() {
            let (key, frame) = entry?;
            match key {
                "user-data" => packet.user_data = Some(frame),
                "passthrough" => packet.passthrough = Some(frame),
                "id" => id = Some(tnetstring::parse(frame)?.0),
                "seq" => seq = Some(uint("seq", tnetstring::parse(frame)?.0)?),
                _ => packet.set(key, tnetstring::parse(frame)?.0)?,
            }
        }
        packet.ids = match id {
            None => Ids::NONE,
            Some(Value::Bytes(id)) => Ids::single(id, seq)?,
            Some(Value::List(list)) => Ids::multi(list, seq)?,
            Some(_) => return Err(Error::Type("id", "map")),
        };
        Ok(packet)
    }

    /// Takes one field over; unknown ones are ignored.
    fn set(&mut self, key: &str, value: Value<'a>) -> Result<(), Error> {
        match key {
            "from" => {
                self.from = bytes("from", value)?;
                if self.from.len() > MAX_ID_BYTES {
                    return Err(Error::FromTooLong);
                }
            }
            "type" => self.kind = Kind::parse(bytes("type", value)?),
            "ext" => self.ext = parse_ext(value)?,
            "credits" => self.credits = uint("credits", value)?,
            "more" => self.more = truth("more", value)?,
            "stream" => self.stream = truth("stream", value)?,
            "router-resp" => self.router_resp = truth("router-resp", value)?,
            "method" => self.method = text("method", value)?,
            "uri" => self.uri = text("uri", value)?,
            "headers" => self.headers = Headers::parse(value)?,
            "body" => self.body = bytes("body", value)?,
            "code" => self.code = Some(uint("code", value)?),
            "reason" => self.reason = text("reason", value)?,
            "content-type" => self.content_type = bytes("content-type", value)?,
            "condition" => self.condition = text("condition", value)?,
            _ => self.set_rare(key, value)?,
        }
        Ok(())
    }

    /// The fields of requests only.
    fn set_rare(&mut self, key: &str, value: Value<'a>) -> Result<(), Error> {
        match key {
            "peer-address" => self.peer_address = text("peer-address", value)?,
            "peer-port" => self.peer_port = Some(uint_or_text("peer-port", value)?),
            "connect-host" => self.connect_host = text("connect-host", value)?,
            "connect-port" => self.connect_port = uint_or_text("connect-port", value)?,
            "ignore-policies" => self.ignore_policies = truth("ignore-policies", value)?,
            "trust-connect-host" => self.trust_connect_host = truth("trust-connect-host", value)?,
            "ignore-tls-errors" => self.ignore_tls_errors = truth("ignore-tls-errors", value)?,
            "client-cert" => self.client_cert = text("client-cert", value)?,
            "client-key" => self.client_key = text("client-key", value)?,
            "follow-redirects" => self.follow_redirects = truth("follow-redirects", value)?,
            _ => {}
        }
        Ok(())
    }
}

fn parse_ext(value: Value<'_>) -> Result<Ext, Error> {
    let map = value.as_map().ok_or(Error::Type("ext", "map"))?;
    let mut ext = Ext::default();
    for entry in map.iter() {
        match entry? {
            ("multi", value) => ext.multi = truth("multi", value)?,
            // Others may use these names for something else, so another type is no error.
            ("batch", value) => ext.batch = value.as_bool().unwrap_or(false),
            ("quiet", value) => ext.quiet = value.as_bool().unwrap_or(false),
            _ => {}
        }
    }
    Ok(ext)
}

fn bytes<'a>(field: &'static str, value: Value<'a>) -> Result<&'a [u8], Error> {
    value.as_bytes().ok_or(Error::Type(field, "string"))
}

fn text<'a>(field: &'static str, value: Value<'a>) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes(field, value)?).map_err(|_| Error::Utf8(field))
}

fn truth(field: &'static str, value: Value<'_>) -> Result<bool, Error> {
    value.as_bool().ok_or(Error::Type(field, "bool"))
}

/// A number that is not negative and fits its field (the reference cuts it off instead).
pub(crate) fn uint<T: TryFrom<i64>>(field: &'static str, value: Value<'_>) -> Result<T, Error> {
    let n = value.as_int().ok_or(Error::Type(field, "int"))?;
    if n < 0 {
        return Err(Error::Negative(field));
    }
    T::try_from(n).map_err(|_| Error::TooLarge(field))
}

/// Older writers send ports as text.
fn uint_or_text(field: &'static str, value: Value<'_>) -> Result<u16, Error> {
    match value.as_str() {
        Some(text) => text.parse().map_err(|_| Error::Type(field, "int")),
        None => uint(field, value),
    }
}

/// The packets of one ZeroMQ message, each beginning with its `T`. A peer that did not
/// announce `batch` may leave other bytes behind its packet; they are ignored.
pub fn split(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    let mut first = true;
    std::iter::from_fn(move || {
        let start = rest;
        let starts_packet = start.first() == Some(&b'T');
        let is_first = std::mem::take(&mut first);
        if !(is_first || starts_packet) {
            return None;
        }
        let after = starts_packet.then(|| tnetstring::parse(&start[1..]).ok()).flatten();
        let length = after.map_or(start.len(), |(_, after)| start.len() - after.len());
        rest = &start[length..];
        // A message without any packet is given as it is, so that it is seen and counted.
        Some(&start[..length])
    })
}
