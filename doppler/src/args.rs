//! The command line of `loggregator doppler`: flags in front of the environment.

use std::collections::BTreeMap;

use loggregator_service::config::{Env, Errors, Layered};

use crate::Config;

/// The command line of `loggregator doppler`. Every flag stands for a variable and wins over it; both go
/// through the same parser.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DopplerArgs {
    /// Address of the gRPC port.
    #[arg(
        long,
        value_name = "ADDR",
        help = "Address of the gRPC port for emitters and readers [env: DOPPLER_GRPC_ADDR] [default: [::]:8082]"
    )]
    pub grpc_addr: Option<String>,
    /// PEM bundle of the authorities that sign all components' certificates [env: ROUTER_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<String>,
    /// PEM certificate of this doppler, named `doppler` [env: ROUTER_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<String>,
    /// PEM key of the certificate [env: ROUTER_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<String>,
    /// TLS 1.2 suites to allow, comma-separated [env: ROUTER_CIPHER_SUITES] [default: all the platform uses]
    #[arg(long, value_name = "SUITES")]
    pub cipher_suites: Option<String>,
    /// Memory for envelopes that readers have not read yet [env: DOPPLER_LOG_BYTES] [default: 256MiB]
    #[arg(long, value_name = "BYTES")]
    pub log_bytes: Option<String>,
    /// How long a subscription with a shard id may be away and go on where it stopped
    /// [env: DOPPLER_RESUME_GRACE] [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub resume_grace: Option<String>,
    /// Bytes joined into one message to a reader [env: DOPPLER_SEND_BUDGET] [default: 128KiB]
    #[arg(long, value_name = "BYTES")]
    pub send_budget: Option<String>,
    /// Envelopes that may wait for one reader of single sources or metrics
    /// [env: DOPPLER_MAX_QUEUED] [default: 262144]
    #[arg(long, value_name = "N")]
    pub max_queued: Option<String>,
    /// Wake readers of single sources or metrics at most this often under load
    /// [env: DOPPLER_LINGER] [default: 3ms]
    #[arg(long, value_name = "DURATION")]
    pub linger: Option<String>,
    /// Subscriptions held at once [env: DOPPLER_MAX_SUBSCRIPTIONS] [default: 100000]
    #[arg(long, value_name = "N")]
    pub max_subscriptions: Option<String>,
    /// Connections held at once [env: DOPPLER_MAX_CONNECTIONS] [default: 20000]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<String>,
    /// Largest message accepted from an emitter [env: DOPPLER_MAX_MESSAGE_BYTES] [default: 10MiB]
    #[arg(long, value_name = "BYTES")]
    pub max_message_bytes: Option<String>,
    /// Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger [env: DOPPLER_ADMIN_ADDR]
    /// [default: none]
    #[arg(long, value_name = "ADDR")]
    pub admin_addr: Option<String>,
    /// The local agent, for this doppler's own metrics [env: AGENT_GRPC_ADDRESS] [default: its own log]
    #[arg(long, value_name = "HOST:PORT")]
    pub agent_addr: Option<String>,
    /// Milliseconds between this doppler's own metrics, 0 for never
    /// [env: ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS] [default: 5000]
    #[arg(long, value_name = "MS")]
    pub metric_interval: Option<String>,
    /// Source id of this doppler's own metrics [env: ROUTER_METRIC_SOURCE_ID] [default: doppler]
    #[arg(long, value_name = "ID")]
    pub metric_source_id: Option<String>,
    /// How long a stop may take [env: DOPPLER_DRAIN_TIMEOUT] [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
    /// Worker threads [env: DOPPLER_WORKERS] [default: one per processor]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
}

impl DopplerArgs {
    /// The configuration of these flags over the variables of `env`.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first of it.
    pub fn config(self, env: impl Env) -> Result<Config, Errors> {
        Config::from_env(&Layered {
            over: self.variables(),
            under: env,
        })
    }

    /// The flags that were given, under the names of their variables.
    fn variables(self) -> BTreeMap<String, String> {
        // A given address has its port; ROUTER_PORT must not replace it.
        let port = self
            .grpc_addr
            .as_ref()
            .and_then(|addr| addr.rsplit_once(':'))
            .map(|(_, port)| port.to_owned());
        [
            ("DOPPLER_GRPC_ADDR", self.grpc_addr),
            ("ROUTER_PORT", port),
            ("ROUTER_CA_FILE", self.ca_file),
            ("ROUTER_CERT_FILE", self.cert_file),
            ("ROUTER_KEY_FILE", self.key_file),
            ("ROUTER_CIPHER_SUITES", self.cipher_suites),
            ("DOPPLER_LOG_BYTES", self.log_bytes),
            ("DOPPLER_RESUME_GRACE", self.resume_grace),
            ("DOPPLER_SEND_BUDGET", self.send_budget),
            ("DOPPLER_MAX_QUEUED", self.max_queued),
            ("DOPPLER_LINGER", self.linger),
            ("DOPPLER_MAX_SUBSCRIPTIONS", self.max_subscriptions),
            ("DOPPLER_MAX_CONNECTIONS", self.max_connections),
            ("DOPPLER_MAX_MESSAGE_BYTES", self.max_message_bytes),
            ("DOPPLER_ADMIN_ADDR", self.admin_addr),
            ("AGENT_GRPC_ADDRESS", self.agent_addr),
            (
                "ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS",
                self.metric_interval,
            ),
            ("ROUTER_METRIC_SOURCE_ID", self.metric_source_id),
            ("DOPPLER_DRAIN_TIMEOUT", self.drain_timeout),
            ("DOPPLER_WORKERS", self.workers),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::SETTINGS;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: DopplerArgs,
    }

    const FILES: [(&str, &str); 3] = [
        ("ROUTER_CA_FILE", "ca.pem"),
        ("ROUTER_CERT_FILE", "cert.pem"),
        ("ROUTER_KEY_FILE", "key.pem"),
    ];

    #[test]
    fn a_flag_wins_over_its_variable_and_an_address_brings_its_port() {
        let program = Program::try_parse_from([
            "doppler",
            "--grpc-addr",
            "127.0.0.1:9",
            "--log-bytes",
            "48MiB",
        ])
        .unwrap();
        let env: BTreeMap<&str, &str> = FILES
            .into_iter()
            .chain([
                ("ROUTER_PORT", "8082"),
                ("DOPPLER_LOG_BYTES", "64MiB"),
                ("DOPPLER_RESUME_GRACE", "5s"),
            ])
            .collect();
        let config = program.args.config(env).unwrap();
        assert_eq!(config.grpc_addr, "127.0.0.1:9".parse().unwrap());
        assert_eq!(
            (config.log_bytes, config.resume_grace),
            (48 << 20, Duration::from_secs(5))
        );
    }

    #[test]
    fn every_flag_names_its_variable_and_default_as_the_table_has_them() {
        use clap::CommandFactory;
        for argument in Program::command()
            .get_arguments()
            .filter(|a| a.get_id() != "help")
        {
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let setting = SETTINGS
                .iter()
                .find(|setting| help.contains(&format!("[env: {}]", setting.name)))
                .unwrap_or_else(|| panic!("--{} names no variable: {help}", argument.get_id()));
            if let Some(default) = setting.default {
                assert!(
                    help.contains(&format!("[default: {default}]")),
                    "--{}: {help}",
                    argument.get_id()
                );
            }
        }
    }
}
