//! What the proxy does to responses, and those that it makes itself (spec/proxy.md §6, §13).

use zhttp::{HeaderBuf, Headers};

use crate::forward::has_prefix;

/// Headers of a backend's response that no client gets.
const REMOVED: [&str; 4] = ["connection", "keep-alive", "content-encoding", "transfer-encoding"];

/// A response whose head is not sent yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub code: u16,
    pub reason: String,
    pub headers: HeaderBuf,
}

/// Whether a backend's response has instructions for the handler (spec §6.1).
pub(crate) fn is_grip(headers: &[http1::Header<'_>]) -> bool {
    headers.iter().any(|h| {
        has_prefix(h.name, "grip-")
            || (h.name.eq_ignore_ascii_case("content-type")
                && h.value.split(|&b| b == b';').next() == Some(b"application/grip-instruct"))
    })
}

/// The headers as they came.
pub(crate) fn keep_all(headers: &[http1::Header<'_>]) -> HeaderBuf {
    let mut kept = HeaderBuf::new();
    headers.iter().for_each(|h| kept.push(h.name, h.value));
    kept
}

pub(crate) fn is_removed(name: &str) -> bool {
    matches!(name.len(), 10 | 16 | 17) && REMOVED.iter().any(|r| name.eq_ignore_ascii_case(r))
}

/// The headers of an ordinary response (spec §6.2).
pub(crate) fn ordinary(headers: &[http1::Header<'_>]) -> HeaderBuf {
    let mut kept = HeaderBuf::new();
    headers.iter().filter(|h| !is_removed(h.name)).for_each(|h| kept.push(h.name, h.value));
    kept
}

/// Whether a response that is too large to be collected may be sent before `accept` (spec §6.3).
pub(crate) fn may_send_first(headers: Headers<'_>) -> bool {
    let first = |wanted: &str| headers.get(wanted);
    let streams = match first("grip-hold") {
        Some(hold) => hold == b"stream",
        None => named(headers, "grip-link").any(|value| has_parameter(value, "rel=next")),
    };
    streams && !named(headers, "grip-channel").any(|value| has_parameter(value, "filter=build-id"))
}

fn named<'a>(headers: Headers<'a>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Whether one of the parts between `;` and `,` is that parameter.
fn has_parameter(value: &[u8], parameter: &str) -> bool {
    value.split(|b| matches!(b, b';' | b',')).any(|part| {
        let part: Vec<u8> = http1::trim(part).iter().copied().filter(|&b| b != b'"').collect();
        part == parameter.as_bytes()
    })
}

/// The head of a GRIP response that is sent before `accept`. Nothing if its Grip-Status is none.
pub(crate) fn sent_first(code: u16, reason: &str, headers: Headers<'_>) -> Option<Head> {
    let (code, reason) = match headers.get("grip-status") {
        Some(value) => parse_status(value)?,
        None => (code, reason.to_owned()),
    };
    let mut kept = HeaderBuf::new();
    for (name, value) in headers.iter() {
        let length = name.eq_ignore_ascii_case("content-length");
        if !(length || is_removed(name) || has_prefix(name, "grip-")) {
            kept.push(name, value);
        }
    }
    Some(Head { code, reason, headers: kept })
}

/// `<code>[ <reason>]`
fn parse_status(value: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    let code: u16 = code.parse().ok().filter(|code| *code <= 999)?;
    let reason = if reason.is_empty() { grip::reason(code) } else { reason };
    Some((code, reason.to_owned()))
}

/// A `text/plain` answer of the proxy; `text` gets its newline here.
pub(crate) fn plain(code: u16, text: &str) -> (Head, Vec<u8>) {
    let body = format!("{text}\n").into_bytes();
    let mut headers = HeaderBuf::new();
    headers.push("Content-Type", b"text/plain");
    headers.push("Content-Length", body.len().to_string().as_bytes());
    (Head { code, reason: grip::reason(code).to_owned(), headers }, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(name: &'a str, value: &'a str) -> http1::Header<'a> {
        http1::Header { name, value: value.as_bytes() }
    }

    fn list(of: &[(&str, &str)]) -> HeaderBuf {
        let mut list = HeaderBuf::new();
        of.iter().for_each(|(name, value)| list.push(name, value.as_bytes()));
        list
    }

    #[test]
    fn grip_is_seen_by_header_or_type() {
        assert!(is_grip(&[header("gRIP-Hold", "stream")]));
        assert!(is_grip(&[header("Content-Type", "application/grip-instruct; charset=x")]));
        for (name, value) in [
            ("Content-Type", "Application/grip-instruct"),
            ("Content-Type", "application/grip-instruct "),
            ("X-Grip", "1"),
            ("Grip", "1"),
        ] {
            assert!(!is_grip(&[header(name, value)]), "{name}: {value}");
        }
    }

    #[test]
    fn hop_headers_of_responses_go() {
        let seen = ordinary(&[
            header("Connection", "close"),
            header("Content-Length", "1"),
            header("TRANSFER-ENCODING", "chunked"),
            header("Content-Encoding", "x"),
            header("Keep-Alive", "1"),
            header("Set-Cookie", "a"),
        ]);
        let names: Vec<_> = seen.as_headers().iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["Content-Length", "Set-Cookie"]);
    }

    #[test]
    fn which_large_responses_may_be_sent_first() {
        for (headers, may) in [
            (list(&[("Grip-Hold", "stream")]), true),
            (list(&[("Grip-Hold", "response")]), false),
            (list(&[("Grip-Link", "</n>; rel=next")]), true),
            (list(&[("Grip-Link", "</n>; rel=\"next\"")]), true),
            (list(&[("Grip-Link", "</n>; rel=gone")]), false),
            (list(&[("Grip-Hold", "stream"), ("Grip-Channel", "a, b; filter=build-id")]), false),
            (list(&[("Content-Type", "application/grip-instruct")]), false),
        ] {
            assert_eq!(may_send_first(headers.as_headers()), may, "{headers:?}");
        }
        let original = list(&[("Grip-Status", "404"), ("Content-Length", "5"), ("A", "b")]);
        let head = sent_first(200, "OK", original.as_headers()).unwrap();
        assert_eq!((head.code, head.reason.as_str()), (404, "Not Found"));
        assert_eq!(head.headers, list(&[("A", "b")]));
        for (status, seen) in [
            ("410", Some((410, "Gone"))),
            ("777", Some((777, "Undefined Reason"))),
            ("299 My own", Some((299, "My own"))),
            ("1000", None),
            ("-1", None),
            ("x", None),
        ] {
            let head = sent_first(200, "OK", list(&[("Grip-Status", status)]).as_headers());
            let head = head.as_ref().map(|head| (head.code, head.reason.as_str()));
            assert_eq!(head, seen, "{status}");
        }
    }

    #[test]
    fn plain_answers() {
        let (head, body) = plain(502, "Route not found");
        assert_eq!((head.code, head.reason.as_str()), (502, "Bad Gateway"));
        assert_eq!(head.headers, list(&[("Content-Type", "text/plain"), ("Content-Length", "16")]));
        assert_eq!(body, b"Route not found\n");
    }
}
