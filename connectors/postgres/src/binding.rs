//! Channel binding: what ties SCRAM to the server's certificate.

use sha2::Digest;

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
