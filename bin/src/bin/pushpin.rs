//! pushpin.

fn main() {}
