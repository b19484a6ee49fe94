//! The life of a running server as a state machine: signals, ends of children and time go in,
//! actions come out (spec/programs.md §2.5, §2.6). Driven by `run`.

use std::collections::VecDeque;

use log::Level;
use signal_hook::consts::SIGTERM;

use crate::notify::State;

/// How long a child may take to stop.
const STOP_MAX_MS: u64 = 4_000;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What happens to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// TERM or INT.
    Stop,
    /// HUP.
    Reload,
    /// A child is up.
    Ready(usize),
    /// A child ended.
    Ended(usize, End),
    /// A child could not be started; its name, and the program with the cause.
    NotStarted(String, String),
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Log(Level, String),
    /// Say what a child that ended unexpectedly wrote last.
    LastWords(usize),
    /// Send TERM.
    Term(usize),
    /// Send KILL.
    Kill(usize),
    /// Send HUP.
    Hup(usize),
    /// Open the log files again.
    ReopenLogs,
    /// Read the configuration again.
    Reconfigure,
    /// Tell the service manager.
    Notify(State),
    /// Leave with this status.
    Exit(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Killed,
    Gone,
}

#[derive(Debug)]
struct Child {
    name: String,
    /// Whether HUP is for it.
    reloads: bool,
    /// Whether it ends its clients' sessions over a time, while the others still carry them.
    drains: bool,
    phase: Phase,
}

/// The state of all children. Times are milliseconds of one clock.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    children: Vec<Child>,
    /// Whether `stopping NAME` is said for each.
    verbose: bool,
    /// All children have been started.
    complete: bool,
    /// All of them were up.
    ready: bool,
    /// How long the end of the sessions may take; 0: all children stop at once.
    drain_ms: u64,
    /// Children that drain were told to stop, the others were not.
    draining: bool,
    stop_deadline: Option<u64>,
    stopping: bool,
    failed: bool,
    actions: VecDeque<Action>,
}

impl Lifecycle {
    /// A server without children yet; `verbose` is to say what becomes of each.
    pub fn new(verbose: bool) -> Self {
        Self {
            children: Vec::new(),
            verbose,
            complete: false,
            ready: false,
            drain_ms: 0,
            draining: false,
            stop_deadline: None,
            stopping: false,
            failed: false,
            actions: VecDeque::new(),
        }
    }

    /// A child that has been started; the children are numbered in this order.
    pub fn started(&mut self, name: &str, reloads: bool) {
        let name = name.to_owned();
        let drains = name == "handler";
        self.children.push(Child { name, reloads, drains, phase: Phase::Starting });
    }

    /// Sets over how long sessions are ended at a stop.
    pub fn set_drain(&mut self, drain_ms: u64) {
        self.drain_ms = drain_ms;
    }

    /// No more children will be started.
    pub fn complete(&mut self) {
        self.complete = true;
        self.say_ready();
    }

    /// The name of a child.
    pub fn name(&self, n: usize) -> &str {
        &self.children[n].name
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Lifecycle::timeout`] has to be called.
    pub fn next_deadline(&self) -> Option<u64> {
        self.stop_deadline
    }

    pub fn handle(&mut self, now: u64, input: Input) {
        match input {
            Input::Stop if self.stopping => self.force(),
            Input::Stop => self.stop(now),
            Input::Reload => self.reload(),
            Input::Ready(child) => self.up(child),
            Input::Ended(child, end) => self.ended(now, child, end),
            Input::NotStarted(name, what) => {
                self.fail(format!("{name}: Error running: {what}"));
                self.stop(now);
            }
        }
        self.exit_if_done();
    }

    /// Kills what did not stop in time.
    pub fn timeout(&mut self, now: u64) {
        if self.stop_deadline.is_some_and(|deadline| now >= deadline) {
            self.stop_deadline = None;
            self.kill_all("taking too long, forcing quit");
        }
    }

    fn log(&mut self, level: Level, text: String) {
        self.actions.push_back(Action::Log(level, text));
    }

    fn fail(&mut self, text: String) {
        self.failed = true;
        self.log(Level::Error, text);
    }

    /// Children that run and were not killed; of those that drain only, while they do.
    fn running(&self) -> Vec<usize> {
        let all = self.children.iter().enumerate();
        let lives = |child: &Child| matches!(child.phase, Phase::Starting | Phase::Running);
        let meant = |child: &Child| child.drains || !self.draining;
        all.filter(|(_, child)| lives(child) && meant(child)).map(|(n, _)| n).collect()
    }

    fn stop(&mut self, now: u64) {
        self.stopping = true;
        self.log(Level::Info, "stopping...".into());
        self.actions.push_back(Action::Notify(State::Stopping));
        // after a failure nothing is left to be drained
        self.draining = self.drain_ms > 0 && !self.failed;
        self.draining &= !self.running().is_empty();
        self.stop_deadline =
            Some(now + STOP_MAX_MS + if self.draining { self.drain_ms } else { 0 });
        self.term();
    }

    fn term(&mut self) {
        for n in self.running() {
            if self.verbose {
                self.log(Level::Info, format!("stopping {}", self.children[n].name));
            }
            self.actions.push_back(Action::Term(n));
        }
    }

    /// The second signal: nobody wants to wait any more.
    fn force(&mut self) {
        self.draining = false;
        self.kill_all("running while needing to exit, forcing quit");
        self.actions.push_back(Action::Exit(u8::from(self.failed)));
    }

    fn kill_all(&mut self, why: &str) {
        for n in self.running() {
            self.children[n].phase = Phase::Killed;
            self.log(Level::Warn, format!("{} {why}", self.children[n].name));
            self.actions.push_back(Action::Kill(n));
        }
    }

    fn up(&mut self, n: usize) {
        if let Some(child) = self.children.get_mut(n)
            && child.phase == Phase::Starting
        {
            child.phase = Phase::Running;
            self.say_ready();
        }
    }

    fn say_ready(&mut self) {
        let up = self.children.iter().all(|child| child.phase == Phase::Running);
        if up && self.complete && !self.ready && !self.stopping {
            self.ready = true;
            self.log(Level::Info, "ready".into());
            self.actions.push_back(Action::Notify(State::Ready));
        }
    }

    fn reload(&mut self) {
        self.log(Level::Info, "reloading".into());
        if self.ready && !self.stopping {
            self.actions.push_back(Action::Notify(State::Reloading));
        }
        self.actions.extend([Action::ReopenLogs, Action::Reconfigure]);
        for n in self.running() {
            if self.children[n].reloads {
                self.actions.push_back(Action::Hup(n));
            }
        }
        if self.ready && !self.stopping {
            self.actions.push_back(Action::Notify(State::Ready));
        }
    }

    fn ended(&mut self, now: u64, n: usize, end: End) {
        let phase = std::mem::replace(&mut self.children[n].phase, Phase::Gone);
        let name = &self.children[n].name;
        match (phase, end) {
            (Phase::Gone, _) | (Phase::Killed, End::Signal(_)) => {}
            _ if !self.stopping => {
                self.fail(format!("{name}: Exited unexpectedly ({end})"));
                self.actions.push_back(Action::LastWords(n));
                self.stop(now);
            }
            // TERM may have come before the child could handle it
            (_, End::Code(0) | End::Signal(SIGTERM)) => {}
            (_, End::Code(code)) => self.fail(format!("{name}: Unexpected return code: {code}")),
            (_, End::Signal(_)) => self.fail(format!("{name}: Exited uncleanly")),
        }
        self.drained(now);
    }

    /// The others stop when those that drained have ended.
    fn drained(&mut self, now: u64) {
        let ended = |child: &Child| !child.drains || child.phase == Phase::Gone;
        if self.draining && self.children.iter().all(ended) {
            self.draining = false;
            self.stop_deadline = Some(now + STOP_MAX_MS);
            self.term();
        }
    }

    fn exit_if_done(&mut self) {
        if self.stopping && self.children.iter().all(|child| child.phase == Phase::Gone) {
            self.log(Level::Debug, "stopped".into());
            self.actions.push_back(Action::Exit(u8::from(self.failed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Lifecycle {
        let mut server = Lifecycle::new(false);
        server.started("connmgr", false);
        server.started("proxy", true);
        server.started("handler", true);
        server
    }

    /// All actions, logs as their text.
    fn actions(server: &mut Lifecycle) -> Vec<String> {
        std::iter::from_fn(|| server.next_action())
            .map(|action| match action {
                Action::Log(level, text) => format!("{level} {text}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_clean_stop() {
        let mut s = server();
        s.handle(0, Input::Stop);
        let expected = ["INFO stopping...", "Notify(Stopping)", "Term(0)", "Term(1)", "Term(2)"];
        assert_eq!(actions(&mut s), expected);
        assert_eq!(s.next_deadline(), Some(4000));
        for (n, end) in [End::Code(0), End::Signal(15), End::Code(0)].into_iter().enumerate() {
            assert!(actions(&mut s).is_empty());
            s.handle(10, Input::Ended(n, end));
        }
        assert_eq!(actions(&mut s), ["DEBUG stopped", "Exit(0)"]);
    }

    #[test]
    fn a_dead_child_ends_the_server() {
        for (end, said) in [(End::Code(0), "exit code 0"), (End::Signal(9), "signal 9")] {
            let mut s = server();
            s.handle(0, Input::Ended(1, end));
            let expected = [
                &format!("ERROR proxy: Exited unexpectedly ({said})"),
                "LastWords(1)",
                "INFO stopping...",
                "Notify(Stopping)",
                "Term(0)",
                "Term(2)",
            ];
            assert_eq!(actions(&mut s), expected);
            s.handle(1, Input::Ended(0, End::Code(0)));
            s.handle(1, Input::Ended(2, End::Code(0)));
            assert_eq!(actions(&mut s).last().unwrap(), "Exit(1)");
        }
    }

    #[test]
    fn a_child_that_cannot_be_started_ends_the_server() {
        let mut s = server();
        s.handle(0, Input::NotStarted("other".into(), "pushpin-other: not found".into()));
        let expected = [
            "ERROR other: Error running: pushpin-other: not found",
            "INFO stopping...",
            "Notify(Stopping)",
            "Term(0)",
            "Term(1)",
            "Term(2)",
        ];
        assert_eq!(actions(&mut s), expected);
    }

    #[test]
    fn a_first_child_that_cannot_be_started_ends_the_server_at_once() {
        let mut s = Lifecycle::new(false);
        s.handle(0, Input::NotStarted("connmgr".into(), "x".into()));
        assert_eq!(actions(&mut s).last().unwrap(), "Exit(1)");
    }

    #[test]
    fn laggards_are_killed_and_that_is_a_normal_stop() {
        let mut s = server();
        s.handle(0, Input::Stop);
        s.handle(5, Input::Ended(0, End::Code(0)));
        s.handle(5, Input::Ended(1, End::Code(0)));
        actions(&mut s);
        s.timeout(3999);
        assert!(actions(&mut s).is_empty());
        s.timeout(4000);
        let expected = ["WARN handler taking too long, forcing quit", "Kill(2)"];
        assert_eq!(actions(&mut s), expected);
        assert_eq!(s.next_deadline(), None);
        s.handle(4001, Input::Ended(2, End::Signal(9)));
        assert_eq!(actions(&mut s), ["DEBUG stopped", "Exit(0)"]);
    }

    #[test]
    fn a_second_signal_does_not_wait() {
        let mut s = server();
        s.handle(0, Input::Stop);
        s.handle(0, Input::Ended(0, End::Code(0)));
        s.handle(0, Input::Ended(1, End::Code(0)));
        actions(&mut s);
        s.handle(1, Input::Stop);
        let expected =
            ["WARN handler running while needing to exit, forcing quit", "Kill(2)", "Exit(0)"];
        assert_eq!(actions(&mut s), expected);
    }

    #[test]
    fn the_handler_drains_before_the_others_stop() {
        let mut s = server();
        s.set_drain(30_000);
        s.handle(0, Input::Stop);
        assert_eq!(actions(&mut s), ["INFO stopping...", "Notify(Stopping)", "Term(2)"]);
        assert_eq!(s.next_deadline(), Some(34_000));
        s.handle(20_000, Input::Ended(2, End::Code(0)));
        assert_eq!(actions(&mut s), ["Term(0)", "Term(1)"]);
        assert_eq!(s.next_deadline(), Some(24_000));
        s.handle(20_001, Input::Ended(0, End::Code(0)));
        s.handle(20_001, Input::Ended(1, End::Code(0)));
        assert_eq!(actions(&mut s).last().unwrap(), "Exit(0)");
    }

    #[test]
    fn a_drain_that_takes_too_long_is_ended_and_a_second_signal_ends_it_at_once() {
        let mut s = server();
        s.set_drain(1_000);
        s.handle(0, Input::Stop);
        actions(&mut s);
        s.timeout(5_000);
        let killed = ["WARN handler taking too long, forcing quit", "Kill(2)"];
        assert_eq!(actions(&mut s), killed);
        s.handle(5_001, Input::Ended(2, End::Signal(9)));
        assert_eq!(actions(&mut s), ["Term(0)", "Term(1)"]);
        let mut s = server();
        s.set_drain(1_000);
        s.handle(0, Input::Stop);
        actions(&mut s);
        s.handle(1, Input::Stop);
        let all = actions(&mut s);
        assert_eq!(all.iter().filter(|action| action.starts_with("Kill")).count(), 3, "{all:?}");
        assert_eq!(all.last().unwrap(), "Exit(0)");
    }

    #[test]
    fn after_a_failure_nothing_drains() {
        let mut s = server();
        s.set_drain(30_000);
        s.handle(0, Input::Ended(0, End::Signal(9)));
        assert!(actions(&mut s).ends_with(&["Term(1)".into(), "Term(2)".into()]));
    }

    #[test]
    fn failures_while_stopping_count() {
        for (end, said) in [
            (End::Code(3), "ERROR proxy: Unexpected return code: 3"),
            (End::Signal(11), "ERROR proxy: Exited uncleanly"),
        ] {
            let mut s = server();
            s.handle(0, Input::Stop);
            actions(&mut s);
            s.handle(1, Input::Ended(1, end));
            assert_eq!(actions(&mut s), [said]);
            s.handle(1, Input::Ended(0, End::Code(0)));
            s.handle(1, Input::Ended(2, End::Code(0)));
            assert_eq!(actions(&mut s).last().unwrap(), "Exit(1)");
        }
    }

    #[test]
    fn a_reload_is_for_those_that_understand_it() {
        let mut s = server();
        s.handle(0, Input::Reload);
        let early = ["INFO reloading", "ReopenLogs", "Reconfigure", "Hup(1)", "Hup(2)"];
        assert_eq!(actions(&mut s), early);
        s.complete();
        (0..3).for_each(|n| s.handle(1, Input::Ready(n)));
        actions(&mut s);
        s.handle(2, Input::Reload);
        let expected = [
            "INFO reloading",
            "Notify(Reloading)",
            "ReopenLogs",
            "Reconfigure",
            "Hup(1)",
            "Hup(2)",
            "Notify(Ready)",
        ];
        assert_eq!(actions(&mut s), expected);
    }

    #[test]
    fn ready_is_said_once_when_all_are_up() {
        let mut s = server();
        [0, 0, 2, 1].into_iter().for_each(|n| s.handle(0, Input::Ready(n)));
        assert!(actions(&mut s).is_empty());
        s.complete();
        assert_eq!(actions(&mut s), ["INFO ready", "Notify(Ready)"]);
        s.handle(1, Input::Ready(1));
        assert!(actions(&mut s).is_empty());
    }

    #[test]
    fn a_server_that_stops_does_not_get_ready() {
        let mut s = server();
        s.complete();
        s.handle(0, Input::Stop);
        actions(&mut s);
        (0..3).for_each(|n| s.handle(0, Input::Ready(n)));
        assert!(actions(&mut s).is_empty());
    }
}
