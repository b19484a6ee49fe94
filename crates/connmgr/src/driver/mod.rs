//! Runs the engine on real sockets: start, threads, stop (`spec/connmgr.md §2`, §3).

mod between;
mod certs;
mod clientside;
mod dump;
mod inspect;
mod limit;
pub mod listen;
mod page;
mod queues;
mod reqside;
mod sockets;
mod tls;
mod tlscount;
mod tlsport;
mod trace;
mod waiting;
mod workloop;
mod zmqside;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use evloop::parent::Order;
use evloop::signals::Signal;
use evloop::zsock;
use mio::{Events, Poll, Waker};

use crate::options::{Options, Words};
use crate::{Blocks, Config, Worker};
use between::Middle;
use clientside::ClientSide;
use inspect::Inspector;
use limit::Limits;
use listen::{ListenSpec, Listener};
use tlsport::Shared;
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

/// What a connection of each kind has as long as it lives, and a WebSocket's codec between
/// messages; buffers come and go beside it (`spec/connmgr.md §1`).
fn print_sizes() {
    let sizes = [
        ("server_req_connection_task", crate::CONNECTION_SIZE),
        ("server_stream_connection_task", crate::CONNECTION_SIZE),
        ("client_req_connection_task", crate::client::SESSION_SIZE),
        ("client_stream_connection_task", crate::client::SESSION_SIZE),
        ("deflate_codec_state", size_of::<websocket::Decoder>()),
    ];
    for (name, bytes) in sizes {
        println!("{name}: {bytes} bytes");
    }
}

fn run(options: &Options) -> Result<(), String> {
    log::debug!("starting...");
    let limits = open_files(options);
    let context = zmq::Context::new();
    let listeners = bind(options)?;
    let _files: Vec<_> = options.listen.iter().filter_map(ListenSpec::file).collect();
    let zmq = if listeners.is_empty() { None } else { Some(ZmqSide::new(&context, options)?) };
    let client_side = ClientSide::start(&context, options)?;
    let poll = Poll::new().map_err(loop_error)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(loop_error)?);
    let signals = evloop::signals::watch(waker.clone()).map_err(loop_error)?;
    let stops = move || {
        let stop = signals.try_iter().any(|signal| signal == Signal::Stop);
        if stop {
            log::info!("stopping...");
        }
        stop
    };
    let blocks = Blocks::new(options.spare_blocks);
    let inspector = Inspector::new(blocks.clone(), client_side.as_ref().map(ClientSide::reports));
    operators(options, &listeners, &inspector)?;
    obey(options, &listeners, &limits, &inspector).map_err(loop_error)?;
    let result = match zmq {
        None => idle(poll, stops),
        Some(zmq) => {
            zmq.register(poll.registry(), WAKE).map_err(loop_error)?;
            let start = Start { options, listeners, limits, blocks, inspector, poll, waker };
            if options.workers == 1 { start.alone(zmq, stops) } else { start.several(zmq, stops) }
        }
    };
    if let Some(client_side) = client_side {
        client_side.stop();
    }
    log::debug!("stopped");
    result.map_err(loop_error)
}

fn loop_error(error: io::Error) -> String {
    format!("failed to set up the event loop: {error}")
}

/// Starts what operators look at: metrics, the debug socket, the dump at USR1.
fn operators(
    options: &Options,
    listeners: &[(Listener, bool)],
    inspector: &Arc<Inspector>,
) -> Result<(), String> {
    if let Some(spec) = &options.prometheus {
        let fixed = page_parts(&spec.prefix, options, listeners);
        let inspector = inspector.clone();
        let page = move || page::page(&fixed, &inspector.ask());
        let address = admin::serve_metrics(&spec.address, admin::Rules::CONNMGR, page)
            .map_err(|e| format!("prometheus listener: failed to bind {}: {e}", spec.address))?;
        log::info!("metrics on {address}");
    }
    if let Some(spec) = &options.debug_socket {
        let (inspector, lines) = (inspector.clone(), 1000 * usize::from(options.workers) + 1000);
        admin::serve_debug(&spec.address, lines, move || dump::lines(&inspector.ask()))
            .map_err(|e| format!("debug socket: failed to bind {}: {e}", spec.address))?;
    }
    let inspector = inspector.clone();
    let dump = move || dump::lines(&inspector.ask()).iter().for_each(|line| log::info!("{line}"));
    evloop::signals::on_dump(dump).map_err(loop_error)
}

/// Tells the supervisor that all sockets are bound, and does what it says from then on.
fn obey(
    options: &Options,
    listeners: &[(Listener, bool)],
    limits: &Limits,
    inspector: &Arc<Inspector>,
) -> io::Result<()> {
    let fixed = page_parts("", options, listeners);
    let (limits, inspector) = (limits.clone(), inspector.clone());
    evloop::parent::ready(move |order| match order {
        Order::Level(level) => {
            logging::set_level(level);
            None
        }
        Order::Clients(count) => {
            limits.stream.set_max(count);
            None
        }
        Order::Part(count) => {
            limits.stream.set_part(count);
            None
        }
        Order::Count => Some(limits.stream.used().to_string()),
        Order::Page => Some(page::page(&fixed, &inspector.ask())),
    })
}

/// What of the metrics page stays the same.
fn page_parts(prefix: &str, options: &Options, listeners: &[(Listener, bool)]) -> page::Fixed {
    let specs = options.listen.iter().zip(listeners);
    let tls = listeners.iter().find_map(|(listener, _)| listener.tls());
    page::Fixed {
        prefix: prefix.to_string(),
        listeners: specs.map(|(spec, (listener, _))| listener.describe(spec)).collect(),
        handshakes: tls.map(|port| port.handshakes().clone()),
    }
}

/// What the threads are made of.
struct Start<'a> {
    options: &'a Options,
    /// Each with whether it is of req mode.
    listeners: Vec<(Listener, bool)>,
    limits: Limits,
    blocks: Blocks,
    inspector: Arc<Inspector>,
    poll: Poll,
    waker: Arc<Waker>,
}

impl Start<'_> {
    /// One worker, which has the ZeroMQ sockets in its own loop.
    fn alone(self, zmq: ZmqSide, stops: impl FnMut() -> bool) -> io::Result<()> {
        self.limits.join(&self.waker);
        let worker = Worker::new(self.config(0));
        let inspection = self.inspector.join(self.waker);
        let exchange = Direct { zmq, stops, inspector: self.inspector, asked: 0 };
        let limits = self.limits;
        let work = WorkLoop::new(self.poll, worker, self.listeners, limits, inspection, exchange)?;
        log::info!("started");
        work.run()
    }

    /// A thread for each worker, and this one between them and the ZeroMQ sockets.
    fn several(mut self, zmq: ZmqSide, stops: impl FnMut() -> bool) -> io::Result<()> {
        self.inspector.join_sockets(self.waker.clone());
        let mut middle = Middle::new(zmq, self.waker.clone(), self.inspector.clone());
        let mut threads = Vec::new();
        for number in 0..self.options.workers {
            let last = number + 1 == self.options.workers;
            let listeners = if last { std::mem::take(&mut self.listeners) } else { self.share()? };
            threads.push(self.spawn(number, listeners, &mut middle)?);
        }
        log::info!("started");
        middle.run(&mut self.poll, stops)?;
        for thread in threads {
            thread.join().map_err(|_| io::Error::other("a worker thread panicked"))??;
        }
        Ok(())
    }

    /// The same listeners once more.
    fn share(&mut self) -> io::Result<Vec<(Listener, bool)>> {
        let mut copies = Vec::new();
        for (listener, req) in std::mem::take(&mut self.listeners) {
            let (one, two) = listener.share()?;
            self.listeners.push((one, req));
            copies.push((two, req));
        }
        Ok(copies)
    }

    fn spawn(
        &self,
        number: u16,
        listeners: Vec<(Listener, bool)>,
        middle: &mut Middle,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        self.limits.join(&waker);
        let inspection = self.inspector.join(waker.clone());
        let end = middle.seat(waker).ok_or(io::ErrorKind::NotConnected)?;
        let worker = Worker::new(self.config(number));
        let limits = self.limits.clone();
        let work = WorkLoop::new(poll, worker, listeners, limits, inspection, end)?;
        std::thread::Builder::new()
            .name(format!("server-worker {number}"))
            .stack_size(512 * 1024)
            .spawn(move || {
                let _ended = EndsProcess;
                work.run().inspect_err(|error| {
                    log::error!("worker {number}: {error}");
                    std::process::exit(1);
                })
            })
    }

    fn config(&self, worker: u16) -> Config {
        let options = self.options;
        Config {
            instance: options.id.as_bytes().to_vec(),
            worker,
            workers: options.workers,
            first_counter: random(),
            buffer_size: options.buffer_size,
            body_buffer_size: options.body_buffer_size,
            connection_blocks_max: options.connection_blocks_max,
            blocks: self.blocks.clone(),
            messages_max: options.messages_max,
            message_size_max: options.message_size_max,
            compression: options.compression,
            compression_takeover: options.compression_takeover,
            maxconn: (options.stream_maxconn, options.req_maxconn),
            stream_timeout_ms: options.stream_timeout_ms,
            req_timeout_ms: options.req_timeout_ms,
            ..Config::default()
        }
    }
}

/// Ends the process when a worker panics: its clients would hang otherwise.
struct EndsProcess;

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a worker thread failed, the process ends");
            logging::flush();
            std::process::exit(1);
        }
    }
}

/// Nothing to serve: only waits for the end.
fn idle(mut poll: Poll, mut stops: impl FnMut() -> bool) -> io::Result<()> {
    log::info!("started");
    let mut events = Events::with_capacity(1);
    while !stops() {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
    }
    Ok(())
}

/// A number that differs from start to start.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish() as u32
}

/// Raises the file limit; gives the connections that fit, those of req mode first.
fn open_files(options: &Options) -> Limits {
    let files = evloop::limits::raise_open_files();
    let fits = files.saturating_sub(FILES_RESERVED + 4 * u64::from(options.workers)).max(1);
    let has_req = options.listen.iter().any(ListenSpec::is_req);
    let req = if has_req { options.req_maxconn } else { 0 };
    let fits = usize::try_from(fits).unwrap_or(usize::MAX).saturating_sub(req).max(1);
    if fits < options.stream_maxconn {
        log::warn!(
            "stream-maxconn is {} but the limit of {files} open files allows {fits} connections; \
             serving these. Raise the hard limit (ulimit -n, LimitNOFILE) for more",
            options.stream_maxconn
        );
    }
    Limits::new(fits.min(options.stream_maxconn), req)
}

/// Binds or connects a ZeroMQ socket of the server side; `mode` is the word for it in errors.
fn attach(socket: &zsock::Socket, spec: &str, options: &Options, mode: &str) -> Result<(), String> {
    let result = if options.zclient_connect {
        socket.connect(spec)
    } else {
        socket.bind(spec, options.ipc_file_mode)
    };
    result.map_err(|e| format!("failed to set zhttp client {mode} specs: {}", e.short()))
}

fn bind(options: &Options) -> Result<Vec<(Listener, bool)>, String> {
    let mut listeners = Vec::new();
    let has_tls = options.listen.iter().any(|spec| spec.tls().is_some());
    let shared = has_tls.then(|| Shared::new(&options.tls_identities_dir));
    for spec in &options.listen {
        let mut listener = Listener::bind(spec, &options.tcp)
            .map_err(|e| format!("failed to bind {spec}: {e}"))?;
        if let Some(shared) = &shared {
            listener = listener.with_tls(spec, shared);
        }
        log::info!("listening on {}", listener.describe(spec));
        if let Some(port) = listener.tls() {
            port.check();
        }
        listeners.push((listener, spec.is_req()));
    }
    Ok(listeners)
}
