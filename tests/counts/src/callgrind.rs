//! Runs one path under callgrind. Used by `figures`.

use std::path::Path as FilePath;
use std::process::Command;

use crate::paths::{self, Path};

/// Instructions that one operation of `path` takes.
pub fn count(path: &Path) -> Result<u64, String> {
    let text = valgrind(path, "/dev/null")?;
    let collected = text
        .lines()
        .filter_map(|line| line.split_once("Collected :"))
        .find_map(|(_, number)| number.trim().parse::<u64>().ok())
        .filter(|number| *number > 0);
    match collected {
        Some(number) => Ok(number / path.operations),
        None => Err(format!("callgrind counted nothing for {}; it said:\n{text}", path.name)),
    }
}

/// Leaves the profile of a path in the working directory.
pub fn profile(name: &str) -> Result<(), String> {
    let file = format!("callgrind.{name}.out");
    valgrind(paths::find(name)?, &file)?;
    println!("callgrind_annotate --inclusive=yes {file}");
    Ok(())
}

/// What valgrind says on its standard error.
fn valgrind(path: &Path, out: &str) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=counts::paths::measured*")
        .arg(format!("--callgrind-out-file={out}"))
        .args([program.as_path(), FilePath::new("run"), FilePath::new(path.name)])
        .output()
        .map_err(|e| format!("cannot start valgrind (Debian package valgrind): {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{} failed under valgrind:\n{text}", path.name))
    }
}
