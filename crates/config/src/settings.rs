//! The merged settings of a main file and its include, with variables expanded.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::ini::{Entry, File, Problem};
use crate::keys;

/// What a problem with a variable names in the place of a file.
const ENVIRONMENT: &str = "environment";

/// The folder of an installed configuration.
pub const CONFIG_DIR: &str = match option_env!("CONFIGDIR") {
    Some(dir) => dir,
    None => "/etc/pushpin",
};

/// Where the package keeps `internal.conf`.
const LIBDIR: &str = match option_env!("LIBDIR") {
    Some(dir) => dir,
    None => "/usr/lib/pushpin",
};

/// What the command line says instead of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--ipc-prefix`; an empty one is ignored.
    pub ipc_prefix: Option<String>,
    /// `--port-offset`.
    pub port_offset: Option<i64>,
}

/// A file that could not be read.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub cause: std::io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to open config file: {}: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for Error {}

/// The settings. Sections and keys are as in the file, case-sensitive.
#[derive(Debug)]
pub struct Settings {
    main: File,
    include: File,
    dir: PathBuf,
    libdir: String,
    rundir: String,
    ipc_prefix: String,
    port_offset: i64,
    /// What is wrong with variables of the environment; for [`Settings::check`].
    pub(crate) strange: Vec<String>,
    /// Why the include has nothing; for the same.
    pub(crate) unread: Option<String>,
    problems: RefCell<Vec<Problem>>,
}

impl Settings {
    /// Reads the main file, what it includes, and the environment, whose variables
    /// `PUSHPIN_<SECTION>_<KEY>` win over both. A missing include acts as an empty one.
    ///
    /// # Errors
    /// If the main file cannot be read.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Error> {
        let text = read(path).map_err(|cause| Error { path: path.to_owned(), cause })?;
        let main = File::parse(&path.display().to_string(), &text);
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut settings = Self::with_environment(main, dir, overrides, variables);
        if let Some(include) = settings.include_path() {
            settings.take_include(&include);
        }
        Ok(settings)
    }

    /// Reads the include. One that cannot be read acts as an empty one; for [`Settings::check`] it
    /// is a problem, unless it is the file whose addresses are built in.
    fn take_include(&mut self, path: &Path) {
        match read(path) {
            Ok(text) => self.include = File::parse(&path.display().to_string(), &text),
            Err(_) if path.file_name() == Some("internal.conf".as_ref()) => {}
            Err(cause) => self.unread = Some(format!("cannot read {}: {cause}", path.display())),
        }
        self.problems.borrow_mut().extend_from_slice(&self.include.problems);
    }

    /// The settings of a main file alone; `dir` is where relative paths start.
    pub fn from_main(main: File, dir: PathBuf, overrides: &Overrides) -> Self {
        Self::with_environment(main, dir, overrides, std::iter::empty())
    }

    /// The same, with variables of the environment over it.
    pub(crate) fn with_environment(
        main: File,
        dir: PathBuf,
        overrides: &Overrides,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let mut settings = Self {
            libdir: String::new(),
            rundir: String::new(),
            ipc_prefix: String::new(),
            port_offset: 0,
            strange: Vec::new(),
            unread: None,
            include: File::default(),
            problems: RefCell::new(main.problems.clone()),
            main,
            dir,
        };
        settings.override_from(variables);
        settings.resolve(overrides);
        settings
    }

    /// What values are expanded with.
    fn resolve(&mut self, overrides: &Overrides) {
        let filled = |section, key| self.plain(section, key).filter(|text| !text.is_empty());
        let libdir = filled("global", "libdir");
        let rundir = filled("global", "rundir").or_else(|| self.plain("runner", "rundir"));
        let prefix = overrides.ipc_prefix.clone().filter(|prefix| !prefix.is_empty());
        let prefix = prefix.or_else(|| self.plain("global", "ipc_prefix"));
        let offset = self.plain("global", "port_offset").map(|text| number(&text));
        self.libdir = libdir.unwrap_or_else(|| default_libdir(&self.dir));
        self.rundir = rundir.unwrap_or_default();
        self.ipc_prefix = prefix.unwrap_or_else(|| "pushpin-".to_owned());
        self.port_offset = overrides.port_offset.or(offset).unwrap_or(0);
    }

    /// Sets a key of the main file as the environment says it.
    pub(crate) fn set(&mut self, section: &str, key: &str, text: &str) {
        self.main.set(section, key, text);
    }

    fn include_path(&self) -> Option<PathBuf> {
        let name =
            self.main.get("global", "include").map(single).filter(|name| !name.is_empty())?;
        if name == "internal.conf" {
            return Some(Path::new(&self.libdir).join(name));
        }
        Some(self.dir.join(self.expand(&name)))
    }

    /// The folder of the main file, where relative paths start.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The runtime folder, as written.
    pub fn rundir(&self) -> &str {
        &self.rundir
    }

    /// The prefix of every ipc socket's file.
    pub fn ipc_prefix(&self) -> &str {
        &self.ipc_prefix
    }

    /// What is added to TCP ports of addresses.
    pub fn port_offset(&self) -> i64 {
        self.port_offset
    }

    /// The main file alone.
    pub fn main(&self) -> &File {
        &self.main
    }

    /// The included file alone.
    pub fn include(&self) -> &File {
        &self.include
    }

    /// What was found to be a mistake so far: in the files, and in values that were asked for.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.borrow().clone()
    }

    pub(crate) fn entry(&self, section: &str, key: &str) -> Option<(&File, &Entry)> {
        [&self.main, &self.include]
            .into_iter()
            .find_map(|file| file.get(section, key).map(|entry| (file, entry)))
    }

    /// The key as a program asks for it.
    fn asked(&self, section: &str, key: &str) -> Option<(&File, &Entry)> {
        debug_assert!(
            !keys::is_section(section) || keys::find(section, key).is_some(),
            "{key} of [{section}] is missing in crates/config/src/keys.rs"
        );
        self.entry(section, key)
    }

    /// Whether either file has the key.
    pub fn has(&self, section: &str, key: &str) -> bool {
        self.entry(section, key).is_some()
    }

    /// A text, expanded; none if absent. A value with an unquoted comma reads as empty.
    pub fn string(&self, section: &str, key: &str) -> Option<String> {
        self.asked(section, key).map(|(_, entry)| self.expand(&single(entry)))
    }

    /// A text that is not empty.
    pub fn nonempty(&self, section: &str, key: &str) -> Option<String> {
        self.string(section, key).filter(|text| !text.is_empty())
    }

    /// A list, each item expanded; empty items are dropped. Empty if absent.
    pub fn list(&self, section: &str, key: &str) -> Vec<String> {
        let items = self.asked(section, key).map(|(_, entry)| entry.items.as_slice());
        items.unwrap_or_default().iter().filter(|i| !i.is_empty()).map(|i| self.expand(i)).collect()
    }

    /// Truth: empty, `0`, `false` are false, `no` and `off` too, with a problem noted, since old
    /// programs take them for true. So is one for other words, which are true.
    pub fn bool(&self, section: &str, key: &str, default: bool) -> bool {
        let Some(text) = self.string(section, key) else { return default };
        match text.to_ascii_lowercase().as_str() {
            "" | "0" | "false" => false,
            "no" | "off" => {
                self.note(section, key, &format!("'{text}' is taken for false; write false"));
                false
            }
            "1" | "true" | "yes" | "on" => true,
            _ => {
                self.note(
                    section,
                    key,
                    &format!("'{text}' is taken for true; write true or false"),
                );
                true
            }
        }
    }

    /// An integer; text that is none is 0 and noted as a problem, unless it is empty.
    pub fn int(&self, section: &str, key: &str, default: i64) -> i64 {
        let Some(text) = self.string(section, key) else { return default };
        text.parse().unwrap_or_else(|_| {
            if !text.is_empty() {
                self.note(section, key, &format!("'{text}' is not a number and counts as 0"));
            }
            0
        })
    }

    /// File permissions in octal; none if absent or negative.
    pub fn octal(&self, section: &str, key: &str) -> Option<u32> {
        let text = self.string(section, key)?;
        if text.starts_with('-') {
            return None;
        }
        Some(u32::from_str_radix(&text, 8).unwrap_or_else(|_| {
            self.note(section, key, &format!("'{text}' is not an octal number and counts as 0"));
            0
        }))
    }

    /// A path, relative to the main file's folder.
    pub fn path(&self, section: &str, key: &str) -> Option<PathBuf> {
        self.nonempty(section, key).map(|path| self.dir.join(path))
    }

    /// Where a key is set, for the text of an error: `FILE:LINE: KEY in [SECTION]`; without file and
    /// line if it is absent.
    pub fn place(&self, section: &str, key: &str) -> String {
        let place = format!("{key} in [{section}]");
        match self.entry(section, key) {
            None => place,
            Some((_, Entry { line: 0, .. })) => format!("{ENVIRONMENT}: {place}"),
            Some((file, entry)) => format!("{}:{}: {place}", file.name, entry.line),
        }
    }

    /// Notes a problem with the value of a key.
    pub fn note(&self, section: &str, key: &str, text: &str) {
        let Some((file, entry)) = self.entry(section, key) else { return };
        let text = format!("{key} in [{section}]: {text}");
        let file = if entry.line == 0 { ENVIRONMENT.to_owned() } else { file.name.clone() };
        self.add(Problem { file, line: entry.line, text });
    }

    /// Notes a problem with a variable of the environment.
    pub(crate) fn note_environment(&self, text: &str) {
        self.add(Problem { file: ENVIRONMENT.to_owned(), line: 0, text: text.to_owned() });
    }

    fn add(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Puts the variables in and adds the port offset (spec/config.md §2.3).
    pub fn expand(&self, text: &str) -> String {
        let text = text
            .replace("{libdir}", &self.libdir)
            .replace("{rundir}", &self.rundir)
            .replace("{ipc_prefix}", &self.ipc_prefix);
        self.add_port_offset(&text)
    }

    fn add_port_offset(&self, text: &str) -> String {
        let Some((before, address)) = text.split_once("tcp://") else { return text.to_owned() };
        if self.port_offset == 0 {
            return text.to_owned();
        }
        // The host may be a bracketed IPv6 address.
        let host_end = address.find(']').map_or(0, |at| at + 1);
        let Some(colon) = address[host_end..].find(':').map(|at| host_end + at) else {
            return text.to_owned();
        };
        let digits = address[colon + 1..].split('/').next().unwrap_or_default();
        match digits.parse::<i64>() {
            Ok(port) => {
                format!("{before}tcp://{}:{}", &address[..colon], port + self.port_offset)
            }
            Err(_) => text.to_owned(),
        }
    }
}

/// UTF-8, or Latin-1 as older builds wrote it.
fn read(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().iter().map(|&byte| byte as char).collect()))
}

/// A value read as one text.
pub(crate) fn single(entry: &Entry) -> String {
    match entry.items.as_slice() {
        [one] => one.clone(),
        _ => String::new(),
    }
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or(0)
}

/// In a source tree `internal.conf` stands beside the sample configuration.
fn default_libdir(dir: &Path) -> String {
    if dir.join("internal.conf").is_file() { dir.display().to_string() } else { LIBDIR.to_owned() }
}
