//! A loaded configuration: main file and include merged, variables expanded, typed getters
//! (spec/config.md §2). Values that are read but make no sense leave a warning that names file,
//! line and key; the programs log them with [`Settings::take_warnings`].

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::ini::{self, Value};
use crate::paths;

/// A file larger than this is not a configuration.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What the command line replaces.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Instead of `[global] ipc_prefix`; an empty one is ignored.
    pub ipc_prefix: Option<String>,
    /// Instead of `[global] port_offset`.
    pub port_offset: Option<i64>,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum Error {
    /// The main file cannot be read.
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// The text of a file cannot be followed.
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        text: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Open { path, cause } => write!(f, "failed to open {}: {cause}", path.display()),
            Self::Syntax { path, line, text } => write!(f, "{}:{line}: {text}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// One configuration, read once.
#[derive(Debug)]
pub struct Settings {
    main: Layer,
    include: Option<Layer>,
    libdir: String,
    rundir: String,
    ipc_prefix: String,
    port_offset: i64,
    warnings: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    file: ini::File,
}

impl Layer {
    fn read(path: &Path) -> Result<Self, Error> {
        let open = |cause| Error::Open { path: path.to_owned(), cause };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(open)?;
        file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(open)?;
        if bytes.len() as u64 > FILE_MAX_BYTES {
            return Err(open(std::io::Error::other("larger than 4 MB")));
        }
        Self::parse(path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        match ini::parse(bytes) {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            Err(remark) => {
                let path = path.to_owned();
                Err(Error::Syntax { path, line: remark.line, text: remark.text })
            }
        }
    }

    fn get(&self, section: &str, key: &str) -> Option<&Value> {
        self.file.values.get(&(section.to_owned(), key.to_owned()))
    }

    fn text(&self, section: &str, key: &str) -> String {
        self.get(section, key).map(|value| value.text().to_owned()).unwrap_or_default()
    }

    fn remarks(&self) -> impl Iterator<Item = String> {
        let path = self.path.display();
        self.file.skipped.iter().map(move |r| format!("{path}:{}: {}", r.line, r.text))
    }
}

impl Settings {
    /// Reads a config file and what it includes.
    ///
    /// # Errors
    /// The main file cannot be read, or one of the two cannot be followed. A missing include
    /// acts as an empty one (spec/config.md §2.2).
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Error> {
        let mut settings = Self::new(Layer::read(path)?, overrides);
        if let Some(path) = settings.include_path() {
            settings.read_include(&path)?;
        }
        Ok(settings)
    }

    /// A configuration from text instead of a file, without include: for tests of other crates.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_text(text: &str, overrides: &Overrides) -> Result<Self, Error> {
        Ok(Self::new(Layer::parse(Path::new("(text)"), text.as_bytes())?, overrides))
    }

    fn new(main: Layer, overrides: &Overrides) -> Self {
        let mut warnings: Vec<String> = main.remarks().collect();
        let mut rundir = main.text("global", "rundir");
        if rundir.is_empty() {
            rundir = main.text("runner", "rundir");
            if !rundir.is_empty() {
                let text = "rundir in [runner] section is deprecated. put in [global]";
                warnings.push(text.to_owned());
            }
        }
        let prefix = overrides.ipc_prefix.clone().filter(|prefix| !prefix.is_empty());
        let prefix = prefix.or_else(|| main.get("global", "ipc_prefix").map(|v| v.text().into()));
        let libdir = Some(main.text("global", "libdir")).filter(|dir| !dir.is_empty());
        let mut settings = Self {
            main,
            include: None,
            libdir: libdir.unwrap_or_else(paths::lib_dir),
            rundir: if rundir.is_empty() { ".".to_owned() } else { rundir },
            ipc_prefix: prefix.unwrap_or_else(|| "pushpin-".to_owned()),
            port_offset: 0,
            warnings: Mutex::new(warnings),
        };
        let offset = overrides.port_offset;
        settings.port_offset = offset.unwrap_or_else(|| settings.int("global", "port_offset", 0));
        settings
    }

    /// The include file, made absolute against the directory of the main file.
    fn include_path(&self) -> Option<PathBuf> {
        let text = self.non_empty("global", "include")?;
        let text = if text == "internal.conf" { format!("{}/{text}", self.libdir) } else { text };
        Some(self.beside(&text))
    }

    fn read_include(&mut self, path: &Path) -> Result<(), Error> {
        match Layer::read(path) {
            Ok(layer) => {
                let remarks: Vec<String> = layer.remarks().collect();
                remarks.into_iter().for_each(|text| self.warn(text));
                self.include = Some(layer);
                Ok(())
            }
            Err(Error::Open { path, cause }) => {
                // what internal.conf holds is built in
                if !is_internal(&path) {
                    self.warn(format!("failed to open include {}: {cause}", path.display()));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The main config file.
    pub fn path(&self) -> &Path {
        &self.main.path
    }

    /// A file named in the configuration: relative to the directory of the config file.
    pub fn beside(&self, file: &str) -> PathBuf {
        self.main.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// `{rundir}` as written; `.` if it is not set.
    pub fn rundir(&self) -> &str {
        &self.rundir
    }

    /// `{ipc_prefix}`.
    pub fn ipc_prefix(&self) -> &str {
        &self.ipc_prefix
    }

    /// What is added to every tcp port.
    pub fn port_offset(&self) -> i64 {
        self.port_offset
    }

    /// Replaces the variables and adds the port offset (spec/config.md §2.3).
    pub fn expand(&self, text: &str) -> String {
        let text = text.replace("{libdir}", &self.libdir).replace("{rundir}", &self.rundir);
        let text = text.replace("{ipc_prefix}", &self.ipc_prefix);
        if self.port_offset == 0 { text } else { add_offset(&text, self.port_offset) }
    }

    /// A string, expanded; `None` if the key is absent. A value with an unquoted comma is empty.
    pub fn string(&self, section: &str, key: &str) -> Option<String> {
        let (value, layer) = self.find(section, key)?;
        if value.is_list() {
            let text = "has a comma outside double quotes and is taken as empty";
            self.warn(complaint(layer, section, key, value, text));
        }
        Some(self.expand(value.text()))
    }

    /// A string that is not empty.
    pub fn non_empty(&self, section: &str, key: &str) -> Option<String> {
        self.string(section, key).filter(|text| !text.is_empty())
    }

    /// The items between unquoted commas, expanded, empty ones dropped; empty if absent.
    pub fn list(&self, section: &str, key: &str) -> Vec<String> {
        self.find(section, key).map(|(value, _)| self.items(value)).unwrap_or_default()
    }

    /// As [`Settings::list`], but only what an operator wrote: the main file, or an include that
    /// is not the package's `internal.conf` (its addresses are built in, and those of an old
    /// package that was left behind must not count: spec/config.md §6.6).
    pub fn own_list(&self, section: &str, key: &str) -> Vec<String> {
        match self.find(section, key) {
            Some((value, layer)) if !is_internal(&layer.path) => self.items(value),
            _ => Vec::new(),
        }
    }

    fn items(&self, value: &Value) -> Vec<String> {
        value.items.iter().filter(|item| !item.is_empty()).map(|item| self.expand(item)).collect()
    }

    /// A decimal number; what is not a number is 0, as in the field; `default` if absent.
    pub fn int(&self, section: &str, key: &str, default: i64) -> i64 {
        let Some((value, layer)) = self.find(section, key) else { return default };
        value.text().trim().parse().unwrap_or_else(|_| {
            if !value.text().is_empty() || value.is_list() {
                let text = "is not a number, taken as 0";
                self.warn(complaint(layer, section, key, value, text));
            }
            0
        })
    }

    /// A switch: empty, `0`, `false` are off; `no` and `off` too, with a warning, since old
    /// versions took them as on; all else is on. `default` if absent.
    pub fn bool(&self, section: &str, key: &str, default: bool) -> bool {
        let Some((value, layer)) = self.find(section, key) else { return default };
        match value.text().to_ascii_lowercase().as_str() {
            "" | "0" | "false" => false,
            "no" | "off" => {
                let text = "is taken as false; write false, earlier versions took it as true";
                self.warn(complaint(layer, section, key, value, text));
                false
            }
            _ => true,
        }
    }

    /// A file mode in octal digits; `None` if absent or negative, 0 if it is not octal.
    pub fn octal(&self, section: &str, key: &str) -> Option<u32> {
        let (value, layer) = self.find(section, key)?;
        if value.text().starts_with('-') {
            return None;
        }
        let mode = u32::from_str_radix(value.text(), 8);
        Some(mode.unwrap_or_else(|_| {
            self.warn(complaint(layer, section, key, value, "is not octal, taken as 0"));
            0
        }))
    }

    /// `[handler] push_in_http_port` with the offset: negative is off, 0 a free port.
    pub fn push_in_http_port(&self) -> i64 {
        let port = self.int("handler", "push_in_http_port", -1);
        if port > 0 { port + self.port_offset } else { port }
    }

    /// `FILE:LINE: [section] key=value` of a key that is set, for error texts.
    pub fn place(&self, section: &str, key: &str) -> Option<String> {
        let (value, layer) = self.find(section, key)?;
        Some(place(layer, section, key, value))
    }

    /// The warnings gathered so far, each once.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default()
    }

    pub(crate) fn warn(&self, text: String) {
        if let Ok(mut list) = self.warnings.lock()
            && !list.contains(&text)
        {
            list.push(text);
        }
    }

    fn find(&self, section: &str, key: &str) -> Option<(&Value, &Layer)> {
        let layers = std::iter::once(&self.main).chain(&self.include);
        layers.filter_map(|layer| Some((layer.get(section, key)?, layer))).next()
    }
}

fn is_internal(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "internal.conf")
}

fn place(layer: &Layer, section: &str, key: &str, value: &Value) -> String {
    let (path, line) = (layer.path.display(), value.line);
    // keys are secrets
    let shown = if key.ends_with("_key") { "...".to_owned() } else { value.items.join(",") };
    format!("{path}:{line}: [{section}] {key}={shown}")
}

fn complaint(layer: &Layer, section: &str, key: &str, value: &Value, text: &str) -> String {
    format!("{} {text}", place(layer, section, key, value))
}

/// Adds to the port of `tcp://host:port`; text behind the port is lost, as in the field. A port
/// that is no number stays.
fn add_offset(text: &str, offset: i64) -> String {
    let Some(at) = text.find("tcp://").map(|at| at + "tcp://".len()) else { return text.into() };
    let host_end = match text[at..].strip_prefix('[') {
        Some(literal) => literal.find(']').map(|end| at + 1 + end),
        None => Some(at),
    };
    let Some(host_end) = host_end else { return text.into() };
    let Some(port_at) = text[host_end..].find(':').map(|n| host_end + n + 1) else {
        return text.into();
    };
    let digits = text[port_at..].bytes().take_while(u8::is_ascii_digit).count();
    match text[port_at..port_at + digits].parse::<i64>() {
        Ok(port) => format!("{}{}", &text[..port_at], port.saturating_add(offset)),
        Err(_) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(text: &str) -> Settings {
        Settings::from_text(text, &Overrides::default()).unwrap()
    }

    /// A main file and an include `extra.conf` beside it.
    fn with_include(main: &str, include: &str) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("extra.conf"), include).unwrap();
        let path = dir.path().join("pushpin.conf");
        std::fs::write(&path, main).unwrap();
        let settings = Settings::load(&path, &Overrides::default()).unwrap();
        (dir, settings)
    }

    #[test]
    fn booleans() {
        for (text, expected, warned) in [
            ("", false, 0),
            ("0", false, 0),
            ("False", false, 0),
            ("no", false, 1),
            ("OFF", false, 1),
            ("true", true, 0),
            ("1", true, 0),
            ("x", true, 0),
        ] {
            let s = settings(&format!("[a]\nk={text}\n"));
            assert_eq!(s.bool("a", "k", !expected), expected, "{text}");
            assert_eq!(s.take_warnings().len(), warned, "{text}");
        }
        assert!(settings("").bool("a", "k", true));
    }

    #[test]
    fn numbers() {
        for (text, expected, warned) in [
            ("5", 5, 0),
            ("-1", -1, 0),
            ("+7", 7, 0),
            ("", 0, 0),
            ("x", 0, 1),
            ("1.5", 0, 1),
            ("1,2", 0, 1),
            ("99999999999999999999", 0, 1),
        ] {
            let s = settings(&format!("[a]\nk={text}\n"));
            assert_eq!(s.int("a", "k", 9), expected, "{text}");
            assert_eq!(s.take_warnings().len(), warned, "{text}");
        }
        assert_eq!(settings("").int("a", "k", 9), 9);
        let s = settings("[a]\n\nk=x\n");
        s.int("a", "k", 0);
        assert_eq!(s.take_warnings(), ["(text):3: [a] k=x is not a number, taken as 0"]);
    }

    #[test]
    fn modes() {
        let s = settings("[a]\nk=777\nm=-1\nn=9\n");
        assert_eq!(s.octal("a", "k"), Some(0o777));
        assert_eq!(s.octal("a", "m"), None);
        assert_eq!(s.octal("a", "n"), Some(0));
        assert_eq!(s.octal("a", "absent"), None);
    }

    #[test]
    fn strings_and_lists() {
        let s = settings("[a]\nk=x,y\nq=\"x,y\"\nl= a,, \"b,c\" ,\ne=\none=x\n");
        assert_eq!(s.string("a", "k").as_deref(), Some(""));
        assert_eq!(s.take_warnings().len(), 1);
        assert_eq!(s.string("a", "q").as_deref(), Some("x,y"));
        assert_eq!(s.list("a", "l"), ["a", "b,c"]);
        assert!(s.list("a", "e").is_empty());
        assert_eq!(s.list("a", "one"), ["x"]);
        assert_eq!(s.string("a", "e").as_deref(), Some(""));
        assert_eq!(s.non_empty("a", "e"), None);
        assert_eq!(s.string("A", "q"), None);
    }

    #[test]
    fn warnings_do_not_show_secrets() {
        let s = settings("[proxy]\nsig_key=hidden,words\n");
        s.string("proxy", "sig_key");
        let warnings = s.take_warnings();
        assert!(warnings.len() == 1 && !warnings[0].contains("hidden"), "{warnings:?}");
    }

    #[test]
    fn variables_expand_in_order() {
        let text = "[global]\nlibdir=/lib\nrundir={ipc_prefix}run\nipc_prefix=p-\n\
                    [a]\nk={libdir}/{rundir}/{ipc_prefix}x{other}\n";
        assert_eq!(settings(text).string("a", "k").unwrap(), "/lib/p-run/p-x{other}");
        let s = Settings::from_text(
            text,
            &Overrides { ipc_prefix: Some("q-".into()), ..Overrides::default() },
        );
        assert_eq!(s.unwrap().string("a", "k").unwrap(), "/lib/q-run/q-x{other}");
        assert_eq!(
            settings("[a]\nk={rundir}/{ipc_prefix}").string("a", "k").unwrap(),
            "./pushpin-"
        );
    }

    #[test]
    fn an_empty_prefix_override_is_ignored() {
        let overrides = Overrides { ipc_prefix: Some(String::new()), ..Overrides::default() };
        assert_eq!(Settings::from_text("", &overrides).unwrap().ipc_prefix(), "pushpin-");
    }

    #[test]
    fn the_old_place_of_rundir_counts_with_a_warning() {
        let s = settings("[runner]\nrundir=r\n");
        assert_eq!((s.rundir(), s.take_warnings().len()), ("r", 1));
    }

    #[test]
    fn ports_are_shifted() {
        for (text, expected) in [
            ("tcp://127.0.0.1:5560", "tcp://127.0.0.1:5570"),
            ("tcp://*:5560", "tcp://*:5570"),
            ("tcp://127.0.0.1:5560/x", "tcp://127.0.0.1:5570"),
            ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
            ("tcp://[::1]:5560", "tcp://[::1]:5570"),
            ("tcp://[::1", "tcp://[::1"),
            ("tcp://host", "tcp://host"),
            ("ipc://a:1", "ipc://a:1"),
        ] {
            assert_eq!(add_offset(text, 10), expected);
        }
        let text = "[global]\nport_offset=3\n[handler]\npush_in_http_port=5561\n[a]\nk=tcp://h:1/x";
        let s = settings(text);
        assert_eq!(s.push_in_http_port(), 5564);
        assert_eq!(s.string("a", "k").unwrap(), "tcp://h:4");
        let overrides = Overrides { port_offset: Some(0), ..Overrides::default() };
        let s = Settings::from_text(text, &overrides).unwrap();
        assert_eq!(s.string("a", "k").unwrap(), "tcp://h:1/x");
        let s = settings("[global]\nport_offset=3\n[handler]\npush_in_http_port=0\n");
        assert_eq!(s.push_in_http_port(), 0);
        assert_eq!(settings("").push_in_http_port(), -1);
    }

    #[test]
    fn the_main_file_wins_key_by_key() {
        let main = "[global]\ninclude=extra.conf\nlibdir=/l\n[a]\nk=main\n";
        let include =
            "[global]\nlibdir=/other\ninclude=pushpin.conf\n[a]\nk=include\nj={libdir}/x\n";
        let (_dir, s) = with_include(main, include);
        assert_eq!(s.string("a", "k").unwrap(), "main");
        assert_eq!(s.string("a", "j").unwrap(), "/l/x");
        assert!(s.place("a", "j").unwrap().contains("extra.conf:6: [a] j="));
        assert!(s.take_warnings().is_empty());
    }

    #[test]
    fn a_missing_include_acts_as_empty() {
        let (_dir, s) = with_include("[global]\ninclude=gone.conf\n", "");
        assert!(s.take_warnings()[0].contains("gone.conf"));
        let main = "[global]\ninclude={libdir}/internal.conf\nlibdir=/nonexistent\n[a]\nk=1";
        let (_dir, s) = with_include(main, "");
        assert!(s.take_warnings().is_empty());
        assert_eq!(s.int("a", "k", 0), 1);
    }

    #[test]
    fn the_old_short_name_of_the_include() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("internal.conf"), "[a]\nk=in\nl=x\n").unwrap();
        let path = dir.path().join("pushpin.conf");
        let libdir = dir.path().display();
        let text = format!("[global]\ninclude=internal.conf\nlibdir={libdir}\n[a]\nl=y\n");
        std::fs::write(&path, text).unwrap();
        let s = Settings::load(&path, &Overrides::default()).unwrap();
        assert_eq!(s.string("a", "k").unwrap(), "in");
        assert!(s.own_list("a", "k").is_empty());
        assert_eq!(s.own_list("a", "l"), ["y"]);
    }

    #[test]
    fn errors_name_the_file() {
        let error = Settings::load(Path::new("/nonexistent/a"), &Overrides::default()).unwrap_err();
        assert!(error.to_string().starts_with("failed to open /nonexistent/a: "));
        let error = Settings::from_text("[x\n", &Overrides::default()).unwrap_err();
        assert!(error.to_string().starts_with("(text):1: section header"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", offset in -10i64..10) {
            let overrides = Overrides { ipc_prefix: None, port_offset: Some(offset) };
            if let Ok(s) = Settings::from_text(&format!("[a]\nk={text}\n"), &overrides) {
                s.string("a", "k");
                s.list("a", "k");
                s.int("a", "k", 0);
                s.octal("a", "k");
                s.bool("a", "k", false);
            }
        }

        #[test]
        fn no_address_panics(text in "(tcp://)?[\\[\\]:0-9a*]{0,24}", offset in any::<i64>()) {
            add_offset(&text, offset);
        }
    }
}
