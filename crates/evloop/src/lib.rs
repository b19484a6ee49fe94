//! The machinery of an event loop: ZeroMQ sockets under mio, timer wheel, arena.
