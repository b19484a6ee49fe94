//! A response wrapped as a call of the callback (spec/proxy.md §9.3), as a whole or as it comes.

use zhttp::{HeaderBuf, Headers};

use crate::json;

/// How a response is wrapped, and what of its body is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jsonp {
    callback: String,
    extended: bool,
    /// The start of a character, or a line end that may be the last.
    held: Vec<u8>,
}

impl Jsonp {
    /// `extended`: with code, reason and headers; else the body is the argument.
    pub fn new(callback: &str, extended: bool) -> Self {
        Self { callback: callback.to_owned(), extended, held: Vec::new() }
    }

    /// The callback.
    pub fn callback(&self) -> &str {
        &self.callback
    }

    /// Whether code, reason and headers are passed on.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// The headers of the wrapped response; its status is 200 OK. `length`: bytes of its body,
    /// if they are known.
    pub fn headers(original: Headers<'_>, length: Option<usize>) -> HeaderBuf {
        let mut out = HeaderBuf::new();
        out.push("Content-Type", b"application/javascript");
        if let Some(value) = original.get("cache-control") {
            out.push("Cache-Control", value);
        }
        if let Some(length) = length {
            out.push("Content-Length", length.to_string().as_bytes());
        }
        out
    }

    /// Appends what comes before the body.
    pub fn begin(&self, out: &mut Vec<u8>, code: u16, reason: &str, headers: Headers<'_>) {
        out.extend_from_slice(format!("/**/{}(", self.callback).as_bytes());
        if !self.extended {
            return;
        }
        let mut text = format!("{{\"code\": {code}, \"reason\": \"");
        json::escape_into(&mut text, reason);
        text.push_str("\", \"headers\": {");
        let mut sorted: Vec<(&str, &[u8])> = Vec::new();
        for (name, value) in headers.iter() {
            if !sorted.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                sorted.push((name, value));
            }
        }
        sorted.sort();
        for (n, (name, value)) in sorted.iter().enumerate() {
            text.push_str(if n == 0 { "\"" } else { ",\"" });
            json::escape_into(&mut text, name);
            text.push_str("\":\"");
            json::escape_into(&mut text, &String::from_utf8_lossy(value));
            text.push('"');
        }
        text.push_str("}, \"body\": \"");
        out.extend_from_slice(text.as_bytes());
    }

    /// Appends a piece of the body.
    pub fn piece(&mut self, out: &mut Vec<u8>, data: &[u8]) {
        self.held.extend_from_slice(data);
        let whole = if self.extended { utf8_end(&self.held) } else { before_line_end(&self.held) };
        let rest = self.held.split_off(whole);
        let ready = std::mem::replace(&mut self.held, rest);
        self.append(out, &ready);
    }

    fn append(&self, out: &mut Vec<u8>, ready: &[u8]) {
        if !self.extended {
            return out.extend_from_slice(ready);
        }
        let mut text = String::with_capacity(ready.len() + 16);
        json::escape_into(&mut text, &String::from_utf8_lossy(ready));
        out.extend_from_slice(text.as_bytes());
    }

    /// Appends what comes behind the body.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if self.extended {
            self.append(out, &held);
            out.extend_from_slice(b"\"}");
        } else if held == b"\r" {
            out.push(b'\r');
        }
        out.extend_from_slice(b");\n");
    }

    /// Appends what was held back: the body goes on, but not here.
    pub fn let_go(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.append(out, &held);
    }

    /// A whole response: headers and body.
    pub fn whole(
        &mut self,
        code: u16,
        reason: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) -> (HeaderBuf, Vec<u8>) {
        let mut out = Vec::with_capacity(body.len() + 256);
        self.begin(&mut out, code, reason, headers);
        self.piece(&mut out, body);
        self.end(&mut out);
        (Self::headers(headers, Some(out.len())), out)
    }
}

/// How many bytes are whole characters, or can never become any.
fn utf8_end(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    let start = (from..bytes.len()).rev().find(|&at| bytes[at] >= 0xc0);
    let Some(start) = start else { return bytes.len() };
    let size = match bytes[start] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    if start + size > bytes.len() { start } else { bytes.len() }
}

/// How many bytes come before a line end that may be the last.
fn before_line_end(bytes: &[u8]) -> usize {
    let rest = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    rest.strip_suffix(b"\r").unwrap_or(rest).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms() {
        let mut headers = HeaderBuf::new();
        headers.push("X", b"1");
        headers.push("Content-Type", b"text/plain");
        headers.push("x", b"2");
        headers.push("Cache-Control", b"no-cache");
        let (outer, body) =
            Jsonp::new("cb", true).whole(200, "OK", headers.as_headers(), b"hi\n\"");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "/**/cb({\"code\": 200, \"reason\": \"OK\", \"headers\": {\"Cache-Control\":\
             \"no-cache\",\"Content-Type\":\"text/plain\",\"X\":\"1\"}, \"body\": \"hi\\n\\\"\"});\n"
        );
        assert_eq!(outer.as_headers().get("cache-control"), Some(&b"no-cache"[..]));
        for (text, seen) in [("{}\n", "{}"), ("{}\r\n", "{}"), ("a\nb", "a\nb"), ("a\r", "a\r")] {
            let (_, body) =
                Jsonp::new("f", false).whole(404, "No", Headers::EMPTY, text.as_bytes());
            assert_eq!(String::from_utf8(body).unwrap(), format!("/**/f({seen});\n"));
        }
    }

    #[test]
    fn a_body_may_go_on_elsewhere() {
        for (extended, seen) in [
            (
                true,
                "/**/f({\"code\": 200, \"reason\": \"OK\", \"headers\": {}, \
            \"body\": \"a\\nb\\n\"});\n",
            ),
            (false, "/**/f(a\nb);\n"),
        ] {
            let (mut here, mut there) = (Jsonp::new("f", extended), Jsonp::new("f", extended));
            let mut out = Vec::new();
            here.begin(&mut out, 200, "OK", Headers::EMPTY);
            here.piece(&mut out, b"a\n");
            here.let_go(&mut out);
            there.piece(&mut out, b"b\n");
            there.end(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), seen);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_the_same(text in any::<String>(), cut in 1usize..7, extended: bool) {
            let (_, whole) =
                Jsonp::new("f", extended).whole(200, "OK", Headers::EMPTY, text.as_bytes());
            let mut jsonp = Jsonp::new("f", extended);
            let mut out = Vec::new();
            jsonp.begin(&mut out, 200, "OK", Headers::EMPTY);
            text.as_bytes().chunks(cut).for_each(|piece| jsonp.piece(&mut out, piece));
            jsonp.end(&mut out);
            prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole));
        }
    }
}
