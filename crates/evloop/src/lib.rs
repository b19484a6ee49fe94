//! What the event loops of all processes are built of: ZeroMQ sockets under mio, timers, the
//! arena for a million states, signals, file limits. The engines use [`timer`] and [`arena`]
//! only; everything else belongs to their drivers.

pub mod arena;
pub mod clock;
pub mod limits;
pub mod local;
pub mod monitor;
pub mod parent;
pub mod peers;
pub mod signals;
pub mod timer;
pub mod zsock;
