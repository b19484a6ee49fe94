//! Which processes `[runner] services` asks for, with the names of all versions
//! (spec/config.md §4.1). Called by the supervisor.

use crate::settings::Settings;

/// The processes to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// `connmgr`, in earlier versions `condure`.
    pub connmgr: bool,
    /// `proxy` or `pushpin-proxy`.
    pub proxy: bool,
    /// `handler` or `pushpin-handler`.
    pub handler: bool,
    /// What was said in words of earlier versions, one line each, to be logged as a warning.
    pub warnings: Vec<String>,
}

impl Services {
    /// Reads the list; its order does not matter.
    pub fn from(settings: &Settings) -> Self {
        let mut services = Self::default();
        for name in settings.list("runner", "services") {
            services.add(&name);
        }
        services.warnings.dedup();
        services
    }

    fn add(&mut self, name: &str) {
        match name {
            "connmgr" | "condure" => self.connmgr = true,
            "proxy" | "pushpin-proxy" => self.proxy = true,
            "handler" | "pushpin-handler" => self.handler = true,
            "zurl" => self.warnings.push(
                "service zurl is not needed any more and ignored: outgoing requests are made by \
                 the proxy itself"
                    .to_owned(),
            ),
            "mongrel2" | "m2adapter" => {
                self.connmgr = true;
                let text = format!("service {name} is obsolete: connmgr is started in its place");
                self.warnings.push(text);
            }
            other => self.warnings.push(format!("unknown service ignored: {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Overrides;

    fn services(list: &str) -> Services {
        let text = format!("[runner]\nservices={list}\n");
        Services::from(&Settings::from_text(&text, &Overrides::default()).unwrap())
    }

    #[test]
    fn names_of_all_versions() {
        for (list, expected, warnings) in [
            ("connmgr,proxy,handler", (true, true, true), 0),
            ("condure,zurl,pushpin-proxy,pushpin-handler", (true, true, true), 1),
            ("mongrel2,m2adapter,zurl,pushpin-proxy,pushpin-handler", (true, true, true), 3),
            ("handler", (false, false, true), 0),
            ("proxy, what", (false, true, false), 1),
            ("", (false, false, false), 0),
        ] {
            let s = services(list);
            assert_eq!((s.connmgr, s.proxy, s.handler), expected, "{list}");
            assert_eq!(s.warnings.len(), warnings, "{list}");
        }
    }
}
