//! The three engines on virtual time and a virtual network. A scenario runs in microseconds, and
//! the same seed gives the same run.

pub mod backend;
pub mod faults;
pub mod link;
pub mod net;
mod parts;
pub mod world;

pub use backend::{Act, Socket};
pub use faults::{Dice, Faults};
pub use link::{Count, Link};
pub use world::World;
