//! The request that a backend gets (spec/proxy.md §3).

use std::borrow::Cow;
use std::net::IpAddr;

use http1::BodyKind;
use routes::Target;
use zhttp::{HeaderBuf, Headers};

use crate::routing::Entry;
use crate::settings::{ForwardedFor, ForwardedProto, Settings};
use crate::uri::{Uri, split_port};

/// What this proxy can do, for backends.
const GRIP_FEATURES: &str = "status, session, link:next, link:gone, filter:skip-self, \
    filter:skip-users, filter:require-sub, filter:build-id, filter:var-subst, \
    filter:http-check, filter:http-modify";

/// Marks copies of a client's headers.
const ORIG_PREFIX: &str = "eb9bf0f5-";

/// Headers that a backend never gets from a client.
const REMOVED: [&str; 6] = [
    "connection",
    "keep-alive",
    "accept-encoding",
    "content-encoding",
    "transfer-encoding",
    "expect",
];

/// What is known about a request when its headers are rewritten.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub settings: &'a Settings,
    pub entry: &'a Entry,
    pub uri: Uri<'a>,
    pub peer_address: &'a str,
    /// A GRIP proxy in front, by its signature.
    pub trusted: bool,
    /// A request of the handler.
    pub internal: bool,
    /// Channel and last id of each, for Grip-Last.
    pub last_ids: &'a [(String, Vec<u8>)],
    /// GRIP session id.
    pub session_id: Option<&'a [u8]>,
    /// Unix time.
    pub now_s: u64,
}

type List<'a> = Vec<(Cow<'a, str>, Cow<'a, [u8]>)>;

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

pub(crate) fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The headers for the backend, but for what differs between targets.
pub(crate) fn headers(original: Headers<'_>, context: &Context<'_>) -> HeaderBuf {
    let mut list: List<'_> =
        original.iter().map(|(name, value)| (name.into(), value.into())).collect();
    apply_route_headers(&mut list, context);
    mark_originals(&mut list, context);
    list.retain(|(name, _)| !REMOVED.iter().any(|removed| is(name, removed)));
    if context.settings.accept_route_header {
        remove(&mut list, "pushpin-route");
    }
    if !context.settings.cdn_loop.is_empty() {
        add_cdn_loop(&mut list, &context.settings.cdn_loop);
    }
    if !context.trusted && !context.internal {
        list.retain(|(name, _)| !has_prefix(name, "grip-"));
    }
    if !context.trusted && context.entry.route.grip {
        add_grip(&mut list, context);
    }
    set_forwarded_proto(&mut list, context);
    set_forwarded_for(&mut list, context);
    if context.uri.proto == routes::Proto::Ws {
        offer_grip(&mut list, context);
    }
    let mut out = HeaderBuf::new();
    for (name, value) in &list {
        out.push(name, value);
    }
    out
}

fn remove(list: &mut List<'_>, unwanted: &str) {
    list.retain(|(name, _)| !is(name, unwanted));
}

fn apply_route_headers<'a>(list: &mut List<'a>, context: &Context<'a>) {
    for (name, value) in &context.entry.route.headers {
        remove(list, name);
        if !value.is_empty() {
            list.push((name.as_str().into(), value.as_bytes().into()));
        }
    }
}

/// Route option `orig_headers`.
fn mark_originals(list: &mut List<'_>, context: &Context<'_>) {
    if !context.entry.route.orig_headers {
        return list.retain(|(name, _)| !has_prefix(name, ORIG_PREFIX));
    }
    if context.trusted {
        return;
    }
    let need_mark = &context.settings.orig_headers_need_mark;
    let mut marked: List<'_> = Vec::new();
    list.retain(|(name, value)| {
        let is_marked = has_prefix(name, ORIG_PREFIX);
        if is_marked {
            marked.push((name.clone(), value.clone()));
        } else if !need_mark.iter().any(|listed| is(listed, name)) {
            marked.push((format!("{ORIG_PREFIX}{name}").into(), value.clone()));
        }
        !is_marked
    });
    list.append(&mut marked);
}

/// One CDN-Loop header with all values and ours.
fn add_cdn_loop(list: &mut List<'_>, own: &str) {
    let mut merged: Vec<u8> = Vec::new();
    for (_, value) in list.iter().filter(|(name, _)| is(name, "cdn-loop")) {
        for piece in split_unquoted(value) {
            merged.extend_from_slice(piece);
            merged.extend_from_slice(b", ");
        }
    }
    merged.extend_from_slice(own.as_bytes());
    remove(list, "cdn-loop");
    list.push(("CDN-Loop".into(), merged.into()));
}

/// The parts between commas outside quotes, trimmed, empty ones left out.
fn split_unquoted(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |&byte| {
            let ends = byte == b',' && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = quoted && byte == b'\\' && !escaped;
            ends
        })
        .map(http1::trim)
        .filter(|piece| !piece.is_empty())
}

fn add_grip<'a>(list: &mut List<'a>, context: &Context<'a>) {
    if let Some(signer) = &context.entry.signer {
        let token = signer.token(context.now_s);
        remove(list, "Grip-Sig");
        if !token.is_empty() {
            list.push(("Grip-Sig".into(), token.as_bytes().to_vec().into()));
        }
    }
    replace(list, "Grip-Feature", GRIP_FEATURES.as_bytes().into());
    if let Some(id) = context.session_id {
        replace(list, "Grip-Session-Id", id.into());
    }
    for (channel, id) in context.last_ids {
        let mut value = format!("{channel}; last-id=").into_bytes();
        value.extend_from_slice(id);
        list.push(("Grip-Last".into(), value.into()));
    }
}

/// The only extension that a WebSocket backend may use (spec §11.1).
fn offer_grip(list: &mut List<'_>, context: &Context<'_>) {
    remove(list, "sec-websocket-extensions");
    if context.entry.route.grip {
        list.push(("Sec-WebSocket-Extensions".into(), b"grip".into()));
    }
}

fn replace<'a>(list: &mut List<'a>, name: &'a str, value: Cow<'a, [u8]>) {
    remove(list, name);
    list.push((name.into(), value));
}

fn set_forwarded_proto(list: &mut List<'_>, context: &Context<'_>) {
    let set = context.settings.set_forwarded_proto;
    if set == ForwardedProto::Off && !context.settings.accept_forwarded_proto {
        return;
    }
    remove(list, "x-forwarded-proto");
    remove(list, "x-forwarded-protocol");
    if set == ForwardedProto::Off || !context.uri.secure {
        return;
    }
    let scheme: &[u8] = match context.uri.proto {
        routes::Proto::Http => b"https",
        routes::Proto::Ws => b"wss",
    };
    list.push(("X-Forwarded-Proto".into(), scheme.into()));
    if set == ForwardedProto::Both {
        list.push(("X-Forwarded-Protocol".into(), scheme.into()));
    }
}

fn forwarded_rule(settings: &Settings, trusted: bool) -> ForwardedFor {
    if trusted { settings.forwarded_for_trusted } else { settings.forwarded_for }
}

fn set_forwarded_for(list: &mut List<'_>, context: &Context<'_>) {
    let rule = forwarded_rule(context.settings, context.trusted);
    let append = rule.append && !context.peer_address.is_empty();
    let present = list.iter().any(|(name, _)| is(name, "x-forwarded-for"));
    if !(present || append) {
        return;
    }
    let mut values: Vec<Vec<u8>> = list
        .iter()
        .filter(|(name, _)| is(name, "x-forwarded-for"))
        .flat_map(|(_, value)| http1::tokens(value).map(<[u8]>::to_vec))
        .collect();
    if let Some(keep) = rule.truncate {
        values.drain(..values.len().saturating_sub(keep));
    }
    if append {
        values.push(context.peer_address.as_bytes().to_vec());
    }
    remove(list, "x-forwarded-for");
    if !values.is_empty() {
        list.push(("X-Forwarded-For".into(), values.join(&b", "[..]).into()));
    }
}

/// The client's address behind proxies that may be believed (spec §2.1, 4).
pub(crate) fn logical_address<'a>(
    headers: Headers<'a>,
    settings: &Settings,
    trusted: bool,
    peer_address: &'a str,
) -> &'a str {
    if forwarded_rule(settings, trusted).truncate == Some(0) {
        return peer_address;
    }
    let first = headers.get("x-forwarded-for").and_then(|value| http1::tokens(value).next());
    let text = first.and_then(|value| std::str::from_utf8(value).ok());
    text.filter(|text| text.parse::<IpAddr>().is_ok()).unwrap_or(peer_address)
}

/// Where the rewritten request goes: authority and path with query (spec §3, 1 and 11).
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub authority: String,
    pub target: String,
}

/// Applies `as_host`, `path_rem`, `replace_beg`.
pub(crate) fn place(uri: &Uri<'_>, entry: &Entry) -> Place {
    let route = &entry.route;
    let authority = if route.as_host.is_empty() { uri.authority } else { &route.as_host };
    // The prefix is removed in bytes; a path is ASCII unless a client sent otherwise.
    let cut = route.path_remove.min(uri.path.len());
    let rest = uri.path.get(cut..).unwrap_or("");
    let mut target = format!("{}{rest}", route.path_replace);
    if !target.starts_with('/') && target != "*" {
        target.insert(0, '/');
    }
    if let Some(query) = uri.query {
        target.push('?');
        target.push_str(query);
    }
    // A host is the same in capitals, and backends compare it as it comes.
    Place { authority: authority.to_ascii_lowercase(), target }
}

/// The encoded request for one target. `length`: bytes of body, nothing if it streams in.
///
/// # Errors
/// If a header or the target has bytes that would end a line.
pub(crate) fn encode(
    method: &str,
    place: &Place,
    target: &Target,
    headers: Headers<'_>,
    framing: BodyKind,
) -> Result<Vec<u8>, http1::Reason> {
    let parts = http1::write::Request {
        method: method.as_bytes(),
        target: place.target.as_bytes(),
        host: host(place, target).as_bytes(),
        body: framing,
    };
    let mut out = Vec::with_capacity(512);
    let list = headers.iter().map(|(name, value)| (name.as_bytes(), value));
    http1::write::request(&mut out, &parts, list)?;
    Ok(out)
}

/// The Host header for a target.
pub(crate) fn host<'p>(place: &'p Place, target: &'p Target) -> &'p str {
    let authority = if target.host.is_empty() { &place.authority } else { &target.host };
    without_default_port(authority, target.ssl)
}

/// The Host header has a port only if it is not the scheme's default.
fn without_default_port(authority: &str, ssl: bool) -> &str {
    let default = if ssl { ":443" } else { ":80" };
    match split_port(authority) {
        (_, Some(_)) => authority.strip_suffix(default).unwrap_or(authority),
        _ => authority.trim_end_matches(':'),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::routing::{Routes, Signing};

    fn routes(line: &str) -> Routes {
        let (table, problems) = routes::Table::parse(line, "r", &|_| Err("none".into()));
        assert!(problems.is_empty());
        Routes::new(table, &Signing::default(), Path::new("."))
    }

    /// The headers after rewriting, as `name: value` lines.
    fn run(
        line: &str,
        settings: &Settings,
        uri: &str,
        list: &[(&str, &str)],
        trusted: bool,
    ) -> String {
        let routes = routes(line);
        let uri = Uri::parse(uri).unwrap();
        let entry = routes.by_host("h", uri.proto, uri.secure, uri.path).unwrap();
        let mut original = HeaderBuf::new();
        list.iter().for_each(|(name, value)| original.push(name, value.as_bytes()));
        let context = Context {
            settings,
            entry,
            uri,
            peer_address: "1.2.3.4",
            trusted,
            internal: false,
            last_ids: &[("c".to_owned(), b"7".to_vec())],
            session_id: None,
            now_s: 0,
        };
        let out = headers(original.as_headers(), &context);
        let text =
            |(name, value): (&str, &[u8])| format!("{name}: {}", String::from_utf8_lossy(value));
        out.as_headers().iter().map(text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn hop_by_hop_and_grip_headers_go() {
        let list = [
            ("Host", "h"),
            ("Connection", "x"),
            ("keep-alive", "1"),
            ("Accept-Encoding", "gzip"),
            ("Grip-Sig", "evil"),
            ("EXPECT", "100-continue"),
            ("eb9bf0f5-A", "1"),
            ("Cookie", "c"),
        ];
        let seen = run("h,no_grip x:1", &Settings::default(), "http://h/", &list, false);
        assert_eq!(seen, "Host: h\nCookie: c");
        let seen = run("h x:1", &Settings::default(), "http://h/", &list, false);
        assert_eq!(
            seen,
            format!("Host: h\nCookie: c\nGrip-Feature: {GRIP_FEATURES}\nGrip-Last: c; last-id=7")
        );
        let seen = run("h x:1", &Settings::default(), "http://h/", &list, true);
        assert_eq!(seen, "Host: h\nGrip-Sig: evil\nCookie: c");
    }

    #[test]
    fn forwarded_headers() {
        let list = [("X-Forwarded-For", "9.9.9.9, 8.8.8.8"), ("X-Forwarded-Proto", "https")];
        let mut settings = Settings::default();
        let run = |settings: &Settings, uri| run("h,no_grip x:1", settings, uri, &list, false);
        assert_eq!(
            run(&settings, "http://h/"),
            "X-Forwarded-Proto: https\nX-Forwarded-For: 9.9.9.9, 8.8.8.8"
        );
        settings.forwarded_for = ForwardedFor::parse(&["truncate:1", "append"]);
        settings.set_forwarded_proto = ForwardedProto::Both;
        assert_eq!(run(&settings, "http://h/"), "X-Forwarded-For: 8.8.8.8, 1.2.3.4");
        let secure = run(&settings, "wss://h/");
        assert!(
            secure.starts_with("X-Forwarded-Proto: wss\nX-Forwarded-Protocol: wss\n"),
            "{secure}"
        );
        settings.forwarded_for = ForwardedFor::parse(&["truncate:0"]);
        assert_eq!(run(&settings, "http://h/"), "");
        assert_eq!(ForwardedFor::parse(&["truncate:x", "append"]), ForwardedFor::default());
    }

    #[test]
    fn options_of_the_route() {
        let settings = Settings { cdn_loop: "me".into(), ..Settings::default() };
        let list = [("A", "1"), ("B", "2"), ("cdn-loop", "x; v=\"a,b\"")];
        let seen = run("h,no_grip,header=A:9,header=B: x:1", &settings, "http://h/", &list, false);
        assert_eq!(seen, "A: 9\nCDN-Loop: x; v=\"a,b\", me");
        let list = [("eb9bf0f5-X", "0"), ("A", "1")];
        let settings = Settings { orig_headers_need_mark: vec!["b".into()], ..Settings::default() };
        let seen = run("h,no_grip,orig_headers x:1", &settings, "http://h/", &list, false);
        assert_eq!(seen, "A: 1\neb9bf0f5-X: 0\neb9bf0f5-A: 1");
        let list = [("A", "1"), ("EB9BF0F5-X", "0"), ("B", "2"), ("C", "3")];
        let seen = run("h,no_grip,orig_headers x:1", &settings, "http://h/", &list, false);
        assert_eq!(seen, "A: 1\nB: 2\nC: 3\neb9bf0f5-A: 1\nEB9BF0F5-X: 0\neb9bf0f5-C: 3");
        let seen = run("h,no_grip x:1", &settings, "http://h/", &list, true);
        assert_eq!(seen, "A: 1\nB: 2\nC: 3");
    }

    #[test]
    fn places_and_heads() {
        let place_of = |line: &str, uri: &str| {
            let (routes, uri) = (routes(line), Uri::parse(uri).unwrap());
            let entry = routes.by_host("h", uri.proto, uri.secure, uri.path).unwrap();
            let place = place(&uri, entry);
            let target = &entry.route.targets[0];
            let head = encode("GET", &place, target, Headers::EMPTY, BodyKind::None).unwrap();
            String::from_utf8(head).unwrap()
        };
        assert_eq!(
            place_of("h x:1", "http://h:8000/a?b=c"),
            "GET /a?b=c HTTP/1.1\r\nHost: h:8000\r\n\r\n"
        );
        assert_eq!(place_of("h x:1", "http://H:81/A"), "GET /A HTTP/1.1\r\nHost: h:81\r\n\r\n");
        assert_eq!(
            place_of("h,as_host=o:80 x:1", "http://h:8000/a"),
            "GET /a HTTP/1.1\r\nHost: o\r\n\r\n"
        );
        assert_eq!(
            place_of("h x:1,ssl,host=t:443", "http://h/"),
            "GET / HTTP/1.1\r\nHost: t\r\n\r\n"
        );
        assert_eq!(
            place_of("h,path_beg=/v1/,replace_beg=/x/ x:1", "http://h/v1/a?q"),
            "GET /x/a?q HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        assert_eq!(
            place_of("h,path_rem=3 x:1", "http://h/v1/a"),
            "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        assert_eq!(
            place_of("h,path_rem=99 x:1", "http://h/v1"),
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        );
    }

    #[test]
    fn the_logical_address_is_the_first_that_is_one() {
        let mut list = HeaderBuf::new();
        list.push("X-Forwarded-For", b"9.9.9.9, 8.8.8.8");
        let mut settings = Settings::default();
        assert_eq!(logical_address(list.as_headers(), &settings, false, "p"), "9.9.9.9");
        settings.forwarded_for = ForwardedFor::parse(&["truncate:0"]);
        assert_eq!(logical_address(list.as_headers(), &settings, false, "p"), "p");
        assert_eq!(logical_address(list.as_headers(), &settings, true, "p"), "9.9.9.9");
        let mut list = HeaderBuf::new();
        list.push("X-Forwarded-For", b"unknown");
        assert_eq!(logical_address(list.as_headers(), &settings, true, "p"), "p");
    }
}
