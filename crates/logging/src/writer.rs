//! The bounded buffer and the thread that writes it out.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::Level;

/// Bytes of lines that may wait.
const BUFFER_MAX: usize = 4 << 20;

/// Bytes of lines that may wait for the end of a turn.
const HELD_MAX: usize = BUFFER_MAX / 4;

/// Lines that come within this time of a write leave with the next one.
const GATHER: Duration = Duration::from_millis(5);

/// How long [`Writer::drain`] waits.
const DRAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    /// The thread waits to be woken.
    idle: bool,
    /// The thread has taken lines that are not written yet.
    writing: bool,
    /// Somebody waits for the last line.
    draining: bool,
    reopen: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Where log lines go; clones share the buffer.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Shared>);

/// Whether this thread is within a turn, and has written lines in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    Yes,
    WithLines,
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::No) };
}

/// See [`crate::turn`].
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    pub(crate) fn begin() -> Self {
        HELD.set(Held::Yes);
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if HELD.replace(Held::No) == Held::WithLines
            && let Some(writer) = crate::WRITER.get()
        {
            writer.0.wake(&mut writer.0.lock());
        }
    }
}

impl Writer {
    /// Opens the file and starts the thread.
    pub(crate) fn start(path: Option<PathBuf>) -> io::Result<Self> {
        let file = path.as_deref().map(open).transpose()?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let writer = Self(Arc::clone(&shared));
        thread::Builder::new()
            .name("log".into())
            .stack_size(1 << 20)
            .spawn(move || run(&shared, path, file))?;
        Ok(writer)
    }

    pub(crate) fn reopen(&self) {
        let mut state = self.0.lock();
        state.reopen = true;
        self.0.changed.notify_all();
    }

    pub(crate) fn drain(&self) {
        let mut state = self.0.lock();
        state.draining = true;
        self.0.changed.notify_all();
        let busy = |state: &mut State| !state.lines.is_empty() || state.writing;
        let waited = self.0.changed.wait_timeout_while(state, DRAIN_MAX, busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.draining = false;
    }
}

impl Write for Writer {
    /// Takes one line; it is counted and dropped if the buffer is full.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.lines.len() + line.len() > BUFFER_MAX {
            state.dropped += 1;
            return Ok(line.len());
        }
        state.lines.extend_from_slice(line);
        if HELD.get() == Held::No || state.lines.len() > HELD_MAX {
            self.0.wake(&mut state);
        } else {
            HELD.set(Held::WithLines);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// A panic elsewhere must not end logging.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the thread write what waits.
    fn wake(&self, state: &mut State) {
        if state.idle {
            state.idle = false;
            self.changed.notify_all();
        }
    }

    /// Waits for something to write and takes it: lines, lines dropped, whether to reopen.
    fn take(&self) -> (Vec<u8>, u64, bool) {
        let mut state = self.lock();
        while state.lines.is_empty() && !state.reopen {
            state.idle = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        state.writing = true;
        let lines = std::mem::take(&mut state.lines);
        (lines, std::mem::take(&mut state.dropped), std::mem::take(&mut state.reopen))
    }

    /// Says that the lines are written, and gives others time to gather.
    fn rest(&self) {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        let quiet = |state: &mut State| !state.draining && !state.reopen;
        drop(self.changed.wait_timeout_while(state, GATHER, quiet));
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|cause| {
        io::Error::new(cause.kind(), format!("failed to open log file {}: {cause}", path.display()))
    })
}

fn run(shared: &Shared, path: Option<PathBuf>, mut file: Option<File>) {
    loop {
        let (mut lines, dropped, reopen) = shared.take();
        if dropped > 0 {
            let text = format!("{dropped} log lines dropped: the output is too slow");
            crate::append_line(&mut lines, Level::Warn, &text);
        }
        if reopen && let Some(path) = &path {
            match open(path) {
                Ok(opened) => file = Some(opened),
                Err(error) => say_reopen_failed(path, &error),
            }
        }
        // There is nowhere to report that the log cannot be written.
        let _ = match &mut file {
            Some(file) => file.write_all(&lines),
            None => io::stdout().lock().write_all(&lines).and_then(|()| io::stdout().flush()),
        };
        shared.rest();
    }
}

/// The old file stays in use, so that nothing is lost.
fn say_reopen_failed(path: &Path, error: &io::Error) {
    let cause = error.to_string();
    let cause = cause.rsplit(": ").next().unwrap_or_default();
    let _ = writeln!(io::stdout(), "failed to reopen log file {}: {cause}", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn lines_are_written_in_order_and_the_file_is_reopened() {
        let dir = std::env::temp_dir().join(format!("logging-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, old) = (dir.join("log"), dir.join("old"));
        let mut writer = Writer::start(Some(path.clone())).unwrap();
        for n in 0..1000 {
            writer.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        writer.drain();
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(content(&path), expected);

        std::fs::rename(&path, &old).unwrap();
        writer.reopen();
        writer.write_all(b"new\n").unwrap();
        writer.drain();
        // The line may have left before the request to reopen was seen.
        assert_eq!(content(&old).replace(&expected, "") + &content(&path), "new\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Writer::start(Some("/nonexistent/log".into())).err().unwrap();
        assert!(error.to_string().starts_with("failed to open log file /nonexistent/log: "));
    }
}
