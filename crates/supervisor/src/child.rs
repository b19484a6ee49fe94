//! One child process: started with its log and pid file, signalled, and its output passed on.
//! Used by `run`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use evloop::parent::{Order, SUPERVISED, Said};
use rustix::process::{Pid, Signal, kill_process};

use crate::lifecycle::End;
use crate::merge::{Merger, message_at};
use crate::notify;
use crate::plan::{ChildPlan, Output};
use crate::tie::Tie;

/// How much of a log's end is looked at for the last words of a child.
const TAIL_BYTES: u64 = 4096;

/// How long the last output of ended children is waited for.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// A started child.
#[derive(Debug)]
pub(crate) struct Running {
    process: Child,
    /// The child stops when it ends.
    tie: Tie,
    pid_file: PathBuf,
    log: Option<Log>,
    reader: Option<JoinHandle<()>>,
    reopen: Arc<AtomicBool>,
    ended: bool,
}

/// A log file and where this child's part of it begins.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    start: u64,
}

/// The program: a copy beside our own executable, else the one in PATH.
pub(crate) fn find_program(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|path| Some(path.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

impl Running {
    /// Starts a child in its own process group, so that Ctrl-C reaches the supervisor only. `said`
    /// gets what it says, in a thread.
    ///
    /// # Errors
    /// The program and the cause.
    pub fn start(
        plan: &ChildPlan,
        said: impl FnMut(Said) + Send + 'static,
    ) -> Result<Self, String> {
        let program = find_program(plan.program);
        let failed = |error: io::Error| format!("{}: {error}", program.display());
        let mut command = Command::new(&program);
        let (tie, stdin) = Tie::new().map_err(failed)?;
        command.args(&plan.args).process_group(0).stdin(stdin);
        command.env(SUPERVISED, "1").env_remove(notify::SOCKET);
        log::debug!("running: {} {}", program.display(), plan.args.join(" "));
        let reopen = Arc::new(AtomicBool::new(false));
        let (log, sink) = match &plan.output {
            Output::Merged => (None, Some(Sink::Merged(Merger::new(&plan.name)))),
            Output::Own(path) => {
                let (file, start) = append(path)?;
                let errors = file.try_clone().map_err(failed)?;
                command.stdout(file).stderr(errors);
                (Some(Log { path: path.clone(), start }), None)
            }
            Output::Gathered(path) => {
                let (file, start) = append(path)?;
                let log = Log { path: path.clone(), start };
                let reopen = Arc::clone(&reopen);
                (Some(log), Some(Sink::File { path: path.clone(), file, reopen }))
            }
        };
        let reader = sink.map(|sink| pipe_to(sink, &mut command)).transpose().map_err(failed)?;
        let process = command.spawn().map_err(failed)?;
        tie.listen(said).map_err(failed)?;
        let pid_file = plan.pid_file.clone();
        let running = Self { process, tie, pid_file, log, reader, reopen, ended: false };
        running.write_pid();
        Ok(running)
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The tie once more.
    ///
    /// # Errors
    /// What the system says.
    pub fn share_tie(&self) -> io::Result<Tie> {
        self.tie.share()
    }

    /// Sends an order.
    pub fn order(&self, order: Order) {
        if !self.ended {
            self.tie.send(order);
        }
    }

    fn write_pid(&self) {
        let text = format!("{}\n", self.process.id());
        if let Err(error) = fs::write(&self.pid_file, text) {
            log::error!("failed to write pid file: {}: {error}", self.pid_file.display());
        }
    }

    /// How the child ended, once.
    pub fn poll_end(&mut self) -> Option<End> {
        if self.ended {
            return None;
        }
        let status = self.process.try_wait().ok()??;
        self.ended = true;
        self.remove_pid_file();
        Some(end_of(status))
    }

    /// Sends a signal, unless the child has ended.
    pub fn signal(&self, signal: Signal) {
        if !self.ended
            && let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
        {
            // it may just have ended
            let _ = kill_process(pid, signal);
        }
    }

    pub fn remove_pid_file(&self) {
        let _ = fs::remove_file(&self.pid_file);
    }

    /// Opens the log file again, if it is written by the supervisor. It is made at once: the next
    /// line may be long in coming, and who rotates logs may look for the new file.
    pub fn reopen_log(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        if let (Some(log), Some(_)) = (&self.log, &self.reader)
            && let Err(text) = append(&log.path)
        {
            log::error!("{text}");
        }
    }

    /// The message that this child wrote last, if it is an error: why it died.
    pub fn last_words(&mut self) -> Option<String> {
        self.drain();
        let text = tail(self.log.as_ref()?).ok()?;
        let line = text.lines().next_back().filter(|line| line.starts_with("[ERR]"))?;
        let at = message_at(line.as_bytes())?;
        Some(line[at..].to_owned())
    }

    /// Waits until what an ended child wrote has been passed on.
    pub fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_MAX;
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) {
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn end_of(status: ExitStatus) -> End {
    match status.signal() {
        Some(signal) => End::Signal(signal),
        None => End::Code(status.code().unwrap_or(0)),
    }
}

/// Opens a log file; gives its length too.
fn append(path: &Path) -> Result<(File, u64), String> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let file = opened.map_err(|e| format!("failed to open log file {}: {e}", path.display()))?;
    let start = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    Ok((file, start))
}

/// The end of the part of a log that began at its start; of the whole file if it was rotated.
fn tail(log: &Log) -> io::Result<String> {
    let mut file = File::open(&log.path)?;
    let length = file.metadata()?.len();
    let start = if length < log.start { 0 } else { log.start };
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a reader thread passes on what a child writes.
#[derive(Debug)]
enum Sink {
    Merged(Merger),
    File { path: PathBuf, file: File, reopen: Arc<AtomicBool> },
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Merged(merger) => {
                let mut lines = Vec::with_capacity(bytes.len() + 64);
                merger.push(bytes, &mut lines);
                logging::write_lines(&lines);
            }
            Self::File { path, file, reopen } => {
                if reopen.swap(false, Ordering::Relaxed) {
                    match append(path) {
                        Ok((opened, _)) => *file = opened,
                        Err(text) => log::error!("{text}"),
                    }
                }
                // a full disk must not end the server
                let _ = file.write_all(bytes);
            }
        }
    }

    fn finish(&mut self) {
        if let Self::Merged(merger) = self {
            let mut lines = Vec::new();
            merger.finish(&mut lines);
            logging::write_lines(&lines);
        }
    }
}

/// Gives the command a pipe for its output, and starts the thread that reads it to its end.
fn pipe_to(mut sink: Sink, command: &mut Command) -> io::Result<JoinHandle<()>> {
    let (mut reader, writer) = io::pipe()?;
    command.stderr(writer.try_clone()?).stdout(writer);
    let run = move || {
        let mut bytes = vec![0; 16 << 10];
        while let Some(count) = read(&mut reader, &mut bytes) {
            sink.take(&bytes[..count]);
        }
        sink.finish();
    };
    thread::Builder::new().name("output".into()).stack_size(1 << 20).spawn(run)
}

/// How many bytes came; `None` at the end.
fn read(reader: &mut PipeReader, bytes: &mut [u8]) -> Option<usize> {
    loop {
        match reader.read(bytes) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_of_this_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::write(&path, "[ERR] old\n[ERR] new\n").unwrap();
        let log = |start| Log { path: path.clone(), start };
        assert_eq!(tail(&log(10)).unwrap(), "[ERR] new\n");
        assert_eq!(tail(&log(20)).unwrap(), "");
        assert_eq!(tail(&log(999)).unwrap(), "[ERR] old\n[ERR] new\n");
    }

    #[test]
    fn a_program_that_is_not_beside_is_looked_up_in_path() {
        assert_eq!(find_program("no-such-program"), Path::new("no-such-program"));
    }
}
