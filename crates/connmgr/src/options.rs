//! The command line (`spec/connmgr.md §1`): words as given first, then checked settings. Only the
//! second travel through the program.

use std::fmt;
use std::str::FromStr;

use clap::Parser;

use crate::driver::listen::ListenSpec;

/// The options as words.
#[derive(Clone, Debug, Parser)]
#[command(name = "pushpin-connmgr", version, about = "HTTP/WebSocket connection manager")]
pub struct Words {
    /// Log level: 0 error, 1 warn, 2 info, 3 debug, 4 trace
    #[arg(long, value_name = "N", default_value = "2")]
    pub log_level: String,
    /// Instance id
    #[arg(long, value_name = "ID", default_value = "connmgr")]
    pub id: String,
    /// Worker threads
    #[arg(long, value_name = "N", default_value = "2")]
    pub workers: String,
    /// Most connections in req mode
    #[arg(long, value_name = "N", default_value = "100")]
    pub req_maxconn: String,
    /// Most connections in stream mode
    #[arg(long, value_name = "N", default_value = "10000")]
    pub stream_maxconn: String,
    /// Connection buffer size in bytes: most of a request head, and credits of a response
    #[arg(long, value_name = "N", default_value = "8192")]
    pub buffer_size: String,
    /// Body buffer size in bytes, req mode
    #[arg(long, value_name = "N", default_value = "100000")]
    pub body_buffer_size: String,
    /// Accepted for compatibility; buffers are not kept here
    #[arg(long, value_name = "N")]
    pub blocks_max: Option<String>,
    /// Accepted for compatibility; buffers are not kept here
    #[arg(long, value_name = "N", default_value = "2")]
    pub connection_blocks_max: String,
    /// Most queued WebSocket messages per connection
    #[arg(long, value_name = "N", default_value = "100")]
    pub messages_max: String,
    /// Connection timeout in req mode, seconds
    #[arg(long, value_name = "N", default_value = "30")]
    pub req_timeout: String,
    /// Connection timeout in stream mode, seconds
    #[arg(long, value_name = "N", default_value = "1800")]
    pub stream_timeout: String,
    /// Port, address:port or path to listen on, with parameters (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub listen: Vec<String>,
    /// ZeroMQ spec of the server side in req mode (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub zclient_req: Vec<String>,
    /// ZeroMQ spec base of the server side in stream mode (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub zclient_stream: Vec<String>,
    /// Connect the server side's ZeroMQ sockets instead of binding them
    #[arg(long)]
    pub zclient_connect: bool,
    /// ZeroMQ spec of the client side in req mode (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub zserver_req: Vec<String>,
    /// ZeroMQ spec base of the client side in stream mode (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub zserver_stream: Vec<String>,
    /// Connect the client side's ZeroMQ sockets instead of binding them
    #[arg(long)]
    pub zserver_connect: bool,
    /// File mode of ipc sockets, octal; 0 leaves it
    #[arg(long, value_name = "OCTAL", default_value = "0")]
    pub ipc_file_mode: String,
    /// Directory of certificates and keys
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub tls_identities_dir: String,
    /// Allow WebSocket compression
    #[arg(long)]
    pub compression: bool,
    /// Let clients keep their compression window between messages: smaller messages, and about
    /// 43 KB of memory for each such WebSocket
    #[arg(long)]
    pub compression_takeover: bool,
    /// Most bytes of a WebSocket message from a client, decompressed; 0: no limit, for messages
    /// are passed on as they come
    #[arg(long, value_name = "N", default_value = "0")]
    pub message_size_max: String,
    /// Refuse outgoing connections to internal addresses
    #[arg(long)]
    pub deny_out_internal: bool,
    /// Unix socket that serves debug logs
    #[arg(long, value_name = "PATH")]
    pub debug_socket: Option<String>,
    /// Address of the metrics listener
    #[arg(long, value_name = "SPEC")]
    pub prometheus: Option<String>,
    /// Print the size of a connection's state and exit
    #[arg(long)]
    pub sizes: bool,
}

/// The settings of the process, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instance id.
    pub id: String,
    /// Worker threads, 1 to 1024.
    pub workers: u16,
    /// Most connections, over all workers.
    pub stream_maxconn: usize,
    /// Most of a request head, and credits of a response, in bytes.
    pub buffer_size: u32,
    /// Silence of a client that ends its connection, in milliseconds.
    pub stream_timeout_ms: u32,
    /// Whether WebSocket messages may be compressed.
    pub compression: bool,
    /// Whether clients may keep their compression window between messages.
    pub compression_takeover: bool,
    /// Messages that may wait for one client that does not read.
    pub messages_max: usize,
    /// Most bytes of a client's WebSocket message.
    pub message_size_max: u64,
    /// Where to listen.
    pub listen: Vec<ListenSpec>,
    /// ZeroMQ spec bases.
    pub zclient_stream: Vec<String>,
    /// Connect them instead of binding.
    pub zclient_connect: bool,
    /// Mode of ipc files.
    pub ipc_file_mode: Option<u32>,
    /// What was asked for and is not part of this build, for a warning each.
    pub left_out: Vec<&'static str>,
}

/// An option's value is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub(crate) String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Longest timeout: half of what the connections' wrapping clocks can tell apart.
const TIMEOUT_MAX_S: u32 = 20 * 24 * 3600;

impl Words {
    /// The log level, 0 to 4.
    ///
    /// # Errors
    /// `failed to parse log-level: …`
    pub fn level(&self) -> Result<u32, Error> {
        number::<u32>("log-level", &self.log_level).map(|level| level.min(4))
    }

    /// Checks the words.
    ///
    /// # Errors
    /// The texts of `spec/connmgr.md §1`.
    pub fn check(&self) -> Result<Options, Error> {
        if self.id.is_empty() || self.id.contains(' ') {
            return Err(error("failed to parse id: value cannot be empty or contain a space"));
        }
        if self.id.len() > zhttp::MAX_ID_BYTES {
            return Err(error("failed to parse id: value is longer than 64 bytes"));
        }
        let workers = self.workers()?;
        let stream_maxconn = self.maxconn(workers.into())?;
        let listen = self.listeners()?;
        Ok(Options {
            id: self.id.clone(),
            workers,
            stream_maxconn,
            buffer_size: self.buffer()?,
            stream_timeout_ms: number::<u32>("stream-timeout", &self.stream_timeout)?
                .min(TIMEOUT_MAX_S)
                * 1000,
            compression: self.compression,
            compression_takeover: self.compression_takeover,
            messages_max: number("messages-max", &self.messages_max)?,
            message_size_max: match number("message-size-max", &self.message_size_max)? {
                0 => u64::MAX,
                size => size,
            },
            listen,
            zclient_stream: or_default(&self.zclient_stream, "ipc://client"),
            zclient_connect: self.zclient_connect,
            ipc_file_mode: octal("ipc-file-mode", &self.ipc_file_mode)?,
            left_out: self.left_out()?,
        })
    }

    fn workers(&self) -> Result<u16, Error> {
        match number::<usize>("workers", &self.workers)? {
            0 => Err(error("failed to parse workers: value must be at least 1")),
            workers @ 1..=1024 => Ok(workers as u16),
            _ => Err(error("failed to parse workers: value too large")),
        }
    }

    fn maxconn(&self, workers: usize) -> Result<usize, Error> {
        let req = number::<usize>("req-maxconn", &self.req_maxconn)?;
        let stream = number::<usize>("stream-maxconn", &self.stream_maxconn)?;
        if req.saturating_add(stream) > 10_000_000 {
            return Err(error("total maxconn is too large"));
        }
        if let Some(blocks) = &self.blocks_max
            && number::<usize>("blocks-max", blocks)? < 2 * stream
        {
            return Err(error("blocks-max is too small"));
        }
        if number::<usize>("connection-blocks-max", &self.connection_blocks_max)? < 2 {
            return Err(error("connection-blocks-max is too small"));
        }
        if req < workers {
            return Err(error("req maxconn must be >= workers"));
        }
        if stream < workers {
            return Err(error("stream maxconn must be >= workers"));
        }
        Ok(stream)
    }

    fn buffer(&self) -> Result<u32, Error> {
        number::<usize>("body-buffer-size", &self.body_buffer_size)?;
        number::<u32>("req-timeout", &self.req_timeout)?;
        match number::<u32>("buffer-size", &self.buffer_size)? {
            size @ 256..=16_777_216 => Ok(size),
            _ => Err(error("failed to parse buffer-size: value must be from 256 to 16777216")),
        }
    }

    /// The listeners; one on port 8000 if nothing at all is asked for.
    fn listeners(&self) -> Result<Vec<ListenSpec>, Error> {
        let specs = if self.has_client_side() {
            self.listen.clone()
        } else {
            or_default(&self.listen, "0.0.0.0:8000,stream")
        };
        let parse = |spec: &String| {
            spec.parse().map_err(|reason| Error(format!("failed to parse listen: {reason}")))
        };
        specs.iter().map(parse).collect()
    }

    fn has_client_side(&self) -> bool {
        !self.zserver_req.is_empty() || !self.zserver_stream.is_empty()
    }

    fn left_out(&self) -> Result<Vec<&'static str>, Error> {
        let asked = [
            (self.has_client_side(), "outgoing connections (--zserver-req, --zserver-stream)"),
            (self.debug_socket.is_some(), "the debug socket (--debug-socket)"),
            (self.prometheus.is_some(), "metrics (--prometheus)"),
        ];
        Ok(asked.into_iter().filter(|(asked, _)| *asked).map(|(_, what)| what).collect())
    }
}

fn error(text: &str) -> Error {
    Error(text.to_string())
}

fn or_default(values: &[String], default: &str) -> Vec<String> {
    if values.is_empty() { vec![default.to_string()] } else { values.to_vec() }
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Error>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|reason| Error(format!("failed to parse {name}: {reason}")))
}

fn octal(name: &str, text: &str) -> Result<Option<u32>, Error> {
    let mode = u32::from_str_radix(text, 8)
        .map_err(|reason| Error(format!("failed to parse {name}: {reason}")))?;
    Ok((mode != 0).then_some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<Options, String> {
        let words = Words::try_parse_from([&["pushpin-connmgr"], args].concat())
            .map_err(|error| error.to_string())?;
        words.check().map_err(|error| error.to_string())
    }

    #[test]
    fn takes_what_the_supervisor_passes() {
        let options = check(&[
            "--log-level=2",
            "--buffer-size=8192",
            "--stream-maxconn=50000",
            "--compression",
            "--zserver-stream=ipc://run/x-client",
            "--deny-out-internal",
            "--listen=0.0.0.0:7999,stream",
            "--listen=path,local,stream,mode=666",
            "--zclient-stream=ipc://run/x",
        ])
        .unwrap();
        assert_eq!(
            (options.stream_maxconn, options.listen.len(), options.compression),
            (50_000, 2, true)
        );
        assert_eq!(options.left_out.len(), 1);
        assert_eq!((options.messages_max, options.message_size_max), (100, u64::MAX));
    }

    #[test]
    fn names_the_option_and_the_reason() {
        let cases: [(&[&str], &str); 15] = [
            (&["--workers=x"], "failed to parse workers: invalid digit found in string"),
            (&["--workers=0"], "failed to parse workers: value must be at least 1"),
            (&["--workers=1025"], "failed to parse workers: value too large"),
            (&["--messages-max=-1"], "failed to parse messages-max: invalid digit found in string"),
            (&["--id="], "failed to parse id: value cannot be empty or contain a space"),
            (&["--id=a b"], "failed to parse id: value cannot be empty or contain a space"),
            (&["--stream-maxconn=10000000"], "total maxconn is too large"),
            (&["--blocks-max=100"], "blocks-max is too small"),
            (&["--connection-blocks-max=1"], "connection-blocks-max is too small"),
            (&["--req-maxconn=1"], "req maxconn must be >= workers"),
            (&["--stream-maxconn=1"], "stream maxconn must be >= workers"),
            (&["--listen=x:1"], "failed to parse listen: invalid TCP address or port: x:1"),
            (&["--listen=80,a=b"], "failed to parse listen: invalid param: a=b"),
            (
                &["--ipc-file-mode=9"],
                "failed to parse ipc-file-mode: invalid digit found in string",
            ),
            (
                &["--buffer-size=1"],
                "failed to parse buffer-size: value must be from 256 to 16777216",
            ),
        ];
        for (args, text) in cases {
            assert_eq!(check(args).err().as_deref(), Some(text), "{args:?}");
        }
    }

    #[test]
    fn listens_on_8000_unless_only_the_client_side_is_wanted() {
        assert_eq!(check(&[]).unwrap().listen.len(), 1);
        assert!(check(&["--zserver-stream=ipc://x"]).unwrap().listen.is_empty());
    }
}
