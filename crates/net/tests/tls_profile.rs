//! Which peers and which files are accepted, and what the others are told.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::*;
use loggregator_net::{
    ClientTls, HandshakeError, Profile, ServerTls, TlsError, TlsFiles, tls_accept, tls_connect,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A client that rustls makes, with what is given.
fn client(
    identity: Option<&TlsFiles>,
    ca: &std::path::Path,
    version: &'static SupportedProtocolVersion,
    suites: &[rustls::SupportedCipherSuite],
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: suites.to_vec(),
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(files) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&files.cert).unwrap()],
                PrivateKeyDer::from_pem_file(&files.key).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// One handshake of this client with a server of ours: what the server and what the client says.
async fn meet(config: Arc<ClientConfig>) -> (Result<(), HandshakeError>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let name = "doppler".try_into().unwrap();
        let connection =
            rustls::ClientConnection::new(config, name).map_err(|error| error.to_string())?;
        let tcp = std::net::TcpStream::connect(addr).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        stream.write_all(b"x").map_err(|error| error.to_string())?;
        stream.flush().map_err(|error| error.to_string())?;
        stream
            .read_exact(&mut [0])
            .map_err(|error| error.to_string())
    });
    let (tcp, _) = listener.accept().await.unwrap();
    let outcome = match tls_accept(tcp, &server_tls(), TIMEOUT).await {
        Ok(mut stream) => {
            stream.read_u8().await.unwrap();
            stream.write_all(b"y").await.unwrap();
            stream.shutdown().await.unwrap();
            Ok(())
        }
        Err(error) => Err(error),
    };
    (outcome, soon(peer).await.unwrap())
}

use aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::version::{TLS12, TLS13};

#[tokio::test]
async fn versions_and_suites_of_the_profile_are_accepted_and_no_others() {
    let (id, ca) = (&*METRON, PKI.ca());
    let ecdsa = PKI.issue(
        "ecdsa-client",
        Leaf {
            ecdsa: true,
            ..Leaf::default()
        },
    );
    for (identity, version, suite, accepted) in [
        (id, &TLS13, TLS13_AES_128_GCM_SHA256, true),
        (id, &TLS13, TLS13_CHACHA20_POLY1305_SHA256, true),
        (id, &TLS12, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true),
        (id, &TLS12, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true),
        (&ecdsa, &TLS13, TLS13_AES_128_GCM_SHA256, true),
        (&ecdsa, &TLS12, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true),
        (
            id,
            &TLS12,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            false,
        ),
        (id, &TLS12, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, false),
    ] {
        let (server, client) = meet(client(Some(identity), &ca, version, &[suite], &["h2"])).await;
        assert_eq!(server.is_ok(), accepted, "{suite:?}: {server:?}");
        match server {
            Ok(()) => client.unwrap(),
            Err(error) => {
                assert_eq!(error.kind(), "incompatible");
                assert!(client.unwrap_err().contains("HandshakeFailure"));
            }
        }
    }
}

#[tokio::test]
async fn clients_are_verified_by_the_ca_alone() {
    let foreign = Pki::new();
    let now = SystemTime::now();
    let expired = Leaf {
        not_before: Some(now - days(20)),
        not_after: Some(now - days(10)),
        ..Leaf::default()
    };
    let server_only = Leaf {
        usage: vec![ExtendedKeyUsagePurpose::ServerAuth],
        ..Leaf::default()
    };
    for (identity, alert) in [
        (None, "CertificateRequired"),
        (Some(foreign.issue("metron", Leaf::default())), "UnknownCA"),
        (
            Some(PKI.issue("expired-client", expired)),
            "CertificateExpired",
        ),
        (
            Some(PKI.issue("wrong-usage", server_only)),
            "UnsupportedCertificate",
        ),
    ] {
        let suites = [TLS13_AES_128_GCM_SHA256];
        let config = client(identity.as_ref(), &PKI.ca(), &TLS13, &suites, &["h2"]);
        let (server, client) = meet(config).await;
        let error = server.unwrap_err();
        assert_eq!(error.kind(), "certificate", "{error}");
        let told = client.unwrap_err();
        assert!(told.contains(alert), "{alert}: told {told}");
    }
    let anybody = PKI.issue("any.body.example", Leaf::default());
    let suites = [TLS13_AES_128_GCM_SHA256];
    let (server, client) = meet(client(Some(&anybody), &PKI.ca(), &TLS13, &suites, &["h2"])).await;
    server.unwrap();
    client.unwrap();
}

#[tokio::test]
async fn the_application_protocol_must_be_agreed_upon() {
    let suites = [TLS13_AES_128_GCM_SHA256];
    for (alpn, kind) in [(&[][..], "no_alpn"), (&["http/1.1"][..], "no_alpn")] {
        let (server, client) = meet(client(Some(&METRON), &PKI.ca(), &TLS13, &suites, alpn)).await;
        assert_eq!(server.unwrap_err().kind(), kind);
        client.unwrap_err();
    }
    let both = ["http/1.1", "h2"];
    let (server, _) = meet(client(Some(&METRON), &PKI.ca(), &TLS13, &suites, &both)).await;
    server.unwrap();
}

#[tokio::test]
async fn servers_are_verified_by_name() {
    for (name, error) in [
        ("doppler", None),
        ("127.0.0.1", None),
        ("metron", Some("certificate not valid for name \"metron\"")),
        ("not a name", Some("invalid server name \"not a name\"")),
    ] {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (server, client) = (server_tls(), client_tls());
        let accept = tls_accept(far, &server, TIMEOUT);
        let connect = tls_connect(near, &client, name, TIMEOUT);
        let (_, outcome) = soon(async { tokio::join!(accept, connect) }).await;
        match error {
            None => drop(outcome.unwrap()),
            Some(expected) => {
                let error = outcome.unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
    }
}

fn refused(files: &TlsFiles) -> TlsError {
    let server = ServerTls::mutual(files, Profile::Grpc).unwrap_err();
    let client = ClientTls::mutual(files).unwrap_err();
    assert_eq!(server.to_string(), client.to_string());
    server
}

#[test]
fn own_certificates_must_be_valid_now() {
    let now = SystemTime::now();
    let expired = PKI.issue(
        "expired",
        Leaf {
            not_before: Some(now - days(20)),
            not_after: Some(now - days(10)),
            ..Leaf::default()
        },
    );
    let text = refused(&expired).to_string();
    assert!(
        text.starts_with("failed to load keypair: certificate has expired: validity ended at "),
        "{text}"
    );
    let early = PKI.issue(
        "early",
        Leaf {
            not_before: Some(now + days(10)),
            not_after: Some(now + days(20)),
            ..Leaf::default()
        },
    );
    assert!(matches!(refused(&early), TlsError::NotYetValid { .. }));
}

#[test]
fn own_files_that_do_not_fit_are_named() {
    let other = PKI.issue("other", Leaf::default());
    let mut files = DOPPLER.clone();
    files.key = other.key.clone();
    assert!(matches!(refused(&files), TlsError::Mismatch { .. }));
    files.key = PathBuf::from("/nowhere/key");
    let text = refused(&files).to_string();
    assert!(
        text.starts_with("failed to load keypair: open /nowhere/key: "),
        "{text}"
    );
    files.key = files.cert.clone();
    assert!(matches!(refused(&files), TlsError::BadKeypair { .. }));
    let mut files = DOPPLER.clone();
    files.cert = files.key.clone();
    let text = refused(&files).to_string();
    assert!(text.ends_with("no CERTIFICATE block"), "{text}");
}

#[test]
fn a_ca_file_is_certificates_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca");
    let good = fs::read_to_string(PKI.ca()).unwrap();
    let key = fs::read_to_string(&DOPPLER.key).unwrap();
    let with = |text: &str| {
        write(&path, text);
        ClientTls::ca_only(&path).map(drop)
    };
    with(&good).unwrap();
    with(&format!("a comment\n{good}\n{good}")).unwrap();
    let error = |text: &str| with(text).unwrap_err().to_string();
    assert_eq!(
        error(""),
        format!("no valid certificates read from file {path:?}")
    );
    assert_eq!(
        error(&format!("{good}{key}")),
        format!("unexpected PEM block type \"PRIVATE KEY\" in file {path:?}")
    );
    let headers = good.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1);
    assert!(matches!(with(&headers), Err(TlsError::PemHeaders { .. })));
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(error(damaged).starts_with("no valid certificates read from file"));
    fs::remove_file(&path).unwrap();
    let text = ClientTls::ca_only(&path).unwrap_err().to_string();
    assert!(
        text.starts_with("failed to read certificate(s) at path "),
        "{text}"
    );
}

#[test]
fn short_rsa_keys_are_refused_with_their_length() {
    let weak = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/rsa1024.pem"
    ));
    let expected =
        format!("RSA key of 1024 bits in {weak:?} refused: at least 2048 bits are required");
    let mut files = DOPPLER.clone();
    files.cert = weak.clone();
    files.key = weak.clone();
    assert_eq!(refused(&files).to_string(), expected);
    let mut files = DOPPLER.clone();
    files.key = weak.clone();
    assert_eq!(refused(&files).to_string(), expected);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let text = fs::read_to_string(&weak).unwrap();
    let end = text.find("-----BEGIN PRIVATE").unwrap();
    write(&ca, &text[..end]);
    let mut files = DOPPLER.clone();
    files.ca = ca.clone();
    assert!(matches!(
        refused(&files),
        TlsError::WeakRsa { bits: 1024, .. }
    ));
}

#[tokio::test]
async fn keys_load_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let rsa = PrivateKeyDer::from_pem_file(&DOPPLER.key).unwrap();
    let ec = PKI.issue(
        "ec",
        Leaf {
            ecdsa: true,
            ..Leaf::default()
        },
    );
    let ec_key = PrivateKeyDer::from_pem_file(&ec.key).unwrap();
    assert!(matches!(rsa, PrivateKeyDer::Pkcs8(_)) && matches!(ec_key, PrivateKeyDer::Pkcs8(_)));
    // PKCS#8 wraps the older forms in its last element.
    let inner = |der: &[u8], tag: &[u8]| {
        let start = der
            .windows(tag.len())
            .position(|window| window == tag)
            .unwrap();
        der[start..].to_vec()
    };
    let pkcs8 = rsa.secret_der();
    let pkcs1 = inner(&pkcs8[4..], &[0x30, 0x82]);
    let sec1 = inner(&ec_key.secret_der()[2..], &[0x30, 0x6b]);
    let sec1 = if sec1.is_empty() { Vec::new() } else { sec1 };
    for (label, der, files) in [
        ("RSA PRIVATE KEY", pkcs1, &*DOPPLER),
        ("EC PRIVATE KEY", sec1, &ec),
    ] {
        let path = dir.path().join(label);
        let mut text = format!("-----BEGIN {label}-----\n");
        for line in base64(&der).as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap());
            text.push('\n');
        }
        text.push_str(&format!("-----END {label}-----\n"));
        write(&path, &text);
        let mut files = files.clone();
        files.key = path;
        ServerTls::mutual(&files, Profile::Grpc).unwrap_or_else(|error| panic!("{label}: {error}"));
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

/// New files are taken over while the process runs; bad ones are not, and are counted.
#[tokio::test]
async fn files_reload_and_bad_ones_change_nothing() {
    let pki = Pki::new();
    let files = pki.issue("doppler", Leaf::default());
    let tls = ServerTls::mutual(&files, Profile::Grpc).unwrap();
    let first = tls.current();
    let stop = CancellationToken::new();
    let watch = tokio::spawn(Arc::clone(&tls).watch(Duration::from_millis(10), stop.clone()));

    let good = fs::read_to_string(&files.cert).unwrap();
    write(&files.cert, "not a certificate");
    until("the bad file is counted", || tls.reload_failures() == 1).await;
    assert!(Arc::ptr_eq(&first, &tls.current()));
    assert_eq!(tls.reloads(), 0);

    write(&files.cert, &good);
    until("the good file is back", || tls.reloads() == 1).await;
    assert!(!Arc::ptr_eq(&first, &tls.current()));

    // The key comes after the certificate: for a moment they do not fit.
    let renewed = pki.issue("renewed", Leaf::default());
    fs::rename(&renewed.cert, &files.cert).unwrap();
    until("the mismatch is counted", || tls.reload_failures() == 2).await;
    fs::rename(&renewed.key, &files.key).unwrap();
    until("the new pair is loaded", || tls.reloads() == 2).await;
    stop.cancel();
    soon(watch).await.unwrap();
}
