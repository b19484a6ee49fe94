//! Published items (spec/publish.md §3), from JSON or tnetstring documents.

use std::fmt;

use bytes::Bytes;

use crate::value::Value;
use crate::{Headers, base64, json_instruct, reason};

/// What an item does to the sessions that it reaches (spec/publish.md §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Content is delivered.
    Send,
    /// Something happened: ask the backend.
    Hint,
    /// The session ends.
    Close,
    /// WebSocket-over-HTTP: ask the backend now.
    Refresh,
}

/// The body of an `http-response`.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The bytes themselves.
    Whole(Bytes),
    /// JSON patch operations on the instructed body (spec/grip.md §7.2).
    Patch(Vec<Value>),
}

/// `http-response`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseFormat {
    /// With anything but `Send` the other fields have their defaults.
    pub action: Action,
    /// Filters that the subscriber must have, if given.
    pub content_filters: Option<Vec<String>>,
    /// Status.
    pub code: u16,
    /// Never empty.
    pub reason: String,
    /// To be merged over the instructed ones.
    pub headers: Headers,
    /// What is sent.
    pub body: Body,
}

/// `http-stream`.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamFormat {
    /// With anything but `Send` the content is empty.
    pub action: Action,
    /// Filters that the subscriber must have, if given.
    pub content_filters: Option<Vec<String>>,
    /// What is sent.
    pub content: Bytes,
}

/// The kind of a WebSocket message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsType {
    /// Text message.
    Text,
    /// Binary message.
    Binary,
    /// Ping frame.
    Ping,
    /// Pong frame.
    Pong,
}

impl WsType {
    /// The name that items and control packets give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }
}

/// `ws-message`.
#[derive(Clone, Debug, PartialEq)]
pub struct WsFormat {
    /// What to do.
    pub action: Action,
    /// Filters that the subscriber must have, if given.
    pub content_filters: Option<Vec<String>>,
    /// Kind of the message sent.
    pub kind: WsType,
    /// What is sent.
    pub content: Bytes,
    /// Close code.
    pub code: Option<u16>,
    /// Close reason.
    pub reason: String,
}

/// One published item.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Full channel, the route's prefix included.
    pub channel: String,
    /// Identity for de-duplication and sequencing.
    pub id: Option<String>,
    /// Id of the item before it in the channel.
    pub prev_id: Option<String>,
    /// For filters.
    pub meta: Vec<(String, String)>,
    /// Size for block counting instead of the body's.
    pub size: Option<u64>,
    /// Skip sequencing.
    pub no_seq: bool,
    /// For response holds.
    pub response: Option<ResponseFormat>,
    /// For stream holds.
    pub stream: Option<StreamFormat>,
    /// For WebSockets.
    pub ws: Option<WsFormat>,
}

/// Why a document is no item. The texts are part of the control API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemError(String);

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ItemError {}

impl<T: Into<String>> From<T> for ItemError {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

type Result<T> = std::result::Result<T, ItemError>;

/// Where a document came from decides on the keys for binary content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Json,
    Tnetstring,
}

/// The items of an `{"items": [...]}` document, all or none (spec/publish.md §2.2).
///
/// # Errors
/// The texts of spec/publish.md §2.2, complete with their `Invalid format` part.
pub fn parse_items(document: &Value, json: bool) -> std::result::Result<Vec<Item>, String> {
    document.as_map().ok_or("Invalid format.")?;
    let items = document.get("items").ok_or("Invalid format: object does not contain 'items'")?;
    let items = items.as_list().ok_or("Invalid format: object contains 'items' with wrong type")?;
    let parse = if json { Item::from_json } else { Item::from_tnetstring };
    items
        .iter()
        .map(|item| parse(item, None).map_err(|error| format!("Invalid format: {error}")))
        .collect()
}

/// The items of a ZeroMQ message: the message is one, or has a list of them under `items`, which
/// counts as a whole or not at all. A `topic` replaces their channels.
///
/// # Errors
/// The texts of spec/publish.md §3.
pub fn parse_message(document: &Value, topic: Option<&str>, json: bool) -> Result<Vec<Item>> {
    let parse = if json { Item::from_json } else { Item::from_tnetstring };
    match document.get("items") {
        Some(items) if document.get("formats").is_none() => {
            let items = items.as_list().ok_or("object contains 'items' with wrong type")?;
            items.iter().map(|item| parse(item, topic)).collect()
        }
        _ => Ok(vec![parse(document, topic)?]),
    }
}

impl Item {
    /// Reads an item of a JSON document; a `topic` replaces its channel.
    ///
    /// # Errors
    /// The texts of spec/publish.md §3.
    pub fn from_json(value: &Value, topic: Option<&str>) -> Result<Self> {
        Self::parse(value, topic, Source::Json)
    }

    /// Reads an item of a tnetstring document; a `topic` replaces its channel.
    ///
    /// # Errors
    /// The texts of spec/publish.md §3.
    pub fn from_tnetstring(value: &Value, topic: Option<&str>) -> Result<Self> {
        Self::parse(value, topic, Source::Tnetstring)
    }

    fn parse(value: &Value, topic: Option<&str>, source: Source) -> Result<Self> {
        let object = Object { value, name: "publish item object" };
        value.as_map().ok_or("publish item object is not an object")?;
        let channel = match topic {
            Some(topic) => topic.to_owned(),
            None => {
                object.text("channel")?.ok_or("publish item object does not contain 'channel'")?
            }
        };
        let mut item = Self {
            channel,
            id: object.text("id")?,
            prev_id: object.text("prev-id")?,
            meta: parse_meta(&object)?,
            size: parse_size(&object)?,
            no_seq: object.get("no-seq", Value::as_bool)?.unwrap_or(false),
            response: None,
            stream: None,
            ws: None,
        };
        let formats = match value.get("formats") {
            Some(formats) => {
                let entries = formats.as_map().ok_or_else(|| object.wrong("formats"))?;
                if entries.is_empty() {
                    return Err("no formats specified".into());
                }
                formats
            }
            None => value,
        };
        let found = item.parse_formats(formats, source)?;
        if !found && value.get("formats").is_none() {
            return Err("no formats specified".into());
        }
        Ok(item)
    }

    /// Reads the formats that are there; gives whether there is any.
    fn parse_formats(&mut self, formats: &Value, source: Source) -> Result<bool> {
        let object = |name: &'static str, quoted: &'static str| {
            let value = formats.get(name)?;
            Some(match value.as_map() {
                Some(_) => Ok(Object { value, name: quoted }),
                None => Err(ItemError(format!("{quoted} is not an object"))),
            })
        };
        if let Some(format) = object("http-response", "'http-response'").transpose()? {
            self.response = Some(parse_response(&format, source)?);
        }
        if let Some(format) = object("http-stream", "'http-stream'").transpose()? {
            self.stream = Some(parse_stream(&format, source)?);
        }
        if let Some(format) = object("ws-message", "'ws-message'").transpose()? {
            self.ws = Some(parse_ws(&format, source)?);
        }
        Ok(self.response.is_some() || self.stream.is_some() || self.ws.is_some())
    }

    /// The value of a publish meta, empty if it is not given.
    pub fn meta(&self, name: &str) -> &str {
        self.meta.iter().rev().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

fn parse_meta(object: &Object<'_>) -> Result<Vec<(String, String)>> {
    let Some(meta) = object.value.get("meta") else { return Ok(Vec::new()) };
    let entries = meta.as_map().ok_or_else(|| object.wrong("meta"))?;
    entries
        .iter()
        .map(|(key, value)| match value.as_text() {
            Some(text) => Ok((key.clone(), text)),
            None => Err(format!("'meta' contains '{key}' with wrong type").into()),
        })
        .collect()
}

fn parse_size(object: &Object<'_>) -> Result<Option<u64>> {
    match object.get("size", Value::as_int)? {
        None => Ok(None),
        Some(size) => match u64::try_from(size) {
            Ok(size) => Ok(Some(size)),
            Err(_) => Err("publish item object contains 'size' with invalid value".into()),
        },
    }
}

/// A map with the name that error texts give it.
struct Object<'a> {
    value: &'a Value,
    name: &'static str,
}

impl Object<'_> {
    fn wrong(&self, key: &str) -> ItemError {
        ItemError(format!("{} contains '{key}' with wrong type", self.name))
    }

    /// The value under `key`, read by `read`; a wrong type is an error.
    fn get<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.value.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key)),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key, Value::as_text)
    }

    fn bytes(&self, key: &str) -> Result<Option<Bytes>> {
        self.get(key, |value| value.as_bytes().cloned())
    }

    /// Bytes given in base64, which only JSON documents need.
    fn base64(&self, key: &str, source: Source) -> Result<Option<Bytes>> {
        if source == Source::Tnetstring {
            return Ok(None);
        }
        Ok(self.bytes(key)?.map(|text| base64::decode(&text).into()))
    }

    fn action(&self) -> Result<Action> {
        match self.text("action")?.as_deref() {
            None | Some("send") => Ok(Action::Send),
            Some("hint") => Ok(Action::Hint),
            Some("close") => Ok(Action::Close),
            Some("refresh") => Ok(Action::Refresh),
            // The old server gives no text here and the answer is part of the API.
            Some(_) => Err("".into()),
        }
    }

    fn content_filters(&self) -> Result<Option<Vec<String>>> {
        let Some(value) = self.value.get("content-filters") else { return Ok(None) };
        let items = value.as_list().ok_or_else(|| self.wrong("content-filters"))?;
        let texts = items.iter().map(Value::as_text).collect::<Option<_>>();
        texts.map(Some).ok_or_else(|| "content-filters contains element with wrong type".into())
    }
}

fn parse_response(format: &Object<'_>, source: Source) -> Result<ResponseFormat> {
    let mut parsed = ResponseFormat {
        action: format.action()?,
        content_filters: None,
        code: 200,
        reason: reason(200).to_owned(),
        headers: Headers::new(),
        body: Body::Whole(Bytes::new()),
    };
    if parsed.action != Action::Send {
        return Ok(parsed);
    }
    parsed.content_filters = format.content_filters()?;
    if let Some(code) = format.get("code", Value::as_int)? {
        parsed.code = u16::try_from(code)
            .ok()
            .filter(|code| *code <= 999)
            .ok_or("'http-response' contains 'code' with invalid value")?;
    }
    parsed.reason = match format.text("reason")? {
        Some(reason) if !reason.is_empty() => reason,
        _ => reason(parsed.code).to_owned(),
    };
    if let Some(value) = format.value.get("headers") {
        parsed.headers = json_instruct::headers(value)?.ok_or_else(|| format.wrong("headers"))?;
    }
    parsed.body = parse_body(format, source)?;
    Ok(parsed)
}

fn parse_body(format: &Object<'_>, source: Source) -> Result<Body> {
    if let Some(body) = format.base64("body-bin", source)? {
        return Ok(Body::Whole(body));
    }
    if let Some(body) = format.bytes("body")? {
        return Ok(Body::Whole(body));
    }
    if let Some(patch) = format.get("body-patch", |v| v.as_list().map(<[Value]>::to_vec))? {
        return Ok(Body::Patch(patch));
    }
    Err(match source {
        Source::Json => {
            "'http-response' does not contain 'body', 'body-bin', or 'body-patch'".into()
        }
        Source::Tnetstring => "'http-response' does not contain 'body' or 'body-patch'".into(),
    })
}

fn parse_stream(format: &Object<'_>, source: Source) -> Result<StreamFormat> {
    let action = format.action()?;
    if action != Action::Send {
        return Ok(StreamFormat { action, content_filters: None, content: Bytes::new() });
    }
    let content_filters = format.content_filters()?;
    let content = match format.base64("content-bin", source)? {
        Some(content) => content,
        None => format.bytes("content")?.ok_or(match source {
            Source::Json => "'http-stream' does not contain 'content' or 'content-bin'",
            Source::Tnetstring => "'http-stream' does not contain 'content'",
        })?,
    };
    Ok(StreamFormat { action, content_filters, content })
}

fn parse_ws(format: &Object<'_>, source: Source) -> Result<WsFormat> {
    let mut parsed = WsFormat {
        action: format.action()?,
        content_filters: None,
        kind: WsType::Text,
        content: Bytes::new(),
        code: None,
        reason: String::new(),
    };
    match parsed.action {
        Action::Send => parse_ws_send(format, source, &mut parsed)?,
        Action::Close => parse_ws_close(format, &mut parsed)?,
        Action::Hint | Action::Refresh => {}
    }
    Ok(parsed)
}

fn parse_ws_send(format: &Object<'_>, source: Source, parsed: &mut WsFormat) -> Result<()> {
    parsed.content_filters = format.content_filters()?;
    let kind = match format.text("type")?.as_deref() {
        None => None,
        Some("text") => Some(WsType::Text),
        Some("binary") => Some(WsType::Binary),
        Some("ping") => Some(WsType::Ping),
        Some("pong") => Some(WsType::Pong),
        Some(_) => return Err("'ws-message' contains 'type' with unknown value".into()),
    };
    let binary = match source {
        Source::Json => format.base64("content-bin", source)?,
        Source::Tnetstring => format.bytes("content-bin")?,
    };
    let from_binary = binary.is_some();
    let content = match binary {
        Some(content) => Some(content),
        None => format.bytes("content")?,
    };
    let default = if from_binary { WsType::Binary } else { WsType::Text };
    parsed.kind = kind.unwrap_or(default);
    let may_lack = matches!(parsed.kind, WsType::Ping | WsType::Pong);
    parsed.content = match content {
        Some(content) => content,
        None if may_lack => Bytes::new(),
        None => {
            return Err("'ws-message' does not contain 'content' or 'content-bin'".into());
        }
    };
    Ok(())
}

fn parse_ws_close(format: &Object<'_>, parsed: &mut WsFormat) -> Result<()> {
    if let Some(code) = format.get("code", Value::as_int)? {
        let code = u16::try_from(code);
        parsed.code = Some(code.map_err(|_| "'ws-message' contains 'code' with invalid value")?);
    }
    parsed.reason = format.text("reason")?.unwrap_or_default();
    Ok(())
}
