//! What a request's method and path ask for.

/// How a session's client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Waits for frames.
    Xhr,
    /// Waits for frames, which come as calls of a function.
    Jsonp,
    /// Sends messages.
    XhrSend,
    /// Sends messages in a form.
    JsonpSend,
    /// One that is not served.
    Other,
}

/// What a request over HTTP asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Whether another origin may ask.
    Preflight,
    /// What the server can do.
    Info,
    /// The page for old browsers.
    Iframe,
    /// Something about a session.
    Session {
        /// The session; never empty.
        id: &'a str,
        /// How.
        transport: Transport,
    },
    /// Nothing that there is.
    Unknown,
}

/// What a WebSocket is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// The backend's messages as they are.
    Raw,
    /// Frames of SockJS.
    Framed,
}

/// Understands a request. `path`: what follows the route's prefix; it begins with `/`.
pub fn request<'a>(method: &str, path: &'a str) -> Request<'a> {
    if method == "OPTIONS" {
        return Request::Preflight;
    }
    let get = method == "GET";
    if get && path == "/info" {
        return Request::Info;
    }
    if get && is_iframe(path) {
        return Request::Iframe;
    }
    match parts(path) {
        Some((id, name)) if !id.is_empty() && (get || method == "POST") => {
            Request::Session { id, transport: transport(get, name) }
        }
        _ => Request::Unknown,
    }
}

/// Understands the path of a WebSocket, as above.
pub fn socket(path: &str) -> Option<Socket> {
    match path {
        "/websocket" => Some(Socket::Raw),
        _ => parts(path).map(|_| Socket::Framed),
    }
}

fn is_iframe(path: &str) -> bool {
    let name = path.strip_prefix("/iframe").and_then(|rest| rest.strip_suffix(".html"));
    name.is_some_and(|rest| !rest.contains('/'))
}

/// Session and transport of `/server/session/transport`.
fn parts(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let (_, id, name) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some((id, name))
}

fn transport(get: bool, name: &str) -> Transport {
    match name {
        "xhr" if !get => Transport::Xhr,
        "jsonp" => Transport::Jsonp,
        "xhr_send" if !get => Transport::XhrSend,
        "jsonp_send" => Transport::JsonpSend,
        _ => Transport::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let session = |id, transport| Request::Session { id, transport };
        for (method, path, expected) in [
            ("OPTIONS", "/a/b/c/d", Request::Preflight),
            ("GET", "/info", Request::Info),
            ("POST", "/info", Request::Unknown),
            ("GET", "/info/", Request::Unknown),
            ("GET", "/iframe.html", Request::Iframe),
            ("GET", "/iframe-0.3.4.min.html", Request::Iframe),
            ("GET", "/iframe/x.html", Request::Unknown),
            ("GET", "/iframe.htm", Request::Unknown),
            ("GET", "", Request::Unknown),
            ("GET", "/", Request::Unknown),
            ("GET", "/websocket", Request::Unknown),
            ("POST", "/0/s/xhr", session("s", Transport::Xhr)),
            ("GET", "/0/s/xhr", session("s", Transport::Other)),
            ("POST", "//s/xhr_send", session("s", Transport::XhrSend)),
            ("GET", "/0/s/jsonp", session("s", Transport::Jsonp)),
            ("POST", "/0/s.s/jsonp_send", session("s.s", Transport::JsonpSend)),
            ("POST", "/0/s/xhr_streaming", session("s", Transport::Other)),
            ("PUT", "/0/s/xhr", Request::Unknown),
            ("POST", "/0//xhr", Request::Unknown),
            ("POST", "/0/s/xhr/", Request::Unknown),
            ("POST", "0/s/xhr", Request::Unknown),
        ] {
            assert_eq!(request(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn sockets() {
        assert_eq!(socket("/websocket"), Some(Socket::Raw));
        assert_eq!(socket("/0/s/websocket"), Some(Socket::Framed));
        for path in ["", "/", "/websocket/", "/a/b", "/a/b/c/d"] {
            assert_eq!(socket(path), None, "{path}");
        }
    }
}
