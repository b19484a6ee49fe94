//! The log of all programs: one line format (spec/programs.md §5), to standard output or a file.
//!
//! Writing never blocks an event loop: lines go to a bounded buffer that a thread of its own
//! writes out, at most every few milliseconds and all at once. What does not fit is counted and
//! said.

mod tap;
mod writer;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Local};
use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter, Log, Metadata, Record};

pub use tap::Tap;
pub use writer::Turn;
use writer::Writer;

static WRITER: OnceLock<Writer> = OnceLock::new();
static TAP: OnceLock<Tap> = OnceLock::new();
static LEVEL: AtomicU32 = AtomicU32::new(2);

/// How a program logs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 error, 1 warning, 2 info, 3 debug, 4 and above trace.
    pub level: u32,
    /// Appended to; standard output if absent.
    pub file: Option<PathBuf>,
    /// Put `[module]` before debug and trace messages, as the connection manager does.
    pub module_tag: bool,
}

/// Starts logging; once per process.
///
/// # Errors
/// `failed to open log file F: cause`, or that logging was started before.
pub fn init(options: Options) -> io::Result<()> {
    let writer = Writer::start(options.file)?;
    if WRITER.set(writer.clone()).is_err() {
        return Err(io::Error::other("logging was started already"));
    }
    let module_tag = options.module_tag;
    let inner = Builder::new()
        // The level is looked at before, for it may change.
        .filter_level(LevelFilter::Trace)
        // Of its own loop the library would say more than everything else together.
        .filter_module("mio", LevelFilter::Info)
        // What goes wrong with one TLS client is said by the program, with the client's address.
        .filter_module("rustls", LevelFilter::Error)
        .write_style(WriteStyle::Never)
        .target(Target::Pipe(Box::new(writer)))
        .format(move |out, record| format(out, record, module_tag))
        .build();
    set_level(options.level);
    log::set_boxed_logger(Box::new(Logger { inner, module_tag })).map_err(io::Error::other)
}

/// Changes the level: 0 error, 1 warning, 2 info, 3 debug, 4 and above trace.
pub fn set_level(number: u32) {
    LEVEL.store(number, Ordering::Relaxed);
    // A listener of the tap wants all records.
    if !TAP.get().is_some_and(Tap::is_on) {
        log::set_max_level(usual_level());
    }
}

/// What goes into the usual output.
fn usual_level() -> LevelFilter {
    level(LEVEL.load(Ordering::Relaxed))
}

/// Lets all records, at all levels, also come to the caller: at most `lines_max` wait for it, and
/// `wake` is called when there is a first one. Nothing flows before [`Tap::listen`].
///
/// # Errors
/// If there is such a caller already.
pub fn tap(lines_max: usize, wake: impl Fn() + Send + Sync + 'static) -> io::Result<Tap> {
    let tap = Tap::new(lines_max, wake);
    TAP.set(tap.clone()).map_err(|_| io::Error::other("the log has a second listener already"))?;
    Ok(tap)
}

/// The usual output, and the tap.
struct Logger {
    inner: env_logger::Logger,
    module_tag: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.is_usual(metadata) || is_tapped(metadata).is_some()
    }

    fn log(&self, record: &Record<'_>) {
        if self.is_usual(record.metadata()) {
            self.inner.log(record);
        }
        if let Some(tap) = is_tapped(record.metadata()) {
            let mut line = Vec::with_capacity(128);
            // Writing to a vector does not fail.
            let _ = format(&mut line, record, self.module_tag);
            tap.push(line);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

impl Logger {
    fn is_usual(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= usual_level() && self.inner.enabled(metadata)
    }
}

/// The tap, if it wants such records.
fn is_tapped(metadata: &Metadata<'_>) -> Option<&'static Tap> {
    let noise = metadata.target().starts_with("mio") && metadata.level() > Level::Info;
    TAP.get().filter(|tap| tap.is_on() && !noise)
}

/// The log file was moved away: opens it again at its old name.
pub fn reopen() {
    if let Some(writer) = WRITER.get() {
        writer.reopen();
    }
}

/// Puts whole lines of another process into the log as they are: the supervisor's merged
/// output.
pub fn write_lines(lines: &[u8]) {
    if let Some(writer) = WRITER.get() {
        // Writing to the buffer does not fail.
        let _ = io::Write::write(&mut writer.clone(), lines);
    }
}

/// Writes the line about a request, at info level. `level`: the `log_level` of its route, which
/// shows it or hides it whatever the level of the process is; below 0 if the route has none
/// (spec/routes.md §3).
pub fn access(level: i32, text: impl FnOnce() -> String) {
    let shown = log::log_enabled!(Level::Info);
    match level {
        0 | 1 => {}
        2.. if !shown => write_info(&text()),
        _ if shown => log::info!("{}", text()),
        _ => {}
    }
}

/// A turn of this thread's event loop begins; it ends when the guard is dropped, before the loop
/// waits. The log's thread is woken for its lines only then: what the turn sends leaves first.
#[must_use]
pub fn turn() -> Turn {
    Turn::begin()
}

/// Writes an info line whatever the level is.
fn write_info(text: &str) {
    let mut line = Vec::with_capacity(text.len() + 32);
    append_line(&mut line, Level::Info, text);
    write_lines(&line);
}

/// Appends one line of the log.
fn append_line(out: &mut Vec<u8>, level: Level, text: &str) {
    let mut record = Record::builder();
    record.level(level);
    // Writing to a vector does not fail.
    let _ = format(out, &record.args(format_args!("{text}")).build(), false);
}

/// Waits until all lines so far are written, a second at most. A program calls it before it
/// ends.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.drain();
    }
}

fn level(number: u32) -> LevelFilter {
    match number {
        0 => LevelFilter::Error,
        1 => LevelFilter::Warn,
        2 => LevelFilter::Info,
        3 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

fn format(out: &mut impl io::Write, record: &Record<'_>, module_tag: bool) -> io::Result<()> {
    let word = match record.level() {
        Level::Error => "ERR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    };
    CLOCK.with_borrow_mut(|clock| {
        let (second, millis) = clock.now();
        write!(out, "[{word}] {second}.{millis:03} ")
    })?;
    if module_tag && record.level() >= Level::Debug {
        write!(out, "[{}] ", record.target())?;
    }
    io::Write::write_fmt(&mut OneLine(out), *record.args())?;
    out.write_all(b"\n")
}

/// What a message says in the words of others (a channel, a header) must not look like a line of
/// its own: line ends become `\n` and `\r`.
struct OneLine<'a, W>(&'a mut W);

impl<W: io::Write> io::Write for OneLine<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            self.0.write_all(&rest[..at])?;
            self.0.write_all(if rest[at] == b'\n' { b"\\n" } else { b"\\r" })?;
            rest = &rest[at + 1..];
        }
        self.0.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The local time in text; its seconds are formatted once per second.
#[derive(Default)]
struct SecondText {
    second: i64,
    text: String,
}

thread_local! {
    static CLOCK: RefCell<SecondText> = RefCell::new(SecondText::default());
}

impl SecondText {
    fn now(&mut self) -> (&str, u32) {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs() as i64;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let utc = DateTime::from_timestamp(second, 0).unwrap_or_default();
            // Writing to a String does not fail.
            let _ = write!(self.text, "{}", utc.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S"));
        }
        (&self.text, since.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, module_tag: bool) -> String {
        let mut out = Vec::new();
        format(
            &mut out,
            &Record::builder().level(level).target("a::b").args(format_args!("text {}", 5)).build(),
            module_tag,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_line_format() {
        let text = line(Level::Info, true);
        let (level, rest) = text.split_once(' ').unwrap();
        let (time, message) = rest.split_at(24);
        assert_eq!((level, message), ("[INFO]", "text 5\n"));
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00.000 ");
        assert!(line(Level::Error, false).starts_with("[ERR] "));
        assert!(line(Level::Debug, true).ends_with(" [a::b] text 5\n"));
        assert!(
            line(Level::Debug, false).contains(".") && !line(Level::Debug, false).contains("a::b")
        );
    }

    #[test]
    fn a_record_is_one_line() {
        let mut out = Vec::new();
        append_line(&mut out, Level::Info, "channel=a\r\n[ERR] b\n");
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("channel=a\\r\\n[ERR] b\\n\n"), "{text}");
    }

    #[test]
    fn numbers_above_four_are_trace() {
        assert_eq!(
            (level(0), level(2), level(9)),
            (LevelFilter::Error, LevelFilter::Info, LevelFilter::Trace)
        );
    }
}
