//! The command line as words (`spec/connmgr.md §1`), with the text of `--help`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser};

/// Under this name the program is what it replaces: id and version are given under it.
const OLD_NAME: &str = "condure";

const PROCESS: &str = "Process";
const CLIENTS: &str = "Clients";
const LIMITS: &str = "Limits";
const SERVER_SIDE: &str = "ZeroMQ, server side";
const CLIENT_SIDE: &str = "Outgoing requests (client side)";
const OPERATORS: &str = "For operators";

const LISTEN: &str = "Where to listen, repeatable: PORT, ADDR:PORT or [V6ADDR]:PORT, or \
    PATH,local; then parameters: stream (the default) or req, tls, default-cert=NAME, reuseport; \
    with local: mode=OCTAL, user=NAME, group=NAME [default: 0.0.0.0:8000,stream]";
const PROMETHEUS: &str = "Serve metrics for Prometheus: [ADDR:]PORT or PATH,local; then \
    parameters: prefix=STRING; with local: mode=OCTAL, user=NAME, group=NAME";
const DEBUG_SOCKET: &str = "Unix socket that serves the log at all levels and answers \"dump\": \
    PATH[,mode=OCTAL][,user=NAME][,group=NAME]";

/// The options as given; [`Words::check`] makes settings of them.
#[derive(Clone, Debug, Parser)]
#[command(name = "pushpin-connmgr", version, about = "HTTP/WebSocket connection manager")]
pub struct Words {
    /// Instance id: non-empty, no space, at most 64 bytes [default: connmgr]
    #[arg(long, value_name = "ID", help_heading = PROCESS)]
    pub id: Option<String>,
    /// Log level: 0 error, 1 warn, 2 info, 3 debug, 4 and above trace
    #[arg(long, value_name = "N", default_value = "2", help_heading = PROCESS)]
    pub log_level: String,
    /// Worker threads, 1 to 1024
    #[arg(long, value_name = "N", default_value = "2", help_heading = PROCESS)]
    pub workers: String,

    /// Listeners.
    #[arg(long, value_name = "SPEC", help_heading = CLIENTS, help = LISTEN)]
    pub listen: Vec<String>,
    /// Ask clients that were silent for so many seconds, in the kernel, whether they are there;
    /// 0: as the system is set
    #[arg(long, value_name = "S", default_value = "0", help_heading = CLIENTS)]
    pub tcp_keepalive: String,
    /// Give up clients that have not acknowledged bytes for so many seconds; 0: as the system is
    /// set
    #[arg(long, value_name = "S", default_value = "0", help_heading = CLIENTS)]
    pub tcp_user_timeout: String,
    /// Directory of certificates (NAME.crt) and keys (NAME.key)
    #[arg(long, value_name = "DIR", default_value = ".", help_heading = CLIENTS)]
    pub tls_identities_dir: PathBuf,
    /// Allow WebSocket compression (permessage-deflate)
    #[arg(long, help_heading = CLIENTS)]
    pub compression: bool,
    /// Let clients keep their compression window between messages: smaller messages, and about
    /// 43 KB of memory for each such WebSocket
    #[arg(long, help_heading = CLIENTS)]
    pub compression_takeover: bool,

    /// Most connections in stream mode, over all workers
    #[arg(long, value_name = "N", default_value = "10000", help_heading = LIMITS)]
    pub stream_maxconn: String,
    /// Most connections in req mode, over all workers
    #[arg(long, value_name = "N", default_value = "100", help_heading = LIMITS)]
    pub req_maxconn: String,
    /// Seconds of silence after which a connection of stream mode ends
    #[arg(long, value_name = "S", default_value = "1800", help_heading = LIMITS)]
    pub stream_timeout: String,
    /// Seconds from being ready for a request to the end of its response, in req mode
    #[arg(long, value_name = "S", default_value = "30", help_heading = LIMITS)]
    pub req_timeout: String,
    /// Size of a buffer block in bytes: most of a request head, and credits of a response
    #[arg(long, value_name = "N", default_value = "8192", help_heading = LIMITS)]
    pub buffer_size: String,
    /// Most bytes of a body in req mode, request and response
    #[arg(long, value_name = "N", default_value = "100000", help_heading = LIMITS)]
    pub body_buffer_size: String,
    /// Buffer blocks of all connections of stream mode together. What exceeds two for each may be
    /// used for larger heads and credits [default: 2 x stream-maxconn]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub blocks_max: Option<String>,
    /// Buffer blocks of one connection, at least 2
    #[arg(long, value_name = "N", default_value = "2", help_heading = LIMITS)]
    pub connection_blocks_max: String,
    /// Most messages that wait for one WebSocket client
    #[arg(long, value_name = "N", default_value = "100", help_heading = LIMITS)]
    pub messages_max: String,
    /// Most bytes of a WebSocket message from a client, decompressed; 0: no limit, for messages
    /// are passed on as they come
    #[arg(long, value_name = "N", default_value = "0", help_heading = LIMITS)]
    pub message_size_max: String,

    /// Spec base of PUSH, ROUTER and SUB in stream mode, ipc: or tcp:, repeatable
    /// [default: ipc://client]
    #[arg(long, value_name = "SPEC", help_heading = SERVER_SIDE)]
    pub zclient_stream: Vec<String>,
    /// Spec of the DEALER in req mode, repeatable [default: ipc://client]
    #[arg(long, value_name = "SPEC", help_heading = SERVER_SIDE)]
    pub zclient_req: Vec<String>,
    /// Connect these sockets instead of binding them
    #[arg(long, help_heading = SERVER_SIDE)]
    pub zclient_connect: bool,
    /// File mode of bound ipc sockets, of both sides, octal; 0 leaves it
    #[arg(long, value_name = "OCTAL", default_value = "0", help_heading = SERVER_SIDE)]
    pub ipc_file_mode: String,

    /// Spec base of PULL, ROUTER and PUB in stream mode, ipc: or tcp:, repeatable
    #[arg(long, value_name = "SPEC", help_heading = CLIENT_SIDE)]
    pub zserver_stream: Vec<String>,
    /// Spec of the ROUTER in req mode, repeatable
    #[arg(long, value_name = "SPEC", help_heading = CLIENT_SIDE)]
    pub zserver_req: Vec<String>,
    /// Connect these sockets instead of binding them
    #[arg(long, help_heading = CLIENT_SIDE)]
    pub zserver_connect: bool,
    /// Refuse connections to internal addresses
    #[arg(long, help_heading = CLIENT_SIDE)]
    pub deny_out_internal: bool,

    /// The metrics listener.
    #[arg(long, value_name = "SPEC", help_heading = OPERATORS, help = PROMETHEUS)]
    pub prometheus: Option<String>,
    /// The debug socket.
    #[arg(long, value_name = "SPEC", help_heading = OPERATORS, help = DEBUG_SOCKET)]
    pub debug_socket: Option<String>,
    /// Print the sizes of connections' states and exit
    #[arg(long, help_heading = OPERATORS)]
    pub sizes: bool,

    #[arg(skip)]
    old_name: bool,
}

impl Words {
    /// The words of this process; ends it for `--help`, `--version` and wrong usage (status 2).
    pub fn of_process() -> Self {
        Self::parse_line(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line, program name first.
    ///
    /// # Errors
    /// Wrong usage, and the texts of `--help` and `--version`.
    pub fn parse_line<T: Into<OsString> + Clone>(
        line: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
        let program = line.first().map(Path::new).and_then(Path::file_name);
        let old_name = program.is_some_and(|name| name == OLD_NAME);
        let command = if old_name {
            Self::command().name(OLD_NAME).bin_name(OLD_NAME)
        } else {
            Self::command()
        };
        let matches: ArgMatches = command.try_get_matches_from(line)?;
        let words = Self::from_arg_matches(&matches)?;
        Ok(Self { old_name, ..words })
    }

    /// The instance id if none is given.
    pub(crate) fn default_id(&self) -> &'static str {
        if self.old_name { OLD_NAME } else { "connmgr" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_documentation() {
        let page = include_str!("../../../docs/connmgr.md");
        let named: Vec<&str> = page.split('`').collect();
        let is_named = |option: &str| named.iter().any(|text| *text == format!("--{option}"));
        let command = Words::command();
        let options = command.get_arguments().filter_map(|arg| arg.get_long());
        let missing: Vec<&str> = options.filter(|option| !is_named(option)).collect();
        assert!(missing.is_empty(), "not in docs/connmgr.md: {missing:?}");
    }

    #[test]
    fn nothing_else_is_in_the_documentation() {
        let page = include_str!("../../../docs/connmgr.md");
        let table = page.split("## Options").nth(1).and_then(|rest| rest.split("\n## ").next());
        let command = Words::command();
        let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        let rows = table.into_iter().flat_map(str::lines).filter(|line| line.starts_with("| `--"));
        let named = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`'));
        for option in named.filter_map(|text| text.strip_prefix("--")) {
            assert!(known.contains(&option), "--{option} is no option");
        }
    }
}
