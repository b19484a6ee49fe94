//! The routes file: reading it, and noticing that it changed (spec/routes.md §1, §7).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use routes::Table;

use super::load;
use crate::routing::{Routes, Signing};

/// Between the first sign of a change and the load; an editor may need several writes.
const SETTLE: Duration = Duration::from_millis(1_000);

/// What tells one state of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    fn of(meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn read(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }
}

/// Where routes come from.
pub(crate) struct RoutesFile {
    /// As configured, for messages.
    name: String,
    path: PathBuf,
    lines: Vec<String>,
    signing: Signing,
    mark: Option<Mark>,
    load_at: Option<Instant>,
}

impl RoutesFile {
    /// The file of the configuration, or the lines of the command line.
    pub fn new(config: &config::Settings, lines: &[String]) -> Self {
        let name = config.string("proxy", "routesfile").unwrap_or_default();
        Self {
            path: config.dir().join(&name),
            name,
            lines: lines.to_vec(),
            signing: load::signing(config),
            mark: None,
            load_at: None,
        }
    }

    /// What signs requests of routes that are loaded from now on.
    pub fn set_signing(&mut self, signing: Signing) {
        self.signing = signing;
    }

    /// Lines of the command line never change.
    pub fn is_watched(&self) -> bool {
        self.lines.is_empty()
    }

    /// Reads the routes; nothing if the file cannot be opened: the old ones stay.
    pub fn load(&mut self) -> Option<Routes> {
        let (table, problems, dir) = match self.read() {
            Ok(read) => read,
            Err(text) => {
                log::warn!("{text}");
                return None;
            }
        };
        for problem in problems {
            log::warn!("{problem}");
        }
        log::info!("routes loaded with {} entries", table.routes().len());
        if log::log_enabled!(log::Level::Debug) {
            table.dump().iter().for_each(|line| log::debug!("{line}"));
        }
        Some(Routes::new(table, &self.signing, &dir))
    }

    /// The name of the file, or what stands for the lines of the command line.
    pub fn name(&self) -> &str {
        if self.lines.is_empty() { &self.name } else { "<route>" }
    }

    /// Reads the routes: the good ones, what is wrong with the others, and where their files are.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn read(&mut self) -> Result<(Table, Vec<String>, PathBuf), String> {
        self.load_at = None;
        if !self.lines.is_empty() {
            let (table, problems) = Table::from_options(&self.lines, &read_file);
            return Ok((table, problems, PathBuf::from(".")));
        }
        self.mark = Mark::read(&self.path);
        if self.name.is_empty() {
            return Err("unable to open routes file: set routesfile in [proxy]".to_owned());
        }
        let Ok(bytes) = std::fs::read(&self.path) else {
            return Err(format!("unable to open routes file: {}", self.path.display()));
        };
        let text = String::from_utf8_lossy(&bytes);
        let (table, problems) = Table::parse(&text, &self.name, &read_file);
        Ok((table, problems, self.path.parent().unwrap_or(Path::new(".")).to_owned()))
    }

    /// Whether the file changed and has settled, so that it is to be loaded.
    pub fn changed(&mut self, now: Instant) -> bool {
        if !self.is_watched() {
            return false;
        }
        let mark = Mark::read(&self.path);
        if mark != self.mark {
            self.mark = mark;
            if self.load_at.is_none() {
                log::info!("routes file changed, reloading");
                self.load_at = Some(now + SETTLE);
            }
        }
        self.load_at.is_some_and(|at| at <= now)
    }
}

fn read_file(path: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|cause| format!("failed to open {path}: {cause}"))?;
    String::from_utf8(bytes).map_err(|cause| format!("failed to read {path}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_loaded_once_after_it_settled() {
        let dir = std::env::temp_dir().join(format!("routes-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("routes");
        std::fs::write(&path, "* x:1\nbad\n").unwrap();
        let mut file = RoutesFile {
            name: "routes".into(),
            path: path.clone(),
            lines: Vec::new(),
            signing: Signing::default(),
            mark: None,
            load_at: None,
        };
        let now = Instant::now();
        assert_eq!(file.load().map(|routes| routes.len()), Some(1));
        assert!(!file.changed(now));
        std::fs::write(&path, "* x:1\nh x:2\n").unwrap();
        assert!(!file.changed(now) && !file.changed(now + SETTLE / 2));
        assert!(file.changed(now + SETTLE));
        assert_eq!(file.load().map(|routes| routes.len()), Some(2));
        assert!(!file.changed(now + SETTLE * 2));
        std::fs::remove_file(&path).unwrap();
        assert!(!file.changed(now) && file.changed(now + SETTLE) && file.load().is_none());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
