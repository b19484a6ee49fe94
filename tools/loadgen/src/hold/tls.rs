//! TLS on the client's side of a held connection: any certificate will do.

use crate::sys;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Every connection is a full handshake, as one of a new client is.
pub(super) fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The TLS state of one connection.
pub(super) struct Tls(Box<ClientConnection>);

impl Tls {
    pub(super) fn new(config: Arc<ClientConfig>) -> io::Result<Tls> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Tls(Box::new(connection)))
    }

    /// Sends `plain`, after the handshake if that is not done.
    pub(super) fn send(&mut self, fd: i32, plain: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(plain)?;
        self.flush(fd)
    }

    /// Takes bytes from the socket, answers what the handshake asks; gives what they say.
    pub(super) fn receive(&mut self, fd: i32, mut data: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        while !data.is_empty() {
            if self.0.read_tls(&mut data)? == 0 {
                break; // what follows the end of the session
            }
            let state = self.0.process_new_packets().map_err(io::Error::other)?;
            let have = plain.len();
            plain.resize(have + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[have..])?;
        }
        self.flush(fd)?;
        Ok(plain)
    }

    fn flush(&mut self, fd: i32) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut Out(fd))?;
        }
        Ok(())
    }
}

struct Out(i32);

impl Write for Out {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        sys::write(self.0, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
