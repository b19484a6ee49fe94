//! The routes with what the proxy derives from them once per load: signers, endpoints, names.

use std::path::Path;
use std::sync::Arc;

use origin::{Endpoint, TlsOptions};
use routes::{ById, Destination, Proto, Route, Table, Target};

use crate::sig::{SigKey, Signer};
use crate::zmq_target::worker_of;

/// A route ready for use.
#[derive(Debug)]
pub struct Entry {
    /// The line.
    pub route: Arc<Route>,
    /// Signs requests to its backends.
    pub signer: Option<Arc<Signer>>,
    /// The id under which it is counted; none if it has no explicit one.
    pub stats: stats::Route,
    /// Endpoint of each target that is a plain host.
    pub endpoints: Vec<Option<Arc<Endpoint>>>,
}

/// All routes.
#[derive(Debug, Default)]
pub struct Routes {
    table: Table,
    entries: Vec<Arc<Entry>>,
}

/// The sockets of a target that is a ZHTTP worker.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    /// Address.
    pub spec: &'a str,
    /// Request mode.
    pub req: bool,
    /// Mode of the sockets' files.
    pub mode: Option<u32>,
}

/// Where keys of routes come from, and the keys of `[proxy]`.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    /// `sig_iss`
    pub issuer: String,
    /// `sig_key`
    pub key: Option<SigKey>,
}

impl Routes {
    /// Prepares a table. `dir`: where `file:` keys of the lines are.
    pub fn new(table: Table, signing: &Signing, dir: &Path) -> Self {
        let shared = signer(&signing.issuer, signing.key.clone());
        let entry = |route: &Arc<Route>| {
            Arc::new(Entry {
                route: Arc::clone(route),
                signer: own_signer(route, signing, dir).or_else(|| shared.clone()),
                stats: route.explicit_id.then(|| route.id.as_str().into()),
                endpoints: route.targets.iter().map(plain_endpoint).collect(),
            })
        };
        let entries = table.routes().iter().map(entry).collect();
        Self { table, entries }
    }

    /// How many lines were accepted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The ZHTTP workers among the targets, each once.
    pub fn workers(&self) -> Vec<Worker<'_>> {
        let mut found: Vec<Worker<'_>> = Vec::new();
        for target in self.entries.iter().flat_map(|entry| &entry.route.targets) {
            let Some((spec, req)) = worker_of(target) else { continue };
            if !found.iter().any(|known| known.spec == spec && known.req == req) {
                found.push(Worker { spec, req, mode: target.ipc_file_mode });
            }
        }
        found
    }

    /// The route of a request (spec/routes.md §6.1).
    pub fn by_host(&self, host: &str, proto: Proto, ssl: bool, path: &str) -> Option<&Arc<Entry>> {
        self.table.by_host(host, proto, ssl, path).and_then(|route| self.entries.get(route.index))
    }

    /// The route of that id; `Err(true)`: the id is shared by several lines (spec §6.2).
    pub fn by_id(&self, id: &str, path: &str) -> Result<&Arc<Entry>, bool> {
        match self.table.by_id(id, path) {
            ById::Found(route) => self.entries.get(route.index).ok_or(false),
            ById::Shared => Err(true),
            ById::OtherPath(_) | ById::Unknown => Err(false),
        }
    }

    /// The route of that id, whatever the path.
    pub(crate) fn by_id_any(&self, id: &str) -> Option<&Arc<Entry>> {
        match self.table.by_id(id, "") {
            ById::Found(route) | ById::OtherPath(route) => self.entries.get(route.index),
            ById::Shared | ById::Unknown => None,
        }
    }
}

fn signer(issuer: &str, key: Option<SigKey>) -> Option<Arc<Signer>> {
    key.and_then(|key| Signer::new(issuer, key)).map(Arc::new)
}

/// A signer for a route that has an issuer or a key of its own; a key that cannot be read counts
/// as none of its own.
fn own_signer(route: &Route, signing: &Signing, dir: &Path) -> Option<Arc<Signer>> {
    if route.sig_iss.is_none() && route.sig_key.is_none() {
        return None;
    }
    let own = route.sig_key.as_deref().and_then(|text| SigKey::load(text, dir));
    let issuer = route.sig_iss.as_deref().unwrap_or(&signing.issuer);
    signer(issuer, own.or_else(|| signing.key.clone()))
}

fn plain_endpoint(target: &Target) -> Option<Arc<Endpoint>> {
    match &target.destination {
        Destination::Host(host, port) if !target.ssl => Some(Arc::new(Endpoint {
            host: host.clone(),
            port: *port,
            tls: None,
            deny_internal: !target.trusted,
        })),
        _ => None,
    }
}

/// The endpoint of a TLS target, whose name may come from the request.
pub(crate) fn tls_endpoint(target: &Target, uri_host: &str) -> Option<Endpoint> {
    let Destination::Host(host, port) = &target.destination else { return None };
    let name = if target.trust_connect_host { host.as_str() } else { uri_host };
    Some(Endpoint {
        host: host.clone(),
        port: *port,
        tls: Some(TlsOptions {
            server_name: name.to_owned(),
            insecure: target.insecure,
            client_cert: target.client_cert.as_str().into(),
            client_key: target.client_key.as_str().into(),
        }),
        deny_internal: !target.trusted,
    })
}
