//! The line that tells how a client session ended (spec/proxy.md §14).

use std::fmt::Write as _;

use crate::Settings;
use crate::backend::target_name;
use crate::forward;
use crate::session::Session;
use crate::share::Share;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response of that status and so many bytes of body.
    Code(u16, u64),
    /// The handler has it.
    Accept,
    /// No response, or one that ended uncleanly.
    Error,
}

/// Writes the line at info level.
pub(crate) fn write(settings: &Settings, session: &Session, outcome: Outcome) {
    if session.internal {
        return;
    }
    let level = session.entry.as_ref().map_or(-1, |entry| entry.route.log_level);
    logging::access(level, || text(settings, session, outcome));
}

fn text(settings: &Settings, session: &Session, outcome: Outcome) -> String {
    let mut line = String::with_capacity(128);
    // Writing to a String cannot fail.
    let method = if session.ws.is_some() { "GET" } else { session.method() };
    let _ = write!(line, "{method} {}", session.uri());
    if session.exchange.tried {
        let over_http = if asks_by_http(session) { "[http]" } else { "" };
        let _ = write!(line, " -> {}{over_http}", target_name(session));
    }
    // Parsing again costs a microsecond, and few lines have what it is for.
    let Some(packet) = session.packet() else { return line };
    if settings.log_from {
        let headers = packet.headers;
        let logical =
            forward::logical_address(headers, settings, session.trusted, packet.peer_address);
        let peer = session.exchange.tried && session.ws.is_none();
        let _ = write!(line, " from={}", if peer { packet.peer_address } else { logical });
    }
    let referer = packet.headers.get("referer").and_then(|value| std::str::from_utf8(value).ok());
    if let Some(referer) = referer.filter(|text| is_absolute(text)) {
        let _ = write!(line, " ref={referer}");
    }
    if let Some(entry) = session.entry.as_ref().filter(|entry| entry.route.explicit_id) {
        let _ = write!(line, " route={}", entry.route.id);
    }
    let _ = match outcome {
        Outcome::Code(code, size) => write!(line, " code={code} {size}"),
        Outcome::Accept => line.write_str(" accept"),
        Outcome::Error => line.write_str(" error"),
    };
    if session.is_retry {
        line.push_str(" retry");
    }
    if let Share::Waits(asks) = session.exchange.share {
        let token = u64::from(asks.generation) << 32 | u64::from(asks.index);
        let _ = write!(line, " shared=0x{token:x}");
    }
    let agent = packet.headers.get("user-agent").filter(|_| settings.log_user_agent);
    if let Some(agent) = agent {
        let _ = write!(line, " ua={}", String::from_utf8_lossy(agent));
    }
    for (name, value) in packet.headers.iter() {
        if name.eq_ignore_ascii_case("grip-last") {
            add_last_ids(&mut line, &String::from_utf8_lossy(value));
        }
    }
    line
}

/// A WebSocket whose backend is asked by requests.
fn asks_by_http(session: &Session) -> bool {
    let targets = session.entry.as_ref().map_or(&[][..], |entry| &entry.route.targets);
    let target = targets.get(session.target).or(targets.last());
    session.ws.is_some() && target.is_some_and(|target| target.over_http)
}

fn is_absolute(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, rest)| (scheme, rest.is_empty()));
    matches!(scheme, Some((scheme, false)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
        && !url.contains(char::is_whitespace)
}

/// ` #channel=id` for each.
fn add_last_ids(line: &mut String, value: &str) {
    for piece in value.split(',') {
        let mut parts = piece.split(';').map(str::trim);
        let channel = parts.next().unwrap_or_default();
        if let Some(id) = parts.find_map(|part| part.strip_prefix("last-id=")) {
            let _ = write!(line, " #{channel}={id}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_ids_and_referers() {
        let mut line = String::new();
        add_last_ids(&mut line, "a; last-id=1, b;last-id=2, c");
        assert_eq!(line, " #a=1 #b=2");
        assert!(is_absolute("http://h/x") && !is_absolute("/x") && !is_absolute("h ttp://x"));
    }
}
