//! The command line of the server program (spec/programs.md §2.1). Read by `bin/pushpin`, shown in
//! its manual page.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, CommandFactory, Parser};

use crate::Options;

/// HTTP reverse proxy server for streaming and long-polling services
#[derive(Parser)]
#[command(name = "pushpin", version, disable_version_flag = true)]
#[command(override_usage = "pushpin [options]")]
#[command(help_template = "{usage-heading} {usage}\n{about}\n\n{all-args}")]
pub struct Words {
    /// Config file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File to append the supervisor's log to
    #[arg(long, value_name = "FILE")]
    logfile: Option<PathBuf>,
    /// Log level, N or N,service:N,... (0 error, 1 warning, 2 info, 3 debug, 4 trace)
    #[arg(long, value_name = "X")]
    loglevel: Option<String>,
    /// Same as --loglevel=3
    #[arg(long)]
    verbose: bool,
    /// Log of all processes on standard output instead of files
    #[arg(short, long)]
    merge_output: bool,
    /// Listen on this port, or addr:port, instead of those of the config file
    #[arg(long, value_name = "[ADDR:]PORT")]
    port: Option<String>,
    /// Number of this instance: socket files, log files and ports get out of each other's way
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = instance)]
    id: Option<u32>,
    /// Add a route, instead of those of the routes file; repeatable
    #[arg(long, value_name = "LINE")]
    route: Vec<String>,
    /// Check config file and routes, list what is wrong with them, and start nothing
    #[arg(long)]
    check: bool,
    /// Tell which route and target would serve a request and what the backend would get
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"])]
    explain: Option<Vec<String>>,
    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: (),
}

fn instance(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "id must be greater than or equal to 0".to_owned())
}

/// Earlier versions took long options with one dash too.
fn with_two_dashes(arg: OsString) -> OsString {
    const LONG: [&str; 12] = [
        "check",
        "explain",
        "config",
        "logfile",
        "loglevel",
        "verbose",
        "merge-output",
        "port",
        "id",
        "route",
        "help",
        "version",
    ];
    let text = arg.to_str().unwrap_or_default();
    let name = text.strip_prefix('-').map(|rest| rest.split('=').next().unwrap_or(rest));
    if name.is_some_and(|name| LONG.contains(&name)) { format!("-{text}").into() } else { arg }
}

/// Help and version, or what is wrong with the command line.
pub fn refuse(error: &clap::Error) -> ExitCode {
    let unknown = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    match (error.kind(), unknown) {
        (ErrorKind::UnknownArgument, Some(arg)) => {
            let name = arg.trim_start_matches('-').split('=').next().unwrap_or_default();
            let help = Words::command().render_help();
            eprintln!("error: Unknown option '{name}'.\n\n{help}");
        }
        // nothing to do if printing fails
        _ => drop(error.print()),
    }
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    ExitCode::from(u8::from(!asked))
}

impl Words {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// What is wrong with it, or that help or the version is wanted; for [`refuse`].
    pub fn read() -> Result<Self, clap::Error> {
        Self::try_parse_from(std::env::args_os().map(with_two_dashes))
    }

    /// Whether nothing is to be started but the configuration checked.
    pub fn wants_check(&self) -> bool {
        self.check
    }

    /// Method and URL of a request to explain.
    pub fn explained(&self) -> Option<(&str, &str)> {
        match self.explain.as_deref() {
            Some([method, url]) => Some((method, url)),
            _ => None,
        }
    }
}

impl From<Words> for Options {
    fn from(words: Words) -> Self {
        Self {
            config: words.config,
            logfile: words.logfile,
            loglevel: words.loglevel,
            verbose: words.verbose,
            merge_output: words.merge_output,
            port: words.port,
            id: words.id,
            routes: words.route,
        }
    }
}
