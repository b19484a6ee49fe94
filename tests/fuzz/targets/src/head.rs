//! Request and response heads: sizes, prefixes, and that what is written again reads the same.

use http1::write::{self, Request, Response};
use http1::{BodyKind, Header, HeaderSlots, RequestHead, ResponseHead};
use http1::{parse_request, parse_response};

/// Reads the bytes as a request head, as a response head, and as one to HEAD.
pub fn head(data: &[u8]) {
    let mut slots = HeaderSlots::new();
    if let Ok(Some(head)) = parse_request(data, &mut slots) {
        check_size(data, head.size, |part| {
            matches!(parse_request(part, &mut HeaderSlots::new()), Ok(None))
        });
        assert!(head.body != BodyKind::Close, "a request cannot end by closing");
        rewrite_request(&head);
    }
    for to_head in [false, true] {
        let mut slots = HeaderSlots::new();
        if let Ok(Some(head)) = parse_response(data, &mut slots, to_head) {
            check_size(data, head.size, |part| {
                matches!(parse_response(part, &mut HeaderSlots::new(), to_head), Ok(None))
            });
            rewrite_response(&head, to_head);
        }
    }
}

/// No shorter piece of a complete head is a head, or is refused.
fn check_size(data: &[u8], size: usize, incomplete: impl Fn(&[u8]) -> bool) {
    assert!(0 < size && size <= data.len());
    for cut in [0, size / 4, size / 2, size * 3 / 4, size - 1] {
        assert!(incomplete(&data[..cut]), "complete or refused at {cut} of {size}");
    }
}

fn pairs<'a>(headers: &'a [Header<'_>]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    headers.iter().map(|h| (h.name.as_bytes(), h.value))
}

fn kept<'a>(headers: &'a [Header<'_>], also: &str) -> Vec<(&'a str, &'a [u8])> {
    let ours = |name: &str| write::is_framing(name.as_bytes()) || name.eq_ignore_ascii_case(also);
    headers.iter().filter(|h| !ours(h.name)).map(|h| (h.name, h.value)).collect()
}

fn rewrite_request(head: &RequestHead<'_, '_>) {
    let parts = Request {
        method: head.method.as_bytes(),
        target: head.target.as_bytes(),
        host: b"h",
        body: head.body,
    };
    let mut out = Vec::new();
    // All that was read can be written; only the added Host may be one header too many.
    if let Err(reason) = write::request(&mut out, &parts, pairs(head.headers)) {
        return assert_eq!(reason, http1::Reason::TooManyHeaders);
    }
    let mut slots = HeaderSlots::new();
    match parse_request(&out, &mut slots) {
        Ok(Some(again)) => {
            assert_eq!((again.method, again.target), (head.method, head.target));
            assert_eq!(again.size, out.len());
            assert_eq!(kept(again.headers, "host"), kept(head.headers, "host"));
            assert_eq!(again.body.is_empty(), head.body.is_empty());
        }
        // Host, and the two headers that announce a body, may be too many.
        other => assert_eq!(other.err(), Some(http1::Reason::TooManyHeaders)),
    }
}

fn rewrite_response(head: &ResponseHead<'_, '_>, to_head: bool) {
    let parts = Response {
        version: head.version,
        code: head.code,
        reason: head.reason.as_bytes(),
        persistent: head.persistent,
        body: head.body,
    };
    let mut out = Vec::new();
    // `parse_response` takes any three digits.
    if let Err(reason) = write::response(&mut out, &parts, pairs(head.headers)) {
        return assert!(reason == http1::Reason::Status, "{reason}");
    }
    let mut slots = HeaderSlots::new();
    match parse_response(&out, &mut slots, to_head) {
        Ok(Some(again)) => {
            assert_eq!((again.code, again.reason, again.body), (head.code, head.reason, head.body));
            let upgrade = if head.code == 101 { "connection" } else { "" };
            assert_eq!(kept(again.headers, upgrade), kept(head.headers, upgrade));
        }
        other => assert_eq!(other.err(), Some(http1::Reason::TooManyHeaders)),
    }
}
