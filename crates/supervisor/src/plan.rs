//! What is to be started: made of the configuration and the command line, nothing is touched yet
//! (spec/programs.md §2.2, §2.3).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::Settings;
use config::services::Services;
use config::specs::{connmgr_id, connmgr_processes, connmgr_workers};

use crate::capacity;
use crate::levels::Levels;
use crate::options::Options;
use crate::ports;

/// Where the output of a process goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the output of the supervisor.
    Merged,
    /// To this log file, written by the supervisor.
    File(PathBuf),
    /// The process writes this log file itself; what it says besides is merged.
    Own(PathBuf),
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in logs.
    pub name: String,
    /// The executable, without its folder.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where its id is written.
    pub pid_file: PathBuf,
    /// Where its output goes.
    pub output: Output,
    /// Whether it understands HUP.
    pub takes_hup: bool,
}

/// Everything that a start needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The processes in the order of their start.
    pub services: Vec<Service>,
    /// Folders to be made.
    pub folders: Vec<PathBuf>,
    /// TCP ports that must be free.
    pub ports: Vec<SocketAddr>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// What the machine has to say.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The working directory.
    pub folder: PathBuf,
    /// The limit of open files of a process.
    pub files: u64,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// The one line that the start ends with.
    pub fn new(
        settings: &Settings,
        options: &Options,
        levels: &Levels,
        machine: &Machine,
    ) -> Result<Self, String> {
        let wanted = Services::from(settings);
        let mut planner = Planner { settings, options, levels, machine, plan: Self::default() };
        planner.plan.warnings.extend(deprecated_rundir(settings));
        planner.plan.warnings.extend(wanted.warnings.iter().cloned());
        planner.folders();
        if wanted.connmgr {
            planner.connmgrs()?;
        }
        if wanted.proxy {
            let routes = options.routes.iter().map(|line| format!("--route={line}")).collect();
            planner.engine("proxy", "pushpin-proxy", routes);
        }
        if wanted.handler {
            let offset = options.id.filter(|&id| id > 0).map(u64::from);
            let offset = offset.map(|id| format!("--port-offset={}", id * 10));
            planner.engine("handler", "pushpin-handler", offset.into_iter().collect());
        }
        if planner.plan.services.is_empty() {
            let text = "nothing to start: set services=connmgr,proxy,handler in [runner]";
            planner.plan.warnings.push(text.to_owned());
        }
        Ok(planner.plan)
    }
}

struct Planner<'a> {
    settings: &'a Settings,
    options: &'a Options,
    levels: &'a Levels,
    machine: &'a Machine,
    plan: Plan,
}

impl Planner<'_> {
    fn run_dir(&self) -> PathBuf {
        self.machine.folder.join(self.settings.rundir())
    }

    fn log_dir(&self) -> PathBuf {
        let folder = self.settings.string("runner", "logdir").unwrap_or_default();
        self.machine.folder.join(folder)
    }

    /// The begin of the names of log and pid files.
    fn file_prefix(&self) -> String {
        self.options.id.map(|id| format!("p{id}-")).unwrap_or_default()
    }

    fn folders(&mut self) {
        self.plan.folders.push(self.run_dir());
        if !self.options.merge_output {
            self.plan.folders.push(self.log_dir());
        }
    }

    /// `file` is the name of log and pid file without prefix and ending.
    fn add(&mut self, name: &str, program: &'static str, file: &str, arguments: Vec<String>) {
        let file = format!("{}{file}", self.file_prefix());
        let log_file = self.log_dir().join(format!("{file}.log"));
        let takes_hup = program != CONNMGR;
        self.plan.services.push(Service {
            name: name.to_owned(),
            program,
            arguments,
            pid_file: self.run_dir().join(format!("{file}.pid")),
            output: match takes_hup {
                _ if self.options.merge_output => Output::Merged,
                true => Output::Own(log_file),
                false => Output::File(log_file),
            },
            takes_hup,
        });
    }

    /// The proxy or the handler.
    fn engine(&mut self, name: &str, program: &'static str, more: Vec<String>) {
        let mut arguments = vec![
            format!("--config={}", self.settings_path()),
            format!("--ipc-prefix={}", self.settings.ipc_prefix()),
            format!("--loglevel={}", self.levels.of(name)),
        ];
        if !self.options.merge_output {
            let file = self.log_dir().join(format!("{}{program}.log", self.file_prefix()));
            arguments.push(format!("--logfile={}", file.display()));
        }
        arguments.extend(more);
        self.add(name, program, program, arguments);
    }

    fn settings_path(&self) -> String {
        self.options.config.as_deref().unwrap_or(Path::new("")).display().to_string()
    }

    fn connmgrs(&mut self) -> Result<(), String> {
        let listeners = self.listeners()?;
        let processes = connmgr_processes(self.settings);
        let workers = connmgr_workers(self.settings);
        let maxconn = self.max_connections(processes as u64, workers as u64)?;
        let buffer = self.positive("client_buffer_size", 8192)?;
        let base = format!("ipc://{}/{}", self.run_dir().display(), self.settings.ipc_prefix());
        for n in 0..processes {
            let id = connmgr_id(n, processes);
            let mut arguments = vec![
                format!("--log-level={}", self.levels.of("connmgr")),
                format!("--buffer-size={buffer}"),
                format!("--stream-maxconn={maxconn}"),
                format!("--workers={workers}"),
                format!("--zclient-stream={base}{id}"),
            ];
            if self.settings.bool("runner", "allow_compression", false) {
                arguments.push("--compression".to_owned());
            }
            if processes > 1 {
                arguments.push(format!("--id={id}"));
            }
            arguments.extend(listeners.of(n, processes));
            self.add(&id, CONNMGR, &id, arguments);
        }
        Ok(())
    }

    /// The limit of clients of each connection manager.
    fn max_connections(&mut self, processes: u64, workers: u64) -> Result<u64, String> {
        let wanted = self.positive("client_maxconn", 50_000)?;
        let share = capacity::share(wanted, processes);
        let (fits, warning) = capacity::fit(share, workers, self.machine.files);
        self.plan.warnings.extend(warning.map(|text| format!("client_maxconn={wanted}: {text}")));
        Ok(fits)
    }

    fn positive(&self, key: &str, default: i64) -> Result<u64, String> {
        let number = self.settings.int("runner", key, default);
        match u64::try_from(number) {
            Ok(number @ 1..) => Ok(number),
            _ => Err(fault(self.settings, key, "it must be a number greater than 0")),
        }
    }

    /// Where clients connect; the TCP ports go into the plan as well.
    fn listeners(&mut self) -> Result<Listeners, String> {
        let mut listeners = Listeners::default();
        if let Some(text) = &self.options.port {
            let text = text.clone();
            let error = || match text.rsplit(':').next().and_then(|port| port.parse::<i64>().ok()) {
                Some(..1) => "port must be greater than or equal to 1".to_owned(),
                _ => format!("invalid http port: {text}"),
            };
            let port = ports::parse_port(&text).ok_or_else(error)?;
            listeners.tcp.push(port);
        } else {
            self.configured(&mut listeners)?;
        }
        self.plan.ports.clone_from(&listeners.tcp);
        Ok(listeners)
    }

    fn configured(&self, listeners: &mut Listeners) -> Result<(), String> {
        let list = |key| self.settings.list("runner", key);
        if let Some(port) = list("https_ports").first() {
            let text = format!("HTTPS is not in this release, port {port} cannot be served");
            return Err(fault(self.settings, "https_ports", &text));
        }
        for text in list("http_port") {
            let bad = || fault(self.settings, "http_port", &format!("invalid http port: {text}"));
            listeners.tcp.push(ports::parse_port(&text).ok_or_else(bad)?);
        }
        for text in list("local_ports") {
            let bad = |error: String| fault(self.settings, "local_ports", &error);
            listeners.local.push(ports::local_listen(&text).map_err(bad)?);
        }
        if listeners.tcp.is_empty() && listeners.local.is_empty() {
            return Err("no server ports configured".to_owned());
        }
        Ok(())
    }
}

const CONNMGR: &str = "pushpin-connmgr";

#[derive(Default)]
struct Listeners {
    tcp: Vec<SocketAddr>,
    local: Vec<String>,
}

impl Listeners {
    /// The arguments of connection manager `n` of `of`. Several share each TCP port; a unix socket
    /// cannot be shared and belongs to the first.
    fn of(&self, n: usize, of: usize) -> impl Iterator<Item = String> {
        let shared = if of > 1 { ",reuseport" } else { "" };
        let tcp = self.tcp.iter().map(move |port| format!("--listen={port},stream{shared}"));
        let local = self.local.iter().filter(move |_| n == 0);
        tcp.chain(local.map(|spec| format!("--listen={spec}")))
    }
}

/// A complaint about a key of `[runner]`, with file and line.
fn fault(settings: &Settings, key: &str, text: &str) -> String {
    settings.note("runner", key, text);
    settings.problems().pop().map_or_else(|| format!("{key}: {text}"), |line| line.to_string())
}

fn deprecated_rundir(settings: &Settings) -> Option<String> {
    let only_there = settings.nonempty("global", "rundir").is_none()
        && settings.nonempty("runner", "rundir").is_some();
    let text = "rundir in [runner] section is deprecated. put in [global]";
    only_there.then(|| text.to_owned())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
