//! TLS to backends by rustls: one configuration per set of options, made when first used.

use std::io;
use std::sync::Arc;

use hashbrown::HashMap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::TlsOptions;

/// Configurations kept.
const CONFIGS_MAX: usize = 1_000;

#[derive(PartialEq, Eq, Hash)]
struct ConfigKey {
    insecure: bool,
    cert: Arc<str>,
    key: Arc<str>,
}

/// Makes TLS connections.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    configs: HashMap<ConfigKey, Arc<ClientConfig>>,
    roots: Option<Arc<RootCertStore>>,
}

impl Tls {
    pub fn new() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { provider, configs: HashMap::new(), roots: None }
    }

    /// Bytes that cannot be guessed; nothing if the system has none.
    pub fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let drawn = self.provider.secure_random.fill(&mut bytes);
        drawn.map(|()| bytes).inspect_err(|_| log::error!("the system gives no random bytes")).ok()
    }

    /// A connection that has not shaken hands.
    ///
    /// # Errors
    /// The cause, for example a client key that is none.
    pub fn connection(&mut self, options: &TlsOptions) -> Result<ClientConnection, String> {
        let name = ServerName::try_from(options.server_name.clone())
            .map_err(|_| format!("{} is no server name", options.server_name))?;
        let config = self.config(options)?;
        ClientConnection::new(config, name).map_err(|cause| cause.to_string())
    }

    fn config(&mut self, options: &TlsOptions) -> Result<Arc<ClientConfig>, String> {
        let key = ConfigKey {
            insecure: options.insecure,
            cert: Arc::clone(&options.client_cert),
            key: Arc::clone(&options.client_key),
        };
        if let Some(config) = self.configs.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make_config(options)?);
        if self.configs.len() >= CONFIGS_MAX {
            self.configs.clear();
        }
        self.configs.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn make_config(&mut self, options: &TlsOptions) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| cause.to_string())?;
        let builder = if options.insecure {
            let verifier = Arc::new(AnyCertificate(Arc::clone(&self.provider)));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            builder.with_root_certificates(self.roots())
        };
        if options.client_cert.is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(options.client_cert.as_bytes()).collect();
        let chain = chain.map_err(|cause| format!("client_cert: {cause}"))?;
        let key = PrivateKeyDer::from_pem_slice(options.client_key.as_bytes())
            .map_err(|cause| format!("client_key: {cause}"))?;
        builder.with_client_auth_cert(chain, key).map_err(|cause| format!("client_cert: {cause}"))
    }

    /// The system's certificates, read once.
    fn roots(&mut self) -> Arc<RootCertStore> {
        Arc::clone(self.roots.get_or_insert_with(|| {
            let found = rustls_native_certs::load_native_certs();
            for cause in &found.errors {
                log::warn!("reading the system's certificates: {cause}");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        }))
    }
}

/// Option `insecure`: every certificate is taken; the handshake's signature is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether an I/O error of a TLS connection comes from the protocol.
pub(crate) fn is_protocol(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::InvalidData
}
