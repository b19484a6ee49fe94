//! The writers: order on the wire, headers that are ours, and that no value adds a line.

use http1::write::{self, Request, Response};
use http1::{BodyKind, HeaderSlots, Reason, Version, parse_request, parse_response};
use proptest::prelude::*;

type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

fn response(version: Version, code: u16, persistent: bool, body: BodyKind) -> Response<'static> {
    Response { version, code, reason: b"R", persistent, body }
}

fn written(parts: &Response<'_>, headers: &Pairs<'_>) -> String {
    let mut out = Vec::new();
    write::response(&mut out, parts, headers.iter().copied()).expect("writable");
    String::from_utf8(out).expect("text")
}

#[test]
fn writes_a_response_head_in_order() {
    let headers: Pairs<'_> = vec![
        (b"X-A", b"1"),
        (b"connection", b"x"),
        (b"CONTENT-LENGTH", b"9"),
        (b"Transfer-encoding", b"gzip"),
        (b"x-a", b"2"),
    ];
    let parts = response(Version::V11, 200, false, BodyKind::Chunked);
    assert_eq!(
        written(&parts, &headers),
        "HTTP/1.1 200 R\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\n\
         Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let parts = response(Version::V10, 200, true, BodyKind::Length(0));
    assert_eq!(
        written(&parts, &vec![]),
        "HTTP/1.0 200 R\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
    );
    let parts = response(Version::V11, 304, true, BodyKind::None);
    assert_eq!(written(&parts, &vec![]), "HTTP/1.1 304 R\r\n\r\n");
    let parts = response(Version::V10, 200, false, BodyKind::Close);
    assert_eq!(written(&parts, &vec![]), "HTTP/1.0 200 R\r\n\r\n");
}

#[test]
fn keeps_connection_for_an_upgrade() {
    let headers: Pairs<'_> = vec![(b"Connection", b"Upgrade"), (b"Content-Length", b"0")];
    let parts = response(Version::V11, 101, true, BodyKind::None);
    assert_eq!(written(&parts, &headers), "HTTP/1.1 101 R\r\nConnection: Upgrade\r\n\r\n");
}

#[test]
fn writes_a_request_head() {
    let of = |method: &'static [u8], body| {
        let mut out = Vec::new();
        let parts = Request { method, target: b"/a?b", host: b"h:8", body };
        let headers: Pairs<'_> = vec![(b"host", b"other"), (b"A", b"b"), (b"Connection", b"close")];
        write::request(&mut out, &parts, headers).expect("writable");
        String::from_utf8(out).expect("text")
    };
    assert_eq!(of(b"GET", BodyKind::Length(0)), "GET /a?b HTTP/1.1\r\nHost: h:8\r\nA: b\r\n\r\n");
    assert_eq!(
        of(b"POST", BodyKind::Length(0)),
        "POST /a?b HTTP/1.1\r\nHost: h:8\r\nA: b\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(
        of(b"GET", BodyKind::Chunked),
        "GET /a?b HTTP/1.1\r\nHost: h:8\r\nA: b\r\nConnection: Transfer-Encoding\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn refuses_values_that_would_add_lines() {
    let parts = response(Version::V11, 200, true, BodyKind::None);
    let bad: [(Pairs<'_>, Reason); 4] = [
        (vec![(b"A", b"b\r\nC: d")], Reason::HeaderValue),
        (vec![(b"A", b"b\0")], Reason::HeaderValue),
        (vec![(b"A: b", b"c")], Reason::HeaderName),
        (vec![(b"", b"c")], Reason::HeaderName),
    ];
    for (headers, reason) in bad {
        let mut out = b"before".to_vec();
        assert_eq!(write::response(&mut out, &parts, headers), Err(reason));
        assert_eq!(out, b"before");
    }
    let parts = Response { reason: b"a\nb", ..parts };
    assert_eq!(write::response(&mut Vec::new(), &parts, Pairs::new()), Err(Reason::Status));
    let parts = Response { reason: b"", code: 99, ..parts };
    assert_eq!(write::response(&mut Vec::new(), &parts, Pairs::new()), Err(Reason::Status));
    let parts = Request { method: b"GET", target: b"/a b", host: b"h", body: BodyKind::None };
    assert_eq!(write::request(&mut Vec::new(), &parts, Pairs::new()), Err(Reason::Token));
}

#[test]
fn limits_the_number_of_headers_written() {
    let parts = response(Version::V11, 200, true, BodyKind::None);
    let header: (&[u8], &[u8]) = (b"A", b"b");
    let dropped: (&[u8], &[u8]) = (b"Connection", b"b");
    let mut headers = vec![header; 64];
    headers.push(dropped);
    assert!(write::response(&mut Vec::new(), &parts, headers.clone()).is_ok());
    headers.push(header);
    assert_eq!(write::response(&mut Vec::new(), &parts, headers), Err(Reason::TooManyHeaders));
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(
        code in 200u16..599,
        names in proptest::collection::vec("[A-Za-z-]{1,12}", 0..8),
        value in "[ -~]{0,30}",
        persistent in any::<bool>(),
        length in any::<u64>(),
    ) {
        let headers: Pairs<'_> = names.iter().map(|n| (n.as_bytes(), value.as_bytes())).collect();
        let none = BodyKind::forbidden_by(code);
        let body = if none { BodyKind::None } else { BodyKind::Length(length) };
        let parts = Response { version: Version::V11, code, reason: b"Fine", persistent, body };
        let mut out = Vec::new();
        write::response(&mut out, &parts, headers).unwrap();
        let mut slots = HeaderSlots::new();
        let head = parse_response(&out, &mut slots, false).unwrap().unwrap();
        prop_assert_eq!((head.code, head.body, head.persistent), (code, body, persistent));
        prop_assert_eq!(head.size, out.len());
    }

    #[test]
    fn no_bytes_add_a_line(name in proptest::collection::vec(any::<u8>(), 0..8), value in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut out = Vec::new();
        let parts = Request { method: b"GET", target: b"/", host: b"h", body: BodyKind::None };
        if write::request(&mut out, &parts, [(&name[..], &value[..])]).is_ok() {
            let mut slots = HeaderSlots::new();
            let head = parse_request(&out, &mut slots).unwrap().unwrap();
            prop_assert!(head.headers.len() <= 2);
            prop_assert_eq!(head.size, out.len());
        }
    }
}
