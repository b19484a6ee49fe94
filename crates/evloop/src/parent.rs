//! A process that the supervisor started does not outlive it, however the supervisor ends: its
//! standard input is a pipe whose other end only the supervisor has. Called by the mains of
//! connection manager, proxy and handler, after they watch for signals.

use std::io::{self, ErrorKind, Read};
use std::thread;

use rustix::process::{Signal, getpid, kill_process};

/// Set by the supervisor for the processes that it starts.
pub const SUPERVISED: &str = "PUSHPIN_SUPERVISED";

/// Ends this process in order, as TERM does, when the supervisor is gone. Without a supervisor
/// it does nothing.
///
/// # Errors
/// If the thread cannot be made.
pub fn watch() -> io::Result<()> {
    if std::env::var_os(SUPERVISED).is_none_or(|value| value != "1") {
        return Ok(());
    }
    let thread = thread::Builder::new().name("parent".into()).stack_size(64 * 1024);
    thread.spawn(|| {
        wait_for_end(io::stdin().lock());
        log::error!("the supervisor is gone");
        // the process's own handler stops it in order; nothing can refuse a signal to oneself
        let _ = kill_process(getpid(), Signal::TERM);
    })?;
    Ok(())
}

/// Reads until there is nothing more to come.
fn wait_for_end(mut input: impl Read) {
    let mut buffer = [0; 64];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_comes_when_the_other_side_is_closed() {
        let (reader, mut writer) = io::pipe().unwrap();
        let waiting = thread::spawn(move || wait_for_end(reader));
        io::Write::write_all(&mut writer, b"not the end").unwrap();
        drop(writer);
        waiting.join().unwrap();
    }
}
