//! pushpin-publish.

fn main() {}
