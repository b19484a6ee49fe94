//! One request and its response, as a pure state machine (RFC 9112; `spec/connmgr.md §10.2, §10.3`).
//! The client's driver moves it; tests move it without sockets.

use http1::{BodyKind, Decoder, HeaderSlots, LAST_CHUNK};

use crate::{Error, Event, Request, within};

/// Largest response head, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most informational responses (1xx) before the final one.
const INFORMATIONAL_MAX: usize = 16;

/// Bytes taken at once while there is a window: a head and what follows it, or what is read ahead
/// of the window so that the end of a body, and of the connection, is seen without it.
const HEAD_READ_BYTES: usize = 8 * 1024;
const READ_AHEAD_BYTES: usize = 4 * 1024;

#[derive(Debug)]
enum Stage {
    Head,
    Body(Decoder),
    Done,
}

/// Takes what the backend sent, gives events; takes body, gives what to write.
#[derive(Debug)]
pub struct Exchange {
    out: Vec<u8>,
    written: usize,
    chunked: bool,
    /// Bytes of the request's body that its head announced and that have not come.
    left: Option<u64>,
    request_complete: bool,
    to_head: bool,
    idempotent: bool,
    stage: Stage,
    /// The part of a head that came so far.
    partial: Vec<u8>,
    /// Body as received that the window had no room for.
    held: Vec<u8>,
    /// Bytes of body that the caller takes; `usize::MAX`: any number.
    window: usize,
    received_any: bool,
    received_body: bool,
    persistent: bool,
}

impl Exchange {
    /// An exchange whose request is to be written.
    pub fn new(request: Request) -> Self {
        Self {
            out: request.bytes,
            written: 0,
            chunked: request.chunked,
            left: request.left,
            request_complete: request.complete,
            to_head: request.to_head,
            idempotent: request.idempotent && request.complete,
            stage: Stage::Head,
            partial: Vec::new(),
            held: Vec::new(),
            window: usize::MAX,
            received_any: false,
            received_body: false,
            persistent: false,
        }
    }

    /// Gives no more than `bytes` of body until [`Exchange::grant`]; without a call there is no
    /// limit.
    pub fn set_window(&mut self, bytes: usize) {
        self.window = bytes;
    }

    /// Bytes to write now.
    pub fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Says that `size` bytes of [`Exchange::output`] were written. The bytes are kept while the
    /// request may have to be sent again.
    pub fn advance(&mut self, size: usize) {
        self.written += size;
        if self.written == self.out.len() && !self.may_restart() {
            self.out.clear();
            self.written = 0;
        }
    }

    /// More of the request's body. Nothing is taken once the response has begun: the backend
    /// answered early and the rest is not wanted.
    pub fn body(&mut self, data: &[u8], last: bool) {
        if self.request_complete || self.received_any {
            return;
        }
        let data = match self.left {
            Some(left) => {
                let (data, left) = within(left, data);
                self.left = left;
                data
            }
            None => data,
        };
        if self.chunked {
            http1::push_chunks(&mut self.out, data);
        } else {
            self.out.extend_from_slice(data);
        }
        if self.chunked && last {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        self.request_complete = last;
    }

    /// Whether the request may be sent again on another connection.
    pub fn may_restart(&self) -> bool {
        self.idempotent && !self.received_any
    }

    /// Sends everything again on another connection; only if [`Exchange::may_restart`].
    pub fn restart(&mut self) {
        self.written = 0;
    }

    /// Whether the response is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether any byte of a response came.
    pub fn received_any(&self) -> bool {
        self.received_any
    }

    /// Whether the head came alone and a body is to follow. Many backends write the two apart,
    /// and their kernel keeps the second part back until the first is acknowledged.
    pub fn has_head_only(&self) -> bool {
        matches!(self.stage, Stage::Body(_)) && !self.received_body
    }

    /// Whether the connection can serve another request; not if the backend waits for more of this
    /// one's body than there was.
    pub fn is_reusable(&self) -> bool {
        let sent_all = self.request_complete && self.left.is_none_or(|left| left == 0);
        self.is_done() && self.persistent && sent_all && self.output().is_empty()
    }

    /// Bytes that [`Exchange::receive`] may be given now; 0 while the window holds it up.
    pub fn wants(&self) -> usize {
        match self.stage {
            _ if self.window == usize::MAX => usize::MAX,
            _ if !self.held.is_empty() => 0,
            Stage::Head => HEAD_READ_BYTES,
            _ => self.window.max(READ_AHEAD_BYTES),
        }
    }

    /// Takes bytes that the backend sent.
    ///
    /// # Errors
    /// If they are no response; the connection is of no use any more.
    pub fn receive(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        self.received_any = true;
        match self.stage {
            Stage::Head if self.partial.is_empty() => match self.head(bytes, sink)? {
                Some(at) => self.rest(&bytes[at..], sink),
                None => self.keep(bytes.to_vec()),
            },
            Stage::Head => {
                let mut partial = std::mem::take(&mut self.partial);
                partial.extend_from_slice(bytes);
                // A head ends with a line, so without one there is nothing new to see.
                let taken = if bytes.contains(&b'\n') { self.head(&partial, sink)? } else { None };
                match taken {
                    Some(at) => self.rest(&partial[at..], sink),
                    None => self.keep(partial),
                }
            }
            _ => self.rest(bytes, sink),
        }
    }

    /// The caller takes `bytes` more of the body, perhaps of what came already.
    ///
    /// # Errors
    /// As [`Exchange::receive`].
    pub fn grant(&mut self, bytes: usize, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        self.window = self.window.saturating_add(bytes);
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { self.rest(&held, sink) }
    }

    fn keep(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Error::BadResponse);
        }
        self.partial = bytes;
        Ok(())
    }

    /// Reads the head, 1xx skipped. Gives where the body starts, nothing if it is incomplete; in
    /// that case the bytes of skipped heads are read again with the rest.
    fn head(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<usize>, Error> {
        let mut start = 0;
        for _ in 0..=INFORMATIONAL_MAX {
            let mut slots = HeaderSlots::new();
            let head = http1::parse_response(&bytes[start..], &mut slots, self.to_head)
                .map_err(|_| Error::BadResponse)?;
            let Some(head) = head else { return Ok(None) };
            start += head.size;
            if head.code == 101 || head.code < 100 {
                return Err(Error::BadResponse);
            }
            if head.code < 200 {
                continue;
            }
            let length = match head.body {
                BodyKind::None => Some(0),
                BodyKind::Length(size) => Some(size),
                BodyKind::Chunked | BodyKind::Close => None,
            };
            self.persistent = head.persistent;
            self.stage = Stage::Body(Decoder::new(head.body));
            let (code, reason, headers) = (head.code, head.reason, head.headers);
            sink(Event::Head { code, reason, headers, length });
            return Ok(Some(start));
        }
        Err(Error::BadResponse)
    }

    /// Decodes body bytes as far as the window allows and keeps the others.
    fn rest(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        loop {
            let Stage::Body(decoder) = &mut self.stage else {
                // Bytes behind the response belong to nothing that was asked for.
                self.persistent &= bytes.is_empty();
                return Ok(());
            };
            let decoded = decoder.decode(bytes, self.window).map_err(|_| Error::BadResponse)?;
            if !decoded.data.is_empty() {
                self.received_body = true;
                if self.window != usize::MAX {
                    self.window -= decoded.data.len();
                }
                sink(Event::Body(&bytes[decoded.data]));
            }
            bytes = &bytes[decoded.consumed..];
            if decoded.end {
                self.stage = Stage::Done;
                sink(Event::End);
            } else if decoded.consumed == 0 {
                self.held = bytes.to_vec();
                return Ok(());
            }
        }
    }

    /// The backend closed its side.
    ///
    /// # Errors
    /// [`Error::Closed`] if the response is not complete.
    pub fn end_of_input(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        self.persistent = false;
        match &self.stage {
            Stage::Done => Ok(()),
            Stage::Body(decoder) if decoder.may_end_here() => {
                self.stage = Stage::Done;
                sink(Event::End);
                Ok(())
            }
            Stage::Body(_) | Stage::Head => Err(Error::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(to_head: bool) -> Request {
        let bytes = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        Request { bytes, chunked: false, left: None, complete: true, to_head, idempotent: true }
    }

    /// The events of a response that comes in these pieces, as text.
    fn run(pieces: &[&[u8]], to_head: bool, close: bool) -> (String, bool) {
        let mut exchange = Exchange::new(request(to_head));
        let size = exchange.output().len();
        exchange.advance(size);
        let mut seen = String::new();
        let mut body = Vec::new();
        let mut result = Ok(());
        let mut sink = |event: Event<'_>| match event {
            Event::Head { code, reason, headers, length } => {
                seen += &format!("{code} {reason} {} {length:?};", headers.len());
            }
            Event::Body(data) => body.extend_from_slice(data),
            Event::End => seen += "end;",
            other => seen += &format!("{other:?};"),
        };
        for piece in pieces {
            result = result.and_then(|()| exchange.receive(piece, &mut sink));
        }
        if close {
            result = result.and_then(|()| exchange.end_of_input(&mut sink));
        }
        if let Err(error) = result {
            seen += &format!("{error:?};");
        }
        (format!("{seen}{}", String::from_utf8_lossy(&body)), exchange.is_reusable())
    }

    fn whole(text: &str) -> (String, bool) {
        run(&[text.as_bytes()], false, false)
    }

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        let exchange = |first: &[u8], pieces: &[&str]| {
            let head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n".to_vec();
            let framing = BodyKind::Length(5);
            let whole = pieces.is_empty();
            let mut exchange = Exchange::new(Request::new("POST", head, framing, first, whole));
            for (n, piece) in pieces.iter().enumerate() {
                exchange.body(piece.as_bytes(), n + 1 == pieces.len());
            }
            let sent = String::from_utf8_lossy(exchange.output()).into_owned();
            exchange.advance(exchange.output().len());
            exchange.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut |_| {}).unwrap();
            (sent.split_once("\r\n\r\n").unwrap().1.to_owned(), exchange.is_reusable())
        };
        assert_eq!(exchange(b"hello", &[]), ("hello".into(), true));
        assert_eq!(exchange(b"hel", &["l", "o"]), ("hello".into(), true));
        // What is too much would be the next request, and what is missing part of this one.
        assert_eq!(exchange(b"hello, GET /evil", &[]), ("hello".into(), true));
        assert_eq!(exchange(b"", &["hell", "o GET", " /evil"]), ("hello".into(), true));
        assert_eq!(exchange(b"hel", &["l", ""]), ("hell".into(), false));
        assert_eq!(exchange(b"hell", &[]), ("hell".into(), false));
    }

    #[test]
    fn lengths_chunks_and_closes() {
        let (seen, reusable) = whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!((seen.as_str(), reusable), ("200 OK 1 Some(5);end;hello", true));
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        assert_eq!(whole(chunked), ("200 OK 1 None;end;hello".into(), true));
        let close = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(run(&[close], false, true), ("200 OK 0 None;end;hello".into(), false));
        assert_eq!(
            whole("HTTP/1.1 204 No Content\r\n\r\n"),
            ("204 No Content 0 Some(0);end;".into(), true)
        );
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(run(&[head], true, false), ("200 OK 1 Some(0);end;".into(), true));
        let (seen, reusable) =
            whole("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!((seen.as_str(), reusable), ("200 OK 2 Some(0);end;", false));
    }

    #[test]
    fn informational_heads_are_skipped() {
        let text =
            "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(whole(text).0, "404 No 1 Some(0);end;");
        assert_eq!(whole("HTTP/1.1 101 Up\r\n\r\n").0, "BadResponse;");
        assert_eq!(whole(&"HTTP/1.1 100 C\r\n\r\n".repeat(17)).0, "BadResponse;");
    }

    #[test]
    fn cut_off_responses_are_reported() {
        let cut = |text: &str| run(&[text.as_bytes()], false, true).0;
        assert_eq!(
            cut("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"),
            "200 OK 1 Some(5);Closed;hel"
        );
        assert_eq!(
            cut("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"),
            "200 OK 1 None;Closed;he"
        );
        assert_eq!(cut("HTTP/1.1 200 O"), "Closed;");
        assert_eq!(cut("junk\r\n\r\n"), "BadResponse;");
        assert_eq!(cut(&format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(70_000))), "BadResponse;");
    }

    #[test]
    fn bytes_behind_the_response_end_the_connection() {
        let (seen, reusable) = whole("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP");
        assert_eq!((seen.as_str(), reusable), ("200 OK 1 Some(1);end;x", false));
    }

    #[test]
    fn a_request_is_kept_until_an_answer_begins() {
        let mut exchange = Exchange::new(request(false));
        let size = exchange.output().len();
        exchange.advance(size);
        assert!(exchange.may_restart() && exchange.output().is_empty());
        exchange.restart();
        assert_eq!(exchange.output().len(), size);
        exchange.receive(b"H", &mut |_| {}).unwrap();
        assert!(!exchange.may_restart());
    }

    #[test]
    fn bodies_are_framed() {
        let mut exchange =
            Exchange::new(Request { chunked: true, complete: false, ..request(false) });
        let size = exchange.output().len();
        exchange.advance(size);
        exchange.body(b"hello", false);
        exchange.body(b"", false);
        exchange.body(b"", true);
        exchange.body(b"late", true);
        assert_eq!(exchange.output(), b"5\r\nhello\r\n0\r\n\r\n");
    }

    /// What comes of a response, given in pieces of `step` bytes under windows of `window` bytes.
    fn run_windowed(text: &[u8], step: usize, window: usize) -> (Vec<usize>, Vec<u8>, bool) {
        let mut exchange = Exchange::new(request(false));
        exchange.advance(exchange.output().len());
        exchange.set_window(window);
        let (mut sizes, mut body, mut ended) = (Vec::new(), Vec::new(), false);
        let mut at = 0;
        for _ in 0..10 * text.len() {
            let mut got = 0;
            let mut sink = |event: Event<'_>| match event {
                Event::Body(data) => {
                    got += data.len();
                    body.extend_from_slice(data);
                }
                Event::End => ended = true,
                _ => {}
            };
            let take = exchange.wants().min(step).min(text.len() - at);
            if take > 0 {
                exchange.receive(&text[at..at + take], &mut sink).unwrap();
                at += take;
            } else {
                exchange.grant(window, &mut sink).unwrap();
            }
            sizes.push(got);
            if ended {
                break;
            }
        }
        (sizes, body, exchange.is_reusable())
    }

    #[test]
    fn the_end_needs_no_window() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(run_windowed(text, 1000, 5), (vec![5], b"hello".to_vec(), true));
        assert_eq!(run_windowed(text, 1000, 4).0, [4, 1]);
    }

    proptest! {
        #[test]
        fn windows_are_kept(step in 1usize..60, window in 1usize..30, size in 0usize..200) {
            let data = vec![b'x'; size];
            let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            let (sizes, body, reusable) =
                run_windowed(&[plain.as_bytes(), &data].concat(), step, window);
            prop_assert_eq!((&body, reusable), (&data, true));
            prop_assert!(sizes.iter().all(|n| *n <= window), "{:?}", sizes);
        }

        #[test]
        fn any_split_gives_the_same(cut in 0usize..90, cut2 in 0usize..90) {
            let text = b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
            let (a, b) = (cut.min(cut2).min(text.len()), cut.max(cut2).min(text.len()));
            let split = run(&[&text[..a], &text[a..b], &text[b..]], false, false);
            prop_assert_eq!(split, ("200 OK 1 None;end;hello".to_owned(), true));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), close: bool) {
            run(&[&bytes], false, close);
            let with_head = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes[..]].concat();
            run(&[&with_head], false, close);
        }
    }
}
