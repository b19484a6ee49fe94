//! What the supervisor's listener shows (`prometheus_port` in `[runner]`): the metrics of all
//! processes on one page, and whether the server lives and is ready. Filled by `run`, asked by the
//! listener: health at once, metrics when the processes have given theirs.

use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use admin::{Answer, Reply};
use evloop::parent::Order;
use metrics::{Kind, Merged, Text};
use rustix::param::{clock_ticks_per_second, page_size};

use crate::tie::Tie;

/// How long the pages of all processes are waited for.
const PAGES_MAX: Duration = Duration::from_secs(2);

/// A process.
#[derive(Debug)]
struct Member {
    name: String,
    pid: u32,
    ready: bool,
    tie: Tie,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    /// All have been started.
    complete: bool,
    stopping: bool,
    reloads: u64,
}

/// Pages as they come, each with the number of its process.
type Pages = Receiver<(usize, String)>;

/// The state that both threads share.
#[derive(Debug)]
pub(crate) struct Board {
    prefix: String,
    state: Mutex<State>,
    pages: Mutex<Pages>,
    sender: Sender<(usize, String)>,
}

impl Board {
    /// Without processes; `prefix` is put before the names of metrics.
    pub fn new(prefix: String) -> Arc<Self> {
        let (sender, pages) = channel();
        Arc::new(Self { prefix, state: Mutex::default(), pages: Mutex::new(pages), sender })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a process; processes are numbered in this order.
    pub fn add(&self, name: String, pid: u32, tie: Tie) {
        self.state().members.push(Member { name, pid, ready: false, tie });
    }

    /// All processes were added.
    pub fn complete(&self) {
        self.state().complete = true;
    }

    /// A process is up.
    pub fn ready(&self, n: usize) {
        if let Some(member) = self.state().members.get_mut(n) {
            member.ready = true;
        }
    }

    /// The configuration was read again.
    pub fn reloaded(&self) {
        self.state().reloads += 1;
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.state().stopping = true;
    }

    /// Takes a page that a process gave.
    pub fn page(&self, n: usize, page: String) {
        // the receiver lives as long as this
        let _ = self.sender.send((n, page));
    }

    /// Answers a request for a path.
    pub fn reply(self: &Arc<Self>, path: &str) -> Answer {
        match path.split('?').next() {
            Some("/healthz/live") => Answer::Now(Reply::text(200, "OK", "live\n")),
            Some("/healthz/ready") => Answer::Now(self.readiness()),
            _ => {
                let board = self.clone();
                Answer::Later(Box::new(move || Reply::metrics(board.merged())))
            }
        }
    }

    fn readiness(&self) -> Reply {
        match self.missing() {
            None => Reply::text(200, "OK", "ready\n"),
            Some(why) => Reply::text(503, "Service Unavailable", &format!("{why}\n")),
        }
    }

    /// What keeps the server from being ready.
    fn missing(&self) -> Option<String> {
        let state = self.state();
        if state.stopping {
            return Some("stopping".into());
        }
        let waiting = state.members.iter().filter(|member| !member.ready);
        let names: Vec<&str> = waiting.map(|member| member.name.as_str()).collect();
        match names.as_slice() {
            [] if state.complete => None,
            [] => Some("starting".into()),
            names => Some(format!("starting: {}", names.join(", "))),
        }
    }

    /// The page of all processes.
    fn merged(&self) -> String {
        let pages = self.collect();
        let state = self.state();
        let mut merged = Merged::new(&self.prefix);
        merged.add(None, &own(&state, &pages));
        for (n, member) in state.members.iter().enumerate() {
            if let Some(page) = pages.get(&n) {
                merged.add(Some(("process", member.name.as_str())), page);
            }
        }
        merged.into_string()
    }

    /// Asks all processes at once for their pages. Who does not answer in time is left out.
    fn collect(&self) -> HashMap<usize, String> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // answers that came too late for an earlier question
        pages.try_iter().for_each(drop);
        let asked = {
            let state = self.state();
            let ready = state.members.iter().filter(|member| member.ready);
            ready.inspect(|member| member.tie.send(Order::Page)).count()
        };
        let deadline = Instant::now() + PAGES_MAX;
        let mut all = HashMap::new();
        while all.len() < asked {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((n, page)) = pages.recv_timeout(left) else { break };
            all.insert(n, page);
        }
        all
    }
}

/// What the supervisor itself knows.
fn own(state: &State, pages: &HashMap<usize, String>) -> String {
    let mut text = Text::new("");
    text.counter("supervisor_reloads_total", "Reloads since the start", state.reloads);
    let mut family = text.family(Kind::Gauge, "process_up", "Whether a process gives its metrics");
    for (n, member) in state.members.iter().enumerate() {
        family.value(&[("process", &member.name)], u64::from(pages.contains_key(&n)));
    }
    let usage: Vec<_> = state.members.iter().map(|member| Usage::of(member.pid)).collect();
    let name = "process_resident_memory_bytes";
    let mut family = text.family(Kind::Gauge, name, "Memory of a process, shared parts included");
    for (member, usage) in state.members.iter().zip(&usage) {
        if let Some(usage) = usage {
            family.value(&[("process", &member.name)], usage.resident_bytes);
        }
    }
    let name = "process_cpu_seconds_total";
    let mut family = text.family(Kind::Counter, name, "Processor time of a process");
    for (member, usage) in state.members.iter().zip(&usage) {
        if let Some(usage) = usage {
            family.value(&[("process", &member.name)], usage.cpu_s);
        }
    }
    text.into_string()
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
struct Usage {
    resident_bytes: u64,
    cpu_s: f64,
}

impl Usage {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// From proc_pid_stat(5): utime, stime and rss, fields 14, 15 and 24, counted behind the name.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let ticks = number(14)? + number(15)?;
        let cpu_s = ticks as f64 / clock_ticks_per_second() as f64;
        Some(Self { resident_bytes: number(24)? * page_size() as u64, cpu_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(names: &[&str]) -> (Arc<Board>, Vec<std::process::Stdio>) {
        let board = Board::new("p_".into());
        let mut ends = Vec::new();
        for name in names {
            let (tie, end) = Tie::new().unwrap();
            board.add((*name).into(), std::process::id(), tie);
            ends.push(end);
        }
        (board, ends)
    }

    fn reply(board: &Arc<Board>, path: &str) -> Reply {
        match board.reply(path) {
            Answer::Now(reply) => reply,
            Answer::Later(work) => work(),
        }
    }

    #[test]
    fn ready_when_all_are_and_not_before() {
        let (board, _ends) = board(&["connmgr", "proxy"]);
        let ready = || {
            let reply = reply(&board, "/healthz/ready?x");
            (reply.code, reply.text)
        };
        assert_eq!(ready(), (503, "starting: connmgr, proxy\n".into()));
        board.ready(0);
        board.ready(1);
        assert_eq!(ready(), (503, "starting\n".into()));
        board.complete();
        assert_eq!(ready(), (200, "ready\n".into()));
        assert!(matches!(board.reply("/healthz/live"), Answer::Now(Reply { code: 200, .. })));
        board.stopping();
        assert_eq!(ready(), (503, "stopping\n".into()));
    }

    #[test]
    fn pages_are_merged_and_old_ones_dropped() {
        let (board, _ends) = board(&["connmgr", "proxy"]);
        board.page(0, "# HELP old Old\n# TYPE old gauge\nold 1\n".into());
        board.ready(0);
        let asking = board.clone();
        let thread = std::thread::spawn(move || reply(&asking, "/metrics").text);
        std::thread::sleep(Duration::from_millis(300));
        board.page(0, "# HELP a A\n# TYPE a gauge\na 1\n".into());
        let text = thread.join().unwrap();
        for line in [
            "p_a{process=\"connmgr\"} 1\n",
            "p_process_up{process=\"connmgr\"} 1\n",
            "p_process_up{process=\"proxy\"} 0\n",
            "p_supervisor_reloads_total 0\n",
            "p_process_cpu_seconds_total{process=\"proxy\"} ",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("old"), "{text}");
    }

    #[test]
    fn usage_of_a_process_with_an_odd_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20 0 3 0 99 1000 25 18";
        let usage = Usage::parse(stat).unwrap();
        let cpu_s = 200.0 / clock_ticks_per_second() as f64;
        assert_eq!((usage.resident_bytes, usage.cpu_s), (25 * page_size() as u64, cpu_s));
        assert!(Usage::parse("x").is_none());
    }
}
