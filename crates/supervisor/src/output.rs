//! The output of a process: a thread reads it line by line and hands it on, to the supervisor's
//! own output with the process's name put in (spec/programs.md §2.4), or to a log file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A longer line is cut into several.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// How much of the end of a log is looked through for an error.
const TAIL_MAX_BYTES: u64 = 64 * 1024;

/// Where lines go.
pub enum Sink {
    /// To the supervisor's output, under this name.
    Merged(String),
    /// To a file, opened for append.
    File(PathBuf, File),
}

impl Sink {
    /// A sink that appends to a file.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File(path.to_owned(), append(path)?))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[derive(Default)]
struct Shared {
    last_error: Mutex<Option<String>>,
    reopen: AtomicBool,
}

/// The reader of one process's output.
pub struct Pump {
    shared: Arc<Shared>,
    done: Receiver<()>,
}

impl Pump {
    /// Starts reading.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(input: PipeReader, sink: Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, done) = channel();
        let ours = Arc::clone(&shared);
        thread::Builder::new().name("output".into()).stack_size(128 * 1024).spawn(move || {
            // an unreadable pipe or a full disk ends the reading, never the server
            let _ = match sink {
                Sink::Merged(name) => merge(BufReader::new(input), &name, &ours),
                Sink::File(path, file) => store(BufReader::new(input), &path, file, &ours),
            };
            drop(sender);
        })?;
        Ok(Self { shared, done })
    }

    /// The log file was moved away: it is opened again before the next line.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until everything is read, which is soon after the process has ended.
    pub fn finish(&self, at_most: Duration) {
        debug_assert_ne!(self.done.recv_timeout(at_most), Ok(()));
    }

    /// The last error that came by.
    pub fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn note(&self, line: &[u8]) {
        if let Some(text) = error_text(line) {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
    }
}

/// Reads a line with its newline; empty at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    input.take(LINE_MAX_BYTES).read_until(b'\n', line)?;
    if line.last().is_some_and(|&byte| byte != b'\n') {
        line.push(b'\n');
    }
    Ok(())
}

fn merge(mut input: impl BufRead, name: &str, shared: &Shared) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        read_line(&mut input, &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        shared.note(&line);
        if line != b"\n" {
            logging::line(&with_name(&line, name));
        }
    }
}

fn store<R: Read>(
    mut input: BufReader<R>,
    path: &Path,
    file: File,
    shared: &Shared,
) -> io::Result<()> {
    let mut line = Vec::new();
    let mut output = BufWriter::new(file);
    loop {
        if input.buffer().is_empty() {
            output.flush()?;
        }
        read_line(&mut input, &mut line)?;
        if line.is_empty() {
            return output.flush();
        }
        shared.note(&line);
        if shared.reopen.swap(false, Ordering::Relaxed) {
            output.flush()?;
            match append(path) {
                Ok(file) => output = BufWriter::new(file),
                Err(error) => log::error!("failed to reopen {}: {error}", path.display()),
            }
        }
        output.write_all(&line)?;
    }
}

/// Puts `[NAME] ` behind the level and the time.
fn with_name(line: &[u8], name: &str) -> Vec<u8> {
    let third = line.iter().enumerate().filter(|(_, byte)| **byte == b' ').nth(2);
    match third {
        Some((at, _)) if line.starts_with(b"[") => {
            [&line[..=at], b"[", name.as_bytes(), b"] ", &line[at + 1..]].concat()
        }
        _ => line.to_owned(),
    }
}

/// The message of a log line of error level.
fn error_text(line: &[u8]) -> Option<String> {
    let line = line.strip_prefix(b"[ERR] ")?;
    let text = line.splitn(3, |&byte| byte == b' ').nth(2)?;
    Some(String::from_utf8_lossy(text).trim_end().to_owned())
}

/// The last error in a log file, written after its first `from` bytes.
pub fn last_error_in(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let start = from.max(size.saturating_sub(TAIL_MAX_BYTES));
    io::Seek::seek(&mut file, io::SeekFrom::Start(start)).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_MAX_BYTES).read_to_end(&mut tail).ok()?;
    tail.split(|&byte| byte == b'\n').rev().find_map(error_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_lines() {
        for (line, expected) in [
            (
                "[INFO] 2026-01-02 03:04:05.678 started\n",
                "[INFO] 2026-01-02 03:04:05.678 [x] started\n",
            ),
            ("[A] b c [d] e\n", "[A] b c [x] [d] e\n"),
            ("[A] b c \n", "[A] b c [x] \n"),
            ("[A] b c\n", "[A] b c\n"),
            ("a b c d\n", "a b c d\n"),
        ] {
            assert_eq!(String::from_utf8(with_name(line.as_bytes(), "x")).unwrap(), expected);
        }
    }

    #[test]
    fn errors_in_lines() {
        let line = b"[ERR] 2026-01-02 03:04:05.678 unable to bind\n";
        assert_eq!(error_text(line).as_deref(), Some("unable to bind"));
        assert_eq!(error_text(b"[WARN] 2026-01-02 03:04:05.678 x\n"), None);
        assert_eq!(error_text(b"[ERR] a"), None);
    }

    #[test]
    fn a_log_file_gets_every_line_and_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "before\n").unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let pump = Pump::start(reader, Sink::file(&path).unwrap()).unwrap();
        writer.write_all(b"[ERR] a b one\n").unwrap();
        while pump.last_error().is_none() {
            thread::yield_now();
        }
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        pump.reopen();
        writer.write_all(b"\ntwo").unwrap();
        drop(writer);
        pump.finish(Duration::from_secs(10));
        assert_eq!(pump.last_error().as_deref(), Some("one"));
        let old = std::fs::read_to_string(folder.path().join("old")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap_or_default();
        // the first line may be on its way when the file is reopened
        assert_eq!(old + &new, "before\n[ERR] a b one\n\ntwo\n");
        assert!(new.ends_with("two\n"));
    }

    #[test]
    fn the_last_error_of_a_log_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = "[ERR] a b old\n";
        std::fs::write(file.path(), format!("{before}[ERR] a b new\n[INFO] a b c\n")).unwrap();
        let from = |at: usize| last_error_in(file.path(), at as u64);
        assert_eq!(from(before.len()).as_deref(), Some("new"));
        assert_eq!(from(before.len() * 2), None);
        assert_eq!(last_error_in(Path::new("/nonexistent"), 0), None);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = vec![b'x'; LINE_MAX_BYTES as usize + 1];
        let mut input = &long[..];
        let mut line = Vec::new();
        read_line(&mut input, &mut line).unwrap();
        assert_eq!(line.len() as u64, LINE_MAX_BYTES + 1);
        read_line(&mut input, &mut line).unwrap();
        assert_eq!(line, b"x\n");
    }
}
