//! What an operator is warned of: keys that nobody reads, earlier names, values of the wrong type.
//! Called by the supervisor, at a start, a reload and for `--check`.

use std::path::Path;

use crate::Settings;
use crate::keys::{self, Key, Kind, Use};
use crate::settings::single;
use crate::specs;

/// The words of earlier releases, which scripts may look for.
const DEPRECATED_RUNDIR: &str = "rundir in [runner] section is deprecated. put in [global]";

impl Settings {
    /// Notes as problems what is there in vain or is read otherwise than it looks. Every value
    /// counts as it always did (spec/config.md §2.1); nothing is refused.
    pub fn check(&self) {
        self.strange.iter().for_each(|text| self.note_environment(text));
        self.unread.iter().for_each(|text| self.note("global", "include", text));
        let include = Path::new(&self.include().name);
        // what an earlier package left there is not read
        let internal = include.file_name() == Some("internal.conf".as_ref());
        let mut entries: Vec<_> = self.main().entries().collect();
        if !internal {
            let hidden = |section: &str, key: &str| self.main().has(section, key);
            entries.extend(self.include().entries().filter(|((s, k), _)| !hidden(s, k)));
        }
        entries.sort_by_key(|((section, key), entry)| (entry.line, section, key));
        let mut sections: Vec<&str> = Vec::new();
        for ((section, key), entry) in entries {
            if let Some(line) = entry.earlier {
                let text = format!("is in line {line} too; the last one counts");
                self.note(section, key, &text);
            }
            match keys::find(section, key) {
                Some(known) => self.check_known(known),
                None if keys::is_section(section) => self.unknown_key(section, key),
                None if sections.contains(&section.as_str()) => {}
                None => {
                    sections.push(section);
                    self.unknown_section(section, key);
                }
            }
        }
        // reading them notes those out of bounds
        specs::connmgr_workers(self);
        specs::connmgr_processes(self);
        specs::proxy_workers(self);
        specs::handler_workers(self);
    }

    fn check_known(&self, key: Key) {
        let Key { section, name, kind, used } = key;
        match used {
            Use::Nothing => return,
            Use::Renamed(_) if name == "rundir" => self.note(section, name, DEPRECATED_RUNDIR),
            Use::Renamed(new) => self.note(section, name, &format!("is called {new} now")),
            _ => {}
        }
        let items = self.entry(section, name).map_or(0, |(_, entry)| entry.items.len());
        if kind != Kind::List && items > 1 {
            self.note(section, name, "counts as empty, for it has a comma outside of quotes");
        }
        // reading a value notes what is wrong with it
        match kind {
            Kind::Number => drop(self.int(section, name, 0)),
            Kind::Truth => drop(self.bool(section, name, false)),
            Kind::Mode => drop(self.octal(section, name)),
            Kind::Text | Kind::List => {}
        }
    }

    fn unknown_key(&self, section: &str, key: &str) {
        let text = match keys::nearest_key(section, key) {
            Some(near) if near.section == section => {
                format!("there is no such key; did you mean {}?", near.name)
            }
            Some(near) => {
                format!("there is no such key; did you mean {} in [{}]?", near.name, near.section)
            }
            None => "there is no such key".to_owned(),
        };
        self.note(section, key, &text);
    }

    fn unknown_section(&self, section: &str, key: &str) {
        let text = match keys::nearest_section(section) {
            Some(near) => format!("there is no such section; did you mean [{near}]?"),
            None => "there is no such section".to_owned(),
        };
        self.note(section, key, &text);
    }

    /// Whether a value that a program read at its start is another one in `newer`.
    fn differs(&self, newer: &Self, key: Key) -> bool {
        let value = |settings: &Self| {
            settings.entry(key.section, key.name).map(|(_, entry)| entry.items.clone())
        };
        value(self) != value(newer)
    }

    /// The keys with another value in `newer` that only a restart brings into effect, as
    /// `key in [section]`.
    pub fn needs_restart(&self, newer: &Self) -> Vec<String> {
        let structural = |key: &Key| !matches!(key.used, Use::Reload | Use::Nothing);
        keys::all()
            .filter(|key| structural(key) && self.differs(newer, *key))
            .map(|key| format!("{} in [{}]", key.name, key.section))
            .collect()
    }

    /// Takes the values that `PUSHPIN_<SECTION>_<KEY>` variables have, over those of the files.
    /// A name that is near that of a key is kept for [`Settings::check`]; others are left to whom they belong.
    pub(crate) fn override_from(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("PUSHPIN_") else { continue };
            let Some((section, key)) = name.split_once('_') else { continue };
            let (section, key) = (section.to_lowercase(), key.to_lowercase());
            if keys::find(&section, &key).is_some() {
                self.set(&section, &key, &value);
            } else if keys::is_section(&section)
                && let Some(near) = keys::nearest_key(&section, &key)
            {
                let (section, key) = (near.section.to_uppercase(), near.name.to_uppercase());
                self.strange.push(format!(
                    "{variable}: no key is called so; did you mean PUSHPIN_{section}_{key}?"
                ));
            }
        }
    }

    /// A value that reads as one text, unexpanded.
    pub(crate) fn plain(&self, section: &str, key: &str) -> Option<String> {
        self.main().get(section, key).map(single)
    }
}
