//! Filters of a subscription (spec/grip.md §9). Those that ask a backend are run up to the
//! question; the caller asks it and goes on with what [`answered`] makes of the answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::item::Item;

/// What a session's filters look at.
pub struct Context<'a> {
    /// Subscription meta.
    pub meta: &'a BTreeMap<String, String>,
    /// Names of the connection's channels, without prefix.
    pub channels: &'a [&'a str],
    /// Where the channels' contents end, for the default id of `build-id` marks. Response content
    /// has no default id.
    pub prev_ids: Option<&'a [(&'a str, &'a str)]>,
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Delivered with this content.
    Send(Bytes),
    /// Not delivered.
    Drop,
    /// A filter could not be applied: its name and the cause.
    Failed(String),
    /// The filter of this number has to ask a backend about this content first.
    Ask {
        /// Place in the list of filters.
        filter: usize,
        /// What the filters before it left.
        content: Bytes,
    },
}

/// Most bytes of a backend's answer to a filter.
pub const ANSWER_MAX: usize = 100_000;

/// Whether a filter asks a backend.
pub fn needs_request(name: &str) -> bool {
    matches!(name, "http-check" | "http-modify")
}

/// Whether a filter changes the content of messages.
pub fn is_content(name: &str) -> bool {
    matches!(name, "build-id" | "var-subst" | "http-modify")
}

/// Whether the content filters of a subscription are those that an item asks for, if it does.
///
/// # Errors
/// The text of spec/grip.md §9 if they are not.
pub fn agree(filters: &[String], wanted: Option<&[String]>) -> Result<(), String> {
    let Some(wanted) = wanted else { return Ok(()) };
    let own: Vec<&str> = filters.iter().map(String::as_str).filter(|f| is_content(f)).collect();
    if own.iter().eq(wanted.iter()) {
        return Ok(());
    }
    let (own, wanted) = (own.join(","), wanted.join(","));
    Err(format!("content filter mismatch: subscription={own} message={wanted}"))
}

/// Runs `filters`, from number `from` on, in order over one item for one session.
pub fn run(
    filters: &[String],
    from: usize,
    item: &Item,
    content: Bytes,
    context: &Context<'_>,
) -> Outcome {
    let mut content = content;
    for (number, filter) in filters.iter().enumerate().skip(from) {
        let passes = match filter.as_str() {
            "skip-self" => !skip_self(item, context),
            "skip-users" => !skip_users(item, context),
            "require-sub" => require_sub(item, context),
            "var-subst" => {
                match substitute(&content, |directive| variable(directive, context)) {
                    Ok(changed) => content = changed.into(),
                    Err(error) => return Outcome::Failed(format!("var-subst: {error}")),
                }
                true
            }
            "build-id" => {
                match build_id(&content, context) {
                    Ok(changed) => content = changed.into(),
                    Err(error) => return Outcome::Failed(format!("build-id: {error}")),
                }
                true
            }
            name if needs_request(name) => return Outcome::Ask { filter: number, content },
            _ => true,
        };
        if !passes {
            return Outcome::Drop;
        }
    }
    Outcome::Send(content)
}

/// Where a filter that asks a backend sends its question: the meta value `url`, resolved against
/// `base`.
///
/// # Errors
/// The texts of spec/grip.md §9.
pub fn url(meta: &BTreeMap<String, String>, base: &str) -> Result<String, String> {
    let link = meta.get("url").filter(|url| !url.is_empty()).ok_or("missing url value")?;
    // A WebSocket's backend is asked by HTTP.
    let base = match base.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        _ => base.to_owned(),
    };
    let url = crate::links::resolve(&base, link).ok_or("invalid url value")?;
    match url.split_once("://") {
        Some(("http" | "https", _)) => Ok(url),
        _ => Err("invalid url value".to_owned()),
    }
}

/// What the answer of a backend means: its status, whether it has `Action: drop`, its body.
/// `content` is what the backend was asked about by the filter `name`.
pub fn answered(name: &str, code: u16, drop: bool, body: Bytes, content: Bytes) -> Outcome {
    match code {
        200 | 204 if drop => Outcome::Drop,
        200 if name == "http-modify" => Outcome::Send(body),
        200 | 204 => Outcome::Send(content),
        code => Outcome::Failed(format!("{name}: unexpected network request status: code={code}")),
    }
}

fn user<'a>(context: &'a Context<'_>) -> &'a str {
    context.meta.get("user").map_or("", String::as_str)
}

fn skip_self(item: &Item, context: &Context<'_>) -> bool {
    let user = user(context);
    !user.is_empty() && user == item.meta("sender")
}

fn skip_users(item: &Item, context: &Context<'_>) -> bool {
    let user = user(context);
    !user.is_empty() && item.meta("skip_users").split(',').any(|name| name.trim() == user)
}

fn require_sub(item: &Item, context: &Context<'_>) -> bool {
    let required = item.meta("require_sub");
    required.is_empty() || context.channels.contains(&required)
}

/// Rewrites the `%I` marks of `content`.
///
/// # Errors
/// The texts of spec/grip.md §9.
pub fn build_id(content: &[u8], context: &Context<'_>) -> Result<Vec<u8>, String> {
    let format = context.meta.get("id_format").ok_or("no sub meta 'id_format'")?;
    let default = context.prev_ids.map(|ids| {
        substitute(format.as_bytes(), |directive| prev_id(directive, ids))
            .map_err(|error| format!("failed to render ID: {error}"))
    });
    let default = default.transpose()?;
    let encoding = context.meta.get("id_encoding").map(String::as_str);
    if !matches!(encoding, None | Some("hex")) {
        return Err(format!("unsupported encoding: {}", encoding.unwrap_or_default()));
    }
    substitute(content, |directive| {
        if directive.name != b'I' {
            return Err(directive.unknown());
        }
        let id = match (directive.argument, &default) {
            (Some(text), _) => text,
            (None, Some(id)) => id.clone(),
            (None, None) => {
                let position = directive.position;
                return Err(format!(
                    "No ID specified and no default ID in context at position {position}"
                ));
            }
        };
        Ok(if encoding.is_some() { hex(&id) } else { id })
    })
}

/// How much of `content` [`build_id`] can rewrite while more of it may come: a mark at its end may
/// not be whole yet.
pub fn complete(content: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = content[at..].iter().position(|byte| *byte == b'%') {
        let mark = at + found;
        let name = match content.get(mark + 1) {
            Some(b'(') => parse_argument(content, mark + 1).ok().map(|(_, after)| after),
            _ => Some(mark + 1),
        };
        match name.filter(|name| *name < content.len()) {
            Some(name) => at = name + 1,
            None => return mark,
        }
    }
    content.len()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into_bytes()
}

fn variable(directive: Directive, context: &Context<'_>) -> Result<Vec<u8>, String> {
    let name = directive.needs_argument(b's')?;
    match context.meta.get(&name) {
        Some(value) => Ok(value.clone().into_bytes()),
        None => Err(format!("No such variable '{name}' at position {}", directive.position)),
    }
}

fn prev_id(directive: Directive, ids: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let name = directive.needs_argument(b's')?;
    match ids.iter().find(|(channel, _)| *channel == name) {
        Some((_, id)) => Ok(id.as_bytes().to_vec()),
        None => Err(format!("No such variable '{name}' at position {}", directive.position)),
    }
}

/// One `%X` or `%(argument)X` mark.
struct Directive {
    name: u8,
    argument: Option<Vec<u8>>,
    /// Of the letter.
    position: usize,
}

impl Directive {
    fn unknown(&self) -> String {
        let name = char::from(self.name);
        format!("Unknown directive '{name}' at position {}", self.position)
    }

    fn needs_argument(&self, name: u8) -> Result<String, String> {
        if self.name != name {
            return Err(self.unknown());
        }
        match &self.argument {
            Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            None => {
                let name = char::from(name);
                Err(format!("Directive '{name}' requires argument at position {}", self.position))
            }
        }
    }
}

/// Replaces each mark in `text` by what `render` makes of it; `%%` is a percent sign.
fn substitute(
    text: &[u8],
    render: impl Fn(Directive) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (mut argument, mut before) = (None, '%');
        if text.get(at) == Some(&b'(') {
            let (field, after) = parse_argument(text, at)?;
            (argument, before) = (Some(field), ')');
            at = after;
        }
        match text.get(at) {
            None => {
                let position = at - 1;
                return Err(format!("Expected directive after '{before}' at position {position}"));
            }
            Some(b'%') if argument.is_none() => out.push(b'%'),
            Some(&name) => out.extend(render(Directive { name, argument, position: at })?),
        }
        at += 1;
    }
    Ok(out)
}

/// The text from the parenthesis at `start` up to the closing one, and where it goes on.
fn parse_argument(text: &[u8], start: usize) -> Result<(Vec<u8>, usize), String> {
    let mut argument = Vec::new();
    let mut at = start + 1;
    loop {
        match text.get(at) {
            None => return Err(format!("Unterminated field starting at position {start}")),
            Some(b')') => return Ok((argument, at + 1)),
            Some(b'\\') => {
                at += 1;
                let byte = text.get(at).ok_or_else(|| {
                    format!("Expected character after '\\' at position {}", at - 1)
                })?;
                argument.push(*byte);
            }
            Some(byte) => argument.push(*byte),
        }
        at += 1;
    }
}
