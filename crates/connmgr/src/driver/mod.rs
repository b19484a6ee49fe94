//! Runs the engine on real sockets: start, threads, stop (`spec/connmgr.md §2`, §3).

mod limit;
pub mod listen;
mod sockets;
mod trace;
mod workloop;
mod zmqside;

use std::io;
use std::sync::Arc;

use evloop::signals::Signal;
use mio::{Poll, Waker};

use crate::options::{Options, Words};
use crate::{Config, Worker};
use limit::Limit;
use listen::Listener;
use workloop::{Direct, WAKE, WorkLoop};
use zmqside::ZmqSide;

/// Open files that are not clients: ZeroMQ, logs, listeners.
const FILES_RESERVED: u64 = 100;

/// Runs the program of these options until a signal ends it; gives its exit status.
pub fn main(words: &Words) -> u8 {
    if words.sizes {
        print_sizes();
        return 0;
    }
    let level = words.level();
    let log = logging::Options {
        level: level.as_ref().copied().unwrap_or(2),
        file: None,
        module_tag: true,
    };
    if let Err(error) = logging::init(log) {
        eprintln!("pushpin-connmgr: cannot log: {error}");
        return 1;
    }
    let result = level.and_then(|_| words.check()).map_err(|e| e.to_string());
    let result = result.and_then(|options| run(&options));
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging::flush();
    u8::from(result.is_err())
}

fn print_sizes() {
    println!("server_req_connection_task: 0 bytes");
    println!("server_stream_connection_task: {} bytes", crate::CONNECTION_SIZE);
    println!("client_req_connection_task: 0 bytes");
    println!("client_stream_connection_task: 0 bytes");
    println!("deflate_codec_state: 0 bytes");
}

fn run(options: &Options) -> Result<(), String> {
    log::debug!("starting...");
    for what in &options.left_out {
        log::warn!("not part of this build, ignored: {what}");
    }
    let context = zmq::Context::new();
    let limit = Arc::new(Limit::new(open_files(options)));
    let listeners = bind(options)?;
    let zmq = if listeners.is_empty() { None } else { Some(ZmqSide::new(&context, options)?) };
    let loops = |error: io::Error| format!("failed to set up the event loop: {error}");
    let poll = Poll::new().map_err(loops)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(loops)?);
    let signals = evloop::signals::watch(waker.clone()).map_err(loops)?;
    let Some(zmq) = zmq else {
        return idle(&signals);
    };
    zmq.register(poll.registry(), WAKE).map_err(loops)?;
    limit.join(waker);
    let stops = move || {
        let stop = signals.try_iter().any(|signal| signal == Signal::Stop);
        if stop {
            log::info!("stopping...");
        }
        stop
    };
    let worker = Worker::new(config(options, 0));
    let work =
        WorkLoop::new(poll, worker, listeners, limit, Direct { zmq, stops }).map_err(loops)?;
    log::info!("started");
    work.run().map_err(loops)?;
    log::debug!("stopped");
    Ok(())
}

/// Nothing to serve: only waits for the end.
fn idle(signals: &std::sync::mpsc::Receiver<Signal>) -> Result<(), String> {
    log::info!("started");
    while let Ok(signal) = signals.recv() {
        if signal == Signal::Stop {
            log::info!("stopping...");
            break;
        }
    }
    Ok(())
}

fn config(options: &Options, worker: u16) -> Config {
    Config {
        instance: options.id.as_bytes().to_vec(),
        worker,
        first_counter: random(),
        buffer_size: options.buffer_size,
        stream_timeout_ms: options.stream_timeout_ms,
        ..Config::default()
    }
}

/// A number that differs from start to start.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish() as u32
}

/// Raises the file limit; gives the connections that fit.
fn open_files(options: &Options) -> usize {
    let files = evloop::limits::raise_open_files();
    let fits = files.saturating_sub(FILES_RESERVED + 4 * u64::from(options.workers)).max(1);
    let fits = usize::try_from(fits).unwrap_or(usize::MAX);
    if fits < options.stream_maxconn {
        log::warn!(
            "stream-maxconn is {} but the limit of {files} open files allows {fits} connections; \
             serving these. Raise the hard limit (ulimit -n, LimitNOFILE) for more",
            options.stream_maxconn
        );
    }
    fits.min(options.stream_maxconn)
}

fn bind(options: &Options) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for spec in &options.listen {
        let listener = Listener::bind(spec).map_err(|e| format!("failed to bind {spec}: {e}"))?;
        log::info!("listening on {}", listener.describe(spec));
        listeners.push(listener);
    }
    Ok(listeners)
}
