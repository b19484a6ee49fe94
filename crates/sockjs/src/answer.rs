//! Answers to requests over HTTP.

use std::fmt::Write as _;

use md5::{Digest, Md5};
use zhttp::{HeaderBuf, Headers};

use crate::escape::quoted;

/// A whole answer, but for [`add_common`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub code: u16,
    /// Its words.
    pub reason: &'static str,
    /// Headers of its own.
    pub headers: HeaderBuf,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    fn new(code: u16, reason: &'static str, kind: &str, body: Vec<u8>) -> Self {
        let mut headers = HeaderBuf::new();
        headers.push("Content-Type", kind.as_bytes());
        Self { code, reason, headers, body }
    }

    /// A text for what cannot be done.
    pub fn error(code: u16, reason: &'static str, text: &str) -> Self {
        Self::new(code, reason, "text/plain", format!("{text}\n").into_bytes())
    }

    /// There is no such thing.
    pub fn not_found() -> Self {
        Self::error(404, "Not Found", "Not Found")
    }

    /// The client asks wrongly.
    pub fn bad_request(text: &str) -> Self {
        Self::error(400, "Bad Request", text)
    }

    /// Other origins may ask.
    pub fn preflight() -> Self {
        Self::new(204, "No Content", "text/plain", Vec::new())
    }

    /// What the server can do. `entropy`: a random number for the client.
    pub fn info(entropy: u32) -> Self {
        let body = format!(
            "{{\"cookie_needed\":false,\"entropy\":{entropy},\"origins\":[\"*:*\"],\"websocket\":true}}\n"
        );
        Self::new(200, "OK", "text/plain", body.into_bytes())
    }

    /// A frame for a client that polls; as a call of its function if it named one.
    pub fn frame(frame: &[u8], callback: Option<&str>) -> Self {
        match callback {
            Some(callback) => Self::call(frame, callback),
            None => Self::new(200, "OK", "text/plain", [frame, b"\n"].concat()),
        }
    }

    /// Messages were taken.
    pub fn ok(callback: Option<&str>) -> Self {
        match callback {
            Some(callback) => Self::call(b"ok", callback),
            None => Self::new(200, "OK", "text/plain", b"ok".to_vec()),
        }
    }

    fn call(text: &[u8], callback: &str) -> Self {
        // These two end a line in scripts, though not in JSON.
        let text = quoted(&String::from_utf8_lossy(text));
        let text = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        let body = format!("/**/{callback}({text});\n");
        Self::new(200, "OK", "application/javascript", body.into_bytes())
    }
}

/// Adds what every answer has. `request`: the headers of the request.
pub fn add_common(headers: &mut HeaderBuf, request: Headers<'_>) {
    headers.push("Cache-Control", b"no-store, no-cache, must-revalidate, max-age=0");
    headers.push("Access-Control-Allow-Origin", request.get("origin").unwrap_or(b"*"));
    headers.push("Access-Control-Allow-Credentials", b"true");
}

/// The page that old browsers load into a frame, so that it may ask this server.
#[derive(Clone, Debug, Default)]
pub struct Page {
    html: String,
    tag: String,
}

impl Page {
    /// `script`: the address of the client library.
    pub fn new(script: &str) -> Self {
        let mut address = String::with_capacity(script.len());
        for c in script.chars() {
            match c {
                '"' => address.push_str("&quot;"),
                '<' => address.push_str("&lt;"),
                c => address.push(c),
            }
        }
        let html = include_str!("iframe.html").replace("{script}", &address);
        let mut tag = String::from("\"");
        for byte in Md5::digest(html.as_bytes()) {
            // Writing to a String cannot fail.
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        Self { html, tag }
    }

    /// The page, or that the client's copy is good. `request`: the headers of the request.
    pub fn answer(&self, request: Headers<'_>) -> Answer {
        let mut headers = HeaderBuf::new();
        headers.push("ETag", self.tag.as_bytes());
        if request.get("if-none-match") == Some(self.tag.as_bytes()) {
            return Answer { code: 304, reason: "Not Modified", headers, body: Vec::new() };
        }
        headers.push("Content-Type", b"text/html; charset=UTF-8");
        headers.push("Cache-Control", b"public, max-age=31536000");
        Answer { code: 200, reason: "OK", headers, body: self.html.clone().into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: Answer) -> String {
        String::from_utf8(answer.body).unwrap()
    }

    #[test]
    fn bodies() {
        assert_eq!(body(Answer::not_found()), "Not Found\n");
        assert_eq!(body(Answer::frame(b"o", None)), "o\n");
        assert_eq!(body(Answer::ok(None)), "ok");
        assert_eq!(body(Answer::ok(Some("f"))), "/**/f(\"ok\");\n");
        assert_eq!(
            body(Answer::frame("a[\"\\\"\u{2028}\"]".as_bytes(), Some("a.b"))),
            "/**/a.b(\"a[\\\"\\\\\\\"\\u2028\\\"]\");\n"
        );
        assert_eq!(
            body(Answer::info(7)),
            "{\"cookie_needed\":false,\"entropy\":7,\"origins\":[\"*:*\"],\"websocket\":true}\n"
        );
    }

    #[test]
    fn the_page_and_its_tag() {
        let page = Page::new("http://x/\"s.js");
        let mut asked = HeaderBuf::new();
        let first = page.answer(asked.as_headers());
        assert_eq!(first.code, 200);
        let tag = first.headers.as_headers().get("etag").unwrap().to_vec();
        assert_eq!((tag.len(), tag[0]), (34, b'"'));
        assert!(body(first).contains("<script src=\"http://x/&quot;s.js\"></script>"));
        asked.push("If-None-Match", &tag);
        let again = page.answer(asked.as_headers());
        assert_eq!((again.code, again.body.len()), (304, 0));
    }

    #[test]
    fn every_answer_may_be_read_by_other_origins() {
        let (mut asked, mut out) = (HeaderBuf::new(), HeaderBuf::new());
        add_common(&mut out, asked.as_headers());
        assert_eq!(out.as_headers().get("access-control-allow-origin"), Some(&b"*"[..]));
        asked.push("Origin", b"http://o");
        let mut out = HeaderBuf::new();
        add_common(&mut out, asked.as_headers());
        assert_eq!(out.as_headers().get("access-control-allow-origin"), Some(&b"http://o"[..]));
    }
}
