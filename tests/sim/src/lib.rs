//! The three engines on virtual time and a virtual network.
