//! pushpin-connmgr.

fn main() {}
