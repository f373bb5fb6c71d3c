//! TLS to the server: what each `sslmode` verifies.

use crate::settings::{Settings, SslMode};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::{path::Path, sync::Arc};

fn fault(what: String, fix: &str) -> Error {
    Error::new(Kind::Config, Side::Source, Retry::Operator, what).fix(fix)
}

/// The client configuration for a source; `None` with `sslmode = "disable"`.
pub fn client_config(settings: &Settings) -> Result<Option<Arc<ClientConfig>>> {
    if settings.sslmode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug("TLS versions").cause(e))?;
    let lenient = |chain, provider| Arc::new(Lenient { chain, provider });
    let builder = match (settings.sslmode, &settings.tls.root) {
        (SslMode::VerifyFull, _) => builder.with_root_certificates(roots(settings)?),
        // As in libpq, `require` with a CA of one's own means that the CA is to be checked.
        (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => {
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(settings)?), provider.clone())
                .build()
                .map_err(|e| fault(format!("CA certificates: {e}"), "check ssl_root_cert"))?;
            builder.dangerous().with_custom_certificate_verifier(lenient(Some(chain), provider))
        }
        _ => builder.dangerous().with_custom_certificate_verifier(lenient(None, provider)),
    };
    let client = match (&settings.tls.cert, &settings.tls.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "ssl_cert")?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| fault(format!("ssl_key {}: {e}", key.display()), "give a private key in PEM"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| fault(format!("client certificate: {e}"), "check ssl_cert and ssl_key"))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(client)))
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |e: String| fault(format!("{key} {}: {e}", path.display()), "give certificates in PEM");
    let list = CertificateDer::pem_file_iter(path)
        .map_err(|e| bad(e.to_string()))?
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| bad(e.to_string()))?;
    if list.is_empty() {
        return Err(bad("holds no certificate".into()));
    }
    Ok(list)
}

fn roots(settings: &Settings) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &settings.tls.root {
        Some(path) => {
            for cert in certificates(path, "ssl_root_cert")? {
                store.add(cert).map_err(|e| {
                    fault(format!("ssl_root_cert {}: {e}", path.display()), "give CA certificates in PEM")
                })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(fault(
                    "the system has no CA certificates".into(),
                    "install ca-certificates, or set ssl_root_cert",
                ));
            }
        }
    }
    Ok(store)
}

/// Checks less than `verify-full`: the chain without the name (`verify-ca`), or nothing of the certificate (`prefer`, and
/// `require` without a CA). The handshake's signature is checked in any case.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The name is looked at last, after chain and validity: only a wrong name can give these two errors.
        match chain.verify_server_cert(cert, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
