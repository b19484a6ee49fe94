//! How the handshakes of all TLS ports ended, for the metrics page. `tls` counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::ProtocolVersion;

/// Why a handshake did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client left, or was too slow.
    Unfinished,
    /// The client spoke plain HTTP, and was answered 400.
    PlainHttp,
    /// There is no certificate for the host that it named.
    NoCertificate,
    /// The client said that it does not go on: it does not trust the certificate, for instance.
    Refused,
    /// No protocol version or cipher in common.
    Incompatible,
    /// What the client sent is not TLS, or breaks its rules.
    BadMessage,
}

impl Failure {
    /// All of them, in the order of their counts.
    pub(crate) const ALL: [Self; 6] = [
        Self::Unfinished,
        Self::PlainHttp,
        Self::NoCertificate,
        Self::Refused,
        Self::Incompatible,
        Self::BadMessage,
    ];

    /// The word for it in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::PlainHttp => "plain_http",
            Self::NoCertificate => "no_certificate",
            Self::Refused => "refused_by_client",
            Self::Incompatible => "nothing_in_common",
            Self::BadMessage => "bad_message",
        }
    }

    /// Whose fault an error of the library is.
    pub(crate) fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(_) => Self::Refused,
            rustls::Error::PeerIncompatible(_) => Self::Incompatible,
            _ => Self::BadMessage,
        }
    }
}

/// The counts of the process.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    tls12: AtomicU64,
    tls13: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
}

impl Handshakes {
    /// One that came to its end.
    pub(crate) fn done(&self, version: Option<ProtocolVersion>) {
        let is_13 = version == Some(ProtocolVersion::TLSv1_3);
        (if is_13 { &self.tls13 } else { &self.tls12 }).fetch_add(1, Relaxed);
    }

    /// One that did not.
    pub(crate) fn failed(&self, failure: Failure) {
        self.failed[failure as usize].fetch_add(1, Relaxed);
    }

    /// Those that came to their end, by version.
    pub(crate) fn versions(&self) -> [(&'static str, u64); 2] {
        [("1.2", self.tls12.load(Relaxed)), ("1.3", self.tls13.load(Relaxed))]
    }

    /// Those that did not, by cause.
    pub(crate) fn failures(&self) -> [(&'static str, u64); Failure::ALL.len()] {
        Failure::ALL.map(|failure| (failure.name(), self.failed[failure as usize].load(Relaxed)))
    }
}
