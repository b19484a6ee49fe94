//! The calls between proxy and handler: envelope, inspect, accept, retry.
