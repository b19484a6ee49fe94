//! One WebSocket to a backend, as a pure state machine (RFC 6455; `spec/connmgr.md §10.6`, §7.3
//! to 7.5 mirrored): the handshake or the refusal of it, then messages in pieces both ways. The
//! client's driver moves it; tests move it without sockets.

use websocket::{Decoder, Deflate, Deflater, Frame, Opcode, Role, Type};

use crate::{Error, Event, Exchange, Opening, Request, WebSocketEvent};

/// Largest head of an answer to the handshake, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most informational responses (1xx) before the answer.
const INFORMATIONAL_MAX: usize = 16;

/// Bytes taken at once of an answer to the handshake.
const HEAD_READ_BYTES: usize = 8 * 1024;

/// Bytes that are taken in beyond what the window allows: enough for any control frame, and for
/// the end of the connection to be seen.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// Largest piece of a message, so that what is inflated at once stays small.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// What is sent once the random key and masks are drawn.
type Mask = [u8; 4];

#[derive(Debug)]
enum Stage {
    /// The answer's head so far.
    Handshake(Vec<u8>),
    Refused(Box<Refusal>),
    Open,
    Done,
}

/// An answer other than 101, collected.
#[derive(Debug)]
struct Refusal {
    exchange: Exchange,
    code: u16,
    reason: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// The state of one WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    out: Vec<u8>,
    written: usize,
    accept: [u8; 28],
    offers_compression: bool,
    rejection_max: usize,
    stage: Stage,
    decoder: Decoder,
    deflate: Option<Deflate>,
    /// Frames as received that are incomplete or that the window had no room for.
    held: Vec<u8>,
    window: usize,
    /// A message to the backend is in progress: whether its first frame left.
    sending: Option<bool>,
    /// For the close frame that tells of an error.
    last_mask: Mask,
    received_any: bool,
    close_sent: bool,
    close_received: bool,
    reusable: bool,
}

impl Socket {
    /// A WebSocket whose handshake is to be written. `random`: fresh, not to be guessed.
    /// `window`: bytes of messages, pings and pongs that the caller takes for now.
    pub fn new(opening: Opening, random: [u8; 20], window: usize) -> Self {
        let (mut key, mut last_mask) = ([0; 16], [0; 4]);
        key.copy_from_slice(&random[..16]);
        last_mask.copy_from_slice(&random[16..]);
        let offers_compression = opening.offers_compression();
        let rejection_max = opening.rejection_max();
        let (out, accept) = opening.with_key(key);
        Self {
            out,
            written: 0,
            accept,
            offers_compression,
            rejection_max,
            stage: Stage::Handshake(Vec::new()),
            decoder: Decoder::new(Role::Client, None, u64::MAX),
            deflate: None,
            held: Vec::new(),
            window,
            sending: None,
            last_mask,
            received_any: false,
            close_sent: false,
            close_received: false,
            reusable: false,
        }
    }

    /// Bytes to write now.
    pub fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Says that `size` bytes of [`Socket::output`] were written.
    pub fn advance(&mut self, size: usize) {
        self.written += size;
        if self.written == self.out.len() && !self.may_restart() {
            // A silent WebSocket holds no buffer.
            self.out = Vec::new();
            self.written = 0;
            self.check_over();
        }
    }

    /// Whether the handshake may be sent again on another connection.
    pub fn may_restart(&self) -> bool {
        !self.received_any
    }

    /// Sends the handshake again; only if [`Socket::may_restart`].
    pub fn restart(&mut self) {
        self.written = 0;
    }

    /// Whether nothing follows: refused, or closed both ways.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether the connection, after a refusal, can serve another request.
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Whether our close was sent and the backend's is awaited.
    pub fn is_closing(&self) -> bool {
        self.close_sent && !self.close_received
    }

    /// Bytes that [`Socket::receive`] may be given now; 0 while the window holds it up.
    pub fn wants(&self) -> usize {
        match self.stage {
            Stage::Open => self.window.max(READ_AHEAD_BYTES).saturating_sub(self.held.len()),
            _ => HEAD_READ_BYTES,
        }
    }

    /// Takes bytes that the backend sent.
    ///
    /// # Errors
    /// If they break the protocol; what [`Socket::output`] has then is to be sent if possible.
    pub fn receive(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        self.received_any = true;
        match &mut self.stage {
            Stage::Handshake(head) => {
                let mut head = std::mem::take(head);
                head.extend_from_slice(bytes);
                self.handshake(head, sink)
            }
            Stage::Refused(_) => self.refused(bytes, sink),
            Stage::Open => {
                let mut held = std::mem::take(&mut self.held);
                if held.is_empty() {
                    return self.frames(bytes, sink);
                }
                held.extend_from_slice(bytes);
                self.frames(&held, sink)
            }
            Stage::Done => Ok(()),
        }
    }

    /// The caller takes `bytes` more.
    ///
    /// # Errors
    /// As [`Socket::receive`].
    pub fn grant(&mut self, bytes: usize, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        self.window = self.window.saturating_add(bytes);
        if !matches!(self.stage, Stage::Open) {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.frames(&held, sink)
    }

    /// The backend closed its side of the connection.
    ///
    /// # Errors
    /// [`Error::Closed`] unless it had said so by a close frame, or ended a refusal that way.
    pub fn end_of_input(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Refused(refusal) => {
                let mut ended = false;
                let mut see = |event: Event<'_>| ended |= matches!(event, Event::End);
                refusal.exchange.end_of_input(&mut see)?;
                if ended {
                    self.tell_refusal(sink);
                }
                Ok(())
            }
            Stage::Open if self.close_received => {
                self.stage = Stage::Done;
                sink(Event::End);
                Ok(())
            }
            Stage::Done => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    /// A piece of a message for the backend; `last`: it completes the message. Nothing is taken
    /// before the WebSocket is open and after [`Socket::close`].
    pub fn message(
        &mut self,
        kind: Type,
        data: &[u8],
        last: bool,
        mask: Mask,
        deflater: &mut Deflater,
    ) {
        if !self.can_send() {
            return;
        }
        let begun = self.sending.unwrap_or(false);
        let opcode = if begun { Opcode::Continuation } else { kind.opcode() };
        let compressed = self.deflate.is_some() && !begun;
        let frame = Frame { opcode, last, compressed };
        if self.deflate.is_some() {
            let mut piece = Vec::with_capacity(data.len() / 2 + 16);
            deflater.piece(&mut piece, data, last);
            if !piece.is_empty() {
                websocket::frame(&mut self.out, frame, &piece, Some(mask));
            }
            self.sending = (!last).then_some(begun || !piece.is_empty());
        } else {
            let skipped = data.is_empty() && !last;
            if !skipped {
                websocket::frame(&mut self.out, frame, data, Some(mask));
            }
            self.sending = (!last).then_some(begun || !skipped);
        }
    }

    /// A ping or pong of at most 125 bytes; a longer one is not sent.
    pub fn control(&mut self, opcode: Opcode, payload: &[u8], mask: Mask) {
        if self.can_send() {
            websocket::control(&mut self.out, opcode, payload, Some(mask));
        }
    }

    /// Nothing more will be sent. A code that is not for the wire is left out.
    pub fn close(&mut self, code: Option<u16>, reason: &str, mask: Mask) {
        if !self.can_send() {
            return;
        }
        self.close_sent = true;
        let code = code.filter(|code| websocket::is_wire_code(*code));
        websocket::close(&mut self.out, code, reason, Some(mask));
    }

    fn can_send(&self) -> bool {
        matches!(self.stage, Stage::Open) && !self.close_sent
    }

    /// Both closes are exchanged and ours has left: the connection is of no use any more.
    fn check_over(&mut self) {
        if self.close_sent && self.close_received && self.output().is_empty() {
            self.stage = Stage::Done;
        }
    }

    /// Reads the answer's head, 1xx skipped.
    fn handshake(&mut self, head: Vec<u8>, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let mut start = 0;
        for _ in 0..=INFORMATIONAL_MAX {
            let mut slots = http1::HeaderSlots::new();
            let answer = http1::parse_response(&head[start..], &mut slots, false)
                .map_err(|_| Error::BadResponse)?;
            let Some(answer) = answer else {
                if head.len() > HEAD_BYTES_MAX {
                    return Err(Error::BadResponse);
                }
                self.stage = Stage::Handshake(head);
                return Ok(());
            };
            if answer.code == 101 {
                let compressed = self.check_accept(&answer)?;
                self.stage = Stage::Open;
                let (reason, headers) = (answer.reason, answer.headers);
                sink(Event::WebSocket(WebSocketEvent::Open { reason, headers, compressed }));
                return self.frames(&head[start + answer.size..], sink);
            }
            if answer.code >= 200 {
                let named = |h: &http1::Header<'_>| (h.name.to_owned(), h.value.to_vec());
                self.stage = Stage::Refused(Box::new(Refusal {
                    exchange: Exchange::new(Request { complete: true, ..Request::default() }),
                    code: answer.code,
                    reason: answer.reason.to_owned(),
                    headers: answer.headers.iter().map(named).collect(),
                    body: Vec::new(),
                }));
                return self.refused(&head[start..], sink);
            }
            start += answer.size;
        }
        Err(Error::BadResponse)
    }

    /// Checks a 101; gives whether messages are compressed.
    fn check_accept(&mut self, answer: &http1::ResponseHead<'_, '_>) -> Result<bool, Error> {
        let accept = answer.header("sec-websocket-accept").map(http1::trim);
        if accept != Some(&self.accept[..]) {
            return Err(Error::BadResponse);
        }
        let is_extensions =
            |h: &&http1::Header<'_>| h.name.eq_ignore_ascii_case("sec-websocket-extensions");
        // Other extensions are between the caller, who asked for them, and the backend.
        let values = answer.headers.iter().filter(is_extensions).map(|h| h.value);
        let values = values.filter(|value| mentions_deflate(value));
        let deflate = websocket::accepted(values).map_err(|_| Error::BadResponse)?;
        if deflate.is_some() && !self.offers_compression {
            return Err(Error::BadResponse);
        }
        self.deflate = deflate;
        self.decoder = Decoder::new(Role::Client, deflate, u64::MAX);
        Ok(deflate.is_some())
    }

    /// Collects a refusal.
    fn refused(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let Stage::Refused(refusal) = &mut self.stage else { return Ok(()) };
        let Refusal { exchange, body, .. } = &mut **refusal;
        let mut ended = false;
        exchange.receive(bytes, &mut |event| match event {
            Event::Body(data) if body.len() <= self.rejection_max => body.extend_from_slice(data),
            Event::End => ended = true,
            _ => {}
        })?;
        if body.len() > self.rejection_max {
            return Err(Error::RejectionTooLarge);
        }
        if ended {
            self.tell_refusal(sink);
        }
        Ok(())
    }

    fn tell_refusal(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let Stage::Refused(refusal) = std::mem::replace(&mut self.stage, Stage::Done) else {
            return;
        };
        self.reusable = refusal.exchange.is_reusable();
        let headers = refusal.headers.iter();
        let headers: Vec<http1::Header<'_>> =
            headers.map(|(name, value)| http1::Header { name, value }).collect();
        sink(Event::WebSocket(WebSocketEvent::Refused {
            code: refusal.code,
            reason: &refusal.reason,
            headers: &headers,
            body: &refusal.body,
        }));
    }

    /// Decodes frames as far as the window allows and keeps the rest.
    fn frames(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let mut piece = Vec::new();
        let mut at = 0;
        while !self.close_received {
            piece.clear();
            let limit = self.window.min(PIECE_BYTES_MAX);
            let step = match self.decoder.decode(&bytes[at..], limit, &mut piece) {
                Ok(step) => step,
                Err(error) => return self.fail(error),
            };
            at += step.consumed;
            match step.event {
                Some(event) => self.tell(event, &piece, sink),
                None if step.consumed == 0 => break,
                None => {}
            }
        }
        if self.close_received {
            self.check_over();
            if self.is_done() {
                sink(Event::End);
            }
        } else {
            self.held = bytes[at..].to_vec();
        }
        Ok(())
    }

    fn tell(&mut self, event: websocket::Event, piece: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        if !matches!(event, websocket::Event::Close { .. }) {
            self.window -= piece.len().min(self.window);
        }
        sink(Event::WebSocket(match event {
            websocket::Event::Piece { kind, last } => {
                WebSocketEvent::Piece { kind, data: piece, last }
            }
            websocket::Event::Ping => WebSocketEvent::Ping(piece),
            websocket::Event::Pong => WebSocketEvent::Pong(piece),
            websocket::Event::Close { code } => {
                self.close_received = true;
                // The decoder has checked it.
                let reason = std::str::from_utf8(piece).unwrap_or_default();
                WebSocketEvent::Close { code, reason }
            }
        }));
    }

    /// The backend broke the protocol: it is told why.
    fn fail(&mut self, error: websocket::Error) -> Result<(), Error> {
        log::debug!("WebSocket with a backend fails: {error}");
        self.close(Some(error.close_code()), "", self.last_mask);
        Err(Error::Protocol)
    }
}

fn mentions_deflate(value: &[u8]) -> bool {
    const NAME: &[u8] = b"permessage-deflate";
    value.windows(NAME.len()).any(|part| part.eq_ignore_ascii_case(NAME))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use websocket::{Deflate, Event as Frames};

    use super::*;

    const RANDOM: [u8; 20] = *b"the sample nonceMASK";
    const ACCEPTED: &str = "HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn socket(compression: bool, window: usize) -> Socket {
        let opening = Opening::new("/", "h", [], compression, 10).unwrap();
        let mut socket = Socket::new(opening, RANDOM, window);
        socket.advance(socket.output().len());
        socket
    }

    fn open(compression: bool, window: usize) -> Socket {
        let mut socket = socket(compression, window);
        let extension =
            if compression { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        let head = format!("{ACCEPTED}{extension}\r\n");
        assert!(run(&mut socket, &[head.as_bytes()], 0).starts_with("open"));
        socket.advance(socket.output().len());
        socket
    }

    fn note(seen: &mut String, event: Event<'_>) {
        use std::fmt::Write;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let event = match event {
            Event::WebSocket(event) => event,
            other => return write!(seen, "{other:?} ").unwrap(),
        };
        match event {
            WebSocketEvent::Open { reason, compressed, .. } => {
                write!(seen, "open {reason} {compressed} ")
            }
            WebSocketEvent::Refused { code, headers, body, .. } => {
                write!(seen, "refused {code} {} {} ", headers.len(), text(body))
            }
            WebSocketEvent::Piece { kind, data, last } => {
                write!(seen, "{kind:?} {} {last} ", text(data))
            }
            WebSocketEvent::Ping(data) => write!(seen, "ping {} ", text(data)),
            WebSocketEvent::Pong(data) => write!(seen, "pong {} ", text(data)),
            WebSocketEvent::Close { code, reason } => write!(seen, "close {code:?} {reason} "),
        }
        .unwrap();
    }

    /// The events of these bytes, given as the socket wants them, with `grant` bytes of window
    /// whenever it wants none.
    fn run(socket: &mut Socket, pieces: &[&[u8]], grant: usize) -> String {
        let mut seen = String::new();
        let mut result = Ok(());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && result.is_ok() {
                let take = socket.wants().min(rest.len());
                let mut sink = |event: Event<'_>| note(&mut seen, event);
                result = if take > 0 {
                    socket.receive(&rest[..take], &mut sink)
                } else {
                    assert!(grant > 0, "held up: {seen}");
                    socket.grant(grant, &mut sink)
                };
                rest = &rest[take..];
            }
        }
        if let Err(error) = result {
            note(&mut seen, Event::Failed(error));
        }
        seen
    }

    /// What the backend reads of the socket's output.
    fn read(socket: &mut Socket, decoder: &mut Decoder) -> Vec<(Frames, Vec<u8>)> {
        let bytes = socket.output().to_vec();
        socket.advance(bytes.len());
        let (mut at, mut seen) = (0, Vec::new());
        loop {
            let mut piece = Vec::new();
            let step = decoder.decode(&bytes[at..], 1 << 20, &mut piece).unwrap();
            at += step.consumed;
            match step.event {
                Some(event) => seen.push((event, piece)),
                None => break,
            }
        }
        assert_eq!(at, bytes.len());
        seen
    }

    fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        websocket::frame(&mut out, Frame::whole(opcode), payload, None);
        out
    }

    #[test]
    fn handshakes() {
        let answer = |text: &str, compression| {
            run(&mut socket(compression, 100), &[text.as_bytes()], 0).trim_end().to_owned()
        };
        let ok = format!("{ACCEPTED}\r\n");
        assert_eq!(answer(&ok, false), "open Up false");
        assert_eq!(answer(&format!("HTTP/1.1 103 E\r\n\r\n{ok}"), true), "open Up false");
        let deflated = format!("{ACCEPTED}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        assert_eq!(answer(&deflated, true), "open Up true");
        assert_eq!(answer(&deflated, false), "Failed(BadResponse)");
        let other = format!("{ACCEPTED}Sec-WebSocket-Extensions: grip; message-prefix=m:\r\n\r\n");
        assert_eq!(answer(&other, true), "open Up false");
        let bad = "Failed(BadResponse)";
        assert_eq!(answer(&ok.replace("s3p", "s4p"), false), bad);
        assert_eq!(answer("HTTP/1.1 101 Up\r\n\r\n", false), bad);
        assert_eq!(answer("junk\r\n\r\n", false), bad);
        assert_eq!(answer(&format!("{ACCEPTED}A: {}", "x".repeat(70_000)), false), bad);
    }

    #[test]
    fn refusals_are_collected() {
        let mut refused = socket(false, 0);
        let text = b"HTTP/1.1 403 No\r\nA: b\r\nContent-Length: 5\r\n\r\nsorry";
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(run(&mut refused, &bytes, 0), "refused 403 2 sorry ");
        assert!(refused.is_done() && refused.is_reusable());
        let mut closed = socket(false, 0);
        assert_eq!(run(&mut closed, &[b"HTTP/1.0 502 Bad\r\n\r\nx"], 0), "");
        let mut seen = String::new();
        closed.end_of_input(&mut |event| note(&mut seen, event)).unwrap();
        assert_eq!(seen, "refused 502 0 x ");
        assert!(closed.is_done() && !closed.is_reusable());
        let large = b"HTTP/1.1 403 No\r\nContent-Length: 11\r\n\r\nhello world";
        assert_eq!(run(&mut socket(false, 0), &[large], 0), "Failed(RejectionTooLarge) ");
    }

    #[test]
    fn messages_come_in_pieces_under_the_window() {
        let mut socket = open(false, 3);
        let bytes = [frame(Opcode::Text, b"hello"), frame(Opcode::Ping, b"hi")].concat();
        assert_eq!(run(&mut socket, &[&bytes], 0), "Text hel false ");
        let mut seen = String::new();
        for n in [1, 1, 1, 1] {
            socket.grant(n, &mut |event| note(&mut seen, event)).unwrap();
        }
        assert_eq!(seen, "Text l false Text o true ping hi ");
        let close = [frame(Opcode::Binary, b""), frame(Opcode::Close, b"\x03\xe8bye")].concat();
        assert_eq!(run(&mut socket, &[&close], 0), "Binary  true close Some(1000) bye ");
        assert!(!socket.is_done());
        socket.close(Some(1000), "", [1; 4]);
        socket.advance(socket.output().len());
        assert!(socket.is_done());
    }

    #[test]
    fn both_orders_of_closing() {
        let mut socket = open(false, 100);
        socket.close(Some(4000), "done", [1; 4]);
        socket.message(Type::Text, b"late", true, [1; 4], &mut Deflater::default());
        assert!(socket.is_closing());
        let mut decoder = Decoder::new(Role::Server, None, 100);
        let sent = read(&mut socket, &mut decoder);
        assert_eq!(sent, [(Frames::Close { code: Some(4000) }, b"done".to_vec())]);
        let bytes = [frame(Opcode::Text, b"x"), frame(Opcode::Close, b"")].concat();
        assert_eq!(run(&mut socket, &[&bytes], 0), "Text x true close None  End ");
        assert!(socket.is_done() && !socket.is_reusable());
        let mut socket = open(false, 100);
        assert!(socket.end_of_input(&mut |_| {}).is_err());
        run(&mut socket, &[&frame(Opcode::Close, b"")], 0);
        let mut seen = String::new();
        socket.end_of_input(&mut |event| note(&mut seen, event)).unwrap();
        assert_eq!(seen, "End ");
    }

    #[test]
    fn a_backend_that_breaks_the_protocol_is_told() {
        let mut socket = open(false, 100);
        assert_eq!(run(&mut socket, &[b"\x83\x00"], 0), "Failed(Protocol) ");
        let sent = read(&mut socket, &mut Decoder::new(Role::Server, None, 100));
        assert_eq!(sent, [(Frames::Close { code: Some(1002) }, Vec::new())]);
    }

    #[test]
    fn a_silent_websocket_holds_no_buffer() {
        let mut socket = open(true, 100);
        socket.message(Type::Text, &[b'x'; 5000], true, [1; 4], &mut Deflater::default());
        assert!(!socket.output().is_empty());
        socket.advance(socket.output().len());
        assert_eq!((socket.out.capacity(), socket.held.capacity()), (0, 0));
    }

    proptest! {
        #[test]
        fn messages_go_out_as_they_were(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
            compression: bool,
        ) {
            let mut socket = open(compression, 100);
            let deflate = compression.then(Deflate::default);
            let mut decoder = Decoder::new(Role::Server, deflate, 1 << 20);
            let mut deflater = Deflater::default();
            for (n, piece) in pieces.iter().enumerate() {
                let last = n + 1 == pieces.len();
                socket.message(Type::Binary, piece, last, [n as u8; 4], &mut deflater);
                socket.control(Opcode::Ping, b"p", [9; 4]);
            }
            let seen = read(&mut socket, &mut decoder);
            let (messages, pings): (Vec<_>, Vec<_>) =
                seen.into_iter().partition(|(event, _)| *event != Frames::Ping);
            prop_assert_eq!(pings.len(), pieces.len());
            let ends = messages.iter().filter(|(event, _)| {
                *event == Frames::Piece { kind: Type::Binary, last: true }
            });
            prop_assert_eq!(ends.count(), 1);
            let bytes: Vec<u8> = messages.into_iter().flat_map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(bytes, pieces.concat());
        }

        #[test]
        fn no_bytes_panic_and_windows_are_kept(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            window in 0usize..200,
            cut in 1usize..50,
        ) {
            let mut socket = open(false, window);
            let mut got = 0;
            for piece in bytes.chunks(cut) {
                let piece = &piece[..piece.len().min(socket.wants())];
                let result = socket.receive(piece, &mut |event| {
                    if let Event::WebSocket(
                        WebSocketEvent::Piece { data, .. }
                        | WebSocketEvent::Ping(data)
                        | WebSocketEvent::Pong(data),
                    ) = event
                    {
                        got += data.len();
                    }
                });
                if result.is_err() {
                    break;
                }
            }
            prop_assert!(got <= window && socket.held.len() <= READ_AHEAD_BYTES);
        }
    }
}
