//! TLS of clients by rustls (`spec/connmgr.md §9`), below [`crate::Net`]: the engine sees plain
//! bytes. Records are read and written through buffers of the worker; a connection owns bytes
//! only while a record is incomplete, or blocked. Used by `sockets`.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::tlscount::Failure;
use super::tlsport::Context;
use records::{Sink, append, encode_size, encrypt_size, gather, take};

mod records;

/// Most of a record's plain text (RFC 8446 §5.1).
const PLAIN_MAX: usize = 16 * 1024;

/// Most of a record (RFC 5246 §6.2.3), its head included.
const RECORD_MAX: usize = 5 + PLAIN_MAX + 2048;

/// Most of a handshake message that spans records.
const HANDSHAKE_MAX: usize = 2 * RECORD_MAX;

/// Ciphertext that may wait for one client.
const WAITING_MAX: usize = 4 * RECORD_MAX;

/// Fatal alert `unrecognized_name` (RFC 6066 §3), as it goes out before there are keys.
const UNRECOGNIZED_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];

/// The buffers of a worker, through which all records go.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
    plain: Vec<u8>,
}

/// How the connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not a byte has come.
    Fresh,
    Handshake,
    Running,
    /// The client does not speak TLS: bytes go through as they are.
    Plain,
    Failed,
}

/// One client.
pub(crate) struct TlsStream {
    socket: TcpStream,
    context: Arc<Context>,
    tls: UnbufferedServerConnection,
    phase: Phase,
    /// The socket had nothing more; an event will tell.
    dry: bool,
    /// The system said that the client closed: there is an end to be read.
    hup: bool,
    /// Nothing more will come from the client.
    ended: bool,
    /// Our side ends once what waits has left.
    shut: bool,
    /// On the list for a later turn.
    later: bool,
    /// Ciphertext of an incomplete record.
    input: Vec<u8>,
    /// Plain text that the engine has not taken.
    plain: Vec<u8>,
    /// Ciphertext that the socket did not take.
    waiting: Vec<u8>,
    /// Plain text in `waiting` that was not reported as written: the engine keeps it until then.
    held: usize,
}

impl TlsStream {
    pub(crate) fn new(socket: TcpStream, context: &Arc<Context>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(context.config.clone());
        Ok(Self {
            socket,
            context: context.clone(),
            tls: tls.map_err(io::Error::other)?,
            phase: Phase::Fresh,
            dry: false,
            hup: false,
            ended: false,
            shut: false,
            later: false,
            input: Vec::new(),
            plain: Vec::new(),
            waiting: Vec::new(),
            held: 0,
        })
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Whether the next read is likely to be a step of the handshake, which costs much.
    pub(crate) fn is_costly(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Handshake) && !self.dry
    }

    /// Marks that the handshake is to go on in a later turn. False: it was marked already.
    pub(crate) fn put_off(&mut self) -> bool {
        !std::mem::replace(&mut self.later, true)
    }

    /// The later turn has come.
    pub(crate) fn resume(&mut self) {
        self.later = false;
    }

    /// The socket has bytes or, if `closed`, an end.
    pub(crate) fn arrived(&mut self, closed: bool) {
        self.dry = false;
        self.hup |= closed;
    }

    /// As [`crate::Net::read`]. Also shakes hands.
    pub(crate) fn read(&mut self, buffers: &mut Buffers, buf: &mut [u8]) -> io::Result<usize> {
        if self.phase == Phase::Plain {
            return self.socket.read(buf);
        }
        loop {
            if !self.plain.is_empty() {
                return Ok(take(&mut self.plain, buf));
            }
            if self.ended {
                return Ok(0);
            }
            if self.phase == Phase::Failed {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            if self.dry {
                return Err(ErrorKind::WouldBlock.into());
            }
            let n = self.fill(buffers, buf)?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    /// Reads once from the socket and deals with the records in it. Plain text goes into `buf`
    /// and, beyond it, is kept.
    fn fill(&mut self, buffers: &mut Buffers, buf: &mut [u8]) -> io::Result<usize> {
        buffers.input.resize(HANDSHAKE_MAX + RECORD_MAX, 0);
        let kept = self.input.len();
        let room = &mut buffers.input[kept..kept + RECORD_MAX];
        let n = match self.socket.read(room) {
            Ok(0) => {
                self.end_of_input();
                return Ok(0);
            }
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.dry = true;
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        self.dry = n < RECORD_MAX && !self.hup;
        if self.phase == Phase::Fresh {
            self.first_bytes(room)?;
        }
        buffers.input[..kept].copy_from_slice(&self.input);
        self.input = Vec::new();
        let mut input = &mut buffers.input[..kept + n];
        let mut sink = Sink { buf, used: 0, rest: Vec::new() };
        buffers.output.clear();
        let before = self.phase;
        let result = self.advance(&mut input, &mut buffers.output, &mut sink, Outgoing::Nothing);
        if self.phase != before {
            self.context.port.handshakes().done(self.tls.protocol_version());
        }
        if let Err(cause) = result {
            let failure = Failure::of(&cause);
            return Err(self.fail(input, &mut buffers.output, failure, &cause));
        }
        if input.len() > HANDSHAKE_MAX {
            let cause = "a handshake message is too long";
            return Err(self.fail(input, &mut buffers.output, Failure::BadMessage, &cause));
        }
        self.input = input.to_vec();
        let used = sink.used;
        self.plain = sink.rest;
        self.send(&buffers.output)?;
        Ok(used)
    }

    fn end_of_input(&mut self) {
        self.ended = true;
        if self.phase != Phase::Running {
            log::debug!("tls: {}: the client left in the handshake", self.peer());
        }
    }

    /// Sees whether it is TLS at all that the client speaks.
    fn first_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A method, or a blank line before one: neither starts a record.
        if bytes[0].is_ascii_alphabetic() || b"\r\n".contains(&bytes[0]) {
            self.phase = Phase::Plain;
            self.count(Failure::PlainHttp);
            self.context.port.plain_client();
            return Err(io::Error::new(ErrorKind::InvalidData, "plain text on a TLS port"));
        }
        self.phase = Phase::Handshake;
        Ok(())
    }

    /// Deals with the records in `input`, leaves the rest of it there, and sends what is asked
    /// for, if the handshake is through.
    fn advance(
        &mut self,
        input: &mut &mut [u8],
        output: &mut Vec<u8>,
        sink: &mut Sink<'_>,
        mut outgoing: Outgoing<'_>,
    ) -> Result<(), rustls::Error> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(input);
            let mut result = Ok(true);
            match state {
                Err(cause) => result = Err(cause),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink.put(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut state)) => {
                    append(output, |room| state.encode(room).map_err(encode_size))?;
                }
                Ok(ConnectionState::TransmitTlsData(state)) => state.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.phase = Phase::Running;
                    match std::mem::replace(&mut outgoing, Outgoing::Nothing) {
                        Outgoing::Nothing => result = Ok(false),
                        Outgoing::Data(data) => {
                            append(output, |room| {
                                traffic.encrypt(data, room).map_err(encrypt_size)
                            })?;
                        }
                        Outgoing::CloseNotify => append(output, |room| {
                            traffic.queue_close_notify(room).map_err(encrypt_size)
                        })?,
                    }
                }
                // Early data is not accepted.
                Ok(_) => result = Ok(false),
            }
            *input = &mut std::mem::take(input)[discard..];
            if !result? {
                return Ok(());
            }
        }
    }

    /// The connection is beyond help: tells the client why, if it listens.
    fn fail(
        &mut self,
        input: &mut [u8],
        output: &mut Vec<u8>,
        mut failure: Failure,
        cause: &dyn std::fmt::Display,
    ) -> io::Error {
        output.clear();
        if self.context.resolver.take_missed() {
            log::debug!("tls: {}: no certificate for the host that it wants", self.peer());
            output.extend_from_slice(UNRECOGNIZED_NAME);
            failure = Failure::NoCertificate;
        } else {
            log::debug!("tls: {}: {cause}", self.peer());
            self.alert(input, output);
        }
        if self.phase != Phase::Running {
            self.count(failure);
        }
        self.phase = Phase::Failed;
        // The client may be gone.
        let _ = self.send(output);
        io::Error::new(ErrorKind::ConnectionAborted, cause.to_string())
    }

    fn count(&self, failure: Failure) {
        self.context.port.handshakes().failed(failure);
    }

    /// Ciphertext that waits for the client.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes out what the library has for the client before it looks at the input again, which
    /// it must not after an error.
    fn alert(&mut self, input: &mut [u8], output: &mut Vec<u8>) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(input).state {
                Ok(ConnectionState::EncodeTlsData(mut state)) => {
                    if append(output, |room| state.encode(room).map_err(encode_size)).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                _ => return,
            }
        }
    }

    /// As [`crate::Net::write`]. What the socket did not take whole is not reported as written
    /// until it was: the engine offers the same bytes again.
    pub(crate) fn write(
        &mut self,
        buffers: &mut Buffers,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if self.phase == Phase::Plain {
            return self.socket.write_vectored(slices);
        }
        if self.phase != Phase::Running {
            return Err(ErrorKind::NotConnected.into());
        }
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut written = std::mem::take(&mut self.held);
        loop {
            let piece = gather(slices, written, &mut buffers.plain);
            if piece.is_empty() {
                return Ok(written);
            }
            self.encrypt(Outgoing::Data(piece), &mut buffers.output)?;
            if !self.send(&buffers.output)? {
                self.held = piece.len();
                let blocked = || ErrorKind::WouldBlock.into();
                return if written > 0 { Ok(written) } else { Err(blocked()) };
            }
            written += piece.len();
        }
    }

    /// Encrypts what is to be sent into `output`.
    fn encrypt(&mut self, outgoing: Outgoing<'_>, output: &mut Vec<u8>) -> io::Result<()> {
        let mut kept = std::mem::take(&mut self.input);
        let mut sink = Sink { buf: &mut [], used: 0, rest: std::mem::take(&mut self.plain) };
        let mut input = kept.as_mut_slice();
        output.clear();
        let result = self.advance(&mut input, output, &mut sink, outgoing);
        let left = input.len();
        kept.drain(..kept.len() - left);
        (self.input, self.plain) = (kept, sink.rest);
        result.map_err(|cause| {
            self.phase = Phase::Failed;
            io::Error::other(cause)
        })
    }

    /// Sends ciphertext behind what waits already; what does not fit waits. True: all has left.
    fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut done = 0;
        while self.waiting.is_empty() && done < bytes.len() {
            match self.socket.write(&bytes[done..]) {
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.waiting.len() + bytes.len() - done > WAITING_MAX {
            return Err(io::Error::other("the client does not read what TLS has to say"));
        }
        self.waiting.extend_from_slice(&bytes[done..]);
        Ok(self.waiting.is_empty())
    }

    /// Sends what waits. True: all has left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        if self.waiting.is_empty() {
            return Ok(true);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let sent = self.send(&waiting)?;
        if sent && self.shut {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(sent)
    }

    /// As [`crate::Net::shutdown`]: `close_notify`, then the end of the stream.
    pub(crate) fn shutdown(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        self.shut = true;
        self.close_notify(buffers)?;
        if self.waiting.is_empty() {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Says that the connection ends as it should.
    pub(crate) fn close_notify(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        if self.phase != Phase::Running {
            return Ok(());
        }
        self.encrypt(Outgoing::CloseNotify, &mut buffers.output)?;
        self.send(&buffers.output).map(|_| ())
    }

    /// The client's address, for the log.
    fn peer(&self) -> String {
        self.socket.peer_addr().map_or_else(|_| "(gone)".into(), |address| address.to_string())
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Fresh | Phase::Handshake) {
            self.count(Failure::Unfinished);
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// What is to leave encrypted.
#[derive(Clone, Copy, Debug)]
enum Outgoing<'a> {
    Nothing,
    Data(&'a [u8]),
    CloseNotify,
}

#[cfg(test)]
mod tests;
