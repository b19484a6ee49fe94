//! `counts`: how many instructions the hot paths take, measured under callgrind (valgrind), beside
//! the figures in `figures.txt`. Wall time on shared machines does not hold still; these counts do
//! to about a percent. `tests/run counts` uses it.
//!
//! The engines are pure, so each path is one call on a warmed engine, without sockets. Nothing but
//! valgrind is needed: it runs this program again for each path and collects only inside
//! `paths::measured`.

mod callgrind;
mod channels;
mod figures;
mod paths;
mod stack;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "\
usage: counts check            counts every path; fails where one has grown by more than 10 %
       counts update           counts every path and writes the figures
       counts profile PATH     counts one path and leaves the profile for callgrind_annotate
       counts run PATH         what callgrind runs
       counts list             the paths
       counts channels [N]     the channel table with N streams: one in each channel, all in one";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["check"] => figures::check(),
        ["update"] => figures::update(),
        ["profile", name] => callgrind::profile(name),
        ["run", name] => paths::run(name),
        ["list"] => {
            paths::PATHS.iter().for_each(|path| println!("{:<22} {}", path.name, path.about));
            Ok(())
        }
        ["channels"] => channels::table(None),
        ["channels", streams] => channels::table(Some(streams)),
        ["channels", streams, case] => channels::case(streams, case),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
