//! The TLS ports: what the process, a port and a port in one worker have for it
//! (`spec/connmgr.md §9`). Made at the start; `tls` has the clients.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};

use super::certs::{Resolver, Store};
use super::tlscount::Handshakes;

/// What all TLS ports of the process share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    store: Arc<Store>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    handshakes: Arc<Handshakes>,
}

impl Shared {
    /// `dir` has the certificates.
    pub(crate) fn new(dir: &Path) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tickets = rustls::crypto::ring::Ticketer::new();
        if let Err(cause) = &tickets {
            log::warn!("TLS sessions will not be resumed: {cause}");
        }
        let store = Arc::new(Store::new(dir, provider));
        Self { store, tickets: tickets.ok(), handshakes: Arc::default() }
    }
}

/// One TLS port; its workers share it.
#[derive(Debug)]
pub(crate) struct Port {
    shared: Shared,
    default_cert: Option<String>,
    /// The address, for the log.
    name: String,
    pub(super) plain_clients: AtomicU64,
}

impl Port {
    pub(crate) fn new(shared: Shared, default_cert: Option<String>, name: String) -> Self {
        Self { shared, default_cert, name, plain_clients: AtomicU64::new(0) }
    }

    /// The counts of all TLS ports.
    pub(crate) fn handshakes(&self) -> &Arc<Handshakes> {
        &self.shared.handshakes
    }

    /// Says at the start if clients that name no host will have no certificate.
    pub(crate) fn check(&self) {
        let default = self.default_cert.as_deref();
        if self.shared.store.find(None, default).is_none() {
            log::info!(
                "{}: no certificate for clients that name no host ({}.crt and .key in {})",
                self.name,
                default.unwrap_or("default-cert"),
                self.shared.store.dir().display(),
            );
        }
    }

    /// A client turned out not to speak TLS; a line says so the first time.
    pub(super) fn plain_client(&self) {
        if self.plain_clients.fetch_add(1, Ordering::Relaxed) == 0 {
            log::info!("{}: a client spoke plain HTTP on this TLS port, answered 400", self.name);
        }
    }
}

/// One TLS port in one worker.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) port: Arc<Port>,
    pub(super) config: Arc<ServerConfig>,
    pub(super) resolver: Arc<Resolver>,
}

impl Context {
    pub(crate) fn new(port: Arc<Port>) -> io::Result<Self> {
        let shared = &port.shared;
        let resolver = Resolver::new(shared.store.clone(), port.default_cert.clone());
        let resolver = Arc::new(resolver);
        let mut config = ServerConfig::builder_with_provider(shared.store.provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        if let Some(tickets) = &shared.tickets {
            config.ticketer = tickets.clone();
        }
        Ok(Self { config: Arc::new(config), resolver, port })
    }
}
