//! The parent process of `hold`: starts the workers, adds up what they report, obeys commands.

use super::HoldArgs;
use super::seen::Seen;
use crate::sys;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn snapshot(&mut self) -> io::Result<Value> {
        self.input.write_all(b"snap\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

pub(super) fn coordinate(args: HoldArgs) -> io::Result<()> {
    let mut workers = start_workers(&args)?;
    let commands = args.stay.is_none().then(read_commands);
    let mut ticker = Ticker::new(args.csv.as_deref(), args.quiet)?;
    let mut state = Coordinator::new(&args);
    let mut ending = false;
    while !ending {
        // One tick per second, or at once for a command or when all is settled.
        let command = match &commands {
            Some(lines) => state.wait_command(lines),
            None => state.wait(),
        };
        let delta = state.collect(&mut workers)?;
        state.announce_open()?;
        state.obey(&command)?;
        ending = matches!(command, Input::Ended) || state.is_over(&command);
        ticker.tick(&delta, &state.total, ending)?;
    }
    let total = &state.total;
    println!(
        "{}",
        json!({ "event": "end", "live": total.live, "procs": workers.len(), "opening": total.opening(), "receiving": total.receiving() })
    );
    for mut w in workers {
        drop(w.input);
        let _ = w.child.wait();
    }
    Ok(())
}

fn start_workers(args: &HoldArgs) -> io::Result<Vec<Worker>> {
    let per_proc = sys::raise_nofile().saturating_sub(2000).clamp(100, 18_000);
    let procs =
        if args.procs > 0 { args.procs } else { args.connections.div_ceil(per_proc).max(1) };
    let exe = std::env::current_exe()?;
    let start = |i: u64| {
        let mut child = Command::new(&exe)
            .args(std::env::args().skip(1))
            .arg(format!("--worker={i}/{procs}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Worker { child, input, output })
    };
    (0..procs).map(start).collect()
}

/// The lines of standard input, read on a thread of their own.
fn read_commands() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What standard input gave within one wait.
enum Input {
    Nothing,
    Line(String),
    Ended,
}

/// The sums over all workers, and how far the run is.
struct Coordinator<'a> {
    args: &'a HoldArgs,
    total: Seen,
    since_mark: Seen,
    interval: Seen,
    settled_at: Option<Instant>,
}

impl Coordinator<'_> {
    fn new(args: &HoldArgs) -> Coordinator<'_> {
        let (total, since_mark, interval) = (Seen::new(), Seen::new(), Seen::new());
        Coordinator { args, total, since_mark, interval, settled_at: None }
    }

    fn wait_command(&self, lines: &mpsc::Receiver<String>) -> Input {
        let wait = if self.settled_at.is_none() { 100 } else { 1000 };
        match lines.recv_timeout(Duration::from_millis(wait)) {
            Ok(line) => Input::Line(line.trim().to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) => Input::Nothing,
            Err(mpsc::RecvTimeoutError::Disconnected) => Input::Ended,
        }
    }

    fn wait(&self) -> Input {
        let wait = if self.settled_at.is_none() { 100 } else { 250 };
        std::thread::sleep(Duration::from_millis(wait));
        Input::Nothing
    }

    /// Adds what the workers have seen since the last time; gives it.
    fn collect(&mut self, workers: &mut [Worker]) -> io::Result<Value> {
        self.interval.clear();
        for w in workers {
            self.interval.add(&w.snapshot()?);
        }
        let delta = self.interval.take();
        self.total.add(&delta);
        self.since_mark.add(&delta);
        Ok(delta)
    }

    /// Says once that every connection is established or failed.
    fn announce_open(&mut self) -> io::Result<()> {
        if self.settled_at.is_some() || self.total.settled < self.args.connections {
            return Ok(());
        }
        self.settled_at = Some(Instant::now());
        say(json!({ "event": "open", "live": self.total.live, "opening": self.total.opening() }))
    }

    /// "stat" shows what came since the last "mark"; "mark" also starts anew. The latencies come
    /// as `[microseconds, count, ...]` too, so that those of several processes can be added up.
    fn obey(&mut self, command: &Input) -> io::Result<()> {
        let Input::Line(line) = command else { return Ok(()) };
        if !matches!(line.as_str(), "stat" | "mark") {
            return Ok(());
        }
        let receiving = self.since_mark.receiving();
        let latency_us = self.since_mark.latency.to_json();
        say(
            json!({ "event": line, "live": self.total.live, "receiving": receiving, "latency_us": latency_us }),
        )?;
        if line == "mark" {
            self.since_mark.clear();
        }
        Ok(())
    }

    fn is_over(&self, command: &Input) -> bool {
        let (Some(stay), Some(at)) = (self.args.stay, self.settled_at) else {
            return matches!(command, Input::Line(line) if line == "quit");
        };
        at.elapsed().as_secs_f64() >= stay || self.total.live <= 0
    }
}

fn say(event: Value) -> io::Result<()> {
    println!("{event}");
    io::stdout().flush()
}

/// The live line and the time series: one row per second.
struct Ticker {
    row: Seen,
    start: Instant,
    last: Instant,
    csv: Option<std::fs::File>,
    quiet: bool,
}

impl Ticker {
    fn new(csv_path: Option<&str>, quiet: bool) -> io::Result<Ticker> {
        let mut csv = csv_path.map(std::fs::File::create).transpose()?;
        if let Some(f) = &mut csv {
            writeln!(
                f,
                "seconds,live,opened_per_s,failed,closed,messages_per_s,bytes_per_s,keepalives_per_s,\
                 first_byte_p50_ms,first_byte_p99_ms,latency_p50_ms,latency_p99_ms,latency_max_ms"
            )?;
        }
        Ok(Ticker { row: Seen::new(), start: Instant::now(), last: Instant::now(), csv, quiet })
    }

    fn tick(&mut self, delta: &Value, total: &Seen, force: bool) -> io::Result<()> {
        self.row.add(delta);
        let span = self.last.elapsed().as_secs_f64();
        if span < 1.0 && !force {
            return Ok(());
        }
        self.last = Instant::now();
        let at = self.start.elapsed().as_secs_f64();
        let row = &self.row;
        let per_s = |n: u64| n as f64 / span.max(1e-3);
        let (failed, closed) = (total.failed.total(), total.closed.total());
        if let Some(f) = &mut self.csv {
            writeln!(
                f,
                "{at:.1},{},{:.0},{failed},{closed},{:.0},{:.0},{:.0},{:.3},{:.3},{:.3},{:.3},{:.3}",
                total.live,
                per_s(row.established.len()),
                per_s(row.messages),
                per_s(row.bytes),
                per_s(row.keepalives),
                row.first_byte.percentile_ms(50.0),
                row.first_byte.percentile_ms(99.0),
                row.latency.percentile_ms(50.0),
                row.latency.percentile_ms(99.0),
                row.latency.percentile_ms(100.0),
            )?;
        }
        if !self.quiet {
            eprint!(
                "\r{at:6.1} s  live {:>8}  +{:>6.0}/s  failed {failed}  closed {closed}  messages {:>8.0}/s  p50 {:.1} ms  p99 {:.1} ms   ",
                total.live,
                per_s(row.established.len()),
                per_s(row.messages),
                row.latency.percentile_ms(50.0),
                row.latency.percentile_ms(99.0),
            );
            if force {
                eprintln!();
            }
        }
        self.row.clear();
        Ok(())
    }
}
