//! Log levels: `N` and `service:N` items, from `--loglevel` or `[runner] log_level`
//! (spec/config.md §4).

const DEFAULT: u8 = 2;

/// The levels of all processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    unnamed: u8,
    named: Vec<(String, u8)>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { unnamed: DEFAULT, named: Vec::new() }
    }
}

impl Levels {
    /// The same level for all.
    pub fn all(level: u8) -> Self {
        Self { unnamed: level, named: Vec::new() }
    }

    /// Reads the items of a list.
    ///
    /// # Errors
    /// The text for the operator.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut levels = Self::default();
        for item in items {
            let item = item.trim();
            match item.split_once(':') {
                _ if item.is_empty() => return Err("log level component cannot be empty".into()),
                Some((name, level)) => levels.add(name.trim(), level.trim())?,
                None => {
                    levels.unnamed = number(item).ok_or_else(|| {
                        format!("log level must be greater than or equal to 0: {item}")
                    })?;
                }
            }
        }
        Ok(levels)
    }

    fn add(&mut self, name: &str, level: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("log level component name cannot be empty".into());
        }
        let level = number(level).ok_or_else(|| {
            format!("log level for service {name} must be greater than or equal to 0: {level}")
        })?;
        let name = match name {
            "pushpin-proxy" => "proxy",
            "pushpin-handler" => "handler",
            "condure" => "connmgr",
            name => name,
        };
        self.named.push((name.to_owned(), level));
        Ok(())
    }

    /// The level of a service (`runner` for the supervisor itself); the last item that names it
    /// counts.
    pub fn of(&self, service: &str) -> u8 {
        let named = self.named.iter().rev().find(|(name, _)| name == service);
        named.map_or(self.unnamed, |(_, level)| *level)
    }
}

/// Above 4 there is nothing more to see.
fn number(text: &str) -> Option<u8> {
    text.parse::<u32>().ok().map(|level| u8::try_from(level.min(4)).unwrap_or(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let levels = Levels::parse("1, connmgr:3,pushpin-handler:0,proxy:99".split(',')).unwrap();
        assert_eq!(levels.of("runner"), 1);
        assert_eq!(levels.of("connmgr"), 3);
        assert_eq!(levels.of("handler"), 0);
        assert_eq!(levels.of("proxy"), 4);
        assert_eq!(Levels::parse([]).unwrap().of("proxy"), 2);
        assert_eq!(Levels::parse(["condure:4"]).unwrap().of("connmgr"), 4);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (list, expected) in [
            ("2,,", "log level component cannot be empty"),
            (":2", "log level component name cannot be empty"),
            ("-1", "log level must be greater than or equal to 0: -1"),
            ("x", "log level must be greater than or equal to 0: x"),
            ("proxy:-1", "log level for service proxy must be greater than or equal to 0: -1"),
        ] {
            assert_eq!(Levels::parse(list.split(',')).unwrap_err(), expected);
        }
    }
}
