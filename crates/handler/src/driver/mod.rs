//! Runs the engine on real sockets: start, threads, signals, stop (spec/publish.md §12).

mod http;
mod hub_io;
mod options;
mod pubside;
mod scrape;
mod shard_io;
mod single;
mod threads;
mod trace;

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use evloop::signals::Signal;
use mio::{Poll, Token, Waker};

use options::Config;
pub use options::Words;

/// Token of signals and of the other threads.
const WAKE: Token = Token(0);

/// Token of everything that ZeroMQ has: each turn asks all of its sockets.
const ZMQ: Token = Token(1);

/// Runs the program of these options until a signal ends it; gives its exit status.
pub fn main(words: &Words) -> u8 {
    let log =
        logging::Options { level: words.level(), file: words.logfile.clone(), module_tag: false };
    if let Err(error) = logging::init(log) {
        println!("pushpin-handler: {error}");
        return 1;
    }
    let result = Config::load(words).and_then(|config| run(&config));
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging::flush();
    u8::from(result.is_err())
}

fn run(config: &Config) -> Result<(), String> {
    let poll = Poll::new().map_err(loop_error)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(loop_error)?);
    let signals = evloop::signals::watch(waker.clone()).map_err(loop_error)?;
    evloop::parent::watch_parent().map_err(loop_error)?;
    let context = zmq::Context::new();
    if config.settings.workers <= 1 {
        single::run(config, &context, poll, &signals)
    } else {
        threads::run(config, &context, poll, waker, &signals)
    }
}

/// Milliseconds between two parts of the sessions that are ended when the process stops.
const STOP_STEP_MS: u64 = 100;

fn loop_error(error: std::io::Error) -> String {
    format!("failed to set up the event loop: {error}")
}

/// Whether the process is to stop; reloads are done on the way.
fn stops(signals: &Receiver<Signal>) -> bool {
    let mut stop = false;
    for signal in signals.try_iter() {
        match signal {
            Signal::Stop => stop = true,
            Signal::Reload => {
                log::info!("reloading");
                logging::reopen();
            }
        }
    }
    if stop {
        log::info!("stopping...");
    }
    stop
}
