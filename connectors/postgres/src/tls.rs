//! TLS to the server: what each `sslmode` verifies, and the channel binding that ties SCRAM to the certificate.

use crate::config::{Config, SslMode};
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
use sha2::Digest;
use std::{path::Path, sync::Arc};

fn fault(what: String, fix: &str) -> Error {
    Error::new(Kind::Config, Side::Source, Retry::Operator, what).fix(fix)
}

/// The client configuration for a source; `None` with `sslmode = "disable"`.
pub fn client_config(config: &Config) -> Result<Option<Arc<ClientConfig>>> {
    if config.sslmode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug("TLS versions").cause(e))?;
    // As in libpq, `require` with a CA of one's own means that the CA is to be checked.
    let verify = match (config.sslmode, &config.tls.root) {
        (SslMode::VerifyFull, _) => Verify::Full,
        (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => Verify::Ca,
        _ => Verify::Nothing,
    };
    let builder = match verify {
        Verify::Nothing => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        Verify::Ca => {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(config)?), provider)
                .build()
                .map_err(|e| fault(format!("CA certificates: {e}"), "check ssl_root_cert"))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(inner)))
        }
        Verify::Full => builder.with_root_certificates(roots(config)?),
    };
    let client = match (&config.tls.cert, &config.tls.key) {
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

enum Verify {
    Nothing,
    Ca,
    Full,
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

fn roots(config: &Config) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &config.tls.root {
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

/// `prefer` and `require` without a CA: encrypts, verifies nothing. The handshake's signature is still checked.
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
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain is checked, the name is not.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is looked at last, after chain and validity: only a wrong name can give these two errors.
        match self.0.verify_server_cert(cert, intermediates, name, ocsp, now) {
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
        self.0.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// One DER element: tag, contents, what follows.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let n = usize::from(first & 0x7F);
        if n == 0 || n > 4 {
            return None;
        }
        let (len, rest) = rest.split_at_checked(n)?;
        (len.iter().fold(0usize, |a, b| (a << 8) | usize::from(*b)), rest)
    };
    let (body, rest) = rest.split_at_checked(len)?;
    Some((*tag, body, rest))
}

/// `tls-server-end-point` (RFC 5929): the certificate, hashed with the hash of its own signature; SHA-256 in place of
/// MD5 and SHA-1. `None` when the signature has no such hash (Ed25519): then there is no channel binding.
pub fn end_point(cert: &[u8]) -> Option<Vec<u8>> {
    let (0x30, certificate, _) = der(cert)? else { return None };
    let (0x30, _tbs, rest) = der(certificate)? else { return None };
    let (0x30, algorithm, _) = der(rest)? else { return None };
    let (0x06, oid, _) = der(algorithm)? else { return None };
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];
    let bits = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => 256,
        (Some([12]), _) | (_, Some([3, 3])) => 384,
        (Some([13]), _) | (_, Some([3, 4])) => 512,
        _ => return None,
    };
    Some(match bits {
        256 => sha2::Sha256::digest(cert).to_vec(),
        384 => sha2::Sha384::digest(cert).to_vec(),
        _ => sha2::Sha512::digest(cert).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cert(oid: &[u8]) -> Vec<u8> {
        let el = |tag: u8, body: &[u8]| [&[tag, body.len() as u8], body].concat();
        el(0x30, &[el(0x30, b"tbs"), el(0x30, &el(6, oid)), el(3, b"sig")].concat())
    }
    #[test]
    fn hash_follows_the_signature() {
        let rsa = |n| cert(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, n]);
        assert_eq!(end_point(&rsa(5)), Some(sha2::Sha256::digest(rsa(5)).to_vec()));
        assert_eq!(end_point(&rsa(11)).map(|h| h.len()), Some(32));
        assert_eq!(end_point(&rsa(12)).map(|h| h.len()), Some(48));
        assert_eq!(end_point(&cert(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 3, 4])).map(|h| h.len()), Some(64));
        assert_eq!(end_point(&cert(&[0x2B, 0x65, 0x70])), None);
    }
    proptest! {
        #[test]
        fn any_certificate_bytes(bytes: Vec<u8>) {
            let _ = end_point(&bytes);
        }
    }
}
