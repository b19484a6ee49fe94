//! The absolute URI of a request, taken apart where it lies.

use std::borrow::Cow;

use routes::Proto;

/// The parts of `http://host:port/path?query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uri<'a> {
    /// HTTP or WebSocket.
    pub proto: Proto,
    /// `https` or `wss`.
    pub secure: bool,
    /// Host and port as written, without user information.
    pub authority: &'a str,
    /// Percent-encoded, begins with `/`; `*` of an OPTIONS request as it is.
    pub path: &'a str,
    /// Behind the first `?`.
    pub query: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// Takes a URI apart; nothing for a scheme that is none of the four.
    pub fn parse(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        let (proto, secure) = match scheme {
            "http" => (Proto::Http, false),
            "https" => (Proto::Http, true),
            "ws" => (Proto::Ws, false),
            "wss" => (Proto::Ws, true),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#', '*']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Some(Self { proto, secure, authority, path, query })
    }

    /// The host in lower case, without port and brackets.
    pub fn host(&self) -> Cow<'a, str> {
        let (host, _) = split_port(self.authority);
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        }
    }
}

/// Host without brackets, and the port if one is given.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, after.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let uri = Uri::parse("https://Example.com:81/a%20b?x=1?y#f").unwrap();
        assert_eq!((uri.proto, uri.secure, uri.authority), (Proto::Http, true, "Example.com:81"));
        assert_eq!((uri.path, uri.query), ("/a%20b", Some("x=1?y")));
        assert_eq!(uri.host(), "example.com");
        let uri = Uri::parse("ws://[::1]:8000").unwrap();
        assert_eq!((uri.proto, &*uri.host(), uri.path, uri.query), (Proto::Ws, "::1", "/", None));
        assert_eq!(Uri::parse("http://h?q").unwrap().query, Some("q"));
        assert_eq!(Uri::parse("http://u:p@h/").unwrap().authority, "h");
        assert_eq!(Uri::parse("http://h*").unwrap().path, "*");
        assert!(Uri::parse("ftp://h/").is_none() && Uri::parse("/x").is_none());
    }
}
