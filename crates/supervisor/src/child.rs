//! One running process.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::output::{Pump, Sink, last_error_in};
use crate::plan::{Output, Service};

/// Time to stop in order (spec/programs.md §2.5).
const STOP_TIME: Duration = Duration::from_millis(4000);

/// After a process has ended, its output may still be held by a process that it started.
const OUTPUT_TIME: Duration = Duration::from_millis(500);

/// A process that was started.
pub struct Child {
    service: Service,
    process: Process,
    pump: Pump,
    /// Size of its own log file before it was started.
    log_start: u64,
    kill_at: Option<Instant>,
    stopping: bool,
    killed: bool,
}

impl Child {
    /// Starts a process in a process group of its own, so that a Ctrl-C reaches the supervisor
    /// only. Its standard input stays open as long as the supervisor lives.
    ///
    /// # Errors
    /// The line to be logged.
    pub fn start(service: &Service, folder: &Path) -> Result<Self, String> {
        let program = locate(folder, service.program);
        let mut command = Command::new(&program);
        command.args(&service.arguments).env(evloop::parent::SUPERVISED, "1").process_group(0);
        log::debug!("running: {} {}", program.display(), service.arguments.join(" "));
        let name = &service.name;
        let running = |e: io::Error| format!("{name}: Error running: {}: {e}", program.display());
        let sink = sink(service)?;
        let (reader, writer) = io::pipe().map_err(running)?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone().map_err(running)?).stderr(writer);
        let log_start = match &service.output {
            Output::Own(path) => std::fs::metadata(path).map_or(0, |data| data.len()),
            _ => 0,
        };
        let process = command.spawn().map_err(running)?;
        // the command holds the writing end of the pipe
        drop(command);
        let pump = Pump::start(reader, sink).map_err(running)?;
        let child = Self {
            service: service.clone(),
            process,
            pump,
            log_start,
            kill_at: None,
            stopping: false,
            killed: false,
        };
        child.write_pid();
        Ok(child)
    }

    /// What was to be started.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Asks it to stop, and sets the time after which it is killed.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.kill_at = Some(now + STOP_TIME);
        self.signal(Signal::TERM);
    }

    /// When it is to be killed.
    pub fn kill_at(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.kill_at = None;
        self.killed = true;
        self.signal(Signal::KILL);
    }

    /// Tells it to reopen its log, or reopens the log that is written for it.
    pub fn reload(&self) {
        self.pump.reopen();
        if self.service.takes_hup {
            self.signal(Signal::HUP);
        }
    }

    /// Sends a signal. Its id cannot belong to another process: it is kept until it was waited
    /// for, and whoever was waited for is dropped.
    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(Pid::from_child(&self.process), signal) {
            log::debug!("{}: signal not sent: {error}", self.service.name);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        match self.process.try_wait() {
            Ok(status) => status,
            Err(error) => {
                log::debug!("{}: cannot wait: {error}", self.service.name);
                None
            }
        }
    }

    /// Takes leave of a process that has ended: reads the rest of its output, removes its pid file
    /// and says what went wrong. False if something did.
    pub fn bury(self, status: ExitStatus) -> bool {
        self.pump.finish(OUTPUT_TIME);
        self.remove_pid();
        let name = &self.service.name;
        if !self.stopping {
            if let Some(text) = self.last_error() {
                log::error!("{name}: {text}");
            }
            log::error!("{name}: Exited unexpectedly ({status})");
            return false;
        }
        match (status.code(), status.signal()) {
            (Some(0), _) => return true,
            (Some(code), _) => log::error!("{name}: Unexpected return code: {code}"),
            (None, _) if self.killed => return true,
            (None, _) => log::error!("{name}: Exited uncleanly ({status})"),
        }
        false
    }

    /// The last error that it logged where the supervisor's output does not show it.
    fn last_error(&self) -> Option<String> {
        match &self.service.output {
            Output::Merged => None,
            Output::File(_) => self.pump.last_error(),
            Output::Own(path) => last_error_in(path, self.log_start),
        }
    }

    fn write_pid(&self) {
        let file = &self.service.pid_file;
        if let Err(error) = std::fs::write(file, format!("{}\n", self.process.id())) {
            log::error!("failed to write pid file: {}: {error}", file.display());
        }
    }

    /// Removes its pid file.
    pub fn remove_pid(&self) {
        // it may never have been written
        let _ = std::fs::remove_file(&self.service.pid_file);
    }
}

fn sink(service: &Service) -> Result<Sink, String> {
    match &service.output {
        Output::File(path) => Sink::file(path).map_err(|error| {
            format!("{}: failed to open log file {}: {error}", service.name, path.display())
        }),
        _ => Ok(Sink::Merged(service.name.clone())),
    }
}

/// A program beside our own, else by its bare name, which is then looked for in PATH.
fn locate(folder: &Path, program: &str) -> PathBuf {
    let beside = folder.join(program);
    if beside.is_file() { beside } else { program.into() }
}
