//! TLS to a broker. Certificates are always verified.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The files for TLS, all PEM. By default the public authorities verify the broker, and
/// the node has no certificate.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authorities that verify the broker, instead of the public ones.
    pub authorities: Option<PathBuf>,
    /// The certificate of this node, with its chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or contains something else.
    pub(crate) fn read(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match &self.authorities {
            None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => authorities(path)?,
        };
        let provider = Arc::new(ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions");
        let builder = versions.with_root_certificates(roots);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let read = PrivateKeyDer::from_pem_file(key);
                let secret =
                    read.map_err(|error| TlsError::new(key, "has no private key", error))?;
                let config = builder.with_client_auth_cert(chain, secret);
                config.map_err(|error| TlsError::new(key, "does not fit", error))?
            }
        };
        Ok(Arc::new(config))
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::new(path, "has a certificate that is not valid", error))?;
    }
    Ok(roots)
}

/// Reads the certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::new(path, "has no certificate", error);
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(failed)?;
    match certificates.is_empty() {
        true => Err(failed(rustls::pki_types::pem::Error::NoItemsFound)),
        false => Ok(certificates),
    }
}

/// A file for TLS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl TlsError {
    fn new(path: &Path, what: &str, error: impl fmt::Display) -> TlsError {
        TlsError(format!("{} {what} ({error})", path.display()))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}
