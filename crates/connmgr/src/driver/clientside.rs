//! The client side on real sockets: ZeroMQ on one side and the backends on the other
//! (`spec/connmgr.md §3`, §10). One worker does both; several share a thread that owns the ZeroMQ
//! sockets.

mod middle;
pub(super) mod reports;
mod sockets;
mod work;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mio::{Poll, Waker};
use origin::Limits;

use super::EndsProcess;
use crate::client::ClientConfig;
use crate::options::Options;
use middle::Middle;
use reports::Reports;
use sockets::{Room, Sockets};
use work::{Direct, Exchange, WAKE, WorkLoop};

/// The running threads.
pub(super) struct ClientSide {
    stop: Arc<AtomicBool>,
    /// Wakes the thread that has the sockets; it wakes the others.
    waker: Arc<Waker>,
    threads: Vec<JoinHandle<()>>,
    reports: Arc<Reports>,
}

impl ClientSide {
    /// Makes the sockets and starts the threads; nothing if no address is given.
    pub(super) fn start(context: &zmq::Context, options: &Options) -> Result<Option<Self>, String> {
        if options.zserver_stream.is_empty() && options.zserver_req.is_empty() {
            return Ok(None);
        }
        if options.deny_out_internal {
            log::debug!("default policy: block outgoing connections to [{}]", origin::INTERNAL);
        }
        let (poll, waker) = poll().map_err(super::loop_error)?;
        let reports = Reports::new(options.workers);
        let sockets = Sockets::new(context, options, reports.clone())?;
        sockets.register(poll.registry(), WAKE).map_err(super::loop_error)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut side = Self { stop, waker, threads: Vec::new(), reports };
        side.spawn_all(poll, sockets, options).map_err(super::loop_error)?;
        Ok(Some(side))
    }

    /// What it holds and dropped, from any thread.
    pub(super) fn reports(&self) -> Arc<Reports> {
        self.reports.clone()
    }

    fn spawn_all(&mut self, poll: Poll, sockets: Sockets, options: &Options) -> io::Result<()> {
        let max = Room { stream: options.stream_maxconn, req: options.req_maxconn };
        if options.workers == 1 {
            let direct = Direct { sockets, max, stop: self.stop.clone() };
            return self.spawn_worker(0, options, poll, self.waker.clone(), direct);
        }
        let mut middle =
            Middle::new(sockets, self.waker.clone(), max, self.stop.clone(), self.reports.clone());
        for number in 0..options.workers {
            let (poll, waker) = self::poll()?;
            let end = middle.seat(waker.clone()).ok_or(io::ErrorKind::NotConnected)?;
            self.spawn_worker(number, options, poll, waker, end)?;
        }
        self.spawn("client-zmq".into(), move || middle.run(poll))
    }

    fn spawn_worker(
        &mut self,
        number: u16,
        options: &Options,
        poll: Poll,
        waker: Arc<Waker>,
        exchange: impl Exchange + Send + 'static,
    ) -> io::Result<()> {
        let (config, limits) = (config(options, number), limits(options, number));
        let reports = self.reports.clone();
        let work = WorkLoop::new(poll, waker, config, limits, exchange, reports)?;
        self.spawn(format!("client-worker {number}"), move || work.run())
    }

    /// A thread whose failure ends the process.
    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let builder = std::thread::Builder::new().name(name.clone());
        let thread = builder.stack_size(512 * 1024).spawn(move || {
            let _ended = EndsProcess;
            if let Err(error) = run() {
                log::error!("{name}: {error}");
                logging::flush();
                std::process::exit(1);
            }
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Lets it end, and waits for it.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that has ended needs no waking.
        let _ = self.waker.wake();
        for thread in self.threads {
            // A panic has ended the process already.
            let _ = thread.join();
        }
    }
}

/// A loop, and what wakes it.
fn poll() -> io::Result<(Poll, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    Ok((poll, waker))
}

fn config(options: &Options, worker: u16) -> ClientConfig {
    ClientConfig {
        instance: options.id.as_bytes().to_vec(),
        worker: (worker, options.workers),
        buffer_size: options.buffer_size as usize,
        body_buffer_size: options.body_buffer_size as usize,
        req_timeout_ms: options.req_timeout_ms.into(),
        deny_internal: options.deny_out_internal,
        compression: options.compression,
    }
}

/// The limits of one worker's connections; idle ones are as many for the process as the spec says.
fn limits(options: &Options, worker: u16) -> Limits {
    let idle_max = (options.req_maxconn + options.stream_maxconn) / 10;
    let idle_max = (idle_max / usize::from(options.workers)).max(1);
    Limits {
        idle_max,
        idle_per_endpoint_max: idle_max,
        response_ms: options.stream_timeout_ms.into(),
        log_worker: Some(worker),
        ..Limits::default()
    }
}
