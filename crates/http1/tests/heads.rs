//! Request and response heads: what is read, what is refused, and that splits do not matter.

use http1::{BodyKind, HeaderSlots, Reason, Version, parse_request, parse_response};
use proptest::prelude::*;

fn refused(text: &str) -> Reason {
    parse_request(text.as_bytes(), &mut HeaderSlots::new()).expect_err(text)
}

fn request_body(headers: &str) -> Result<(BodyKind, bool), Reason> {
    let text = format!("POST / HTTP/1.1\r\n{headers}\r\n");
    let mut slots = HeaderSlots::new();
    parse_request(text.as_bytes(), &mut slots).map(|head| {
        let head = head.expect("complete");
        assert_eq!(head.size, text.len());
        (head.body, head.persistent)
    })
}

fn response_body(line: &str, headers: &str, to_head: bool) -> Result<(BodyKind, bool), Reason> {
    let text = format!("{line}\r\n{headers}\r\n");
    let mut slots = HeaderSlots::new();
    parse_response(text.as_bytes(), &mut slots, to_head).map(|head| {
        let head = head.expect("complete");
        (head.body, head.persistent)
    })
}

#[test]
fn reads_a_request() {
    let text = b"\r\nGET /a?b=\xc3\xa4 HTTP/1.1\r\nHost: x\nX-One:  1 \r\nx-one: \xff\r\n\r\nrest";
    let mut slots = HeaderSlots::new();
    let head = parse_request(text, &mut slots).unwrap().unwrap();
    assert_eq!((head.method, head.target, head.version), ("GET", "/a?b=ä", Version::V11));
    assert_eq!(head.headers.len(), 3);
    assert_eq!(head.header("HOST"), Some(&b"x"[..]));
    assert_eq!(head.header("X-ONE"), Some(&b"1"[..]));
    assert_eq!(head.headers[2].value, b"\xff");
    assert_eq!(&text[head.size..], b"rest");
    assert_eq!((head.body, head.persistent, head.expects_continue), (BodyKind::None, true, false));
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    let cases = [
        ("GET / HTTP/1.2\r\n\r\n", Reason::Version),
        ("GET / HTTP/2.0\r\n\r\n", Reason::Version),
        ("G@T / HTTP/1.1\r\n\r\n", Reason::Token),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Reason::HeaderName),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Reason::HeaderName),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", Reason::HeaderName),
        ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Reason::HeaderValue),
        ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Reason::HeaderValue),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", Reason::NewLine),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::LengthAndEncoding,
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::TransferEncoding),
    ];
    for (text, reason) in cases {
        assert_eq!(refused(text), reason, "{text:?}");
    }
}

#[test]
fn limits_the_number_of_headers() {
    let with = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
    let text = with(64);
    let mut slots = HeaderSlots::new();
    assert_eq!(parse_request(text.as_bytes(), &mut slots).unwrap().unwrap().headers.len(), 64);
    assert_eq!(refused(&with(65)), Reason::TooManyHeaders);
}

#[test]
fn frames_request_bodies() {
    let length = |n| Ok((BodyKind::Length(n), true));
    let chunked = Ok((BodyKind::Chunked, true));
    assert_eq!(request_body(""), Ok((BodyKind::None, true)));
    assert_eq!(request_body("content-LENGTH: 12\r\n"), length(12));
    assert_eq!(request_body("Content-Length: 0\r\n"), length(0));
    assert_eq!(request_body("Content-Length: 5\r\nContent-Length: 5\r\n"), length(5));
    assert_eq!(request_body("Transfer-Encoding: Chunked\r\n"), chunked);
    for bad in ["-1", "+1", "0x1", "1 2", "1, 1", "", "18446744073709551616", "1.0"] {
        let text = format!("Content-Length: {bad}\r\n");
        assert_eq!(request_body(&text), Err(Reason::ContentLength), "{bad}");
    }
    let twice = "Content-Length: 5\r\nContent-Length: 6\r\n";
    assert_eq!(request_body(twice), Err(Reason::ContentLength));
    for bad in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
        let text = format!("Transfer-Encoding: {bad}\r\n");
        assert_eq!(request_body(&text), Err(Reason::TransferEncoding), "{bad}");
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(request_body(twice), Err(Reason::TransferEncoding));
}

#[test]
fn decides_persistence() {
    let of = |version: &str, headers: &str| {
        let text = format!("GET / {version}\r\n{headers}\r\n");
        let mut slots = HeaderSlots::new();
        parse_request(text.as_bytes(), &mut slots).unwrap().unwrap().persistent
    };
    assert!(of("HTTP/1.1", ""));
    assert!(!of("HTTP/1.1", "Connection: Close\r\n"));
    assert!(!of("HTTP/1.1", "Connection: upgrade ,\tCLOSE\r\n"));
    assert!(!of("HTTP/1.0", ""));
    assert!(of("HTTP/1.0", "connection: Keep-Alive\r\n"));
    assert!(!of("HTTP/1.0", "Connection: keep-alive\r\nConnection: close\r\n"));
}

#[test]
fn expects_continue_only_with_a_body() {
    let of = |version: &str, headers: &str| {
        let text = format!("POST / {version}\r\nExpect: 100-Continue\r\n{headers}\r\n");
        let mut slots = HeaderSlots::new();
        parse_request(text.as_bytes(), &mut slots).unwrap().unwrap().expects_continue
    };
    assert!(of("HTTP/1.1", "Content-Length: 1\r\n"));
    assert!(of("HTTP/1.1", "Transfer-Encoding: chunked\r\n"));
    assert!(!of("HTTP/1.1", "Content-Length: 0\r\n"));
    assert!(!of("HTTP/1.1", ""));
    assert!(!of("HTTP/1.0", "Content-Length: 1\r\n"));
}

#[test]
fn frames_response_bodies() {
    let ok = "HTTP/1.1 200 OK";
    assert_eq!(response_body(ok, "", false), Ok((BodyKind::Close, false)));
    assert_eq!(response_body(ok, "Content-Length: 3\r\n", false), Ok((BodyKind::Length(3), true)));
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(response_body(ok, chunked, false), Ok((BodyKind::Chunked, true)));
    assert_eq!(response_body("HTTP/1.0 200 OK", chunked, false), Ok((BodyKind::Chunked, false)));
    assert_eq!(response_body(ok, "Content-Length: 3\r\n", true), Ok((BodyKind::None, true)));
    for line in ["HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 103 Early"] {
        let kind = response_body(line, "Content-Length: 3\r\n", false);
        assert_eq!(kind, Ok((BodyKind::None, true)), "{line}");
    }
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(response_body(ok, both, false), Err(Reason::LengthAndEncoding));
    let keep = "Connection: keep-alive\r\nContent-Length: 3\r\n";
    assert_eq!(response_body("HTTP/1.0 200 OK", keep, false), Ok((BodyKind::Length(3), true)));
}

#[test]
fn reads_a_response() {
    let text = b"HTTP/1.1 503 Try \xfflater\r\nRetry-After: 1\r\n\r\n";
    let mut slots = HeaderSlots::new();
    let head = parse_response(text, &mut slots, false).unwrap().unwrap();
    assert_eq!((head.code, head.reason, head.size), (503, "", text.len()));
    assert_eq!(head.header("retry-after"), Some(&b"1"[..]));
    let mut slots = HeaderSlots::new();
    let bad = parse_response(b"HTTP/1.1 2x0 OK\r\n\r\n", &mut slots, false);
    assert_eq!(bad.err(), Some(Reason::Status));
}

/// The outcome of a parse without borrows: method, target, size, body, persistence.
type Outcome = Result<Option<(String, String, usize, BodyKind, bool)>, Reason>;

fn outcome(buf: &[u8]) -> Outcome {
    let mut slots = HeaderSlots::new();
    Ok(parse_request(buf, &mut slots)?
        .map(|h| (h.method.into(), h.target.into(), h.size, h.body, h.persistent)))
}

/// Feeds growing prefixes, as a reader does after each read.
fn fed(buf: &[u8], cuts: &[usize]) -> Outcome {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (buf.len() + 1)).collect();
    ends.push(buf.len());
    ends.sort_unstable();
    let mut last = Ok(None);
    for end in ends {
        last = outcome(&buf[..end]);
        if !matches!(last, Ok(None)) {
            break;
        }
    }
    last
}

fn near_request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("GET / HTTP/1.1\r\n"),
        Just("POST /x HTTP/1.0\n"),
        Just("A  B HTTP/1.1\r\n"),
        Just("GET / HTTP/1.9\r\n"),
        Just("GET /\rHTTP/1.1\r\n"),
    ];
    let header = prop_oneof![
        Just("Host: a\r\n"),
        Just("Content-Length: 5\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("Connection: close\r\n"),
        Just("Bad Name: x\r\n"),
        Just(" folded\r\n"),
        Just("X:\r\r\n"),
        Just("Y: \x01\r\n"),
        Just("\r\n"),
    ];
    (line, proptest::collection::vec(header, 0..6))
        .prop_map(|(line, headers)| format!("{line}{}\r\nbody", headers.concat()).into_bytes())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_head(buf in near_request(), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        prop_assert_eq!(fed(&buf, &cuts), outcome(&buf));
    }

    #[test]
    fn no_bytes_panic(buf in proptest::collection::vec(any::<u8>(), 0..400), head in any::<bool>()) {
        let _ = parse_request(&buf, &mut HeaderSlots::new());
        let _ = parse_response(&buf, &mut HeaderSlots::new(), head);
    }
}
