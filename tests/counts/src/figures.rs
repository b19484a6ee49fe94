//! The figures that are kept, and the comparison with them.
//!
//! `figures.txt` has a line per path: name and instructions per operation. Its first lines say
//! which compiler they belong to: another one may move them without any fault of the code.

use std::path::PathBuf;
use std::process::Command;

use crate::callgrind;
use crate::paths::PATHS;

/// Growth that counts as a fault, percent.
const GROWTH_MAX_PERCENT: u64 = 10;

const COMPILER: &str = "# compiler: ";
const HEAD: &str =
    "# Instructions per operation, release build. Written by `tests/run counts update`.";

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("figures.txt")
}

/// The compiler of this tree, as far as its name tells.
fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output().ok();
    let text = said.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Counts every path and writes the figures.
pub fn update() -> Result<(), String> {
    let mut text = format!("{HEAD}\n{COMPILER}{}\n", compiler());
    for path in &PATHS {
        let count = callgrind::count(path)?;
        println!("{:<22} {count:>12}", path.name);
        text.push_str(&format!("{} {count}\n", path.name));
    }
    std::fs::write(file(), text).map_err(|e| format!("cannot write {}: {e}", file().display()))
}

/// Counts every path; an error names those that have grown.
pub fn check() -> Result<(), String> {
    let kept = std::fs::read_to_string(file())
        .map_err(|e| format!("cannot read {}: {e}; counts update writes it", file().display()))?;
    let mut faults = Vec::new();
    println!("{:<22} {:>12} {:>12}", "instructions", "kept", "now");
    for path in &PATHS {
        let now = callgrind::count(path)?;
        let before = find(&kept, path.name);
        let shown = before.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let change = before.map_or_else(String::new, |count| change(count, now));
        println!("{:<22} {shown:>12} {now:>12} {change:>8}  {}", path.name, path.about);
        faults.extend(fault(path.name, before, now));
    }
    if faults.is_empty() {
        return Ok(());
    }
    faults.push(format!("if that is wanted: tests/run counts update{}", stranger(&kept)));
    Err(faults.join("\n"))
}

fn find(kept: &str, name: &str) -> Option<u64> {
    let mut rows = kept.lines().filter_map(|line| line.split_once(' '));
    rows.find(|(known, _)| *known == name).and_then(|(_, count)| count.trim().parse().ok())
}

fn change(before: u64, now: u64) -> String {
    format!("{:+.1} %", (now as f64 / before as f64 - 1.0) * 100.0)
}

/// What is wrong with a count, if anything.
fn fault(name: &str, before: Option<u64>, now: u64) -> Option<String> {
    let Some(before) = before else { return Some(format!("{name} has no kept figure")) };
    let most = before + before * GROWTH_MAX_PERCENT / 100;
    (now > most).then(|| format!("{name} takes {now} instructions, kept are {before}"))
}

/// A hint, if the figures belong to another compiler.
fn stranger(kept: &str) -> String {
    let theirs = kept.lines().find_map(|line| line.strip_prefix(COMPILER)).unwrap_or("unknown");
    let ours = compiler();
    if theirs == ours { String::new() } else { format!(" (kept with {theirs}, this is {ours})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_of_ten_percent_passes_and_more_is_a_fault() {
        assert_eq!(fault("a", Some(1000), 1100), None);
        assert_eq!(fault("a", Some(1000), 500), None);
        assert!(fault("a", Some(1000), 1101).is_some());
        assert!(fault("a", None, 1).is_some());
    }

    #[test]
    fn kept_figures_are_found_by_their_whole_name() {
        let kept = "# x\npublish-10000 7\npublish 8\n";
        assert_eq!(find(kept, "publish"), Some(8));
        assert_eq!(find(kept, "publish-1"), None);
    }

    #[test]
    fn every_path_has_a_kept_figure() {
        let kept = std::fs::read_to_string(file()).expect("figures.txt");
        for path in &PATHS {
            assert!(find(&kept, path.name).is_some(), "{}", path.name);
        }
    }
}
