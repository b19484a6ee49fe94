//! The server program with scripts in the place of its processes: it looks for them beside itself,
//! so each test has a folder of its own with a link to the program and the scripts it needs.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until it is told to stop, as the real processes do; a minute at most, so that nothing
/// is left behind by a test that fails.
const GOOD: &str = "echo \"[INFO] 2026-01-02 03:04:05.678 ready $0\"; echo \"$@\" > $0.args\n\
                    trap 'exit 0' TERM\ntouch $0.ready\n\
                    n=0; while [ $n -lt 1200 ]; do n=$((n + 1)); sleep 0.05; done\n";

const PROGRAMS: [&str; 3] = ["pushpin-connmgr", "pushpin-proxy", "pushpin-handler"];

struct Place(TempDir);

impl Place {
    /// A folder in which all processes are good ones, with this `[runner]` besides the usual.
    fn new(runner: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::hard_link(env!("CARGO_BIN_EXE_pushpin"), place.path("pushpin"))
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_pushpin"), place.path("pushpin")).map(|_| ()))
            .unwrap();
        for program in PROGRAMS {
            place.script(program, GOOD);
        }
        let usual = "services=connmgr,proxy,handler\nlogdir=log\nlocal_ports=clients\n";
        let text = format!("[global]\nrundir=run\n[runner]\n{usual}{runner}\n");
        fs::write(place.path("pushpin.conf"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn script(&self, program: &str, text: &str) {
        // by another process: a descriptor open for writing here could get into a child of a
        // test beside this one, and as long as it is there the file cannot be executed
        let write = "printf '#!/bin/sh\\n%s' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", write, "sh"]).arg(self.path(program)).arg(text);
        assert!(shell.status().unwrap().success());
    }

    fn start(&self, arguments: &[&str]) -> Server<'_> {
        let output = fs::File::create(self.path("output")).unwrap();
        let process = Command::new(self.path("pushpin"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Server { place: self, process }
    }

    /// Starts and waits for the end.
    fn run(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let mut server = self.start(arguments);
        let status = server.wait();
        (status, self.read("output"))
    }

    fn pid(&self, name: &str) -> u32 {
        self.read(&format!("run/{name}.pid")).trim().parse().unwrap()
    }
}

struct Server<'a> {
    place: &'a Place,
    process: Child,
}

impl Server<'_> {
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn until_ready(self) -> Self {
        for program in PROGRAMS {
            until(program, || self.place.path(&format!("{program}.ready")).exists());
        }
        self
    }

    fn signal(&self, name: &str) {
        kill(name, self.process.id());
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            // it takes its children along
            kill("TERM", self.process.id());
            let end = Instant::now() + PATIENCE;
            while self.process.try_wait().is_ok_and(|s| s.is_none()) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success());
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn starts_and_stops_in_order() {
    let place = Place::new("");
    for signal in ["TERM", "INT"] {
        let mut server = place.start(&[]).until_ready();
        let pids = ["connmgr", "pushpin-proxy", "pushpin-handler"].map(|name| place.pid(name));
        assert!(pids.iter().all(|&pid| is_alive(pid)));
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(!pids.iter().any(|&pid| is_alive(pid)));
        assert_eq!(fs::read_dir(place.path("run")).unwrap().count(), 0, "pid files are left");
        let output = place.read("output");
        for text in
            ["using config: pushpin.conf", "starting proxy", "stopping...", "stopping proxy"]
        {
            assert!(output.contains(text), "{text}: {output}");
        }
        for program in PROGRAMS {
            fs::remove_file(place.path(&format!("{program}.ready"))).unwrap();
        }
    }
    let log = place.read("log/connmgr.log");
    assert_eq!(log.matches("[INFO] 2026-01-02 03:04:05.678 ready ").count(), 2, "{log}");
    let arguments = place.read("pushpin-proxy.args");
    for argument in ["--config=pushpin.conf", "--ipc-prefix=pushpin-", "--loglevel=2"] {
        assert!(arguments.split_whitespace().any(|word| word == argument), "{arguments}");
    }
}

#[test]
fn merged_output_has_the_names() {
    let place = Place::new("");
    let talk = format!("echo plain; echo; echo '[WARN] a b c' >&2\n{GOOD}");
    place.script("pushpin-handler", &talk);
    let mut server = place.start(&["-m", "--id=1"]).until_ready();
    let wanted = [
        "[INFO] 2026-01-02 03:04:05.678 [connmgr] ready ",
        "[INFO] 2026-01-02 03:04:05.678 [proxy] ready ",
        "[WARN] a b [handler] c\n",
        "\nplain\n",
    ];
    for text in wanted {
        until(text, || place.read("output").contains(text));
    }
    assert!(place.path("run/p1-connmgr.pid").exists());
    assert!(!place.path("log").exists());
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let output = place.read("output");
    assert!(!output.contains("\n\n") && !output.contains("starting proxy"), "{output}");
    assert!(place.read("pushpin-handler.args").contains("--port-offset=10"));
}

#[test]
fn a_process_that_ends_takes_the_server_down() {
    let place = Place::new("");
    let dies = "echo '[ERR] 2026-01-02 03:04:05.678 unable to bind to ipc:///x'; exit 0\n";
    place.script("pushpin-connmgr", dies);
    let (status, output) = place.run(&[]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("unable to bind to ipc:///x\n"), "{output}");
    assert!(output.contains("connmgr: Exited unexpectedly"), "{output}");
    assert_eq!(fs::read_dir(place.path("run")).unwrap().count(), 0);
}

#[test]
fn a_killed_process_takes_the_server_down() {
    let place = Place::new("");
    let mut server = place.start(&[]).until_ready();
    let other = place.pid("connmgr");
    kill("KILL", place.pid("pushpin-handler"));
    assert_eq!(server.wait().code(), Some(1));
    assert!(!is_alive(other));
    assert!(place.read("output").contains("handler: Exited unexpectedly"));
}

#[test]
fn the_error_in_a_process_s_own_log_is_shown() {
    let place = Place::new("");
    let dies = "for a in \"$@\"; do case $a in --logfile=*) f=${a#--logfile=};; esac; done\n\
                echo '[ERR] 2026-01-02 03:04:05.678 unable to bind to S' >> $f; exit 1\n";
    place.script("pushpin-handler", dies);
    let (status, output) = place.run(&[]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("unable to bind to S\n"), "{output}");
}

#[test]
fn a_missing_program() {
    let place = Place::new("");
    fs::write(place.path("pushpin-proxy"), "").unwrap();
    let (status, output) = place.run(&[]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("proxy: Error running: "), "{output}");
    assert_eq!(fs::read_dir(place.path("run")).unwrap().count(), 0);
}

#[test]
fn exit_codes_while_stopping() {
    let place = Place::new("");
    let bad = GOOD.replace("exit 0", "exit 3");
    place.script("pushpin-proxy", &bad);
    let mut server = place.start(&[]).until_ready();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
    assert!(place.read("output").contains("proxy: Unexpected return code: 3"));
}

#[test]
fn a_process_that_does_not_stop_is_killed() {
    let place = Place::new("services=proxy");
    place.script("pushpin-proxy", &GOOD.replace("trap 'exit 0'", "trap ''"));
    let mut server = place.start(&[]);
    until("ready", || place.path("pushpin-proxy.ready").exists());
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(place.read("output").contains("proxy taking too long, forcing quit"));
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    let place = Place::new("services=proxy");
    place.script("pushpin-proxy", &GOOD.replace("trap 'exit 0'", "trap 'touch $0.asked'"));
    let mut server = place.start(&[]);
    until("ready", || place.path("pushpin-proxy.ready").exists());
    server.signal("TERM");
    until("asked", || place.path("pushpin-proxy.asked").exists());
    server.signal("INT");
    let status = server.wait();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    let output = place.read("output");
    assert!(output.contains("proxy running while needing to exit, forcing quit"), "{output}");
    assert!(!place.path("run/pushpin-proxy.pid").exists());
}

#[test]
fn reload_reaches_proxy_and_handler_and_reopens_the_logs() {
    let place = Place::new("");
    for program in PROGRAMS {
        let hup = format!("trap 'echo [INFO] a b hup; touch $0.hup' HUP\n{GOOD}");
        place.script(program, &hup);
    }
    let mut server = place.start(&["--logfile=own.log"]).until_ready();
    until("first line", || place.read("log/connmgr.log").contains("ready"));
    for name in ["own.log", "log/connmgr.log"] {
        fs::rename(place.path(name), place.path(&format!("{name}.old"))).unwrap();
    }
    server.signal("HUP");
    for program in &PROGRAMS[1..] {
        until(program, || place.path(&format!("{program}.hup")).exists());
    }
    until("own log", || place.path("own.log").exists());
    // the connection manager says something only because the test tells it to
    kill("HUP", place.pid("connmgr"));
    until("connmgr's log", || place.read("log/connmgr.log").contains("hup"));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(
        place.read("own.log.old").contains("reloading")
            || place.read("own.log").contains("reloading")
    );
    assert!(place.read("own.log").contains("stopping..."));
}

#[test]
fn the_processes_see_the_end_of_a_killed_server() {
    let place = Place::new("services=proxy");
    place.script("pushpin-proxy", "echo $PUSHPIN_SUPERVISED > $0.ready; read x; touch $0.end\n");
    let mut server = place.start(&[]);
    until("ready", || place.read("pushpin-proxy.ready") == "1\n");
    server.process.kill().unwrap();
    server.wait();
    until("end", || place.path("pushpin-proxy.end").exists());
}

#[test]
fn refusals_before_anything_is_started() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap();
    let place = Place::new("");
    let cases: [(&[&str], String); 5] = [
        (&["--config=gone.conf"], "no configuration file found. Tried: gone.conf\n".into()),
        (&["--bogus"], "error: Unknown option 'bogus'.\n\n".into()),
        (&["--loglevel=x"], "error: log level must be greater than or equal to 0".into()),
        (&["--port", &port.to_string()], format!("failed to bind {port}: Address already in use")),
        (&["--logfile=/nonexistent/x"], "failed to open log file /nonexistent/x: ".into()),
    ];
    for (arguments, text) in cases {
        let (status, output) = place.run(arguments);
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains(&text), "{text}: {output}");
    }
    assert!(!PROGRAMS.iter().any(|program| place.path(&format!("{program}.ready")).exists()));
}

#[test]
fn a_broken_config_file_is_named() {
    let place = Place::new("");
    let mut file = fs::OpenOptions::new().append(true).open(place.path("pushpin.conf")).unwrap();
    writeln!(file, "[proxy\ndebug=true").unwrap();
    let (status, output) = place.run(&[]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("[ERR] ") && output.contains("pushpin.conf:8: "), "{output}");
}

#[test]
fn values_that_cannot_work_are_named() {
    let place = Place::new("");
    let usual = place.read("pushpin.conf");
    for (line, text) in [
        ("http_port=80x", "pushpin.conf:8: http_port in [runner]: invalid http port: 80x"),
        ("https_ports=44x", "pushpin.conf:8: https_ports in [runner]: invalid https port: 44x"),
        ("client_maxconn=none", "pushpin.conf:8: client_maxconn in [runner]: must be"),
        ("log_level=x", "error: pushpin.conf:8: log_level in [runner]: log level must be"),
        ("logdir=/proc/x", "failed to create directory: /proc/x: "),
        ("x=\"y", "pushpin.conf:8: x: "),
    ] {
        fs::write(place.path("pushpin.conf"), format!("{usual}{line}\n")).unwrap();
        let (status, output) = place.run(&[]);
        assert!(output.contains(text), "{text}: {output}");
        assert_eq!(status.code(), Some(1), "{line}");
    }
    assert!(!PROGRAMS.iter().any(|program| place.path(&format!("{program}.ready")).exists()));
}

#[test]
fn a_low_limit_of_open_files_is_said_and_kept() {
    let place = Place::new("client_maxconn=1000");
    let output = fs::File::create(place.path("output")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 300; exec ./pushpin"]).current_dir(place.0.path());
    let process = shell.stdin(Stdio::null()).stdout(output).spawn().unwrap();
    let mut server = Server { place: &place, process }.until_ready();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let output = place.read("output");
    let said = "client_maxconn is 1000 but the limit of open files is 300";
    assert!(output.contains(said) && output.contains("LimitNOFILE"), "{output}");
    let arguments = place.read("pushpin-connmgr.args");
    let fits = arguments.split("--stream-maxconn=").nth(1).unwrap().split(' ').next().unwrap();
    assert!((100..300).contains(&fits.parse::<u32>().unwrap()), "{arguments}");
    assert!(output.contains(&format!(": {fits} clients fit")), "{output}");
}

#[test]
fn version_and_help() {
    let place = Place::new("");
    let (status, output) = place.run(&["--version"]);
    assert_eq!((status.code(), output.as_str()), (Some(0), "pushpin 2.1.0\n"));
    let (status, output) = place.run(&["-h"]);
    assert_eq!(status.code(), Some(0));
    assert!(output.contains("Usage: pushpin"), "{output}");
}
