//! The absolute URI of a request from its target and Host header (RFC 9112 §3.2). Whatever two
//! readers could take for different hosts is refused. Called by `request`.

use http1::{Reason, RequestHead, trim};

/// Gives the URI: `scheme`, host of the target or of the Host header, path and query as sent.
pub(crate) fn uri(head: &RequestHead<'_, '_>, scheme: &str) -> Result<String, Reason> {
    let named = host_header(head)?;
    let (host, path) = match split_absolute(head.target) {
        // Nobody here opens tunnels.
        _ if head.method == "CONNECT" => return Err(Reason::Target),
        Some((host, path)) if is_authority(host) => (host, path),
        None if head.target.starts_with('/') => (named, head.target),
        // Of no resource, so it stays without a path (`spec/connmgr.md §4.1`).
        None if head.target == "*" && head.method == "OPTIONS" => (named, "*"),
        // Anything else, put behind the host, would name another host.
        _ => return Err(Reason::Target),
    };
    let slash = if path.starts_with(['/', '*']) { "" } else { "/" };
    Ok([scheme, "://", host, slash, path].concat())
}

/// Host, and path with query, of a target in absolute form (RFC 9112 §3.2.2).
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// The only Host header; `localhost` if there is none or it is empty (`spec/connmgr.md §4.1`).
/// It is looked at even if the target names another host.
fn host_header<'b>(head: &RequestHead<'_, 'b>) -> Result<&'b str, Reason> {
    let mut hosts = head.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("host"));
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Reason::Host);
    }
    let value = host.map(|h| trim(h.value)).filter(|value| !value.is_empty());
    let Some(value) = value else { return Ok("localhost") };
    let host = std::str::from_utf8(value).map_err(|_| Reason::Host)?;
    if is_authority(host) { Ok(host) } else { Err(Reason::Host) }
}

/// Whether it is a host and perhaps a port, and nothing in it could be taken for another part of
/// the URI: no user, no path, no list.
fn is_authority(text: &str) -> bool {
    let (host_ok, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (is_bracketed(address), port),
            None => return false,
        },
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (is_name(&text[..end]), &text[end..])
        }
    };
    host_ok && is_port(port)
}

/// IPv6 in text, or a later form of address (RFC 3986 §3.2.2).
fn is_bracketed(address: &str) -> bool {
    !address.is_empty()
        && address.bytes().all(|b| b.is_ascii_alphanumeric() || b":.-_~%".contains(&b))
}

/// A name or IPv4 address. Bytes above ASCII pass, as they always did.
fn is_name(host: &str) -> bool {
    let stray = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\\"<>[]{}|^`*".contains(c);
    !host.is_empty() && !host.contains(stray)
}

/// Nothing, or a colon and perhaps a number that is a port.
fn is_port(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(':') else { return text.is_empty() };
    let number = digits.bytes().all(|b| b.is_ascii_digit());
    number && (digits.is_empty() || digits.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http1::{HeaderSlots, parse_request};

    fn uri_of(text: &str) -> Result<String, Reason> {
        let mut slots = HeaderSlots::new();
        uri(&parse_request(text.as_bytes(), &mut slots).unwrap().unwrap(), "http")
    }

    #[test]
    fn builds_the_uri() {
        let cases = [
            ("GET /a?b HTTP/1.1\r\nHost: h:8\r\n\r\n", "http://h:8/a?b"),
            ("GET / HTTP/1.1\r\n\r\n", "http://localhost/"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "http://localhost/"),
            ("GET / HTTP/1.1\r\nHost: ä\r\n\r\n", "http://ä/"),
            ("GET / HTTP/1.1\r\nHost: a_b.c-d:\r\n\r\n", "http://a_b.c-d:/"),
            ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "http://[2001:db8::1]:8080/"),
            (
                "GET HTTP://abs.example:81/p?q HTTP/1.1\r\nHost: h\r\n\r\n",
                "http://abs.example:81/p?q",
            ),
            ("GET http://abs.example HTTP/1.1\r\nHost: h\r\n\r\n", "http://abs.example/"),
            ("GET http://abs.example?q HTTP/1.1\r\nHost: h\r\n\r\n", "http://abs.example/?q"),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "http://h*"),
            ("GET /a://b HTTP/1.1\r\nHost: h\r\n\r\n", "http://h/a://b"),
        ];
        for (text, wanted) in cases {
            assert_eq!(uri_of(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn refuses_targets_that_would_name_another_host() {
        let targets = [
            "x",
            ".evil",
            "@evil/",
            "ftp://h/",
            "h:443",
            "*",
            "http:///x",
            "http://u@h/",
            "http://h#f",
            "http://h:x/",
            "http://[::1/",
            "http://:80/",
        ];
        for target in targets {
            let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(uri_of(&text), Err(Reason::Target), "{target}");
        }
        for target in ["h:443", "/", "http://h/"] {
            let text = format!("CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(uri_of(&text), Err(Reason::Target), "{target}");
        }
    }

    #[test]
    fn refuses_hosts_that_are_none() {
        let hosts = [
            "a/b",
            "a@b",
            "a b",
            "a?b",
            "a#b",
            "a\\b",
            "a*b",
            "h:80:80",
            "h:8x",
            "h:-1",
            "h:65536",
            ":80",
            "[::1",
            "[]",
            "[::1]x",
            "a, b",
            "h\r\nHost: h",
            "h\r\nHOST: other",
        ];
        for host in hosts {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(uri_of(&text), Err(Reason::Host), "{host}");
            // Also where the target makes it unnecessary.
            let text = format!("GET http://h/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(uri_of(&text), Err(Reason::Host), "{host}");
        }
    }
}
