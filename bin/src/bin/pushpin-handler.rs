//! pushpin-handler.

fn main() {}
