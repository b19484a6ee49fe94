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

use evloop::parent::Order;
use evloop::signals::Signal;
use mio::{Poll, Token, Waker};

use options::Config;
pub use options::Words;
use scrape::Scrape;

/// Token of signals and of the other threads.
const WAKE: Token = Token(0);

/// First tokens of the ZeroMQ sockets of a shard and of the hub. They are asked only after an
/// event (`evloop::zsock`), so events of tokens below [`http::LISTENER`] are for their `edge`.
const SHARD_SOCKETS: usize = 1;
const HUB_SOCKETS: usize = 100;

/// Runs the program of these options until a signal ends it; gives its exit status.
pub fn main(words: &Words) -> u8 {
    let log =
        logging::Options { level: words.level(), file: words.logfile.clone(), module_tag: false };
    if let Err(error) = logging::init(log) {
        println!("{error}");
        return 1;
    }
    let result = Config::load(words).and_then(|config| run(words, &config));
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging::flush();
    u8::from(result.is_err())
}

fn run(words: &Words, config: &Config) -> Result<(), String> {
    let poll = Poll::new().map_err(loop_error)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(loop_error)?);
    let signals = evloop::signals::watch(waker.clone()).map_err(loop_error)?;
    let wishes = Wishes { signals, words: words.clone() };
    let context = zmq::Context::new();
    if config.settings.workers <= 1 {
        single::run(config, &context, poll, &wishes)
    } else {
        threads::run(config, &context, poll, waker, &wishes)
    }
}

/// Milliseconds between two parts of the sessions that are ended when the process stops.
const STOP_STEP_MS: u64 = 100;

fn loop_error(error: std::io::Error) -> String {
    format!("failed to set up the event loop: {error}")
}

/// What signals ask of the main loop.
enum Wish {
    Nothing,
    Stop,
    /// Go on with this.
    Reload(Box<Config>),
}

/// Where signals come from, and what the configuration is read with.
struct Wishes {
    signals: Receiver<Signal>,
    words: Words,
}

impl Wishes {
    /// What is wanted now; a stop before anything else.
    fn next(&self) -> Wish {
        let mut wish = Wish::Nothing;
        for signal in self.signals.try_iter() {
            match signal {
                Signal::Stop => {
                    log::info!("stopping...");
                    return Wish::Stop;
                }
                Signal::Reload => wish = self.reload(),
            }
        }
        wish
    }

    fn reload(&self) -> Wish {
        log::info!("reloading");
        logging::reopen();
        match Config::load(&self.words) {
            Ok(config) => Wish::Reload(Box::new(config)),
            Err(error) => {
                log::error!("{error}; the settings stay as they are");
                Wish::Nothing
            }
        }
    }
}

/// Tells the supervisor that all sockets are bound, and does what it says from then on.
fn obey(scrape: Option<&Scrape>) -> Result<(), String> {
    let page = scrape.map(Scrape::page);
    let answer = move |order| match order {
        Order::Level(level) => {
            logging::set_level(level);
            None
        }
        Order::Clients(_) | Order::Part(_) | Order::Count => None,
        Order::Page => page.as_ref().map(|page| page()),
    };
    evloop::parent::ready(answer).map_err(loop_error)
}
