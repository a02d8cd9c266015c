//! `endpoints.json`: every address and file of a running pipeline, for scripts and for our own commands.

use super::{StateError, write_private};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of the file's layout; raised when a member changes its meaning or goes.
const VERSION: u32 = 1;

/// Everything a client needs to reach a running pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Layout of this file, 1 now. New members may appear without a new version.
    pub version: u32,
    /// The process that serves all of it.
    pub pid: u32,
    /// The agent's addresses.
    pub agent: AgentEndpoints,
    /// The dopplers', one entry each.
    pub doppler: Vec<DopplerEndpoints>,
    /// The traffic controller's.
    pub traffic_controller: TrafficControllerEndpoints,
    /// The reverse log proxy's; absent in files of earlier programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rlp: Option<RlpEndpoints>,
    /// Its gateway's; absent in files of earlier programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rlp_gateway: Option<RlpGatewayEndpoints>,
    /// Where Prometheus scrapes the apps' metrics; absent where it cannot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prometheus: Option<PrometheusEndpoints>,
    /// The nozzles'; absent where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nozzles: Vec<NozzleEndpoints>,
    /// The CA that signed every certificate below.
    pub ca_file: PathBuf,
    /// A client certificate that agent and dopplers accept.
    pub client_cert_file: PathBuf,
    /// Its key.
    pub client_key_file: PathBuf,
    /// The bearer token for the traffic controller, and nothing else in the file.
    pub token_file: PathBuf,
}

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEndpoints {
    /// gRPC with mutual TLS, server name `metron`.
    pub grpc: String,
    /// Dropsonde over UDP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub udp: Option<String>,
    /// Syslog over UDP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub syslog_udp: Option<String>,
    /// Syslog over TCP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub syslog_tcp: Option<String>,
    /// Metrics, health and ledger over plain HTTP.
    pub admin: String,
}

/// Where a doppler listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DopplerEndpoints {
    /// gRPC with mutual TLS, server name `doppler`.
    pub grpc: String,
    /// Metrics, health and ledger over plain HTTP.
    pub admin: String,
}

/// Where the traffic controller listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficControllerEndpoints {
    /// The base of the WebSocket addresses, without a trailing slash.
    pub url: String,
    /// Metrics, health and ledger over plain HTTP.
    pub admin: String,
}

/// Where the reverse log proxy listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlpEndpoints {
    /// gRPC with mutual TLS, server name `reverselogproxy`.
    pub grpc: String,
    /// Metrics, health and ledger over plain HTTP.
    pub admin: String,
}

/// Where the reverse log proxy's gateway listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlpGatewayEndpoints {
    /// The base of its addresses, without a trailing slash.
    pub url: String,
    /// Metrics, health and ledger over plain HTTP.
    pub admin: String,
}

/// Where Prometheus scrapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrometheusEndpoints {
    /// The page, plain HTTP.
    pub url: String,
}

/// Where a nozzle tells how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NozzleEndpoints {
    /// Its name.
    pub name: String,
    /// Metrics, health and ledger over plain HTTP.
    pub admin: String,
    /// Its destinations, each with its kind: `siem (syslog)`.
    #[serde(default)]
    pub destinations: Vec<String>,
}

impl Endpoints {
    /// The layout version that [`Endpoints::write`] writes.
    pub const VERSION: u32 = VERSION;

    pub(super) fn write(&self, path: &Path) -> Result<(), StateError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| StateError::Malformed {
            file: path.to_owned(),
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        write_private(path, &text)
    }

    /// `None` when there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, StateError> {
        let malformed = |reason: String| StateError::Malformed {
            file: path.to_owned(),
            reason,
        };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::io("cannot read", path)(error)),
        };
        #[derive(Deserialize)]
        struct Layout {
            version: u32,
        }
        let layout: Layout =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if layout.version != VERSION {
            return Err(malformed(format!(
                "its layout is version {}, this program knows {VERSION}",
                layout.version
            )));
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| malformed(error.to_string()))
    }

    /// One with every member set.
    #[cfg(test)]
    pub fn example() -> Self {
        Self {
            version: VERSION,
            pid: 7,
            agent: AgentEndpoints {
                grpc: "127.0.0.1:3458".to_owned(),
                udp: Some("127.0.0.1:3457".to_owned()),
                syslog_udp: Some("127.0.0.1:1514".to_owned()),
                syslog_tcp: Some("127.0.0.1:1514".to_owned()),
                admin: "http://127.0.0.1:14824".to_owned(),
            },
            doppler: vec![DopplerEndpoints {
                grpc: "127.0.0.1:8082".to_owned(),
                admin: "http://127.0.0.1:14825".to_owned(),
            }],
            traffic_controller: TrafficControllerEndpoints {
                url: "wss://127.0.0.1:8081".to_owned(),
                admin: "http://127.0.0.1:14826".to_owned(),
            },
            rlp: Some(RlpEndpoints {
                grpc: "127.0.0.1:8083".to_owned(),
                admin: "http://127.0.0.1:14827".to_owned(),
            }),
            rlp_gateway: Some(RlpGatewayEndpoints {
                url: "https://127.0.0.1:8088".to_owned(),
                admin: "http://127.0.0.1:14828".to_owned(),
            }),
            prometheus: Some(PrometheusEndpoints {
                url: "http://127.0.0.1:9186/metrics".to_owned(),
            }),
            nozzles: vec![NozzleEndpoints {
                name: "audit".to_owned(),
                admin: "http://127.0.0.1:14840".to_owned(),
                destinations: vec!["siem (syslog)".to_owned()],
            }],
            ca_file: "/s/ca.crt".into(),
            client_cert_file: "/s/client.crt".into(),
            client_key_file: "/s/client.key".into(),
            token_file: "/s/token".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_members_that_scripts_read() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoints.json");
        Endpoints::example().write(&path).unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["pid"], 7);
        assert_eq!(json["agent"]["grpc"], "127.0.0.1:3458");
        assert_eq!(json["agent"]["syslog_tcp"], "127.0.0.1:1514");
        assert_eq!(json["doppler"][0]["grpc"], "127.0.0.1:8082");
        assert_eq!(json["doppler"][0]["admin"], "http://127.0.0.1:14825");
        assert_eq!(json["traffic_controller"]["url"], "wss://127.0.0.1:8081");
        assert_eq!(json["rlp"]["grpc"], "127.0.0.1:8083");
        assert_eq!(json["rlp_gateway"]["url"], "https://127.0.0.1:8088");
        assert_eq!(json["prometheus"]["url"], "http://127.0.0.1:9186/metrics");
        assert_eq!(json["nozzles"][0]["name"], "audit");
        assert_eq!(json["nozzles"][0]["admin"], "http://127.0.0.1:14840");
        assert_eq!(json["ca_file"], "/s/ca.crt");
        assert_eq!(json["client_cert_file"], "/s/client.crt");
        assert_eq!(json["client_key_file"], "/s/client.key");
        assert_eq!(json["token_file"], "/s/token");
        assert_eq!(Endpoints::read(&path).unwrap(), Some(Endpoints::example()));
    }

    #[test]
    fn a_file_of_an_earlier_program_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoints.json");
        let earlier = Endpoints {
            rlp: None,
            rlp_gateway: None,
            prometheus: None,
            nozzles: Vec::new(),
            ..Endpoints::example()
        };
        earlier.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("rlp") && !text.contains("prometheus") && !text.contains("nozzles"));
        assert_eq!(Endpoints::read(&path).unwrap(), Some(earlier));
    }

    #[test]
    fn another_layout_is_refused_by_its_number() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoints.json");
        std::fs::write(&path, r#"{"version":2,"later":true}"#).unwrap();
        let message = Endpoints::read(&path).unwrap_err().to_string();
        assert!(message.contains("version 2"), "{message}");
    }
}
