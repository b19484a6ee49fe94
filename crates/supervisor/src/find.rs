//! The search for the config file (spec/config.md §1).

use std::path::{Path, PathBuf};

use config::CONFIG_DIR;

/// The named file, else the first candidate that is a regular file; `etc` is where the source
/// tree has it.
///
/// # Errors
/// What was tried.
pub(crate) fn config_file(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return if path.exists() { Ok(path.to_owned()) } else { Err(not_found(&[path.into()])) };
    }
    let candidates = [
        "config/pushpin.conf".into(),
        "pushpin.conf".into(),
        "examples/config/pushpin.conf".into(),
        "etc/pushpin.conf".into(),
        Path::new(CONFIG_DIR).join("pushpin.conf"),
    ];
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| not_found(&candidates))
}

fn not_found(candidates: &[PathBuf]) -> String {
    let mut text = "no configuration file found. Tried:".to_owned();
    candidates.iter().for_each(|path| text += &format!(" {}", path.display()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_the_only_candidate() {
        let error = config_file(Some(Path::new("/nonexistent/x.conf"))).unwrap_err();
        assert_eq!(error, "no configuration file found. Tried: /nonexistent/x.conf");
    }
}
