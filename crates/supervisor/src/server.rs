//! A running server: starts the children, carries out what `lifecycle` decides, and listens to
//! signals and children until all have ended. Called by `run`.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use admin::Rules;
use config::Settings;
use evloop::parent::{Order, Said};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Options;
use crate::balance::Balance;
use crate::board::Board;
use crate::child::Running;
use crate::lifecycle::{Action, Input, Lifecycle};
use crate::notify::{self, State};
use crate::plan::{ChildPlan, Plan};
use crate::run::{Prepared, replan};

/// What wakes the server.
enum Event {
    Signal(i32),
    /// A child is up.
    Ready(usize),
    /// A child has so many clients.
    Count(usize, u64),
}

/// The state machine, its children, and where events come from.
pub(crate) struct Server<'a> {
    options: &'a Options,
    /// What the server was started with.
    settings: Settings,
    lifecycle: Lifecycle,
    children: Vec<Running>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    board: Arc<Board>,
    balance: Balance,
    begin: Instant,
}

impl<'a> Server<'a> {
    /// Starts all children at once and stays until they have ended; gives the exit status.
    ///
    /// # Errors
    /// Why nothing was started.
    pub fn run(options: &'a Options, prepared: Prepared) -> Result<u8, String> {
        let Prepared { settings, plan, _lock } = prepared;
        let (sender, events) = channel();
        watch_signals(sender.clone()).map_err(|e| format!("failed to watch signals: {e}"))?;
        let board = show(&plan)?;
        let verbose = !options.merge_output;
        let mut server = Self {
            options,
            settings,
            lifecycle: Lifecycle::new(verbose),
            children: Vec::new(),
            events,
            sender,
            board,
            balance: balance(&plan),
            begin: Instant::now(),
        };
        server.lifecycle.set_drain(plan.drain_ms);
        for child in &plan.children {
            if verbose {
                log::info!("starting {}", child.name);
            }
            if let Err(what) = server.start(child) {
                let input = Input::NotStarted(child.name.clone(), what);
                server.lifecycle.handle(server.now(), input);
                break;
            }
        }
        log::debug!("started");
        server.lifecycle.complete();
        server.board.complete();
        Ok(server.serve())
    }

    fn start(&mut self, plan: &ChildPlan) -> Result<(), String> {
        let (n, sender, board) = (self.children.len(), self.sender.clone(), self.board.clone());
        let said = move |word| match word {
            // the server may have ended
            Said::Ready => drop(sender.send(Event::Ready(n))),
            Said::Count(clients) => drop(sender.send(Event::Count(n, clients))),
            Said::Page(page) => board.page(n, page),
        };
        let running = Running::start(plan, said)?;
        let tie = running.share_tie().map_err(|error| error.to_string())?;
        self.board.add(plan.name.clone(), running.pid(), tie);
        self.lifecycle.started(&plan.name, plan.reloads);
        self.children.push(running);
        Ok(())
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

    /// Waits for an event or the deadline and tells the state machine.
    fn wait(&mut self) {
        let deadlines = [self.lifecycle.next_deadline(), self.balance.next_deadline()];
        let deadline = deadlines.into_iter().flatten().min();
        let left = deadline.map_or(u64::MAX, |deadline| deadline.saturating_sub(self.now()));
        match self.events.recv_timeout(Duration::from_millis(left.min(3_600_000))) {
            Ok(Event::Signal(signal)) => self.signal(signal),
            Ok(Event::Ready(n)) => {
                self.board.ready(n);
                self.lifecycle.handle(self.now(), Input::Ready(n));
            }
            Ok(Event::Count(n, clients)) => self.balance.used(n, clients),
            Err(RecvTimeoutError::Timeout) => {
                self.lifecycle.timeout(self.now());
                self.order(self.now());
            }
            // cannot be: the server has a sender itself
            Err(RecvTimeoutError::Disconnected) => self.signal(SIGTERM),
        }
    }

    /// Sends the orders that are due.
    fn order(&mut self, now: u64) {
        for (n, order) in self.balance.orders(now) {
            if let Some(child) = self.children.get(n) {
                child.order(order);
            }
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
            Action::Reconfigure => self.reconfigure(),
            Action::Notify(state) => {
                if state == State::Stopping {
                    self.board.stopping();
                }
                notify::tell(state);
            }
            Action::Exit(_) => {}
        }
    }

    /// Takes over what may change while the server runs. Proxy and handler read the file
    /// themselves, for HUP follows.
    fn reconfigure(&mut self) {
        let (settings, plan) = match replan(self.options) {
            Ok(found) => found,
            Err(text) => return log::error!("{text}; the settings stay as they are"),
        };
        plan.warnings.iter().for_each(|text| log::warn!("{text}"));
        for key in self.settings.needs_restart(&settings) {
            log::warn!("{key} has changed, which takes effect at the next start");
        }
        logging::set_level(plan.level);
        self.lifecycle.set_drain(plan.drain_ms);
        for (child, plan) in self.children.iter().zip(&plan.children) {
            child.order(Order::Level(plan.level));
            // Several share the limit, and are told of their parts as before.
            if let (Some(clients), None) = (plan.clients, self.balance.next_deadline()) {
                child.order(Order::Clients(clients));
            }
        }
        self.balance.set_limits(plan.clients.unwrap_or(0), plan.clients_fit);
        self.board.reloaded();
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

/// What the children that take clients begin with.
fn balance(plan: &Plan) -> Balance {
    let children = plan.children.iter().enumerate();
    let children = children.filter_map(|(n, child)| Some((n, child.clients? as u64))).collect();
    Balance::new(plan.clients.unwrap_or(0), plan.clients_fit, children)
}

/// The board, with a listener if the configuration names one.
fn show(plan: &Plan) -> Result<Arc<Board>, String> {
    let Some((address, prefix)) = &plan.metrics else { return Ok(Board::new(String::new())) };
    let board = Board::new(prefix.clone());
    let asked = board.clone();
    let respond = move |path: &str| asked.reply(path);
    let address = admin::serve(address, Rules::PUSHPIN, respond)
        .map_err(|error| format!("unable to bind to prometheus port: {address}: {error}"))?;
    log::info!("metrics of all processes and health on {address}");
    Ok(board)
}

/// The signals of the server, and of its children's ends, in order. HUP stays ignored if it was
/// (nohup); INT does not: shells start what runs in the background so, and it is to stop it too.
fn watch_signals(sender: Sender<Event>) -> io::Result<()> {
    let mut wanted = vec![SIGTERM, SIGINT, SIGCHLD];
    if !evloop::signals::is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(&wanted)?;
    let run = move || {
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.stack_size(evloop::signals::SMALL_STACK_BYTES).spawn(run).map(drop)
}
