//! The bodies of the fuzz targets. Each takes any bytes and panics if something does not hold.
//! `cargo fuzz` calls them with what it invents (`../run`), the test `replay` with the files under
//! `../corpus`, on every toolchain.

mod chunked;
mod engine;
mod frame;
mod frames;
mod head;
mod input;
mod net;

pub use chunked::chunked;
pub use engine::engine;
pub use frame::{deflate, websocket};
pub use frames::{tnetstring, zhttp};
pub use head::head;

/// A target's name, which is also that of its corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("head", head),
    ("chunked", chunked),
    ("tnetstring", tnetstring),
    ("zhttp", zhttp),
    ("websocket", websocket),
    ("deflate", deflate),
    ("engine", engine),
];
