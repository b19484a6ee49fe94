//! The ZeroMQ socket of req mode (`spec/zhttp.md §8.3`): a DEALER that gives each request to one
//! REP or ROUTER peer and gets its response back.

use evloop::zsock::{self, Sent, Socket};
use mio::{Registry, Token};

use super::trace::Dump;
use super::waiting::WaitList;
use crate::Session;
use crate::options::Options;

/// Requests that may wait in the socket for one process (`spec/zhttp.md §8.5`).
const SEND_HWM: i32 = 128;

/// Parts of a message that are looked at for the one behind the envelope (`spec/zhttp.md §8.4`).
const ENVELOPE_MAX: usize = 8;

/// The socket, and requests that nobody could take yet.
pub(crate) struct ReqSide {
    dealer: Socket,
    waiting: WaitList,
    frames: Vec<zmq::Message>,
    malformed: u64,
}

impl ReqSide {
    /// Makes the socket and binds or connects it.
    pub(crate) fn new(context: &zmq::Context, options: &Options) -> Result<Self, String> {
        let socket_options = zsock::Options {
            hwm: SEND_HWM,
            // A plain ROUTER drops answers at our mark: room for the answers to all requests.
            receive_hwm: Some(i32::try_from(options.req_maxconn).unwrap_or(i32::MAX).max(SEND_HWM)),
            linger_ms: 0,
            heartbeat: true,
            ..zsock::Options::default()
        };
        let dealer =
            Socket::new(context, zmq::DEALER, &socket_options).map_err(|e| e.to_string())?;
        for spec in &options.zclient_req {
            super::attach(&dealer, spec, options, "req")?;
        }
        let verb = if options.zclient_connect { "connect" } else { "bind" };
        log::debug!("zhttp client req {verb} {}", options.zclient_req.join(","));
        let waiting = WaitList::new(options.req_maxconn);
        Ok(Self { dealer, waiting, frames: Vec::new(), malformed: 0 })
    }

    pub(crate) fn register(&self, registry: &Registry, token: Token) -> std::io::Result<()> {
        self.dealer.register(registry, token)
    }

    /// Gives up to `budget` messages to `take`.
    pub(crate) fn receive(&mut self, budget: usize, mut take: impl FnMut(&[u8])) {
        for _ in 0..budget {
            if !self.dealer.recv(&mut self.frames) {
                return;
            }
            let frames: Vec<&[u8]> = self.frames.iter().map(|frame| &frame[..]).collect();
            match content(&frames) {
                Some(packet) => {
                    log::trace!("IN req {}", Dump(packet));
                    take(packet);
                }
                None => {
                    self.malformed += 1;
                    log::warn!("unable to determine packet address");
                }
            }
        }
    }

    /// Sends a request, or lets it wait.
    pub(crate) fn request(&mut self, now: u64, session: Session, packet: Vec<u8>) {
        let dealer = &self.dealer;
        self.waiting.send(now, session, packet, |packet| send(dealer, packet));
    }

    /// Tries waiting requests again; those that `wanted` denies are dropped.
    pub(crate) fn send_waiting(&mut self, now: u64, wanted: impl Fn(Session) -> bool) {
        let dealer = &self.dealer;
        self.waiting.retry(now, wanted, |packet| send(dealer, packet));
    }

    /// Requests that wait for somebody to take them.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that were dropped because too many waited.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting.dropped()
    }

    /// Messages without a packet behind their envelope.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Whether a turn would find something at once.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = self.dealer.ready();
        ready.readable || (self.waiting.len() > 0 && ready.writable)
    }
}

fn send(dealer: &Socket, packet: &[u8]) -> bool {
    let sent = dealer.send(&[b"", packet]) != Sent::Full;
    if sent {
        log::trace!("OUT req {}", Dump(packet));
    }
    sent
}

/// The part behind the first empty one.
fn content<F: AsRef<[u8]>>(frames: &[F]) -> Option<&[u8]> {
    let mut parts = frames.iter().map(AsRef::as_ref);
    parts.by_ref().take(ENVELOPE_MAX).find(|part| part.is_empty())?;
    parts.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_behind_the_empty_part() {
        assert_eq!(content(&["", "T"]), Some(&b"T"[..]));
        assert_eq!(content(&["a", "", "T", "x"]), Some(&b"T"[..]));
        assert_eq!(content(&["a", "b"]), None);
        assert_eq!(content(&["a", ""]), None);
        assert_eq!(
            content(&["a"; 9].map(|a| a).iter().chain(&["", "T"]).collect::<Vec<_>>()),
            None
        );
    }
}
