//! The command line of the proxy (spec/programs.md §3).

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use config::CONFIG_DIR;

use crate::driver::{Options, run};

/// Pushpin proxy component
#[derive(Clone, Debug, Parser)]
#[command(name = "pushpin-proxy", version, disable_version_flag = true)]
pub struct Words {
    /// Config file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    logfile: Option<PathBuf>,
    /// 0 error, 1 warning, 2 info, 3 debug, 4 trace
    #[arg(short = 'L', long, value_name = "N", default_value_t = 2)]
    loglevel: u32,
    /// As --loglevel=3
    #[arg(long)]
    verbose: bool,
    /// Prefix of the names of ipc sockets, instead of the config file's
    #[arg(long, value_name = "PREFIX")]
    ipc_prefix: Option<String>,
    /// A route, instead of the routes file (repeatable)
    #[arg(long, value_name = "LINE")]
    route: Vec<String>,
    /// Accepted for old command lines
    #[arg(long, hide = true)]
    quiet_check: bool,
    /// Print version
    #[arg(short = 'V', short_alias = 'v', long, action = ArgAction::Version)]
    version: (),
}

/// Runs the program of these words until a signal ends it; gives its exit status.
pub fn main(words: Words) -> u8 {
    let level = if words.verbose { 3 } else { words.loglevel };
    let options = logging::Options { level, file: words.logfile, module_tag: false };
    if let Err(cause) = logging::init(options) {
        println!("{cause}");
        return 1;
    }
    let config = words.config.unwrap_or_else(|| PathBuf::from(CONFIG_DIR).join("pushpin.conf"));
    let status = run(&Options { config, ipc_prefix: words.ipc_prefix, routes: words.route });
    logging::flush();
    status
}
