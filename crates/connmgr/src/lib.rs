//! The connection manager: clients on one side, ZHTTP on the other.
