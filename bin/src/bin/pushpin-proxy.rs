//! pushpin-proxy.

fn main() {}
