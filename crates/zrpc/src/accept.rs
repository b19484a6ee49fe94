//! `accept`: the proxy gives client sessions to the handler (spec/internal-rpc.md §4).

use tnetstring::{Map, Value, Writer};

use crate::fields::{Error, bytes, int, map, need, text, truth};
use crate::inspect;
use crate::session::{
    HttpRequest, HttpResponse, Session, flag, optional, sessions, write_sessions,
};

/// The method's name.
pub const METHOD: &str = "accept";

/// The arguments of the call.
#[derive(Clone, Debug, PartialEq)]
pub struct Args<'a> {
    /// The client sessions, one or more.
    pub requests: Vec<Session<'a>>,
    /// The request as sent to the backend, with the client's scheme.
    pub request: HttpRequest<'a>,
    /// The request as received, for retries.
    pub orig_request: HttpRequest<'a>,
    /// The backend's response with its GRIP headers.
    pub response: HttpResponse<'a>,
    /// What `inspect` said, if it was asked.
    pub inspect: Option<inspect::Reply<'a>>,
    /// Route id, also an automatic one.
    pub route: Option<&'a str>,
    /// The id is an explicit one: stats and rates go by it.
    pub separate_stats: bool,
    /// Put before every channel name of the response.
    pub channel_prefix: Option<&'a str>,
    /// Log level of the route's request lines.
    pub log_level: Option<i64>,
    /// Implicit channels.
    pub channels: Vec<&'a str>,
    /// The target is a trusted one.
    pub trusted: bool,
    /// The route keeps GRIP sessions.
    pub use_session: bool,
    /// The response was sent already.
    pub response_sent: bool,
    /// Encoded `conn-max` list, not looked into here.
    pub conn_max: Option<Value<'a>>,
    /// The list is empty: the proxy tells its maxima by stats packets, without these sessions.
    pub maxima_apart: bool,
}

impl<'a> Args<'a> {
    /// Reads the arguments of the call.
    ///
    /// # Errors
    /// If a field that must be there is missing, or one has the wrong type.
    pub fn parse(args: Map<'a>) -> Result<Self, Error> {
        let (mut requests, mut request, mut orig, mut response) = (None, None, None, None);
        let mut rest = Rest::default();
        for entry in args.iter() {
            match entry? {
                ("requests", value) => requests = Some(sessions(value)?),
                ("request-data", value) => {
                    request = Some(HttpRequest::parse("request-data", value, true)?);
                }
                ("orig-request-data", value) => {
                    orig = Some(HttpRequest::parse("orig-request-data", value, true)?);
                }
                ("response", value) => response = Some(whole_response(value)?),
                (key, value) => rest.set(key, value)?,
            }
        }
        Ok(Self {
            requests: need("requests", requests)?,
            request: need("request-data", request)?,
            orig_request: need("orig-request-data", orig)?,
            response: need("response", response)?,
            inspect: rest.inspect,
            route: rest.route,
            separate_stats: rest.separate_stats,
            channel_prefix: rest.channel_prefix,
            log_level: rest.log_level,
            channels: rest.channels,
            trusted: rest.trusted,
            use_session: rest.use_session,
            response_sent: rest.response_sent,
            conn_max: rest.conn_max,
            maxima_apart: rest.conn_max.and_then(|list| list.as_list()).is_some_and(is_empty),
        })
    }

    /// Writes the keys and values of the argument map.
    pub fn write(&self, w: &mut Writer) {
        write_sessions(w, &self.requests);
        self.request.write(w, "request-data");
        self.orig_request.write(w, "orig-request-data");
        self.response.write(w);
        if let Some(inspect) = &self.inspect {
            w.str("inspect");
            inspect.write(w);
        }
        optional(w, "route", self.route.map(str::as_bytes));
        optional(w, "channel-prefix", self.channel_prefix.map(str::as_bytes));
        if let Some(level) = self.log_level {
            w.str("log-level");
            w.int(level);
        }
        if !self.channels.is_empty() {
            w.str("channels");
            w.list(|w| self.channels.iter().for_each(|channel| w.str(channel)));
        }
        if self.maxima_apart {
            w.str("conn-max");
            w.list(|_| {});
        }
        flag(w, "separate-stats", self.separate_stats);
        flag(w, "trusted", self.trusted);
        flag(w, "use-session", self.use_session);
        flag(w, "response-sent", self.response_sent);
    }
}

/// A response in which every field is there.
fn whole_response<'a>(value: Value<'a>) -> Result<HttpResponse<'a>, Error> {
    let map = map("response", value)?;
    for field in ["reason", "headers", "body"] {
        need(field, map.get(field)?)?;
    }
    let (code, response) = HttpResponse::parse_fields(map)?;
    need("code", code)?;
    Ok(response)
}

fn is_empty(list: tnetstring::List<'_>) -> bool {
    list.iter().next().is_none()
}

/// The optional arguments.
#[derive(Default)]
struct Rest<'a> {
    inspect: Option<inspect::Reply<'a>>,
    route: Option<&'a str>,
    separate_stats: bool,
    channel_prefix: Option<&'a str>,
    log_level: Option<i64>,
    channels: Vec<&'a str>,
    trusted: bool,
    use_session: bool,
    response_sent: bool,
    conn_max: Option<Value<'a>>,
}

impl<'a> Rest<'a> {
    fn set(&mut self, key: &str, value: Value<'a>) -> Result<(), Error> {
        match key {
            "inspect" => self.inspect = Some(inspect::Reply::parse(value)?),
            "route" => self.route = Some(text("route", value)?),
            "separate-stats" => self.separate_stats = truth("separate-stats", value)?,
            "channel-prefix" => self.channel_prefix = Some(text("channel-prefix", value)?),
            "log-level" => self.log_level = Some(int("log-level", value)?),
            "channels" => {
                let list = value.as_list().ok_or(Error::Type("channels"))?;
                self.channels =
                    list.iter().map(|item| text("channels", item?)).collect::<Result<_, _>>()?;
            }
            "trusted" => self.trusted = truth("trusted", value)?,
            "use-session" => self.use_session = truth("use-session", value)?,
            "response-sent" => self.response_sent = truth("response-sent", value)?,
            "conn-max" => self.conn_max = Some(value),
            _ => {}
        }
        Ok(())
    }
}

/// What the handler decided (§4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The sessions are the handler's now.
    Accepted,
    /// Send this response.
    Response(HttpResponse<'a>),
    /// Neither.
    Nothing,
}

impl<'a> Reply<'a> {
    /// Reads the value of a successful answer.
    ///
    /// # Errors
    /// If it is no map, or a field has the wrong type.
    pub fn parse(value: Value<'a>) -> Result<Self, Error> {
        let mut reply = Self::Nothing;
        for entry in map("value", value)?.iter() {
            match entry? {
                ("accepted", value) if truth("accepted", value)? => return Ok(Self::Accepted),
                ("response", value) => {
                    let (code, response) = HttpResponse::parse_fields(map("response", value)?)?;
                    if code.is_some() {
                        reply = Self::Response(response);
                    }
                }
                _ => {}
            }
        }
        Ok(reply)
    }

    /// Writes the value of a successful answer.
    pub fn write(&self, w: &mut Writer) {
        w.map(|w| match self {
            Self::Accepted => flag(w, "accepted", true),
            Self::Response(response) => response.write(w),
            Self::Nothing => {}
        });
    }
}

/// The text of a `bad-format` error, which tells what is wrong with the instructions.
pub fn error_text<'a>(value: Option<Value<'a>>) -> Option<&'a [u8]> {
    value.and_then(|value| bytes("value", value).ok())
}
