//! Where lines go between the loops that log and the output: a bounded buffer, and a thread that
//! swaps it for an empty one and writes it at once. Only `lib` uses it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;

use crate::line;

/// What may wait for the output; lines beyond are dropped and counted.
const PENDING_MAX_BYTES: usize = 4 << 20;

/// A buffer that grew beyond this is given back.
const BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Lines gather this long after a write, so that a busy loop does not wake the thread for each.
const GATHER: Duration = Duration::from_millis(2);

/// The buffer between loggers and the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    dropped: u64,
    reopen: bool,
    /// Somebody waits for all to be written.
    hurry: bool,
    /// The writer has taken a batch and is not done with it.
    writing: bool,
    /// The writer waits for work and has to be woken.
    asleep: bool,
}

impl State {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.dropped > 0 || self.reopen
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes whole lines, or counts them as dropped if too much is waiting.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.pending.len() + lines.len() > PENDING_MAX_BYTES {
            state.dropped += lines.iter().filter(|&&b| b == b'\n').count() as u64;
            return;
        }
        state.pending.extend_from_slice(lines);
        self.wake(state);
    }

    pub fn reopen(&self) {
        let mut state = self.lock();
        state.reopen = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.work.notify_one();
        }
    }

    /// Waits until everything is written, at most `max`.
    pub fn flush(&self, max: Duration) {
        let deadline = Instant::now() + max;
        let mut state = self.lock();
        while state.writing || state.has_work() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state.hurry = true;
            self.work.notify_one();
            let waited = self.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The writer's side: waits for work and takes it. Gives the lines dropped since the last
    /// time and whether to open the file again.
    fn take(&self, batch: &mut Vec<u8>) -> (u64, bool) {
        let mut state = self.lock();
        state.writing = false;
        if !state.hurry && state.has_work() {
            let waited = self.work.wait_timeout_while(state, GATHER, |state| !state.hurry);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        while !state.has_work() {
            state.hurry = false;
            state.asleep = true;
            self.done.notify_all();
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        state.writing = true;
        std::mem::swap(&mut state.pending, batch);
        (std::mem::take(&mut state.dropped), std::mem::take(&mut state.reopen))
    }
}

/// What `env_logger` writes to: each call is one whole record.
pub(crate) struct Pipe(pub Arc<Queue>);

impl Write for Pipe {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let body = &record[..record.len().saturating_sub(1)];
        if body.contains(&b'\n') {
            // one record is one line, whatever a peer put into it
            let mut line: Vec<u8> =
                body.iter().map(|&b| if b == b'\n' { b' ' } else { b }).collect();
            line.push(b'\n');
            self.0.push(&line);
        } else {
            self.0.push(record);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The place lines end up.
#[derive(Debug)]
pub(crate) enum Target {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Target {
    pub fn file(path: PathBuf) -> io::Result<Self> {
        let file = append(&path).map_err(|error| {
            let text = format!("failed to open log file {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self::File { path, file })
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Writes batches to the target.
#[derive(Debug)]
pub(crate) struct Output {
    target: Target,
}

impl Output {
    pub fn new(target: Target) -> Self {
        Self { target }
    }

    /// Errors end here: there is nowhere to report them.
    fn write(&mut self, bytes: &[u8]) {
        let _ = match &mut self.target {
            Target::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Target::File { file, .. } => file.write_all(bytes),
        };
    }

    fn reopen(&mut self) {
        let Target::File { path, file } = &mut self.target else { return };
        match append(path) {
            Ok(opened) => *file = opened,
            Err(error) => {
                let text = format!("failed to reopen log file {}: {error}", path.display());
                let mut line = Vec::new();
                line::write_text(&mut line, Level::Error, &text);
                self.write(&line);
                Self::new(Target::Stdout).write(&line);
            }
        }
    }

    fn say_dropped(&mut self, count: u64) {
        let mut line = Vec::new();
        let text = format!("{count} log lines dropped: output too slow");
        line::write_text(&mut line, Level::Warn, &text);
        self.write(&line);
    }
}

/// Starts the thread that writes; it lives as long as the process.
pub(crate) fn start(queue: Arc<Queue>, mut output: Output) -> io::Result<()> {
    let run = move || {
        let mut batch = Vec::new();
        loop {
            let (dropped, reopen) = queue.take(&mut batch);
            output.write(&batch);
            if dropped > 0 {
                output.say_dropped(dropped);
            }
            if reopen {
                output.reopen();
            }
            batch.clear();
            if batch.capacity() > BUFFER_KEPT_BYTES {
                batch = Vec::new();
            }
        }
    };
    thread::Builder::new().name("log".into()).stack_size(128 << 10).spawn(run)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(dir: &Path) -> (Arc<Queue>, PathBuf) {
        let path = dir.join("x.log");
        let queue = Arc::new(Queue::default());
        start(Arc::clone(&queue), Output::new(Target::file(path.clone()).unwrap())).unwrap();
        (queue, path)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_flush_finds_everything_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, path) = started(dir.path());
        for n in 0..2000 {
            queue.push(format!("{n}\n").as_bytes());
        }
        queue.flush(LONG);
        let expected: String = (0..2000).map(|n| format!("{n}\n")).collect();
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn a_reopened_file_gets_the_lines_that_follow() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, path) = started(dir.path());
        queue.push(b"a\n");
        queue.flush(LONG);
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        queue.reopen();
        queue.flush(LONG);
        queue.push(b"b\n");
        queue.flush(LONG);
        assert_eq!(std::fs::read_to_string(dir.path().join("old")).unwrap(), "a\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "b\n");
    }

    #[test]
    fn an_overflow_is_counted_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let queue = Arc::new(Queue::default());
        queue.push(b"first\n");
        queue.push(&vec![b'x'; PENDING_MAX_BYTES]);
        queue.push(&[b'\n'; PENDING_MAX_BYTES]);
        queue.push(b"last\n");
        start(Arc::clone(&queue), Output::new(Target::file(path.clone()).unwrap())).unwrap();
        queue.flush(LONG);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("first\nlast\n[WARN] "), "{text:?}");
        let said = format!(" {PENDING_MAX_BYTES} log lines dropped: output too slow\n");
        assert!(text.ends_with(&said), "{text:?}");
    }

    #[test]
    fn one_record_is_one_line() {
        let queue = Arc::new(Queue::default());
        Pipe(Arc::clone(&queue)).write_all(b"a\nb\n").unwrap();
        assert_eq!(queue.lock().pending, b"a b\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Target::file("/nonexistent/x.log".into()).unwrap_err();
        assert!(error.to_string().starts_with("failed to open log file /nonexistent/x.log: "));
    }
}
