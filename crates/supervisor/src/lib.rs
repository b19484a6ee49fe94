//! The supervisor: starts the processes of a server, gathers their output, watches and stops them
//! (spec/programs.md §2). Called by the program pushpin.
//!
//! [`options`] reads the command line; [`plan`] makes of it and of the configuration what is to be
//! started, without starting anything; [`run`] does it.

mod capacity;
mod child;
mod levels;
pub mod options;
mod output;
pub mod plan;
mod ports;
pub mod run;
