//! The proxy program: routes requests to backends and hands holds to the handler.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Gives memory back after many clients have left, which glibc does not (docs/architecture.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Where the package keeps the configuration.
const CONFIGDIR: &str = match option_env!("CONFIGDIR") {
    Some(dir) => dir,
    None => "/etc/pushpin",
};

/// Pushpin's proxy.
#[derive(Parser)]
#[command(name = "pushpin-proxy", version)]
struct Words {
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
}

fn main() -> ExitCode {
    let words = Words::parse();
    let level = if words.verbose { 3 } else { words.loglevel };
    let options = logging::Options { level, file: words.logfile, module_tag: false };
    if let Err(cause) = logging::init(options) {
        println!("{cause}");
        return ExitCode::from(1);
    }
    let config = words.config.unwrap_or_else(|| PathBuf::from(CONFIGDIR).join("pushpin.conf"));
    let status = proxy::driver::run(&proxy::driver::Options {
        config,
        ipc_prefix: words.ipc_prefix,
        routes: words.route,
    });
    logging::flush();
    ExitCode::from(status)
}
