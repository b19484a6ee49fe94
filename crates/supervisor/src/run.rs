//! A server from its start to its end.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use config::{Overrides, Settings};
use evloop::{limits, signals};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::child::Child;
use crate::levels::Levels;
use crate::options::Options;
use crate::plan::{Machine, Plan, Service};
use crate::ports;

/// Where an installed configuration is.
const CONFIG_DIR: &str = match option_env!("CONFIGDIR") {
    Some(dir) => dir,
    None => "/etc/pushpin",
};

/// Runs a server until it ends.
///
/// # Errors
/// The exit status is then not 0; everything was said already.
pub fn run(mut options: Options) -> Result<(), Failed> {
    let searched = options.config.is_none();
    let settings = load(&mut options);
    let levels = levels(&options, settings.as_ref().ok()).map_err(|text| say(&text))?;
    let level = levels.of("runner");
    let log = logging::Options { level, file: options.logfile.clone(), module_tag: false };
    logging::init(log).map_err(|error| say(&error.to_string()))?;
    log::debug!("starting...");
    let result = settings.and_then(|settings| {
        if searched && let Some(path) = &options.config {
            log::info!("using config: {}", path.display());
        }
        serve(&settings, &options, &levels)
    });
    let result = result.map_err(|text| {
        if !text.is_empty() {
            log::error!("{text}");
        }
        Failed
    });
    log::debug!("stopped");
    logging::flush();
    result
}

/// The server did not start, or did not end as it should.
#[derive(Debug)]
pub struct Failed;

/// For what goes wrong before there is a log.
fn say(text: &str) -> Failed {
    eprintln!("error: {text}");
    Failed
}

/// Finds and reads the configuration; its name is put into the options.
fn load(options: &mut Options) -> Result<Settings, String> {
    let path = find(options.config.as_deref())?;
    let ipc_prefix = options.id.map(|id| format!("p{id}-"));
    let port_offset = options.id.map(|id| i64::from(id) * 10);
    let settings = Settings::load(&path, &Overrides { ipc_prefix, port_offset });
    options.config = Some(path);
    let settings = settings.map_err(|error| error.to_string())?;
    // so far these are brackets and quotes that are not closed: what follows would be misread
    match settings.problems().first() {
        Some(problem) => Err(problem.to_string()),
        None => Ok(settings),
    }
}

/// The named config file, or the first that is there (spec/config.md §1).
fn find(named: Option<&Path>) -> Result<PathBuf, String> {
    let installed = format!("{CONFIG_DIR}/pushpin.conf");
    let usual = [
        "config/pushpin.conf",
        "pushpin.conf",
        "examples/config/pushpin.conf",
        "etc/pushpin.conf",
        &installed,
    ];
    let candidates: Vec<&Path> = match named {
        Some(path) => vec![path],
        None => usual.iter().map(Path::new).collect(),
    };
    let found = candidates.iter().find(|path| path.is_file());
    found.map(|path| path.to_path_buf()).ok_or_else(|| {
        let names: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!("no configuration file found. Tried: {}", names.join(" "))
    })
}

fn levels(options: &Options, settings: Option<&Settings>) -> Result<Levels, String> {
    let asked = match &options.loglevel {
        _ if options.verbose => vec!["3".to_owned()],
        Some(text) => text.split(',').map(str::to_owned).collect(),
        None => settings.map(|s| s.list("runner", "log_level")).unwrap_or_default(),
    };
    Levels::parse(asked.iter().map(String::as_str))
}

/// Everything after the log is there. An empty error was said already.
fn serve(settings: &Settings, options: &Options, levels: &Levels) -> Result<(), String> {
    let folder = std::env::current_dir().map_err(|e| format!("no working directory: {e}"))?;
    let machine = Machine { folder, files: limits::raise_open_files() };
    let plan = Plan::new(settings, options, levels, &machine)?;
    plan.warnings.iter().for_each(|text| log::warn!("{text}"));
    settings.problems().iter().for_each(|problem| log::warn!("{problem}"));
    for folder in &plan.folders {
        let failed = |e| format!("failed to create directory: {}: {e}", folder.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    ports::probe(&plan.ports)?;
    let (sender, events) = channel();
    watch_signals(sender).map_err(|error| format!("cannot watch for signals: {error}"))?;
    let mut server = Server {
        events,
        children: Vec::new(),
        quiet: options.merge_output,
        stopping: false,
        failed: false,
    };
    server.start(&plan.services);
    server.run();
    if server.failed { Err(String::new()) } else { Ok(()) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Stop,
    Reload,
    ChildEnded,
}

/// Turns signals into events. Those that were ignored at the start stay so.
fn watch_signals(events: Sender<Event>) -> std::io::Result<()> {
    let ignorable = [SIGINT, SIGHUP].into_iter().filter(|&signal| !signals::is_ignored(signal));
    let mut signals = Signals::new(ignorable.chain([SIGTERM, SIGCHLD]))?;
    thread::Builder::new().name("signals".into()).stack_size(64 * 1024).spawn(move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGCHLD => Event::ChildEnded,
                SIGHUP => Event::Reload,
                _ => Event::Stop,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

struct Server {
    events: Receiver<Event>,
    children: Vec<Child>,
    /// Says nothing about single services.
    quiet: bool,
    stopping: bool,
    failed: bool,
}

impl Server {
    /// Starts everything; the first failure stops what was started.
    fn start(&mut self, services: &[Service]) {
        let folder = own_folder();
        for service in services {
            if !self.quiet {
                log::info!("starting {}", service.name);
            }
            match Child::start(service, &folder) {
                Ok(child) => self.children.push(child),
                Err(text) => {
                    log::error!("{text}");
                    return self.fail();
                }
            }
        }
        log::debug!("started");
    }

    /// Goes on until every process has ended.
    fn run(&mut self) {
        while !self.children.is_empty() {
            match self.next_event() {
                Ok(Event::Stop) if self.stopping => return self.force(),
                Ok(Event::Stop) => self.asked_to_stop(),
                Ok(Event::Reload) => self.reload(),
                Ok(Event::ChildEnded) => self.look_after(),
                Err(RecvTimeoutError::Timeout) => self.kill_late(),
                Err(RecvTimeoutError::Disconnected) => return self.force(),
            }
        }
    }

    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        let deadline = self.children.iter().filter_map(Child::kill_at).min();
        match deadline {
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn asked_to_stop(&mut self) {
        let mut output = std::io::stdout();
        if output.is_terminal() {
            // over the ^C that the terminal shows
            let _ = output.write_all(b"\r").and_then(|()| output.flush());
        }
        log::info!("stopping...");
        self.stop();
    }

    /// Asks all to stop, at once.
    fn stop(&mut self) {
        self.stopping = true;
        let now = Instant::now();
        for child in &mut self.children {
            if !self.quiet {
                log::info!("stopping {}", child.service().name);
            }
            child.stop(now);
        }
    }

    fn fail(&mut self) {
        self.failed = true;
        if !self.stopping {
            self.stop();
        }
    }

    fn reload(&mut self) {
        log::info!("reloading");
        logging::reopen();
        self.children.iter().for_each(Child::reload);
    }

    /// Looks which processes have ended.
    fn look_after(&mut self) {
        let mut at = 0;
        while at < self.children.len() {
            match self.children[at].ended() {
                None => at += 1,
                Some(status) => {
                    if !self.children.remove(at).bury(status) {
                        self.fail();
                    }
                }
            }
        }
    }

    fn kill_late(&mut self) {
        let now = Instant::now();
        for child in &mut self.children {
            if child.kill_at().is_some_and(|at| at <= now) {
                log::warn!("{} taking too long, forcing quit", child.service().name);
                child.kill();
            }
        }
    }

    /// The second request to stop: nobody is waited for.
    fn force(&mut self) {
        for mut child in self.children.drain(..) {
            let name = &child.service().name;
            log::warn!("{name} running while needing to exit, forcing quit");
            child.kill();
            child.remove_pid();
        }
    }
}

/// The folder that this program is in, links followed.
fn own_folder() -> PathBuf {
    let path = std::env::current_exe().and_then(std::fs::canonicalize);
    path.ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default()
}
