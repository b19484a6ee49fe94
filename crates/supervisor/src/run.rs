//! The supervisor as a program: reads the configuration and makes sure that everything can start,
//! before `server` starts it. Called by `bin/pushpin`.

use std::fs;
use std::path::{Path, PathBuf};

use config::{Overrides, Settings};

use crate::ahead;
use crate::cost::System;
use crate::fault::fault;
use crate::find;
use crate::levels::Levels;
use crate::lock::Lock;
use crate::plan::{Plan, Wanted};
use crate::probe;
use crate::server::Server;

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
    let prepared = loaded.and_then(|(path, settings)| prepare(options, path, settings, levels));
    let code = match prepared.and_then(|prepared| Server::run(options, prepared)) {
        Ok(code) => code,
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
    let (path, settings) = read(options)?;
    match settings.problems().iter().find(|problem| problem.line > 0) {
        Some(problem) => Err(problem.to_string()),
        None => Ok((path, settings)),
    }
}

fn read(options: &Options) -> Result<(PathBuf, Settings), String> {
    let path = find::config_file(options.config.as_deref())?;
    let wanted = wanted(options, Levels::default());
    let overrides =
        Overrides { ipc_prefix: wanted.ipc_prefix(), port_offset: wanted.port_offset() };
    let settings = Settings::load(&path, &overrides)
        .map_err(|error| format!("failed to open {}: {}", error.path.display(), error.cause))?;
    Ok((path, settings))
}

/// Reads and checks the configuration as a start would, and starts nothing. Gives it with what
/// is wrong with it, each with its file, line and key.
///
/// # Errors
/// If the file cannot be found or opened.
pub fn check(options: &Options) -> Result<(Settings, Vec<String>), String> {
    let (path, settings) = read(options)?;
    let found = match levels(options, Some(&settings))
        .and_then(|levels| plan(options, path, &settings, levels, u64::MAX))
    {
        Ok(plan) => {
            let found = ahead::check_files(&plan, &settings).unwrap_or_else(|fault| vec![fault]);
            plan.warnings.into_iter().chain(found).collect()
        }
        Err(text) => vec![text],
    };
    Ok((settings, found))
}

/// What a server with the configuration as it is now would be; for a reload.
///
/// # Errors
/// What is wrong with the configuration.
pub(crate) fn replan(options: &Options) -> Result<(Settings, Plan), String> {
    let (path, settings) = load(options)?;
    let levels = levels(options, Some(&settings))?;
    let plan = plan(options, path, &settings, levels, evloop::limits::raise_open_files())?;
    Ok((settings, plan))
}

fn plan(
    options: &Options,
    config: PathBuf,
    settings: &Settings,
    levels: Levels,
    files: u64,
) -> Result<Plan, String> {
    let cwd = std::env::current_dir().map_err(|e| format!("no working directory: {e}"))?;
    Plan::new(settings, &Wanted { files, cwd, config, ..wanted(options, levels) })
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

/// What is to be started, while nobody else may start it.
pub(crate) struct Prepared {
    pub settings: Settings,
    pub plan: Plan,
    pub _lock: Lock,
}

/// Everything that can go wrong before the first child: the plan, directories, another server,
/// ports, files.
fn prepare(
    options: &Options,
    config: PathBuf,
    settings: Settings,
    levels: Levels,
) -> Result<Prepared, String> {
    log::debug!("starting...");
    if options.config.is_none() {
        log::info!("using config: {}", config.display());
    }
    let files = evloop::limits::raise_open_files();
    let plan = plan(options, config, &settings, levels, files)?;
    plan.warnings.iter().for_each(|text| log::warn!("{text}"));
    if let Some(clients) = plan.clients {
        let (cost, short) = System::read().judge(clients, files);
        log::info!("{cost}");
        short.iter().for_each(|text| log::warn!("{text}"));
    }
    std::iter::once(&plan.rundir).chain(&plan.logdir).try_for_each(|dir| make_dir(dir))?;
    let lock = Lock::take(&plan.rundir, settings.ipc_prefix())?;
    probe::check(&plan.claims)?;
    ahead::check(&plan, &settings)?;
    Ok(Prepared { settings, plan, _lock: lock })
}

fn make_dir(dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir)
        .map_err(|error| format!("failed to create directory: {}: {error}", dir.display()))
}
