//! The built-in test backend (spec/proxy.md §2.3).

use zhttp::HeaderBuf;

use crate::response::Head;

/// Largest request body that is swallowed.
pub(crate) const BODY_MAX: usize = 100_000;

/// The answer for a path (rewritten) and a query.
pub(crate) fn answer(path: &str, query: Option<&str>, body_size: usize) -> (Head, &'static str) {
    if body_size > BODY_MAX {
        return text(400, "request too large\n", None, query);
    }
    match resource(path).as_str() {
        "/" => text(200, "Hello from the Pushpin test handler!\n", None, query),
        "/response" => text(200, "nothing for now\n", Some("response"), query),
        "/stream" => text(200, "[stream opened]\n", Some("stream"), query),
        _ => text(404, "no such test resource\n", None, query),
    }
}

/// What a path means: decoded, without one slash at its end.
pub(crate) fn resource(path: &str) -> String {
    let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    percent_decode(path)
}

fn text(
    code: u16,
    body: &'static str,
    hold: Option<&str>,
    query: Option<&str>,
) -> (Head, &'static str) {
    let mut headers = HeaderBuf::new();
    headers.push("Content-Type", b"text/plain");
    if let Some(hold) = hold {
        headers.push("Grip-Hold", hold.as_bytes());
        headers.push("Grip-Channel", channels(query.unwrap_or("")).join(", ").as_bytes());
    }
    (Head { code, reason: grip::reason(code).to_owned(), headers }, body)
}

/// The `channel` parameters, each once.
pub(crate) fn channels(query: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for value in query.split('&').filter_map(|part| part.strip_prefix("channel=")) {
        let name = percent_decode(value);
        // What would end a header is no channel.
        if !found.contains(&name) && !name.contains(['\r', '\n', '\0']) {
            found.push(name);
        }
    }
    if found.is_empty() {
        found.push("test".to_owned());
    }
    found
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources() {
        for (path, code, body) in [
            ("/", 200, "Hello from the Pushpin test handler!\n"),
            ("/response", 200, "nothing for now\n"),
            ("/stream/", 200, "[stream opened]\n"),
            ("/%73tream", 200, "[stream opened]\n"),
            ("", 404, "no such test resource\n"),
            ("/other", 404, "no such test resource\n"),
            ("/stream//", 404, "no such test resource\n"),
        ] {
            let (head, text) = answer(path, None, 0);
            assert_eq!((head.code, text), (code, body), "{path}");
        }
        assert_eq!(answer("/", None, BODY_MAX + 1).0.code, 400);
    }

    #[test]
    fn channels_of_the_query() {
        let (head, _) = answer("/stream", Some("x=1&channel=a%20b&channel=c&channel=c"), 0);
        assert_eq!(head.headers.as_headers().get("grip-channel"), Some(&b"a b, c"[..]));
        assert_eq!(channels("y"), ["test"]);
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
    }
}
