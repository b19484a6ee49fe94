//! Log levels: one for all, and others for services by name (spec/config.md §4, `log_level`).

use std::collections::HashMap;

const DEFAULT: u32 = 2;

/// The levels that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    others: u32,
    named: HashMap<String, u32>,
}

impl Levels {
    /// Reads items of the form `N` or `SERVICE:N`; names of all releases are known.
    ///
    /// # Errors
    /// The texts of spec/config.md §4.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut levels = Self::default();
        for item in items {
            levels.add(item.trim())?;
        }
        Ok(levels)
    }

    fn add(&mut self, item: &str) -> Result<(), String> {
        let must = "must be greater than or equal to 0";
        if item.is_empty() {
            return Err("log level component cannot be empty".to_owned());
        }
        let Some((name, level)) = item.split_once(':') else {
            self.others = item.parse().map_err(|_| format!("log level {must}"))?;
            return Ok(());
        };
        let name = name.trim();
        if name.is_empty() {
            return Err("log level component name cannot be empty".to_owned());
        }
        let level = level.trim().parse();
        let level = level.map_err(|_| format!("log level for service {name} {must}"))?;
        self.named.insert(modern(name).to_owned(), level);
        Ok(())
    }

    /// The level of a service by its present name.
    pub fn of(&self, service: &str) -> u32 {
        self.named.get(service).copied().unwrap_or(self.others)
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self { others: DEFAULT, named: HashMap::new() }
    }
}

/// The present name of a service.
fn modern(name: &str) -> &str {
    match name {
        "condure" => "connmgr",
        "pushpin-proxy" => "proxy",
        "pushpin-handler" => "handler",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_all_and_by_name() {
        let levels = Levels::parse(["1", " condure:3", "pushpin-proxy:0", "handler: 9"]).unwrap();
        let of = ["runner", "connmgr", "proxy", "handler"].map(|name| levels.of(name));
        assert_eq!(of, [1, 3, 0, 9]);
        assert_eq!(Levels::parse([]).unwrap().of("proxy"), 2);
        assert_eq!(Levels::parse(["proxy:3"]).unwrap().of("handler"), 2);
    }

    #[test]
    fn what_is_refused() {
        for (item, text) in [
            ("", "log level component cannot be empty"),
            (":3", "log level component name cannot be empty"),
            ("-1", "log level must be greater than or equal to 0"),
            ("x", "log level must be greater than or equal to 0"),
            ("proxy:-1", "log level for service proxy must be greater than or equal to 0"),
        ] {
            assert_eq!(Levels::parse([item]), Err(text.to_owned()), "{item}");
        }
    }
}
