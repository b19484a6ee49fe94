//! All routes of a file, and finding one (spec/routes.md §5 and §6).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::condition::{Proto, Route};
use crate::scan::{self, Error};
use crate::target::Target;

/// Reads a file that an option names: its text, or `failed to open PATH: cause`.
pub type ReadFile<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// The routes by host and by id.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Arc<Route>>,
    by_host: HashMap<String, Vec<Arc<Route>>>,
    /// `None`: two lines share the id.
    by_id: HashMap<String, Option<Arc<Route>>>,
}

/// What looking for an id gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ById<'t> {
    /// The route; the path begins as it wants.
    Found(&'t Arc<Route>),
    /// The route exists, but the path does not begin as it wants.
    OtherPath(&'t Arc<Route>),
    /// No such id.
    Unknown,
    /// Several lines have it, so it names none of them.
    Shared,
}

impl Table {
    /// Reads a routes file. Each bad line gives a problem of the form `FILE:LINE: text`; the
    /// other lines are used.
    pub fn parse(text: &str, file: &str, read: &ReadFile<'_>) -> (Self, Vec<String>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        for (i, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            match table.add_line(line, i + 1, read) {
                Ok(()) => {}
                Err(Error::Duplicate) => {
                    problems.push(format!("{file}:{} {}", i + 1, Error::Duplicate));
                }
                Err(error) => problems.push(format!("{file}:{}: {error}", i + 1)),
            }
        }
        (table, problems)
    }

    /// Reads the values of `--route` options. Duplicates are skipped silently (spec §1).
    pub fn from_options(lines: &[String], read: &ReadFile<'_>) -> (Self, Vec<String>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        for line in lines {
            match table.add_line(line, 1, read) {
                Ok(()) | Err(Error::Duplicate) => {}
                Err(error) => problems.push(format!("<route>:1: {error}")),
            }
        }
        (table, problems)
    }

    fn add_line(&mut self, line: &str, number: usize, read: &ReadFile<'_>) -> Result<(), Error> {
        let sections = scan::sections(line)?;
        let (condition, targets) = match sections.split_first() {
            None => return Ok(()),
            Some((_, [])) => return Err(Error::NoTarget),
            Some((condition, targets)) => (condition, targets),
        };
        let mut route = Route::from_section(condition)?;
        (route.index, route.line) = (self.routes.len(), number);
        for target in targets {
            route.targets.push(Target::from_section(target, read)?);
        }
        self.add(Arc::new(route))
    }

    fn add(&mut self, route: Arc<Route>) -> Result<(), Error> {
        if !route.domain.is_empty() {
            let rules = self.by_host.entry(route.domain.clone()).or_default();
            let condition = |r: &Route| (r.proto, r.ssl, r.path_beg.clone());
            if rules.iter().any(|r| condition(r) == condition(&route)) {
                return Err(Error::Duplicate);
            }
            rules.push(Arc::clone(&route));
        }
        match self.by_id.entry(route.id.clone()) {
            Entry::Vacant(entry) => drop(entry.insert(Some(Arc::clone(&route)))),
            Entry::Occupied(mut entry) => drop(entry.insert(None)),
        }
        self.routes.push(route);
        Ok(())
    }

    /// The routes in file order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of a request: `host` in lower case without port, `path` percent-encoded without
    /// query (spec §6.1).
    pub fn by_host(&self, host: &str, proto: Proto, ssl: bool, path: &str) -> Option<&Arc<Route>> {
        let rules = self.by_host.get(host).filter(|_| host != "*");
        let rules = rules.or_else(|| self.by_host.get("*"))?;
        let mut matching = rules.iter().filter(|route| route.matches(proto, ssl, path));
        let first = matching.next()?;
        Some(matching.fold(first, |best, route| if route.beats(best) { route } else { best }))
    }

    /// The route of that id; domain, proto and ssl are not looked at (spec §6.2).
    pub fn by_id(&self, id: &str, path: &str) -> ById<'_> {
        match self.by_id.get(id) {
            None => ById::Unknown,
            Some(None) => ById::Shared,
            Some(Some(route)) if route.path_matches(path) => ById::Found(route),
            Some(Some(route)) => ById::OtherPath(route),
        }
    }

    /// The lines of the debug dump after a load (spec §2).
    pub fn dump(&self) -> Vec<String> {
        let mut lines = vec!["routes by domain:".to_owned()];
        for route in &self.routes {
            let domain = match route.domain.as_str() {
                "*" => "(default)",
                "" => continue,
                domain => domain,
            };
            let targets: Vec<_> =
                route.targets.iter().map(|t| t.destination.to_string().replace(':', ";")).collect();
            lines.push(format!("  {domain}: {}", targets.join(" ")));
        }
        lines
    }
}
