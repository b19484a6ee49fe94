//! TLS to the server, trusting what the system trusts.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Error;

/// Wraps a connection; the handshake happens with the first write.
///
/// # Errors
/// The host is no name that a certificate can have.
pub fn connect(
    host: &str,
    stream: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, Error> {
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| Error::new("invalid URL"))?;
    let fault = |error: rustls::Error| Error::new(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(fault)?
        .with_root_certificates(roots())
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(fault)?;
    Ok(StreamOwned::new(connection, stream))
}

fn roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    // certificates that cannot be read are as good as absent: the handshake tells what is missing
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}
