//! The supervisor as a program: reads the configuration, starts the children, and carries out
//! what `lifecycle` decides until all have ended. Called by `bin/pushpin`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use config::{Overrides, Settings};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::child::Running;
use crate::fault::fault;
use crate::find;
use crate::levels::Levels;
use crate::lifecycle::{Action, Input, Lifecycle};
use crate::plan::{Plan, Wanted};
use crate::probe;

/// The command line (spec/programs.md §2.1).
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--config`: that file and no other.
    pub config: Option<PathBuf>,
    /// `--logfile`: for the supervisor's own log.
    pub logfile: Option<PathBuf>,
    /// `--loglevel`: replaces `[runner] log_level`.
    pub loglevel: Option<String>,
    /// `--verbose`: as `--loglevel=3`.
    pub verbose: bool,
    /// `--merge-output`: children log into the supervisor's output.
    pub merge_output: bool,
    /// `--port`: the only listener.
    pub port: Option<String>,
    /// `--id`.
    pub id: Option<u32>,
    /// `--route`: for the proxy, instead of the routes file.
    pub routes: Vec<String>,
}

/// Runs a server until it ends; gives the exit status.
pub fn run(options: &Options) -> u8 {
    let loaded = load(options);
    let levels = match levels(options, loaded.as_ref().ok().map(|(_, settings)| settings)) {
        Ok(levels) => levels,
        Err(text) => {
            eprintln!("error: {text}");
            return 1;
        }
    };
    let log = logging::Options {
        level: u32::from(levels.of("runner")),
        file: options.logfile.clone(),
        module_tag: false,
    };
    if let Err(error) = logging::init(log) {
        println!("{error}");
        return 1;
    }
    let plan = loaded.and_then(|(path, settings)| prepare(options, path, &settings, levels));
    let code = match plan {
        Ok(plan) => Server::start(&plan, !options.merge_output),
        Err(text) => {
            log::error!("{text}");
            1
        }
    };
    logging::flush();
    code
}

/// Finds and reads the config file. What is wrong with the text itself would hide what follows,
/// and so is an error.
fn load(options: &Options) -> Result<(PathBuf, Settings), String> {
    let path = find::config_file(options.config.as_deref())?;
    let wanted = wanted(options, Levels::default());
    let overrides =
        Overrides { ipc_prefix: wanted.ipc_prefix(), port_offset: wanted.port_offset() };
    let settings = Settings::load(&path, &overrides)
        .map_err(|error| format!("failed to open {}: {}", error.path.display(), error.cause))?;
    match settings.problems().first() {
        Some(problem) => Err(problem.to_string()),
        None => Ok((path, settings)),
    }
}

/// Reads and checks the configuration as a start would, and starts nothing. Gives it with what
/// is wrong with it, each with its file, line and key.
///
/// # Errors
/// If the file cannot be found or opened.
pub fn check(options: &Options) -> Result<(Settings, Vec<String>), String> {
    let path = find::config_file(options.config.as_deref())?;
    let now = wanted(options, Levels::default());
    let overrides = Overrides { ipc_prefix: now.ipc_prefix(), port_offset: now.port_offset() };
    let settings = Settings::load(&path, &overrides)
        .map_err(|error| format!("failed to open {}: {}", error.path.display(), error.cause))?;
    let cwd = std::env::current_dir().map_err(|e| format!("no working directory: {e}"))?;
    let plan = levels(options, Some(&settings)).and_then(|levels| {
        Plan::new(
            &settings,
            &Wanted { files: u64::MAX, cwd, config: path, ..wanted(options, levels) },
        )
    });
    let found = match plan {
        Ok(plan) => plan.warnings,
        Err(text) => vec![text],
    };
    Ok((settings, found))
}

fn wanted(options: &Options, levels: Levels) -> Wanted {
    Wanted {
        port: options.port.clone(),
        id: options.id,
        routes: options.routes.clone(),
        merge_output: options.merge_output,
        levels,
        ..Wanted::default()
    }
}

fn levels(options: &Options, settings: Option<&Settings>) -> Result<Levels, String> {
    if options.verbose {
        return Ok(Levels::all(3));
    }
    if let Some(text) = &options.loglevel {
        return Levels::parse(text.split(','));
    }
    let Some(settings) = settings else { return Ok(Levels::default()) };
    let items = settings.list("runner", "log_level");
    Levels::parse(items.iter().map(String::as_str))
        .map_err(|text| fault(settings, "runner", "log_level", &text))
}

/// Everything that can go wrong before the first child: the plan, directories, ports.
fn prepare(
    options: &Options,
    config: PathBuf,
    settings: &Settings,
    levels: Levels,
) -> Result<Plan, String> {
    log::debug!("starting...");
    if options.config.is_none() {
        log::info!("using config: {}", config.display());
    }
    let cwd = std::env::current_dir().map_err(|e| format!("no working directory: {e}"))?;
    let files = evloop::limits::raise_open_files();
    let plan = Plan::new(settings, &Wanted { files, cwd, config, ..wanted(options, levels) })?;
    plan.warnings.iter().for_each(|text| log::warn!("{text}"));
    std::iter::once(&plan.rundir).chain(&plan.logdir).try_for_each(|dir| make_dir(dir))?;
    probe::check(&plan.claims)?;
    Ok(plan)
}

fn make_dir(dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir)
        .map_err(|error| format!("failed to create directory: {}: {error}", dir.display()))
}

/// A running server: the state machine, its children, and the signals.
struct Server {
    lifecycle: Lifecycle,
    children: Vec<Running>,
    signals: Receiver<i32>,
    begin: Instant,
}

impl Server {
    /// Starts all children at once and stays until they have ended.
    fn start(plan: &Plan, verbose: bool) -> u8 {
        let signals = match watch_signals() {
            Ok(signals) => signals,
            Err(error) => {
                log::error!("failed to watch signals: {error}");
                return 1;
            }
        };
        let lifecycle = Lifecycle::new(verbose);
        let mut server = Self { lifecycle, children: Vec::new(), signals, begin: Instant::now() };
        for child in &plan.children {
            if verbose {
                log::info!("starting {}", child.name);
            }
            match Running::start(child) {
                Ok(running) => {
                    server.lifecycle.started(&child.name, child.reloads);
                    server.children.push(running);
                }
                Err(what) => {
                    let input = Input::NotStarted(child.name.clone(), what);
                    server.lifecycle.handle(server.now(), input);
                    break;
                }
            }
        }
        log::debug!("started");
        server.serve()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn serve(&mut self) -> u8 {
        loop {
            while let Some(action) = self.lifecycle.next_action() {
                if let Action::Exit(code) = action {
                    self.leave();
                    return code;
                }
                self.act(action);
            }
            self.wait();
        }
    }

    /// Waits for a signal or the deadline and tells the state machine.
    fn wait(&mut self) {
        let deadline = self.lifecycle.next_deadline();
        let left = deadline.map_or(u64::MAX, |deadline| deadline.saturating_sub(self.now()));
        match self.signals.recv_timeout(Duration::from_millis(left.min(3_600_000))) {
            Ok(signal) => self.signal(signal),
            Err(RecvTimeoutError::Timeout) => self.lifecycle.timeout(self.now()),
            // cannot be: the thread lives as long as the process
            Err(RecvTimeoutError::Disconnected) => self.signal(SIGTERM),
        }
    }

    fn signal(&mut self, signal: i32) {
        let now = self.now();
        match signal {
            SIGCHLD => self.reap(now),
            SIGHUP => self.lifecycle.handle(now, Input::Reload),
            _ => {
                if io::stdout().is_terminal() {
                    // over the ^C
                    let _ = io::stdout().write_all(b"\r");
                }
                self.lifecycle.handle(now, Input::Stop);
            }
        }
    }

    fn reap(&mut self, now: u64) {
        for (n, child) in self.children.iter_mut().enumerate() {
            if let Some(end) = child.poll_end() {
                self.lifecycle.handle(now, Input::Ended(n, end));
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Log(level, text) => log::log!(level, "{text}"),
            Action::LastWords(n) => self.last_words(n),
            Action::Term(n) => self.send(n, Signal::TERM),
            Action::Kill(n) => self.send(n, Signal::KILL),
            Action::Hup(n) => self.send(n, Signal::HUP),
            Action::ReopenLogs => {
                logging::reopen();
                self.children.iter().for_each(Running::reopen_log);
            }
            Action::Exit(_) => {}
        }
    }

    fn send(&self, n: usize, signal: Signal) {
        if let Some(child) = self.children.get(n) {
            child.signal(signal);
        }
    }

    fn last_words(&mut self, n: usize) {
        let Some(child) = self.children.get_mut(n) else { return };
        if let Some(text) = child.last_words() {
            log::error!("{}: {text}", self.lifecycle.name(n));
        }
    }

    fn leave(&mut self) {
        for child in &mut self.children {
            child.drain();
            child.remove_pid_file();
        }
    }
}

/// The signals of the server, and of its children's ends, in order.
fn watch_signals() -> io::Result<Receiver<i32>> {
    let wanted = [SIGTERM, SIGINT, SIGHUP].into_iter();
    let kept = wanted.filter(|signal| !evloop::signals::is_ignored(*signal));
    let mut signals = Signals::new(kept.chain([SIGCHLD]))?;
    let (sender, receiver) = channel();
    let run = move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(1 << 20).spawn(run)?;
    Ok(receiver)
}
