//! A process does not outlive its supervisor: the supervisor holds the other end of the pipe
//! that is this process's standard input, and says so in the environment. Called once by the
//! programs that the supervisor starts.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// The variable that the supervisor sets to `1` for its children.
pub const SUPERVISED: &str = "PUSHPIN_SUPERVISED";

/// How long an orderly stop may take once the supervisor is gone.
const STOP_MAX: Duration = Duration::from_secs(4);

/// Stops this process as TERM would, once standard input ends; does nothing unless started by
/// the supervisor.
///
/// # Errors
/// If the thread cannot be started.
pub fn watch_parent() -> io::Result<()> {
    if std::env::var_os(SUPERVISED).is_none_or(|value| value != "1") {
        return Ok(());
    }
    let run = || {
        wait_for_end(&mut io::stdin().lock());
        let _ = kill_process(getpid(), Signal::TERM);
        thread::sleep(STOP_MAX);
        std::process::exit(1);
    };
    thread::Builder::new().name("parent".into()).stack_size(1 << 20).spawn(run)?;
    Ok(())
}

/// Reads until the end or an error; what comes is not of interest.
fn wait_for_end(input: &mut impl Read) {
    let mut bytes = [0; 64];
    loop {
        match input.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_to_its_end() {
        let bytes = [0u8; 200];
        let mut input = &bytes[..];
        wait_for_end(&mut input);
        assert!(input.is_empty());
    }
}
