//! TLS for servers: certificates in, a configuration out.
//!
//! TLS 1.3 and 1.2 of rustls; clients prove who they are with X.509 certificates (protocol document, section
//! "TLS support"). There is no mode in which TLS is a client's choice.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate or key is not what it should be.
    #[error("{what}: {message}")]
    Pem {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Certificate and key do not go together, or cannot be used.
    #[error("TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// What a server needs for TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Takes certificates and keys in PEM: the server's certificate chain, its private key, and the authorities one of which
    /// must have signed a client's certificate. A client without a certificate is refused.
    ///
    /// # Errors
    ///
    /// - [`TlsError::Pem`] if one of them cannot be read or has nothing in it.
    /// - [`TlsError::Config`] if they do not go together.
    pub fn new(
        certificates: &[u8],
        key: &[u8],
        client_authorities: &[u8],
    ) -> Result<Self, TlsError> {
        let pem = |what, message: String| TlsError::Pem { what, message };
        let chain = certificates_of("server certificate", certificates)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| pem("server key", error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates_of("client authority", client_authorities)? {
            roots.add(authority).map_err(|error| pem("client authority", error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| pem("client authority", error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        // Nobody resumes a session: a connection lasts as long as a mount.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

fn certificates_of(
    what: &'static str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |message: String| TlsError::Pem { what, message };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| pem(error.to_string()))?;
    if found.is_empty() { Err(pem("there is no certificate".to_owned())) } else { Ok(found) }
}
