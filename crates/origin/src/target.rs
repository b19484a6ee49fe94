//! Absolute URIs as WHATWG reads them: where a request goes, and where a redirect leads
//! (`spec/connmgr.md §10.1, §10.5`). For callers that take URIs from messages; pure.

use url::Url;

/// Most redirects that are followed.
pub const REDIRECTS_MAX: usize = 8;

/// A parsed `http`, `https`, `ws` or `wss` URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Url);

impl Target {
    /// Reads a URI: the path is normalised, user information and fragment are dropped. Nothing if
    /// it is none, has another scheme or no host.
    pub fn parse(uri: &str) -> Option<Self> {
        Self::new(Url::parse(uri).ok()?)
    }

    fn new(mut url: Url) -> Option<Self> {
        let known = matches!(url.scheme(), "http" | "https" | "ws" | "wss");
        if !known || url.host_str().is_none_or(str::is_empty) {
            return None;
        }
        url.set_fragment(None);
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        Some(Self(url))
    }

    /// `https` or `wss`.
    pub fn is_secure(&self) -> bool {
        matches!(self.0.scheme(), "https" | "wss")
    }

    /// `ws` or `wss`.
    pub fn is_websocket(&self) -> bool {
        matches!(self.0.scheme(), "ws" | "wss")
    }

    /// Name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, the scheme's own if none is given.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// The Host header: name or bracketed address, and the port if it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The request target: path and query.
    pub fn path_and_query(&self) -> String {
        let path = self.0.path();
        self.0.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }

    /// Where a `Location` leads from here; nothing if it cannot be followed. A WebSocket stays
    /// one, whichever of the schemes the backend uses.
    pub fn redirect(&self, location: &str) -> Option<Self> {
        let mut url = self.0.join(location).ok()?;
        match (self.is_websocket(), url.scheme()) {
            (true, "http") => url.set_scheme("ws").ok()?,
            (true, "https") => url.set_scheme("wss").ok()?,
            (true, "ws" | "wss") | (false, "http" | "https") => {}
            _ => return None,
        }
        Self::new(url)
    }

    /// Whether both have scheme, host and port in common, so that what was meant for one may be
    /// told to the other.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the redirected request is a GET without a body (RFC 9110 §15.4).
pub fn becomes_get(method: &str, code: u16) -> bool {
    match code {
        301 | 302 => method == "POST",
        303 => method != "GET" && method != "HEAD",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str) -> Option<String> {
        let t = Target::parse(uri)?;
        Some(format!("{} {} {} {}", t.host(), t.port(), t.authority(), t.path_and_query()))
    }

    #[test]
    fn parts_of_uris() {
        for (uri, wanted) in [
            ("http://Example.com", "example.com 80 example.com /"),
            ("http://example.com:80/a/../b?c#d", "example.com 80 example.com /b?c"),
            ("https://u:p@example.com:8443/x", "example.com 8443 example.com:8443 /x"),
            ("wss://[::1]/s", "::1 443 [::1] /s"),
            ("ws://0x7f.1:1/", "127.0.0.1 1 127.0.0.1:1 /"),
        ] {
            assert_eq!(shown(uri).as_deref(), Some(wanted), "{uri}");
        }
        for bad in ["", "/x", "ftp://h/", "http://", "http://a b/", "mailto:x@y", "http://h:99999/"]
        {
            assert_eq!(shown(bad), None, "{bad}");
        }
        let secure = Target::parse("wss://h/").unwrap();
        assert!(secure.is_secure() && secure.is_websocket());
    }

    #[test]
    fn redirects() {
        let lead = |from: &str, to: &str| {
            Target::parse(from).unwrap().redirect(to).map(|target| target.to_string())
        };
        for (from, to, wanted) in [
            ("http://h/a/b", "c?d#e", Some("http://h/a/c?d")),
            ("http://h/a/b", "//o:1/", Some("http://o:1/")),
            ("http://h/a", "https://h/", Some("https://h/")),
            ("http://h/a", "ws://h/", None),
            ("http://h/a", "file:///etc/passwd", None),
            ("http://h/a", "javascript:1", None),
            ("wss://h/a", "https://o/b", Some("wss://o/b")),
            ("ws://h/a", "/b", Some("ws://h/b")),
        ] {
            assert_eq!(lead(from, to).as_deref(), wanted, "{from} {to}");
        }
        let at = |uri: &str| Target::parse(uri).unwrap();
        assert!(at("http://h/a").is_same_origin(&at("http://h:80/b")));
        assert!(!at("http://h/a").is_same_origin(&at("https://h/a")));
    }

    #[test]
    fn posts_become_gets() {
        assert!(becomes_get("POST", 301) && becomes_get("POST", 302) && becomes_get("PUT", 303));
        assert!(!becomes_get("PUT", 302) && !becomes_get("POST", 307) && !becomes_get("HEAD", 303));
    }
}
