//! What a backend's response instructs (spec/grip.md §3 and §4).

use std::collections::BTreeMap;

use crate::fields::{Params, list_pieces, parse_int, parse_params, parse_piece};
use crate::links::Links;
use crate::{FILTERS_MAX, Headers, base64, json_instruct, reason};

/// How a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldMode {
    /// Until one item answers it, or the timeout.
    Response,
    /// Open, every item is a piece of the body.
    Stream,
}

/// One `Grip-Channel`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// The name as the backend writes it, without the route's prefix.
    pub name: String,
    /// The id that the content given ends with.
    pub prev_id: Option<String>,
    /// Filters in order.
    pub filters: Vec<String>,
}

/// When the keep-alive timer restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepAliveMode {
    /// Whenever an item is sent.
    Idle,
    /// Only when the keep-alive itself is sent.
    Interval,
}

/// `Grip-Keep-Alive`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeepAlive {
    /// Whether items put it off.
    pub mode: KeepAliveMode,
    /// What is sent.
    pub data: Vec<u8>,
    /// Seconds, at least 1.
    pub timeout_s: u32,
}

/// `Grip-Link` with `rel=next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextLink {
    /// Absolute.
    pub url: String,
    /// Seconds until it is followed.
    pub timeout_s: u32,
}

/// A response for the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub code: u16,
    /// Never empty.
    pub reason: String,
    /// Without those that concern one connection only, without `Content-Length`.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
}

/// The backend's response, as the accept call brings it.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Status.
    pub code: u16,
    /// Reason, may be empty.
    pub reason: &'a str,
    /// Headers in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The whole body.
    pub body: &'a [u8],
}

/// A parsed instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruct {
    /// Whether and how the request is held.
    pub hold: Option<HoldMode>,
    /// In the order given, not yet cut to the maximum of a connection.
    pub channels: Vec<Channel>,
    /// Seconds until a response hold is answered.
    pub timeout_s: u32,
    /// For stream holds.
    pub keep_alive: Option<KeepAlive>,
    /// Subscription meta.
    pub meta: BTreeMap<String, String>,
    /// Where the stream goes on.
    pub next: Option<NextLink>,
    /// Called when the session ends.
    pub gone: Option<String>,
    /// What the client gets at once or at the timeout.
    pub reply: Reply,
}

/// Seconds of a response hold without `Grip-Timeout`.
const TIMEOUT_DEFAULT_S: u32 = 55;
/// Shortest response hold.
const TIMEOUT_MIN_S: u32 = 5;
/// Seconds between keep-alives where it is not said.
const KEEP_ALIVE_DEFAULT_S: u32 = 55;

impl Instruct {
    /// Reads the instruction in `response`; relative links count from `base`, the URI of the
    /// request as the proxy hands it on.
    ///
    /// # Errors
    /// The texts of spec/grip.md §3 and §4.
    pub fn parse(base: &str, response: &ResponseHead<'_>) -> Result<Self, String> {
        let mut instruct = Self::from_headers(base, response)?;
        if is_json_instruct(response) {
            if response.code != 200 {
                return Err(
                    "response code for application/grip-instruct content must be 200".to_owned()
                );
            }
            json_instruct::apply(&mut instruct, response)?;
        }
        if instruct.reply.reason.is_empty() {
            instruct.reply.reason = reason(instruct.reply.code).to_owned();
        }
        Ok(instruct)
    }

    fn from_headers(base: &str, response: &ResponseHead<'_>) -> Result<Self, String> {
        let headers = GripHeaders::of(response);
        let mut links = Links::default();
        let reply = reply(&headers, response)?;
        let hold = headers.first("Grip-Hold").map(|mode| parse_hold(&mode)).transpose()?;
        let channels = parse_channels(&headers)?;
        let timeout_s = parse_timeout(headers.first("Grip-Timeout"))?;
        let keep_alive = parse_keep_alive(headers.first("Grip-Keep-Alive"))?;
        let meta = parse_meta(&headers)?;
        for piece in headers.pieces("Grip-Link") {
            links.add(base, &piece)?;
        }
        let (next, gone) = (links.next, links.gone);
        Ok(Self { hold, channels, timeout_s, keep_alive, meta, next, gone, reply })
    }
}

/// The status that `Grip-Status` asks for.
pub(crate) fn status(response: &ResponseHead<'_>) -> Result<Option<(u16, String)>, String> {
    let text = GripHeaders::of(response).first("Grip-Status").unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let code = parse_int(code)
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| *code <= 999)
        .ok_or("Grip-Status contains invalid status code")?;
    let reason = if rest.is_empty() { reason(code) } else { rest };
    Ok(Some((code, reason.to_owned())))
}

fn is_json_instruct(response: &ResponseHead<'_>) -> bool {
    let content_type =
        response.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Content-Type"));
    content_type.is_some_and(|(_, value)| {
        value.split(|b| *b == b';').next() == Some(b"application/grip-instruct")
    })
}

/// The headers of a response, looked up as GRIP does.
struct GripHeaders<'a>(&'a [(&'a str, &'a [u8])]);

impl<'a> GripHeaders<'a> {
    fn of(response: &ResponseHead<'a>) -> Self {
        Self(response.headers)
    }

    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = String> + 's {
        let matching = self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
        matching.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    fn first(&self, name: &str) -> Option<String> {
        self.all(name).next()
    }

    fn pieces(&self, name: &str) -> Vec<String> {
        self.all(name)
            .flat_map(|line| list_pieces(&line).into_iter().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

pub(crate) fn parse_hold(mode: &str) -> Result<HoldMode, String> {
    match mode {
        "response" => Ok(HoldMode::Response),
        "stream" => Ok(HoldMode::Stream),
        _ => Err("Grip-Hold must be set to either 'response' or 'stream'".to_owned()),
    }
}

fn parse_channels(headers: &GripHeaders<'_>) -> Result<Vec<Channel>, String> {
    let mut channels = Vec::new();
    for piece in headers.pieces("Grip-Channel") {
        if let Some((name, params)) = parse_piece(&piece) {
            channels.push(channel(name, &params)?);
        }
    }
    Ok(channels)
}

fn channel(name: &str, params: &Params) -> Result<Channel, String> {
    let filters: Vec<String> = params.all("filter").map(str::to_owned).collect();
    check_filters(name, &filters)?;
    let prev_id = params.get("prev-id").filter(|id| !id.is_empty()).map(str::to_owned);
    Ok(Channel { name: name.to_owned(), prev_id, filters })
}

pub(crate) fn check_filters(channel: &str, filters: &[String]) -> Result<(), String> {
    if filters.len() > FILTERS_MAX {
        return Err(format!("too many filters for channel '{channel}'"));
    }
    Ok(())
}

fn parse_timeout(text: Option<String>) -> Result<u32, String> {
    let Some(text) = text else { return Ok(TIMEOUT_DEFAULT_S) };
    let seconds = parse_int(&text).ok_or("failed to parse Grip-Timeout")?;
    timeout(seconds.into()).ok_or_else(|| "Grip-Timeout has invalid value".to_owned())
}

/// The seconds of a response hold; `None` if negative.
pub(crate) fn timeout(seconds: i64) -> Option<u32> {
    let seconds = u64::try_from(seconds).ok()?;
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(TIMEOUT_MIN_S))
}

/// The seconds of a keep-alive; `None` if negative.
pub(crate) fn keep_alive_timeout(seconds: i64) -> Option<u32> {
    let seconds = u64::try_from(seconds).ok()?;
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}

fn parse_keep_alive(line: Option<String>) -> Result<Option<KeepAlive>, String> {
    let line = line.unwrap_or_default();
    let Some((data, params)) = parse_piece(&line).filter(|_| !line.is_empty()) else {
        return Ok(None);
    };
    if data.is_empty() {
        return Err("Grip-Keep-Alive cannot be empty".to_owned());
    }
    let mode = match params.get("mode") {
        None | Some("idle") => KeepAliveMode::Idle,
        Some("interval") => KeepAliveMode::Interval,
        Some(other) => return Err(format!("no such Grip-Keep-Alive mode '{other}'")),
    };
    let timeout_s = match params.get("timeout") {
        None => KEEP_ALIVE_DEFAULT_S,
        Some(text) => {
            let seconds = parse_int(text).ok_or("failed to parse Grip-Keep-Alive timeout value")?;
            keep_alive_timeout(seconds.into()).ok_or("Grip-Keep-Alive timeout has invalid value")?
        }
    };
    let data = keep_alive_data(data, params.get("format").unwrap_or("raw"))?;
    Ok(Some(KeepAlive { mode, data, timeout_s }))
}

/// The default of a keep-alive that only the JSON form gives.
pub(crate) fn json_keep_alive() -> KeepAlive {
    KeepAlive { mode: KeepAliveMode::Interval, data: Vec::new(), timeout_s: KEEP_ALIVE_DEFAULT_S }
}

fn keep_alive_data(data: &str, format: &str) -> Result<Vec<u8>, String> {
    match format {
        "raw" => Ok(data.as_bytes().to_vec()),
        "cstring" => decode_cstring(data.as_bytes())
            .filter(|data| !data.is_empty())
            .ok_or_else(|| "failed to parse Grip-Keep-Alive cstring format".to_owned()),
        "base64" => Ok(base64::decode(data.as_bytes())),
        other => Err(format!("no such Grip-Keep-Alive format '{other}'")),
    }
}

/// Undoes the escapes of spec/grip.md §3.1; an unknown escape vanishes.
fn decode_cstring(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next()? {
            b'\\' => out.push(b'\\'),
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b'x' => {
                let high = char::from(*rest.next()?).to_digit(16)?;
                let low = char::from(*rest.next()?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            _ => {}
        }
    }
    Some(out)
}

fn parse_meta(headers: &GripHeaders<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut meta = BTreeMap::new();
    for piece in headers.pieces("Grip-Set-Meta") {
        if piece.is_empty() {
            return Err("Grip-Set-Meta cannot be empty".to_owned());
        }
        let first = parse_params(&piece).and_then(|params| params.0.into_iter().next());
        meta.extend(first);
    }
    Ok(meta)
}

/// What the client gets according to the headers: status, headers that may pass, body.
fn reply(headers: &GripHeaders<'_>, response: &ResponseHead<'_>) -> Result<Reply, String> {
    let (code, reason) =
        status(response)?.unwrap_or_else(|| (response.code, response.reason.to_owned()));
    let exposed = headers.pieces("Grip-Expose-Headers");
    let passes = |name: &str| {
        !is_hop(name)
            && (exposed.is_empty() || exposed.iter().any(|e| e.eq_ignore_ascii_case(name)))
    };
    let passing = response.headers.iter().filter(|(name, _)| passes(name));
    let headers = passing.map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    Ok(Reply { code, reason, headers, body: response.body.to_vec() })
}

/// Whether a header of an accepted response never reaches the client (spec/grip.md §3.3).
pub fn is_hop(name: &str) -> bool {
    let is_grip = name.as_bytes().get(..5).is_some_and(|p| p.eq_ignore_ascii_case(b"grip-"));
    is_grip || is_framing(name) || name.eq_ignore_ascii_case("Content-Encoding")
}

/// Whether a header describes how a message is framed on one connection: whoever sends the
/// message decides that, not a document or an item.
pub(crate) fn is_framing(name: &str) -> bool {
    const FRAMING: [&str; 4] = ["Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length"];
    FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name))
}
