//! One publish over HTTP/1.0: a request, the whole answer, done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http1::{Decoder, HeaderSlots, parse_response};
use url::Url;

use crate::{Auth, Error, tls};

/// A server that says nothing for so long is taken as dead.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest answer that is read; the rest of a longer one would only be an error text.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// Posts `body` to the publish path under the GRIP URL.
///
/// # Errors
/// As for [`crate::send`].
pub fn send(spec: &str, auth: Option<&Auth>, body: &[u8]) -> Result<(), Error> {
    let url = Url::parse(spec).map_err(|_| Error::new("invalid URL"))?;
    let secure = url.scheme() == "https";
    if auth.is_some() && !secure {
        return Err(Error::new("Authentication requires https"));
    }
    let host = url.host_str().ok_or_else(|| Error::new("invalid URL"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let plain = connect(host, port)?;
    let request = encode(&url, host, auth, body);
    let answer = match secure {
        true => exchange(tls::connect(host, plain)?, &request),
        false => exchange(plain, &request),
    }?;
    check(&answer)
}

fn connect(host: &str, port: u16) -> Result<TcpStream, Error> {
    // an IPv6 address comes in brackets
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port))
        .map_err(|error| Error::new(format!("failed to connect to {host}:{port}: {error}")))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

fn encode(url: &Url, host: &str, auth: Option<&Auth>, body: &[u8]) -> Vec<u8> {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().trim_end_matches('/');
    let auth = match auth {
        Some(Auth::Basic(pair)) => format!("Authorization: Basic {}\r\n", STANDARD.encode(pair)),
        Some(Auth::Bearer(token)) => format!("Authorization: Bearer {token}\r\n"),
        None => String::new(),
    };
    let length = body.len();
    let head = format!(
        "POST {path}/publish/ HTTP/1.0\r\nHost: {host}{port}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{auth}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Writes the request and reads until the server closes. A close without TLS's good-bye ends the
/// answer too, since its length is checked.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Result<Vec<u8>, Error> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() as u64 <= ANSWER_MAX_BYTES && !is_complete(&answer) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => answer.extend_from_slice(&buffer[..size]),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}

/// Whether nothing more needs to be read.
fn is_complete(answer: &[u8]) -> bool {
    matches!(parse(answer), Ok(Some((_, _, true))))
}

/// Status and body of what has come so far, and whether the body is whole. `None`: no whole head.
fn parse(answer: &[u8]) -> Result<Option<(u16, Vec<u8>, bool)>, Error> {
    let bad = |_| Error::new("bad response");
    let mut slots = HeaderSlots::new();
    let Some(head) = parse_response(answer, &mut slots, false).map_err(bad)? else {
        return Ok(None);
    };
    let mut decoder = Decoder::new(head.body);
    let (mut at, mut body) = (head.size, Vec::new());
    loop {
        let part = decoder.decode(&answer[at..], usize::MAX).map_err(bad)?;
        body.extend_from_slice(&answer[at..][part.data.clone()]);
        at += part.consumed;
        if part.end || part.consumed == 0 {
            return Ok(Some((head.code, body, part.end)));
        }
    }
}

fn check(answer: &[u8]) -> Result<(), Error> {
    match parse(answer)? {
        None => Err(Error::new("the server closed the connection without an answer")),
        Some((200, ..)) => Ok(()),
        Some((code, body, _)) => {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            Err(Error(if text.is_empty() { format!("response code {code}") } else { text }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(spec: &str, auth: Option<&Auth>) -> String {
        let url = Url::parse(spec).unwrap();
        let request = encode(&url, url.host_str().unwrap(), auth, b"{}");
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn the_request_line_and_host() {
        let rest = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        for (spec, path, host) in [
            ("http://localhost:5561", "/publish/", "localhost:5561"),
            ("http://a.b/", "/publish/", "a.b"),
            ("http://[::1]:99/x/y/?iss=a&key=b", "/x/y/publish/", "[::1]:99"),
        ] {
            let expected = format!("POST {path} HTTP/1.0\r\nHost: {host}\r\n{rest}");
            assert_eq!(head(spec, None), expected);
        }
    }

    #[test]
    fn authorization() {
        let basic = head("https://h/", Some(&Auth::Basic("a:b".into())));
        assert!(basic.contains("Content-Length: 2\r\nAuthorization: Basic YTpi\r\n\r\n"));
        let bearer = head("https://h/", Some(&Auth::Bearer("t".into())));
        assert!(bearer.contains("\r\nAuthorization: Bearer t\r\n\r\n"));
    }

    #[test]
    fn authentication_only_over_https() {
        let auth = Auth::Bearer("t".into());
        let error = send("http://127.0.0.1:1/", Some(&auth), b"").unwrap_err();
        assert_eq!(error.to_string(), "Authentication requires https");
        assert_eq!(send("http://", None, b"").unwrap_err().to_string(), "invalid URL");
    }

    #[test]
    fn only_200_is_success() {
        let error = |answer: &[u8]| check(answer).unwrap_err().to_string();
        assert!(check(b"HTTP/1.0 200 OK\r\n\r\n").is_ok());
        assert!(check(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").is_ok());
        assert_eq!(error(b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\n no\n"), "no");
        let chunked = b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        assert_eq!(error(chunked), "no");
        assert_eq!(error(b"HTTP/1.1 204 X\r\n\r\n"), "response code 204");
        assert_eq!(error(b""), "the server closed the connection without an answer");
        assert_eq!(error(b"bla\r\n\r\n"), "bad response");
    }
}
