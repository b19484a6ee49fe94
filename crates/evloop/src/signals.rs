//! Signals as events of a loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use mio::Waker;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM, INT or QUIT: stop in order.
    Stop,
    /// HUP: reopen logs, reload what can be reloaded.
    Reload,
}

/// Stack of small threads. Part of it is the process's thread-local storage, the allocator's
/// above all: with 64 KB some starts ended in a fault. Only what is used takes memory.
pub const SMALL_STACK_BYTES: usize = 1 << 20;

/// Hands signals to a loop: each comes out of the receiver and wakes the loop. A second
/// stop signal ends the process at once with status 1 (spec/connmgr.md §2).
///
/// # Errors
/// If the handlers or the thread cannot be made.
pub fn watch(waker: Arc<Waker>) -> io::Result<Receiver<Signal>> {
    let mut wanted = vec![SIGTERM, SIGINT, SIGQUIT];
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(&wanted)?;
    let (sender, receiver) = channel();
    let stopping = AtomicBool::new(false);
    thread::Builder::new().name("signals".into()).stack_size(SMALL_STACK_BYTES).spawn(
        move || {
            for signal in signals.forever() {
                let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
                if signal == Signal::Stop && stopping.swap(true, Ordering::Relaxed) {
                    std::process::exit(1);
                }
                if sender.send(signal).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        },
    )?;
    Ok(receiver)
}

/// Calls `dump` for each USR1, in a thread of its own, where it may wait for the loops.
///
/// # Errors
/// If the handler or the thread cannot be made.
pub fn on_dump(mut dump: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGUSR1])?;
    let thread = thread::Builder::new().name("dump".into()).stack_size(SMALL_STACK_BYTES);
    thread.spawn(move || signals.forever().for_each(|_| dump())).map(drop)
}

/// Whether a signal was ignored when the process started (nohup ignores HUP); it stays so.
pub fn is_ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
