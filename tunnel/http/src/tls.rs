//! TLS settings and what went wrong with them.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::{Error, ErrorKind, TlsFailure, TlsOptions};

/// TLS settings, built on first use: reading the system's roots takes
/// milliseconds that a plain connection need not spend.
#[derive(Debug)]
pub(crate) struct TlsContext {
    options: TlsOptions,
    checked: OnceLock<Built>,
    unchecked: OnceLock<Built>,
}

#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) config: Arc<ClientConfig>,
    no_roots: bool,
}

impl TlsContext {
    pub(crate) fn new(options: TlsOptions) -> Self {
        Self {
            options,
            checked: OnceLock::new(),
            unchecked: OnceLock::new(),
        }
    }

    pub(crate) fn get(&self, insecure: bool) -> Result<Built, Error> {
        let slot = if insecure {
            &self.unchecked
        } else {
            &self.checked
        };
        if let Some(built) = slot.get() {
            return Ok(built.clone());
        }
        let built = self
            .build(insecure)
            .map_err(|reason| Error::new(ErrorKind::Config(reason)))?;
        Ok(slot.get_or_init(|| built).clone())
    }

    fn build(&self, insecure: bool) -> Result<Built, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let mut no_roots = false;
        let builder = if insecure {
            let verifier = Arc::new(AcceptAnything(provider.signature_verification_algorithms));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            let roots = self.roots()?;
            no_roots = roots.is_empty();
            builder.with_root_certificates(roots)
        };
        let mut config = match self.identity()? {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("client certificate and key do not work together: {e}"))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Built {
            config: Arc::new(config),
            no_roots,
        })
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        match &self.options.ca_file {
            Some(path) => {
                let (added, _) = store.add_parsable_certificates(certificates(path)?);
                if added == 0 {
                    return Err(format!("no CA certificate in {}", path.display()));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                for error in &found.errors {
                    tracing::debug!(%error, "some system certificates cannot be read");
                }
                store.add_parsable_certificates(found.certs);
            }
        }
        Ok(store)
    }

    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        let (cert, key) = match (&self.options.cert_file, &self.options.key_file) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            _ => return Err("client certificate and key must be given together".into()),
        };
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| format!("cannot read the private key in {}: {e}", key.display()))?;
        Ok(Some((certificates(cert)?, private)))
    }
}

impl Built {
    /// Says what a failed handshake means.
    pub(crate) fn explain(&self, error: &io::Error) -> TlsFailure {
        let Some(tls) = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
        else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    TlsFailure::Other("the server closed the connection".into())
                }
                _ => TlsFailure::Other(error.to_string()),
            };
        };
        match tls {
            rustls::Error::InvalidCertificate(reason) => self.explain_certificate(reason),
            rustls::Error::InvalidMessage(_) => TlsFailure::NotTls,
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied,
            ) => TlsFailure::ClientCertificate,
            other => TlsFailure::Other(other.to_string()),
        }
    }

    fn explain_certificate(&self, reason: &CertificateError) -> TlsFailure {
        match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsFailure::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsFailure::NotYetValid
            }
            // The latter: an authority of the same name but with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsFailure::UnknownIssuer {
                    no_roots: self.no_roots,
                }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFailure::WrongName
            }
            // A self-signed certificate without the CA bit is as untrusted as
            // one of an unknown authority.
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                TlsFailure::UnknownIssuer {
                    no_roots: self.no_roots,
                }
            }
            other => TlsFailure::Other(other.to_string()),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| format!("cannot read certificates in {}: {e}", path.display()))
}

/// Checks signatures of the handshake but not whom the certificate is for.
#[derive(Debug)]
struct AcceptAnything(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
