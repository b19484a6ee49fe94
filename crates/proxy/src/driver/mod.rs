//! The program around the engines: settings, workers, signals, the routes file.

mod calls;
mod drain;
pub(crate) mod load;
mod neighbours;
mod routes_file;
mod scrape;
mod sockets;
mod targets;
mod topics;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::specs::ProxySpecs;
use evloop::clock::Clock;
use evloop::signals::{self, Signal};
use mio::{Events, Poll, Token, Waker};

use crate::{Routes, Settings};
use neighbours::Neighbours;
pub(crate) use routes_file::RoutesFile;
use scrape::Boards;

/// The command line (spec/programs.md §3).
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--config`
    pub config: PathBuf,
    /// `--ipc-prefix`
    pub ipc_prefix: Option<String>,
    /// `--route`
    pub routes: Vec<String>,
}

/// How often the routes file is looked at.
const WATCH: Duration = Duration::from_millis(500);

/// How long workers may take to stop.
const STOP_MS: u64 = 2_000;

/// What a worker is told.
pub(crate) enum Order {
    /// Use these routes for new requests.
    Routes(Arc<Routes>),
    /// Go on with these settings.
    Settings(Box<Settings>),
    /// End.
    Stop,
}

struct Worker {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

/// Runs the proxy until it is told to stop; gives the exit status. Logging is on already.
pub fn run(options: &Options) -> u8 {
    match try_run(options) {
        Ok(()) => 0,
        Err(text) => {
            log::error!("{text}");
            1
        }
    }
}

fn try_run(options: &Options) -> Result<(), String> {
    let overrides = config::Overrides { ipc_prefix: options.ipc_prefix.clone(), port_offset: None };
    let config =
        config::Settings::load(&options.config, &overrides).map_err(|cause| cause.to_string())?;
    let mut poll = Poll::new().map_err(io_text)?;
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).map_err(io_text)?);
    let incoming = signals::watch(Arc::clone(&waker)).map_err(io_text)?;
    let mut file = RoutesFile::new(&config, &options.routes);
    let routes = Arc::new(file.load().unwrap_or_default());
    let boards = Boards::bind(&config, config::specs::proxy_workers(&config))?;
    let mut workers = start_workers(&config, &routes, &waker, boards.as_ref())?;
    for problem in config.problems() {
        log::warn!("{problem}");
    }
    log::info!("started");
    obey(boards.as_ref())?;
    let reading = || config::Settings::load(&options.config, &overrides);
    let result = supervise(&mut poll, &incoming, &mut file, &workers, reading);
    log::info!("stopping...");
    stop(&mut workers);
    log::debug!("stopped");
    result
}

fn io_text(cause: std::io::Error) -> String {
    format!("unable to set up the event loop: {cause}")
}

/// Starts all workers; each says whether its sockets could be made.
fn start_workers(
    config: &config::Settings,
    routes: &Arc<Routes>,
    main: &Arc<Waker>,
    boards: Option<&Boards>,
) -> Result<Vec<Worker>, String> {
    let count = config::specs::proxy_workers(config);
    let specs = ProxySpecs::from(config);
    let context = zmq::Context::new();
    let clock = Clock::new();
    let mut workers = Vec::new();
    let (neighbours, handed) = Neighbours::new(count);
    let neighbours = Arc::new(neighbours);
    for (n, handed) in handed.into_iter().enumerate() {
        let plan = worker::Plan {
            context: context.clone(),
            clock,
            specs: specs.worker(n, count),
            ipc_file_mode: config.octal("proxy", "ipc_file_mode"),
            settings: load::settings(config, n, count),
            routes: Arc::clone(routes),
            main: Arc::clone(main),
            number: n,
            neighbours: Arc::clone(&neighbours),
            handed,
            board: boards.map(|boards| boards.board(n)),
        };
        workers.push(start_worker(n, plan)?);
    }
    Ok(workers)
}

fn start_worker(n: usize, plan: worker::Plan) -> Result<Worker, String> {
    let (orders, incoming) = channel();
    let (ready, started) = channel();
    let main = Arc::clone(&plan.main);
    let run = move || match worker::Loop::new(plan, incoming) {
        Ok(mut worker) => {
            let _ = ready.send(Ok(worker.waker()));
            worker.run();
        }
        Err(text) => {
            let _ = ready.send(Err(text));
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("proxy-worker-{n}"))
        .spawn(run)
        .map_err(|cause| format!("unable to start a worker: {cause}"))?;
    drop(main);
    let waker = started.recv().map_err(|_| "a worker ended at its start".to_owned())??;
    Ok(Worker { orders, waker, thread })
}

/// Waits for signals and watches the routes file.
fn supervise(
    poll: &mut Poll,
    incoming: &Receiver<Signal>,
    file: &mut RoutesFile,
    workers: &[Worker],
    reading: impl Fn() -> Result<config::Settings, config::Error>,
) -> Result<(), String> {
    let mut events = Events::with_capacity(8);
    loop {
        let timeout = if file.is_watched() { WATCH } else { Duration::from_secs(60) };
        match poll.poll(&mut events, Some(timeout)) {
            Err(cause) if cause.kind() != std::io::ErrorKind::Interrupted => {
                return Err(io_text(cause));
            }
            _ => {}
        }
        while let Ok(signal) = incoming.try_recv() {
            match signal {
                Signal::Stop => return Ok(()),
                Signal::Reload => {
                    log::info!("reloading");
                    logging::reopen();
                    reload(reading(), file, workers);
                    spread(file.load(), workers);
                }
            }
        }
        if file.changed(Instant::now()) {
            spread(file.load(), workers);
        }
        if workers.iter().any(|worker| worker.thread.is_finished()) {
            return Err("a worker ended unexpectedly".to_owned());
        }
    }
}

/// New settings for all workers, if they can be read.
fn reload(
    read: Result<config::Settings, config::Error>,
    file: &mut RoutesFile,
    workers: &[Worker],
) {
    let config = match read {
        Ok(config) => config,
        Err(cause) => return log::error!("{cause}; the settings stay as they are"),
    };
    file.set_signing(load::signing(&config));
    for (n, worker) in workers.iter().enumerate() {
        worker.tell(Order::Settings(Box::new(load::settings(&config, n, workers.len()))));
    }
    config.problems().iter().for_each(|problem| log::warn!("{problem}"));
}

/// Tells the supervisor that all sockets are bound, and does what it says from then on.
fn obey(boards: Option<&Boards>) -> Result<(), String> {
    let page = boards.map(Boards::page);
    let answer = move |order| match order {
        evloop::parent::Order::Level(level) => {
            logging::set_level(level);
            None
        }
        evloop::parent::Order::Clients(_)
        | evloop::parent::Order::Part(_)
        | evloop::parent::Order::Count => None,
        evloop::parent::Order::Page => page.as_ref().map(|page| page("")),
    };
    evloop::parent::ready(answer).map_err(io_text)
}

fn spread(routes: Option<Routes>, workers: &[Worker]) {
    let Some(routes) = routes.map(Arc::new) else { return };
    workers.iter().for_each(|worker| worker.tell(Order::Routes(Arc::clone(&routes))));
}

impl Worker {
    fn tell(&self, order: Order) {
        if self.orders.send(order).is_err() || self.waker.wake().is_err() {
            log::debug!("a worker does not listen any more");
        }
    }
}

fn stop(workers: &mut Vec<Worker>) {
    workers.iter().for_each(|worker| worker.tell(Order::Stop));
    let until = Instant::now() + Duration::from_millis(STOP_MS);
    while Instant::now() < until && workers.iter().any(|worker| !worker.thread.is_finished()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for worker in workers.drain(..) {
        if worker.thread.is_finished() && worker.thread.join().is_err() {
            log::error!("a worker panicked");
        }
    }
}
