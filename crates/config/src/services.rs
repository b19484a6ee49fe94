//! Which processes `[runner] services` asks for (spec/config.md §4.1).

use crate::Settings;

/// The processes to start, and what there is to say about the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// The connection manager.
    pub connmgr: bool,
    /// The proxy.
    pub proxy: bool,
    /// The handler.
    pub handler: bool,
    /// One warning for each name that is not a program of ours.
    pub warnings: Vec<String>,
}

impl Services {
    /// Reads the list, old names included.
    pub fn from(settings: &Settings) -> Self {
        let mut services = Self::default();
        for name in settings.list("runner", "services") {
            services.add(&name);
        }
        services
    }

    fn add(&mut self, name: &str) {
        match name {
            "connmgr" | "condure" => self.connmgr = true,
            "proxy" | "pushpin-proxy" => self.proxy = true,
            "handler" | "pushpin-handler" => self.handler = true,
            "zurl" => self.warn(name, "the proxy makes outgoing requests itself"),
            "mongrel2" | "m2adapter" => {
                self.connmgr = true;
                self.warn(name, "connmgr is started in its place");
            }
            _ => self.warn(name, "there is no such service"),
        }
    }

    fn warn(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("services: {name} is ignored: {why}"));
    }
}
