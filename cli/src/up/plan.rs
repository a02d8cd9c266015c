//! Everything decided before anything is started: addresses, files, settings of each component.
//!
//! Ports are chosen first, so that every component can be told the addresses of the others.

use super::ports::{Choice, Transport, choose};
use super::{Token, UpArgs};
use crate::state::Pki;
use anyhow::{Context as _, Result};
use loggregator_net::TlsFiles;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Where it is.
    pub path: PathBuf,
    /// The source id of its lines.
    pub source_id: String,
}

/// `FILE` or `FILE=SOURCE_ID`; a file whose very name has an equals sign is taken by its name.
pub fn parse_follow(text: &str) -> Result<Follow, String> {
    let split = text
        .rsplit_once('=')
        .filter(|(path, id)| !path.is_empty() && !id.is_empty() && !Path::new(text).exists());
    let (path, given) = split.map_or((text, None), |(path, id)| (path, Some(id)));
    let path = std::path::absolute(path).map_err(|error| format!("`{path}`: {error}"))?;
    let source_id = match given {
        Some(id) => id.to_owned(),
        None => path
            .file_name()
            .ok_or(format!("`{text}` names no file"))?
            .to_string_lossy()
            .into_owned(),
    };
    Ok(Follow { path, source_id })
}

/// `NAME=VALUE`.
pub fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a tag has the form NAME=VALUE".to_owned()),
    }
}

/// What is about to be started.
pub struct Plan {
    pub pki: Pki,
    pub token_file: PathBuf,
    pub grants_file: PathBuf,
    pub agent_grpc: Choice,
    pub agent_udp: Choice,
    pub syslog_tcp: Option<Choice>,
    pub syslog_udp: Option<Choice>,
    pub agent_admin: Choice,
    /// gRPC and admin of each.
    pub dopplers: Vec<(Choice, Choice)>,
    pub web: Choice,
    pub web_admin: Choice,
    pub rlp: Choice,
    pub rlp_admin: Choice,
    pub gateway: Choice,
    pub gateway_admin: Choice,
    /// The page that Prometheus scrapes.
    pub prometheus: Option<Choice>,
    pub log_bytes: u64,
    pub resume_grace: Duration,
    pub drain_timeout: Duration,
    pub tags: BTreeMap<String, String>,
    pub follow: Vec<Follow>,
    pub stdin: Option<String>,
}

impl Plan {
    /// Chooses.
    ///
    /// # Errors
    /// When the system has no ports left.
    pub fn make(args: &UpArgs, pki: &Pki, token: &Token) -> Result<Self> {
        let mut taken = Vec::new();
        let mut port = |transport, usual| distinct(transport, usual, &mut taken);
        let syslog = !args.no_syslog;
        Ok(Self {
            agent_grpc: port(Transport::Tcp, 3458)?,
            agent_udp: port(Transport::Udp, 3457)?,
            syslog_tcp: syslog.then(|| port(Transport::Tcp, 1514)).transpose()?,
            syslog_udp: syslog.then(|| port(Transport::Udp, 1514)).transpose()?,
            web: port(Transport::Tcp, 8081)?,
            dopplers: (0..args.dopplers)
                .map(|index| {
                    let (grpc, admin) = if index == 0 {
                        (8082, 14825)
                    } else {
                        (8082 + index, 14830 + index)
                    };
                    Ok((port(Transport::Tcp, grpc)?, port(Transport::Tcp, admin)?))
                })
                .collect::<Result<_>>()?,
            agent_admin: port(Transport::Tcp, 14824)?,
            web_admin: port(Transport::Tcp, 14826)?,
            gateway: port(Transport::Tcp, 8088)?,
            // Behind the dopplers, which have 8082 and on.
            rlp: port(Transport::Tcp, 8082 + args.dopplers)?,
            rlp_admin: port(Transport::Tcp, 14827)?,
            gateway_admin: port(Transport::Tcp, 14828)?,
            prometheus: (!args.no_prometheus)
                .then(|| port(Transport::Tcp, 9186))
                .transpose()?,
            pki: pki.clone(),
            token_file: token.file.clone(),
            grants_file: token.grants.clone(),
            log_bytes: args.log_bytes,
            resume_grace: args.resume_grace,
            drain_timeout: args.drain_timeout,
            tags: args.tag.iter().cloned().collect(),
            follow: args.follow.clone(),
            stdin: args.stdin.clone(),
        })
    }

    /// The files of one of the identities.
    pub fn tls(&self, identity: &crate::state::Identity) -> TlsFiles {
        TlsFiles {
            ca: self.pki.ca.clone(),
            cert: identity.cert.clone(),
            key: identity.key.clone(),
        }
    }

    /// Where the dopplers will be.
    pub fn doppler_addrs(&self) -> Vec<String> {
        self.dopplers
            .iter()
            .map(|(grpc, _)| grpc.addr.to_string())
            .collect()
    }

    /// Every port that people know and that is another one this time.
    pub fn moved(&self) -> Vec<(String, Choice)> {
        let mut all = vec![
            ("agent".to_owned(), self.agent_grpc),
            ("dropsonde".to_owned(), self.agent_udp),
            ("traffic controller".to_owned(), self.web),
            ("reverse log proxy".to_owned(), self.rlp),
            ("its gateway".to_owned(), self.gateway),
        ];
        all.extend(
            self.syslog_tcp
                .map(|choice| ("syslog TCP".to_owned(), choice)),
        );
        all.extend(
            self.syslog_udp
                .map(|choice| ("syslog UDP".to_owned(), choice)),
        );
        all.extend(
            self.prometheus
                .map(|choice| ("prometheus".to_owned(), choice)),
        );
        all.extend(
            self.dopplers
                .iter()
                .map(|(grpc, _)| ("doppler".to_owned(), *grpc)),
        );
        all.retain(|(_, choice)| choice.instead_of.is_some());
        all
    }
}

/// A port that none of the earlier choices is.
fn distinct(
    transport: Transport,
    usual: u16,
    taken: &mut Vec<(Transport, SocketAddr)>,
) -> Result<Choice> {
    const TRIES: usize = 16;
    for _ in 0..TRIES {
        let choice =
            choose(transport, usual).context("the system has no free port on 127.0.0.1")?;
        if !taken.contains(&(transport, choice.addr)) {
            taken.push((transport, choice.addr));
            return Ok(choice);
        }
    }
    anyhow::bail!("the system has no free port on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_file_has_its_name_or_the_given_one() {
        let at = |text: &str| parse_follow(text).map(|follow| (follow.path, follow.source_id));
        assert_eq!(
            at("/var/log/dpkg.log"),
            Ok(("/var/log/dpkg.log".into(), "dpkg.log".to_owned()))
        );
        assert_eq!(
            at("/var/log/dpkg.log=apt"),
            Ok(("/var/log/dpkg.log".into(), "apt".to_owned()))
        );
        assert!(at("/").is_err());
        let temp = tempfile::tempdir().unwrap();
        let odd = temp.path().join("a=b");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(
            at(odd.to_str().unwrap()),
            Ok((odd.clone(), "a=b".to_owned()))
        );
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut taken = Vec::new();
        let ports: std::collections::BTreeSet<_> = (0..50)
            .map(|_| distinct(Transport::Tcp, 0, &mut taken).unwrap().addr.port())
            .collect();
        assert_eq!(ports.len(), 50);
    }
}
