//! Which deployment a command talks to: a running `up` by its state folder, or any other by its address.

use crate::exit::{Coded, Exit};
use crate::state::{Endpoints, StateDir};
use anyhow::{Context as _, Result};
use clap::Args;
use loggregator_net::TlsFiles;
use std::path::{Path, PathBuf};

/// Where the running pipeline's state folder is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where")]
pub struct StateArgs {
    /// State folder of the running `up` [default: $XDG_STATE_HOME/loggregator or ~/.local/state/loggregator]
    #[arg(
        long,
        value_name = "DIR",
        env = "LOGGREGATOR_STATE_DIR",
        hide_env_values = true
    )]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The folder.
    pub fn dir(&self) -> StateDir {
        StateDir::new(self.state_dir.clone())
    }
}

/// Where to read from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where")]
pub struct TargetArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Another deployment: `wss://HOST:PORT` of a traffic controller, or `grpcs://HOST:PORT` of a doppler
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    url: Option<Url>,
    /// File with the token that the traffic controller of `--url` asks for
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// CA certificate to trust with `--url`
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
    /// Client certificate for `grpcs://`
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

/// An address with its protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `wss`, `ws` or `grpcs`.
    pub scheme: Scheme,
    /// `host:port`.
    pub authority: String,
    /// The whole, without a trailing slash.
    pub text: String,
}

/// The protocols that commands speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// WebSocket over TLS, to a traffic controller.
    Wss,
    /// WebSocket in the clear.
    Ws,
    /// gRPC with mutual TLS, to a doppler.
    Grpcs,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let form = "an address has the form wss://HOST:PORT (traffic controller) or grpcs://HOST:PORT (doppler)";
    let (scheme, rest) = text.split_once("://").ok_or(form)?;
    let (scheme, port) = match scheme {
        "wss" | "https" => (Scheme::Wss, 443),
        "ws" | "http" => (Scheme::Ws, 80),
        "grpcs" => (Scheme::Grpcs, 8082),
        other => {
            return Err(format!(
                "`{other}` is not a protocol that is spoken here; {form}"
            ));
        }
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return Err(form.to_owned());
    }
    let with_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let authority = if with_port {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let name = match scheme {
        Scheme::Wss => "wss",
        Scheme::Ws => "ws",
        Scheme::Grpcs => "grpcs",
    };
    Ok(Url {
        scheme,
        text: format!("{name}://{authority}"),
        authority,
    })
}

/// Where envelopes are read, and with what credentials. Files are read when connecting, since both a restarted `up`
/// and a rotated certificate change them.
#[derive(Debug, Clone)]
pub enum Reach {
    /// v2 gRPC to each of these dopplers.
    Dopplers {
        /// `host:port` of each.
        addrs: Vec<String>,
        /// What to show and to trust.
        tls: TlsFiles,
    },
    /// v1 over WebSocket from a traffic controller.
    Web {
        /// The base address.
        url: Url,
        /// The token, for the `Authorization` header.
        token: Option<String>,
        /// The CA to trust.
        ca: Option<PathBuf>,
    },
}

impl TargetArgs {
    /// Finds the deployment as it is now; asked again before each reconnect.
    ///
    /// # Errors
    /// When no pipeline runs there, or a file cannot be read.
    pub fn reach(&self) -> Result<Reach> {
        let Some(url) = &self.url else {
            return Ok(of_state(&self.state.dir().endpoints()?));
        };
        if url.scheme != Scheme::Grpcs {
            let token = self.token_file.as_deref().map(read_token).transpose()?;
            if url.scheme == Scheme::Wss && self.ca_file.is_none() {
                return Err(Coded::error(
                    Exit::Usage,
                    "`wss://` needs `--ca-file FILE`: the CA that signed the server's certificate",
                ));
            }
            return Ok(Reach::Web {
                url: url.clone(),
                token,
                ca: self.ca_file.clone(),
            });
        }
        match (&self.ca_file, &self.cert_file, &self.key_file) {
            (Some(ca), Some(cert), Some(key)) => Ok(Reach::Dopplers {
                addrs: vec![url.authority.clone()],
                tls: TlsFiles {
                    ca: ca.clone(),
                    cert: cert.clone(),
                    key: key.clone(),
                },
            }),
            _ => Err(Coded::error(
                Exit::Usage,
                "`grpcs://` needs `--ca-file`, `--cert-file` and `--key-file`: dopplers want a client certificate",
            )),
        }
    }
}

fn of_state(endpoints: &Endpoints) -> Reach {
    Reach::Dopplers {
        addrs: endpoints
            .doppler
            .iter()
            .map(|doppler| doppler.grpc.clone())
            .collect(),
        tls: tls_of(endpoints),
    }
}

/// The client's files of a running `up`.
pub fn tls_of(endpoints: &Endpoints) -> TlsFiles {
    TlsFiles {
        ca: endpoints.ca_file.clone(),
        cert: endpoints.client_cert_file.clone(),
        key: endpoints.client_key_file.clone(),
    }
}

fn read_token(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the token file {}", path.display()))?;
    let token = text.trim();
    // Never in the message: it is a secret.
    anyhow::ensure!(
        !token.is_empty(),
        "the token file {} is empty",
        path.display()
    );
    anyhow::ensure!(
        token.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "the token in {} has characters that a header cannot carry",
        path.display()
    );
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_protocols_port() {
        let at = |text: &str| parse_url(text).map(|url| (url.scheme, url.text));
        assert_eq!(
            at("wss://doppler.example.com"),
            Ok((Scheme::Wss, "wss://doppler.example.com:443".to_owned()))
        );
        assert_eq!(
            at("https://h:8081/"),
            Ok((Scheme::Wss, "wss://h:8081".to_owned()))
        );
        assert_eq!(
            at("grpcs://10.0.0.1"),
            Ok((Scheme::Grpcs, "grpcs://10.0.0.1:8082".to_owned()))
        );
        assert_eq!(
            at("ws://[::1]:80"),
            Ok((Scheme::Ws, "ws://[::1]:80".to_owned()))
        );
    }

    #[test]
    fn what_is_no_address_is_told_what_one_looks_like() {
        for wrong in [
            "doppler:8081",
            "wss://",
            "wss://h/path",
            "wss://user@h",
            "ftp://h",
        ] {
            let message = parse_url(wrong).unwrap_err();
            assert!(message.contains("wss://HOST:PORT"), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_missing_file_is_asked_for_by_its_flag() {
        let args = |url: &str| TargetArgs {
            url: Some(parse_url(url).unwrap()),
            ..TargetArgs::default()
        };
        assert!(
            args("wss://h")
                .reach()
                .unwrap_err()
                .to_string()
                .contains("--ca-file")
        );
        let error = args("grpcs://h").reach().unwrap_err();
        assert!(error.to_string().contains("--cert-file"));
        assert_eq!(crate::exit::of(&error), Exit::Usage);
    }

    #[test]
    fn a_token_is_trimmed_and_never_quoted() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("token");
        std::fs::write(&path, "secret-value\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "secret-value");
        std::fs::write(&path, "secret\u{1}value").unwrap();
        let message = format!("{:#}", read_token(&path).unwrap_err());
        assert!(!message.contains("secret"), "{message}");
    }
}
