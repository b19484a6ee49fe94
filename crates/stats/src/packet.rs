//! One stats message: `TYPE`, a space, `T` or `J`, and a map (spec/stats.md §1 and §2).

use std::fmt;

use tnetstring::{Map, Value, Writer};

use crate::counters::{Counters, Report};

/// How the map is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `T`.
    #[default]
    Tnetstring,
    /// `J`, compact, keys sorted.
    Json,
}

/// What kind of connection is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnKind {
    /// A request.
    Http,
    /// A WebSocket.
    Ws,
}

/// How sessions are subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Response holds.
    Response,
    /// Stream holds.
    Stream,
    /// WebSockets.
    Ws,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Response, Self::Stream, Self::Ws];

    fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Stream => "stream",
            Self::Ws => "ws",
        }
    }

    /// The format of an item that reaches sessions of this mode.
    pub fn transport(self) -> Transport {
        match self {
            Self::Response => Transport::HttpResponse,
            Self::Stream => Transport::HttpStream,
            Self::Ws => Transport::WsMessage,
        }
    }
}

/// The format of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// To response holds.
    HttpResponse,
    /// To stream holds.
    HttpStream,
    /// To WebSockets.
    WsMessage,
}

impl Transport {
    /// The name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpResponse => "http-response",
            Self::HttpStream => "http-stream",
            Self::WsMessage => "ws-message",
        }
    }
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "types and fields are those of spec/stats.md §2")]
pub enum Body<'a> {
    Activity {
        count: u64,
    },
    Message {
        channel: &'a str,
        item_id: Option<&'a str>,
        count: u64,
        blocks: Option<u64>,
        transport: Transport,
    },
    Conn {
        id: &'a str,
        kind: ConnKind,
        peer_address: Option<&'a str>,
        ssl: bool,
        ttl: u64,
    },
    ConnGone {
        id: &'a str,
    },
    Sub {
        mode: Mode,
        channel: &'a str,
        ttl: u64,
        subscribers: u64,
    },
    SubGone {
        mode: Mode,
        channel: &'a str,
    },
    Report(Report),
    Counts {
        requests_received: u64,
    },
    ConnMax {
        max: u64,
        ttl: u64,
        retry_seq: Option<u64>,
    },
}

/// One stats message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Instance id of the sender.
    pub from: &'a str,
    /// Explicit id of the route, if it has one.
    pub route: Option<&'a str>,
    /// The rest.
    pub body: Body<'a>,
}

/// Why a message is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No `TYPE T…`.
    Format,
    /// A type that this product does not know.
    Type,
    /// The map is malformed.
    Frame(tnetstring::Error),
    /// A field is missing or has a wrong type or value.
    Field(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("not a stats packet in tnetstring format"),
            Self::Type => f.write_str("unknown type"),
            Self::Frame(error) => error.fmt(f),
            Self::Field(name) => write!(f, "'{name}' is missing or invalid"),
        }
    }
}

impl std::error::Error for Error {}

impl From<tnetstring::Error> for Error {
    fn from(error: tnetstring::Error) -> Self {
        Self::Frame(error)
    }
}

enum Field<'a> {
    Text(&'a str),
    Int(u64),
    True,
}

type Fields<'a> = Vec<(&'static str, Field<'a>)>;

impl<'a> Packet<'a> {
    /// The frame to send.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        let (name, mut fields) = self.fields();
        fields.sort_by_key(|(name, _)| *name);
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(name.as_bytes());
        match format {
            Format::Tnetstring => out.extend_from_slice(b" T"),
            Format::Json => out.extend_from_slice(b" J"),
        }
        match format {
            Format::Tnetstring => write_tnetstring(out, &fields),
            Format::Json => write_json(out, &fields),
        }
    }

    /// The map of a `conn-max` as an accept call carries it, appended to `w`.
    pub fn write_map(&self, w: &mut Writer) {
        let (_, fields) = self.fields();
        write_map(w, &fields);
    }

    fn fields(&self) -> (&'static str, Fields<'a>) {
        use Field::{Int, Text, True};
        let mut fields: Fields<'a> = Vec::with_capacity(24);
        fields.push(("from", Text(self.from)));
        fields.extend(self.route.map(|route| ("route", Text(route))));
        let name = match &self.body {
            Body::Activity { count } => {
                fields.push(("count", Int(*count)));
                "activity"
            }
            Body::Message { channel, item_id, count, blocks, transport } => {
                fields.extend([
                    ("channel", Text(channel)),
                    ("count", Int(*count)),
                    ("transport", Text(transport.name())),
                ]);
                fields.extend(item_id.map(|id| ("item-id", Text(id))));
                fields.extend(blocks.map(|blocks| ("blocks", Int(blocks))));
                "message"
            }
            Body::Conn { id, kind, peer_address, ssl, ttl } => {
                let kind = if *kind == ConnKind::Ws { "ws" } else { "http" };
                fields.extend([("id", Text(id)), ("type", Text(kind)), ("ttl", Int(*ttl))]);
                fields.extend(peer_address.map(|address| ("peer-address", Text(address))));
                fields.extend(ssl.then_some(("ssl", True)));
                "conn"
            }
            Body::ConnGone { id } => {
                fields.extend([("id", Text(id)), ("unavailable", True)]);
                "conn"
            }
            Body::Sub { mode, channel, ttl, subscribers } => {
                fields.extend([
                    ("mode", Text(mode.name())),
                    ("channel", Text(channel)),
                    ("ttl", Int(*ttl)),
                    ("subscribers", Int(*subscribers)),
                ]);
                "sub"
            }
            Body::SubGone { mode, channel } => {
                fields.extend([
                    ("mode", Text(mode.name())),
                    ("channel", Text(channel)),
                    ("unavailable", True),
                ]);
                "sub"
            }
            Body::Report(report) => {
                report_fields(report, &mut fields);
                "report"
            }
            Body::Counts { requests_received } => {
                fields.push(("requests-received", Int(*requests_received)));
                "counts"
            }
            Body::ConnMax { max, ttl, retry_seq } => {
                fields.extend([("max", Int(*max)), ("ttl", Int(*ttl))]);
                fields.extend(retry_seq.map(|seq| ("retry-seq", Int(seq))));
                "conn-max"
            }
        };
        (name, fields)
    }

    /// Reads a message in tnetstring format.
    ///
    /// # Errors
    /// A missing required field, a wrong type, a negative count (spec/stats.md §2, end).
    pub fn parse(message: &'a [u8]) -> Result<Self, Error> {
        let space = message.iter().position(|byte| *byte == b' ').ok_or(Error::Format)?;
        let (name, rest) = (&message[..space], &message[space + 1..]);
        let (root, _) = tnetstring::parse(rest.strip_prefix(b"T").ok_or(Error::Format)?)?;
        let map = root.as_map().ok_or(Error::Format)?;
        Self::from_map(std::str::from_utf8(name).map_err(|_| Error::Type)?, map)
    }

    /// Reads the map of a packet of type `name`.
    ///
    /// # Errors
    /// As [`Packet::parse`].
    pub fn from_map(name: &str, map: Map<'a>) -> Result<Self, Error> {
        let from = text(map, "from")?.unwrap_or_default();
        let route = text(map, "route")?;
        let body = match name {
            "activity" => Body::Activity { count: required(int(map, "count")?, "count")? },
            "message" => parse_message(map)?,
            "conn" => parse_conn(map)?,
            "sub" => parse_sub(map)?,
            "report" => Body::Report(parse_report(map)?),
            "counts" => {
                let requests_received = int(map, "requests-received")?.unwrap_or_default();
                Body::Counts { requests_received }
            }
            "conn-max" => Body::ConnMax {
                max: required(int(map, "max")?, "max")?,
                ttl: required(int(map, "ttl")?, "ttl")?,
                retry_seq: int(map, "retry-seq").unwrap_or_default(),
            },
            _ => return Err(Error::Type),
        };
        Ok(Self { from, route, body })
    }
}

fn report_fields(report: &Report, fields: &mut Fields<'_>) {
    let Report { mut counters, .. } = *report;
    fields.extend([
        ("connections", Field::Int(report.connections)),
        ("minutes", Field::Int(report.minutes)),
        ("received", Field::Int(report.received)),
        ("sent", Field::Int(report.sent)),
        ("http-response-sent", Field::Int(report.http_response_sent)),
        ("duration", Field::Int(report.duration_ms)),
    ]);
    let blocks = [("blocks-received", report.blocks_received), ("blocks-sent", report.blocks_sent)];
    fields.extend(blocks.into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k, Field::Int(n))));
    for (name, value) in Counters::NAMES.into_iter().zip(counters.fields()) {
        fields.push((name, Field::Int(*value)));
    }
}

fn parse_report(map: Map<'_>) -> Result<Report, Error> {
    let get = |name| int(map, name).map(Option::unwrap_or_default);
    let mut counters = Counters::default();
    for (name, value) in Counters::NAMES.into_iter().zip(counters.fields()) {
        *value = get(name)?;
    }
    Ok(Report {
        connections: get("connections")?,
        minutes: get("minutes")?,
        received: get("received")?,
        sent: get("sent")?,
        http_response_sent: get("http-response-sent")?,
        blocks_received: get("blocks-received")?,
        blocks_sent: get("blocks-sent")?,
        duration_ms: get("duration")?,
        counters,
    })
}

fn parse_message(map: Map<'_>) -> Result<Body<'_>, Error> {
    let transport = match text(map, "transport")? {
        Some("http-response") => Transport::HttpResponse,
        Some("http-stream") => Transport::HttpStream,
        Some("ws-message") => Transport::WsMessage,
        _ => return Err(Error::Field("transport")),
    };
    Ok(Body::Message {
        channel: required(text(map, "channel")?, "channel")?,
        item_id: text(map, "item-id")?,
        count: required(int(map, "count")?, "count")?,
        blocks: int(map, "blocks")?,
        transport,
    })
}

fn parse_conn(map: Map<'_>) -> Result<Body<'_>, Error> {
    let id = required(text(map, "id")?, "id")?;
    if truth(map, "unavailable")? {
        return Ok(Body::ConnGone { id });
    }
    let kind = match text(map, "type")? {
        Some("http") => ConnKind::Http,
        Some("ws") => ConnKind::Ws,
        _ => return Err(Error::Field("type")),
    };
    let ttl = required(int(map, "ttl")?, "ttl")?;
    Ok(Body::Conn {
        id,
        kind,
        peer_address: text(map, "peer-address")?,
        ssl: truth(map, "ssl")?,
        ttl,
    })
}

fn parse_sub(map: Map<'_>) -> Result<Body<'_>, Error> {
    let mode = text(map, "mode")?;
    let mode = Mode::ALL.into_iter().find(|m| Some(m.name()) == mode);
    let mode = required(mode, "mode")?;
    let channel = required(text(map, "channel")?, "channel")?;
    if truth(map, "unavailable")? {
        return Ok(Body::SubGone { mode, channel });
    }
    let ttl = required(int(map, "ttl")?, "ttl")?;
    let subscribers = int(map, "subscribers")?.unwrap_or_default();
    Ok(Body::Sub { mode, channel, ttl, subscribers })
}

fn required<T>(value: Option<T>, name: &'static str) -> Result<T, Error> {
    value.ok_or(Error::Field(name))
}

fn text<'a>(map: Map<'a>, name: &'static str) -> Result<Option<&'a str>, Error> {
    match map.get(name)? {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(Error::Field(name)),
    }
}

fn int(map: Map<'_>, name: &'static str) -> Result<Option<u64>, Error> {
    match map.get(name)? {
        None => Ok(None),
        Some(value) => {
            let n = value.as_int().and_then(|n| u64::try_from(n).ok());
            n.map(Some).ok_or(Error::Field(name))
        }
    }
}

fn truth(map: Map<'_>, name: &'static str) -> Result<bool, Error> {
    match map.get(name)? {
        None => Ok(false),
        Some(Value::Bool(b)) => Ok(b),
        Some(_) => Err(Error::Field(name)),
    }
}

fn write_tnetstring(out: Vec<u8>, fields: &Fields<'_>) -> Vec<u8> {
    let mut w = Writer::append_to(out);
    write_map(&mut w, fields);
    w.into_vec()
}

fn write_map(w: &mut Writer, fields: &Fields<'_>) {
    w.map(|w| {
        for (name, value) in fields {
            w.str(name);
            match value {
                Field::Text(text) => w.str(text),
                Field::Int(n) => w.int(i64::try_from(*n).unwrap_or(i64::MAX)),
                Field::True => w.bool(true),
            }
        }
    });
}

fn write_json(mut out: Vec<u8>, fields: &Fields<'_>) -> Vec<u8> {
    out.push(b'{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("\"{name}\":").as_bytes());
        match value {
            Field::Text(text) => {
                out.extend_from_slice(serde_json::Value::from(*text).to_string().as_bytes());
            }
            Field::Int(n) => out.extend_from_slice(n.to_string().as_bytes()),
            Field::True => out.extend_from_slice(b"true"),
        }
    }
    out.push(b'}');
    out
}
