//! Reading certificates and keys from PEM files, with the rules of the Go components.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::error::TlsError;

/// The shortest RSA modulus that is accepted, bits.
pub(super) const MIN_RSA_BITS: usize = 2048;

/// An own certificate chain with its key.
pub(super) struct Keypair {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Loads the own certificate and key. The certificate must be valid now and strong enough; whether
/// the key fits is checked when the configuration is built.
pub(super) fn load_keypair(cert: &Path, key: &Path) -> Result<Keypair, TlsError> {
    let bad = |path: &Path, reason: String| TlsError::BadKeypair {
        path: path.into(),
        reason,
    };
    let open = |path: &Path| {
        fs::read(path).map_err(|source| TlsError::OpenKeypair {
            path: path.into(),
            source,
        })
    };
    let chain = CertificateDer::pem_slice_iter(&open(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(cert, error.to_string()))?;
    let Some(leaf) = chain.first() else {
        return Err(bad(cert, "no CERTIFICATE block".into()));
    };
    check_validity(leaf, cert)?;
    for certificate in &chain {
        check_strength(certificate, cert)?;
    }
    let key_der = PrivateKeyDer::from_pem_slice(&open(key)?).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => {
            bad(key, "no private key block (PKCS#8, PKCS#1 or SEC1)".into())
        }
        other => bad(key, other.to_string()),
    })?;
    if let Some(bits) = rsa_key_bits(&key_der)
        && bits < MIN_RSA_BITS
    {
        return Err(TlsError::WeakRsa {
            path: key.into(),
            bits,
        });
    }
    Ok(Keypair {
        chain,
        key: key_der,
    })
}

/// Loads a CA file: nothing but `CERTIFICATE` blocks without headers, at least one. A CA that has
/// expired is accepted.
pub(super) fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let pem = fs::read(path).map_err(|source| TlsError::OpenCa {
        path: path.into(),
        source,
    })?;
    check_ca_blocks(&pem, path)?;
    let unusable = |detail: String| TlsError::NoCa {
        path: path.into(),
        detail: format!(": {detail}"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        check_strength(&certificate, path)?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCa {
            path: path.into(),
            detail: String::new(),
        });
    }
    Ok(roots)
}

/// The authorities that the machine trusts, but for those that are broken or too weak.
pub(super) fn load_system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let strong = |certificate: &CertificateDer<'_>| {
        rsa_bits(certificate).is_none_or(|bits| bits >= MIN_RSA_BITS)
    };
    roots.add_parsable_certificates(found.certs.into_iter().filter(strong));
    if roots.is_empty() {
        let errors = found.errors.iter().map(|error| format!(": {error}"));
        return Err(TlsError::NoSystemCa {
            detail: errors.collect(),
        });
    }
    Ok(roots)
}

/// The length of an RSA public key in this certificate, bits; `None` for other kinds of keys and for
/// what is no certificate (which the TLS library then refuses itself).
pub(super) fn rsa_bits(certificate: &CertificateDer<'_>) -> Option<usize> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    match parsed.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
    }
}

fn check_strength(certificate: &CertificateDer<'_>, path: &Path) -> Result<(), TlsError> {
    match rsa_bits(certificate) {
        Some(bits) if bits < MIN_RSA_BITS => Err(TlsError::WeakRsa {
            path: path.into(),
            bits,
        }),
        _ => Ok(()),
    }
}

fn check_validity(leaf: &CertificateDer<'_>, path: &Path) -> Result<(), TlsError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| TlsError::BadKeypair {
        path: path.into(),
        reason: error.to_string(),
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        return Err(TlsError::Expired {
            path: path.into(),
            ended: validity.not_after.to_string(),
        });
    }
    if now < validity.not_before.timestamp() {
        return Err(TlsError::NotYetValid {
            path: path.into(),
            starts: validity.not_before.to_string(),
        });
    }
    Ok(())
}

/// The PEM reader skips what it does not know, so the labels and headers are looked at here.
fn check_ca_blocks(pem: &[u8], path: &Path) -> Result<(), TlsError> {
    let text = String::from_utf8_lossy(pem);
    let mut inside = false;
    for line in text.lines() {
        if let Some(label) = line.trim_end().strip_prefix("-----BEGIN ") {
            let label = label.trim_end_matches('-');
            if label != "CERTIFICATE" {
                return Err(TlsError::UnexpectedBlock {
                    path: path.into(),
                    label: label.into(),
                });
            }
            inside = true;
        } else if line.starts_with("-----END ") {
            inside = false;
        } else if inside && line.contains(':') {
            return Err(TlsError::PemHeaders { path: path.into() });
        }
    }
    Ok(())
}

/// The modulus length of an RSA private key, so that a short one is named as such instead of as a
/// key that the TLS library cannot use for some reason.
fn rsa_key_bits(key: &PrivateKeyDer<'_>) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const OCTETS: u8 = 0x04;
    const RSA_OID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let pkcs1 = match key {
        PrivateKeyDer::Pkcs1(key) => key.secret_pkcs1_der(),
        PrivateKeyDer::Pkcs8(key) => {
            let (body, _) = der_value(key.secret_pkcs8_der(), SEQUENCE)?;
            let (_version, rest) = der_value(body, INTEGER)?;
            let (algorithm, rest) = der_value(rest, SEQUENCE)?;
            let (oid, _) = der_value(algorithm, 0x06)?;
            if oid != RSA_OID {
                return None;
            }
            der_value(rest, OCTETS)?.0
        }
        _ => return None,
    };
    let (body, _) = der_value(pkcs1, SEQUENCE)?;
    let (_version, rest) = der_value(body, INTEGER)?;
    let (modulus, _) = der_value(rest, INTEGER)?;
    let first = modulus.iter().position(|byte| *byte != 0)?;
    let bytes = modulus.len() - first;
    let unused = usize::try_from(modulus[first].leading_zeros()).ok()?;
    Some(bytes * 8 - unused)
}

/// The value of a DER element with this tag at the start of `input`, and what follows it.
fn der_value(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    if found != tag {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        let length = bytes
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        (length, rest)
    };
    rest.split_at_checked(length)
}
