//! The logger of all programs: the line format of the field (spec/programs.md §5), written by a
//! thread of its own so that a slow disk or terminal never blocks an event loop.
//!
//! Programs call [`init`] once, log through the `log` macros, call [`reopen`] on HUP, and let the
//! [`Guard`] flush what is left when `main` ends ([`flush`] before `std::process::exit`).

mod line;
mod sink;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::LevelFilter;

use sink::{Output, Pipe, Queue, Target};

/// How long [`flush`] waits for an output that does not take anything.
const FLUSH_MAX: Duration = Duration::from_secs(2);

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// What a program wants logged, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 error, 1 warning, 2 info, 3 debug, 4 and above trace.
    pub level: u8,
    /// Appended to; standard output if `None`.
    pub file: Option<PathBuf>,
    /// Whether debug and trace lines name their module before the message, as connmgr's do.
    pub module_tag: bool,
}

/// Flushes the log when it goes away; keep it in `main`.
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
    }
}

/// Sets up the logger of this process.
///
/// # Errors
/// The file cannot be opened (`failed to open log file F: E`), the thread cannot be started, or
/// there is a logger already.
pub fn init(options: Options) -> io::Result<Guard> {
    let target = match options.file {
        Some(path) => Target::file(path)?,
        None => Target::Stdout,
    };
    let queue = Arc::new(Queue::default());
    sink::start(Arc::clone(&queue), Output::new(target))?;
    let module_tag = options.module_tag;
    env_logger::Builder::new()
        .filter_level(level_filter(options.level))
        .write_style(env_logger::WriteStyle::Never)
        .format(move |out, record| line::write(out, record, module_tag))
        .target(env_logger::Target::Pipe(Box::new(Pipe(Arc::clone(&queue)))))
        .try_init()
        .map_err(io::Error::other)?;
    let _ = QUEUE.set(queue);
    Ok(Guard(()))
}

/// Opens the log file again by its name, after lines logged so far are in the old one. If that
/// fails the old file is kept and standard output says so. Nothing to do without a file.
pub fn reopen() {
    if let Some(queue) = QUEUE.get() {
        queue.reopen();
    }
}

/// Waits until all lines are written, at most two seconds.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_MAX);
    }
}

/// Writes bytes to where the log goes, in order with its lines and without adding anything: for
/// the supervisor, which passes on whole lines of others. Dropped, and counted, as lines are.
pub fn pass_on(lines: &[u8]) {
    if let Some(queue) = QUEUE.get() {
        queue.push(lines);
    }
}

fn level_filter(level: u8) -> LevelFilter {
    match level {
        0 => LevelFilter::Error,
        1 => LevelFilter::Warn,
        2 => LevelFilter::Info,
        3 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

/// One line of this format on standard output, for errors before there is a logger.
pub fn print_error(text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 40);
    line::write_text(&mut bytes, log::Level::Error, text);
    let _ = io::stdout().write_all(&bytes);
}
