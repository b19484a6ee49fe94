//! Who left: the disconnect events of a ZeroMQ socket (design, rule 9).

use std::sync::atomic::{AtomicU64, Ordering};

use mio::{Registry, Token};

use crate::zsock::{Error, Options, Socket};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Watches one socket.
#[derive(Debug)]
pub struct Monitor {
    pair: Socket,
    frames: Vec<zmq::Message>,
}

impl Monitor {
    /// Watches `socket`, before it is bound or connected or at any time after.
    ///
    /// # Errors
    /// If ZeroMQ is out of files.
    pub fn new(context: &zmq::Context, socket: &Socket) -> Result<Self, Error> {
        let address = format!("inproc://monitor-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let events = zmq::SocketEvent::DISCONNECTED.to_raw();
        let refused = |cause| Error::monitor(cause);
        socket.inner().monitor(&address, events.into()).map_err(refused)?;
        let options = Options { linger_ms: 0, ..Options::default() };
        let pair = Socket::new(context, zmq::PAIR, &options)?;
        pair.connect(&address)?;
        Ok(Self { pair, frames: Vec::new() })
    }

    /// Puts the monitor into a loop.
    ///
    /// # Errors
    /// If the loop refuses the descriptor.
    pub fn register(&self, registry: &Registry, token: Token) -> std::io::Result<()> {
        self.pair.register(registry, token)
    }

    /// The socket that tells, to be put into a loop some other way.
    pub fn socket(&self) -> &Socket {
        &self.pair
    }

    /// How many peers left since the last call.
    pub fn disconnected(&mut self) -> usize {
        let mut count = 0;
        while self.pair.recv(&mut self.frames) {
            count += 1;
        }
        count
    }
}
