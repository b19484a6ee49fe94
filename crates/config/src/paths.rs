//! Where files are looked for: the search of the config file and the compiled-in directories
//! (spec/config.md §1). Called by the programs before anything else is known.

use std::path::{Path, PathBuf};

/// The directory of an installed configuration.
pub fn config_dir() -> &'static str {
    option_env!("PUSHPIN_CONFIGDIR").unwrap_or("/etc/pushpin")
}

/// What `{libdir}` is when the main file does not set it: the `etc` of the source tree that the
/// executable was built in, else the compiled directory.
pub fn lib_dir() -> String {
    match std::env::current_exe().ok().as_deref().and_then(source_tree) {
        Some(root) => root.join("etc").to_string_lossy().into_owned(),
        None => option_env!("PUSHPIN_LIBDIR").unwrap_or("/usr/lib/pushpin").to_owned(),
    }
}

/// The root of the source tree of an executable in `ROOT/target/PROFILE/`.
fn source_tree(executable: &Path) -> Option<PathBuf> {
    let root = executable.ancestors().skip(1).find(|dir| dir.ends_with("target"))?.parent()?;
    root.join("etc/internal.conf").is_file().then(|| root.to_owned())
}

/// The config file of the supervisor: the named one, else the first that is a regular file.
///
/// # Errors
/// The candidates, if none is there.
pub fn find_for_supervisor(named: Option<&Path>) -> Result<PathBuf, NotFound> {
    let candidates = match named {
        Some(path) => vec![path.to_owned()],
        None => vec![
            "config/pushpin.conf".into(),
            "pushpin.conf".into(),
            "examples/config/pushpin.conf".into(),
            "etc/pushpin.conf".into(),
            Path::new(config_dir()).join("pushpin.conf"),
        ],
    };
    match candidates
        .iter()
        .position(|path| if named.is_some() { path.exists() } else { path.is_file() })
    {
        Some(at) => Ok(candidates[at].clone()),
        None => Err(NotFound(candidates)),
    }
}

/// The config file of the proxy and the handler: the named one, else the installed one.
pub fn for_child(named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| Path::new(config_dir()).join("pushpin.conf"), Path::to_owned)
}

/// No config file; holds the candidates in order.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFound(pub Vec<PathBuf>);

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("no configuration file found. Tried:")?;
        self.0.iter().try_for_each(|path| write!(f, " {}", path.display()))
    }
}

impl std::error::Error for NotFound {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_the_only_candidate() {
        let error = find_for_supervisor(Some(Path::new("/nonexistent/x.conf"))).unwrap_err();
        assert_eq!(error.to_string(), "no configuration file found. Tried: /nonexistent/x.conf");
    }

    #[test]
    fn the_source_tree_is_found_from_its_executables() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let executable = root.join("target/debug/pushpin");
        assert_eq!(source_tree(&executable), None);
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/internal.conf"), "").unwrap();
        assert_eq!(source_tree(&executable).as_deref(), Some(root));
        assert_eq!(source_tree(&root.join("target/debug/deps/x")).as_deref(), Some(root));
        assert_eq!(source_tree(&root.join("bin/pushpin")), None);
    }

    #[test]
    fn children_default_to_the_installed_file() {
        assert_eq!(for_child(Some(Path::new("a"))), Path::new("a"));
        assert!(for_child(None).ends_with("pushpin.conf"));
    }
}
