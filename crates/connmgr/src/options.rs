//! The checked settings of the process (`spec/connmgr.md §1`). [`Words`] are the options as given;
//! only what is here travels through the program.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use admin::{DebugSpec, MetricsSpec};

use crate::driver::listen::{ListenSpec, TcpOptions};
pub use crate::words::Words;

/// The settings of the process, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instance id.
    pub id: String,
    /// Worker threads, 1 to 1024.
    pub workers: u16,
    /// Most connections of stream mode, over all workers.
    pub stream_maxconn: usize,
    /// Most connections of req mode, over all workers.
    pub req_maxconn: usize,
    /// Most of a request head, and credits of a response, in bytes.
    pub buffer_size: u32,
    /// Most of a body in req mode, in bytes.
    pub body_buffer_size: u32,
    /// Buffer blocks beyond the two of each connection, shared by all.
    pub spare_blocks: usize,
    /// Blocks that one connection may have.
    pub connection_blocks_max: u8,
    /// Messages that may wait for one WebSocket client.
    pub messages_max: usize,
    /// Silence of a client that ends its connection, in milliseconds.
    pub stream_timeout_ms: u32,
    /// Whether clients may keep their compression window between messages.
    pub compression_takeover: bool,
    /// Most bytes of a client's WebSocket message.
    pub message_size_max: u64,
    /// Longest request and response of req mode, in milliseconds.
    pub req_timeout_ms: u32,
    /// Where to listen.
    pub listen: Vec<ListenSpec>,
    /// ZeroMQ specs of req mode.
    pub zclient_req: Vec<String>,
    /// ZeroMQ spec bases of stream mode.
    pub zclient_stream: Vec<String>,
    /// Connect them instead of binding.
    pub zclient_connect: bool,
    /// ZeroMQ specs of outgoing requests, req mode.
    pub zserver_req: Vec<String>,
    /// ZeroMQ spec bases of outgoing requests, stream mode.
    pub zserver_stream: Vec<String>,
    /// Connect them instead of binding.
    pub zserver_connect: bool,
    /// Outgoing connections to internal addresses are refused.
    pub deny_out_internal: bool,
    /// How the kernel finds out that a client vanished.
    pub tcp: TcpOptions,
    /// Mode of ipc files.
    pub ipc_file_mode: Option<u32>,
    /// Where certificates and keys are.
    pub tls_identities_dir: PathBuf,
    /// Whether WebSockets may be compressed.
    pub compression: bool,
    /// Where debug logs are served.
    pub debug_socket: Option<DebugSpec>,
    /// Where metrics are served.
    pub prometheus: Option<MetricsSpec>,
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

/// The checked numbers of connections and blocks.
struct Sizes {
    stream_maxconn: usize,
    req_maxconn: usize,
    spare_blocks: usize,
    connection_blocks_max: u8,
}
/// Longest silence that the kernel can be told to wait for.
const KEEPALIVE_MAX_S: u32 = 32_767;

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
        let workers = self.workers()?;
        let sizes = self.sizes_of(workers.into())?;
        Ok(Options {
            id: self.instance()?,
            workers,
            stream_maxconn: sizes.stream_maxconn,
            req_maxconn: sizes.req_maxconn,
            buffer_size: self.buffer()?,
            compression_takeover: self.compression_takeover,
            message_size_max: match number("message-size-max", &self.message_size_max)? {
                0 => u64::MAX,
                size => size,
            },
            body_buffer_size: number("body-buffer-size", &self.body_buffer_size)?,
            spare_blocks: sizes.spare_blocks,
            connection_blocks_max: sizes.connection_blocks_max,
            messages_max: number("messages-max", &self.messages_max)?,
            stream_timeout_ms: timeout("stream-timeout", &self.stream_timeout)?,
            req_timeout_ms: timeout("req-timeout", &self.req_timeout)?,
            listen: self.listeners()?,
            zclient_req: or_default(&self.zclient_req, "ipc://client"),
            zclient_stream: or_default(&self.zclient_stream, "ipc://client"),
            zclient_connect: self.zclient_connect,
            zserver_req: self.zserver_req.clone(),
            zserver_stream: self.zserver_stream.clone(),
            zserver_connect: self.zserver_connect,
            deny_out_internal: self.deny_out_internal,
            tcp: TcpOptions {
                keepalive: seconds("tcp-keepalive", &self.tcp_keepalive, KEEPALIVE_MAX_S)?,
                user_timeout: seconds("tcp-user-timeout", &self.tcp_user_timeout, TIMEOUT_MAX_S)?,
            },
            ipc_file_mode: octal("ipc-file-mode", &self.ipc_file_mode)?,
            tls_identities_dir: self.tls_identities_dir.clone(),
            compression: self.compression,
            debug_socket: parsed("debug-socket", self.debug_socket.as_deref())?,
            prometheus: parsed("prometheus", self.prometheus.as_deref())?,
        })
    }

    fn instance(&self) -> Result<String, Error> {
        let id = self.id.as_deref().unwrap_or(self.default_id());
        if id.is_empty() || id.contains(' ') {
            return Err(error("failed to parse id: value cannot be empty or contain a space"));
        }
        if id.len() > zhttp::MAX_ID_BYTES {
            return Err(error("failed to parse id: value is longer than 64 bytes"));
        }
        Ok(id.to_string())
    }

    fn workers(&self) -> Result<u16, Error> {
        match number::<usize>("workers", &self.workers)? {
            0 => Err(error("failed to parse workers: value must be at least 1")),
            workers @ 1..=1024 => Ok(workers as u16),
            _ => Err(error("failed to parse workers: value too large")),
        }
    }

    fn sizes_of(&self, workers: usize) -> Result<Sizes, Error> {
        let req_maxconn = number::<usize>("req-maxconn", &self.req_maxconn)?;
        let stream_maxconn = number::<usize>("stream-maxconn", &self.stream_maxconn)?;
        if req_maxconn.saturating_add(stream_maxconn) > 10_000_000 {
            return Err(error("total maxconn is too large"));
        }
        let base = 2 * stream_maxconn;
        let blocks = self.blocks_max.as_ref().map(|blocks| number("blocks-max", blocks));
        let blocks: usize = blocks.transpose()?.unwrap_or(base);
        let Some(spare_blocks) = blocks.checked_sub(base) else {
            return Err(error("blocks-max is too small"));
        };
        let of_one: usize = number("connection-blocks-max", &self.connection_blocks_max)?;
        if of_one < 2 {
            return Err(error("connection-blocks-max is too small"));
        }
        if req_maxconn < workers {
            return Err(error("req maxconn must be >= workers"));
        }
        if stream_maxconn < workers {
            return Err(error("stream maxconn must be >= workers"));
        }
        let connection_blocks_max = of_one.min(u8::MAX.into()) as u8;
        Ok(Sizes { stream_maxconn, req_maxconn, spare_blocks, connection_blocks_max })
    }

    fn buffer(&self) -> Result<u32, Error> {
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
        specs.iter().map(|spec| parse("listen", spec)).collect()
    }

    fn has_client_side(&self) -> bool {
        !self.zserver_req.is_empty() || !self.zserver_stream.is_empty()
    }
}

fn error(text: &str) -> Error {
    Error(text.to_string())
}

fn or_default(values: &[String], default: &str) -> Vec<String> {
    if values.is_empty() { vec![default.to_string()] } else { values.to_vec() }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, Error>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|reason| Error(format!("failed to parse {name}: {reason}")))
}

fn parsed<T: FromStr<Err = String>>(name: &str, text: Option<&str>) -> Result<Option<T>, Error> {
    text.map(|text| parse(name, text)).transpose()
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Error>
where
    T::Err: fmt::Display,
{
    parse(name, text)
}

/// Milliseconds of a number of seconds.
fn timeout(name: &str, text: &str) -> Result<u32, Error> {
    number::<u32>(name, text).map(|seconds| seconds.min(TIMEOUT_MAX_S) * 1000)
}

/// A duration, if it is not 0.
fn seconds(name: &str, text: &str, max: u32) -> Result<Option<Duration>, Error> {
    match number::<u32>(name, text)? {
        0 => Ok(None),
        n if n <= max => Ok(Some(Duration::from_secs(n.into()))),
        _ => Err(Error(format!("failed to parse {name}: value must be at most {max}"))),
    }
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
        let words = Words::parse_line([&["pushpin-connmgr"], args].concat().iter())
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
        assert_eq!((options.stream_maxconn, options.listen.len()), (50_000, 2));
        assert!(options.compression && options.deny_out_internal);
    }

    #[test]
    fn defaults() {
        let o = check(&[]).unwrap();
        assert_eq!((o.id.as_str(), o.workers), ("connmgr", 2));
        assert_eq!((o.stream_maxconn, o.req_maxconn), (10_000, 100));
        assert_eq!((o.buffer_size, o.body_buffer_size, o.messages_max), (8192, 100_000, 100));
        assert_eq!((o.spare_blocks, o.connection_blocks_max), (0, 2));
        assert_eq!((o.stream_timeout_ms, o.req_timeout_ms), (1_800_000, 30_000));
        assert_eq!(
            (o.zclient_req, o.zclient_stream),
            (vec!["ipc://client".into()], vec!["ipc://client".into()])
        );
        assert!(o.ipc_file_mode.is_none() && o.prometheus.is_none() && o.debug_socket.is_none());
    }

    #[test]
    fn values() {
        let o = check(&[
            "--id",
            "x",
            "--workers",
            "3",
            "--req-maxconn=7",
            "--stream-maxconn=10",
            "--blocks-max=25",
            "--connection-blocks-max=4",
            "--req-timeout=5",
            "--body-buffer-size=9",
            "--zclient-req=ipc://a",
            "--zclient-req=ipc://b",
            "--ipc-file-mode=660",
            "--prometheus=9100,prefix=p_",
            "--debug-socket=d,mode=600",
            "--listen=80,req",
            "--listen=81,req,stream",
        ])
        .unwrap();
        assert_eq!((o.id.as_str(), o.workers, o.req_maxconn), ("x", 3, 7));
        assert_eq!((o.spare_blocks, o.connection_blocks_max, o.req_timeout_ms), (5, 4, 5_000));
        assert_eq!((o.body_buffer_size, o.zclient_req.len()), (9, 2));
        assert_eq!((o.ipc_file_mode, o.prometheus.unwrap().prefix), (Some(0o660), "p_".into()));
        let modes: Vec<bool> = o.listen.iter().map(ListenSpec::is_req).collect();
        assert_eq!(modes, [true, false]);
    }

    #[test]
    fn names_the_option_and_the_reason() {
        let digit = "invalid digit found in string";
        for name in [
            "log-level",
            "workers",
            "req-maxconn",
            "stream-maxconn",
            "buffer-size",
            "body-buffer-size",
            "blocks-max",
            "connection-blocks-max",
            "messages-max",
            "message-size-max",
            "req-timeout",
            "stream-timeout",
            "tcp-keepalive",
            "tcp-user-timeout",
            "ipc-file-mode",
            "tcp-keepalive",
            "tcp-user-timeout",
        ] {
            let words =
                Words::parse_line(["connmgr".into(), format!("--{name}=x")].iter()).unwrap();
            let result = words.level().and_then(|_| words.check());
            let text = result.err().map(|error| error.to_string());
            assert_eq!(text, Some(format!("failed to parse {name}: {digit}")));
        }
        let cases: [(&[&str], &str); 21] = [
            (&["--workers=0"], "failed to parse workers: value must be at least 1"),
            (&["--workers=1025"], "failed to parse workers: value too large"),
            (&["--id="], "failed to parse id: value cannot be empty or contain a space"),
            (&["--id=a b"], "failed to parse id: value cannot be empty or contain a space"),
            (&["--stream-maxconn=10000000"], "total maxconn is too large"),
            (&["--blocks-max=19999"], "blocks-max is too small"),
            (&["--connection-blocks-max=1"], "connection-blocks-max is too small"),
            (&["--req-maxconn=1"], "req maxconn must be >= workers"),
            (&["--stream-maxconn=1"], "stream maxconn must be >= workers"),
            (&["--listen=x:1"], "failed to parse listen: invalid TCP address or port: x:1"),
            (&["--listen=80,a=b"], "failed to parse listen: invalid param: a=b"),
            (&["--listen=x,local,tls"], "failed to parse listen: invalid param: tls"),
            (
                &["--listen=x,local,mode=9"],
                "failed to parse listen: failed to parse mode: invalid digit found in string",
            ),
            (&["--prometheus=x"], "failed to parse prometheus: invalid TCP address or port: x"),
            (&["--prometheus=1,x"], "failed to parse prometheus: invalid param: x"),
            (&["--debug-socket=x,y"], "failed to parse debug-socket: invalid param: y"),
            (
                &["--tcp-keepalive=32768"],
                "failed to parse tcp-keepalive: value must be at most 32767",
            ),
            (
                &["--debug-socket=x,mode=8"],
                "failed to parse debug-socket: failed to parse mode: invalid digit found in string",
            ),
            (
                &["--buffer-size=1"],
                "failed to parse buffer-size: value must be from 256 to 16777216",
            ),
            (&["--req-maxconn=-1"], "failed to parse req-maxconn: invalid digit found in string"),
            (
                &["--messages-max="],
                "failed to parse messages-max: cannot parse integer from empty string",
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

    #[test]
    fn is_condure_under_that_name() {
        let id = |name: &str, args: &[&str]| {
            let words = Words::parse_line([&[name], args].concat().iter()).unwrap();
            words.check().unwrap().id
        };
        assert_eq!(id("/usr/bin/condure", &["--compression"]), "condure");
        assert_eq!(id("condure", &["--id=x"]), "x");
        assert_eq!(id("/opt/pushpin-connmgr", &[]), "connmgr");
        let version = Words::parse_line(["condure", "-V"].iter()).unwrap_err().to_string();
        assert!(version.starts_with("condure "), "{version}");
    }

    #[test]
    fn help_is_grouped() {
        let help = Words::parse_line(["pushpin-connmgr", "--help"].iter()).unwrap_err().to_string();
        for heading in ["Process:", "Clients:", "Limits:", "ZeroMQ, server side:"] {
            assert!(help.contains(&format!("\n{heading}\n")), "{heading}\n{help}");
        }
    }
}
