//! `rlp-gateway`: the reverse log proxy's gateway for HTTP.

use super::faults::{Fault, Faults, listen_text};
use super::go_env::{Field, Kind, Program, Values};
use super::host::DropIn;
use loggregator_net::{ClientTls, Profile, ServerTls, TlsFiles};
use loggregator_service::Lifecycle;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use traffic_controller::Access;
use traffic_controller::access::{PlatformConfig, Secret, is_base_address};
use traffic_controller::gateway::{self, Logs, MetricsEndpoint};

/// The gateway.
pub struct RlpGateway;

/// Exit code after anything that keeps it from starting.
const EXIT_SETUP: u8 = 1;
/// What a stop may take beyond the time that clients have for what was already received.
const CLOSING: Duration = Duration::from_secs(1);
const FIELDS: &[Field] = &[
    Field::new(
        "LogsProvider.Addr",
        Kind::Text,
        "LOGS_PROVIDER_ADDR",
        "",
        "Reverse log proxy to read from, host:port.",
    )
    .required()
    .shown(),
    Field::new(
        "LogsProvider.CAPath",
        Kind::Text,
        "LOGS_PROVIDER_CA_PATH",
        "",
        "PEM bundle of the authorities of the reverse log proxy.",
    )
    .required()
    .shown(),
    Field::new(
        "LogsProvider.ClientCertPath",
        Kind::Text,
        "LOGS_PROVIDER_CLIENT_CERT_PATH",
        "",
        "PEM client certificate for the reverse log proxy.",
    )
    .required()
    .shown(),
    Field::new(
        "LogsProvider.ClientKeyPath",
        Kind::Text,
        "LOGS_PROVIDER_CLIENT_KEY_PATH",
        "",
        "PEM key of that certificate.",
    )
    .required()
    .shown(),
    Field::new(
        "LogsProvider.CommonName",
        Kind::Text,
        "LOGS_PROVIDER_COMMON_NAME",
        "reverselogproxy",
        "Name that the reverse log proxy's certificate must carry.",
    )
    .shown(),
    Field::new(
        "HTTP.GatewayAddr",
        Kind::Text,
        "GATEWAY_ADDR",
        "127.0.0.1:8088",
        "Address for clients; `:8088` is that port on every interface. Port 0 takes a free one.",
    )
    .shown(),
    Field::new(
        "HTTP.CertPath",
        Kind::Text,
        "HTTP_CERT_PATH",
        "",
        "PEM certificate of that port.",
    )
    .required()
    .shown(),
    Field::new(
        "HTTP.KeyPath",
        Kind::Text,
        "HTTP_KEY_PATH",
        "",
        "PEM key of that certificate (PKCS#1, PKCS#8 or SEC1).",
    )
    .required()
    .shown(),
    Field::new(
        "LogAccessAuthorization.Addr",
        Kind::Text,
        "LOG_ACCESS_ADDR",
        "",
        "Base URL of the Cloud Controller's internal API, which says who may read an application.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAccessAuthorization.ExternalAddr",
        Kind::Text,
        "LOG_ACCESS_ADDR_EXTERNAL",
        "",
        "Base URL of the Cloud Controller's public API, for service instances.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAccessAuthorization.CertPath",
        Kind::Text,
        "LOG_ACCESS_CERT_PATH",
        "",
        "PEM client certificate for the Cloud Controller.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAccessAuthorization.KeyPath",
        Kind::Text,
        "LOG_ACCESS_KEY_PATH",
        "",
        "PEM key of that certificate.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAccessAuthorization.CAPath",
        Kind::Text,
        "LOG_ACCESS_CA_PATH",
        "",
        "PEM bundle of the Cloud Controller's authorities.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAccessAuthorization.CommonName",
        Kind::Text,
        "LOG_ACCESS_COMMON_NAME",
        "",
        "Name that the Cloud Controller's certificate must carry.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAdminAuthorization.Addr",
        Kind::Text,
        "LOG_ADMIN_ADDR",
        "",
        "Base URL of UAA, which says who may read everything.",
    )
    .required()
    .shown(),
    Field::new(
        "LogAdminAuthorization.ClientID",
        Kind::Text,
        "LOG_ADMIN_CLIENT_ID",
        "",
        "UAA client that asks.",
    )
    .required(),
    Field::new(
        "LogAdminAuthorization.ClientSecret",
        Kind::Text,
        "LOG_ADMIN_CLIENT_SECRET",
        "",
        "Its secret.",
    )
    .required()
    .secret(),
    Field::new(
        "LogAdminAuthorization.CAPath",
        Kind::Text,
        "LOG_ADMIN_CA_PATH",
        "",
        "PEM bundle of UAA's authorities.",
    )
    .required()
    .shown(),
    Field::new(
        "Config.SkipCertVerify",
        Kind::Bool,
        "SKIP_CERT_VERIFY",
        "false",
        "`true` or `1`: do not verify the certificates of UAA and Cloud Controller.",
    )
    .shown(),
    Field::new(
        "Config.StreamTimeout",
        Kind::Duration,
        "STREAM_TIMEOUT",
        "14m",
        "How long a response lasts before the client is asked to come back.",
    )
    .shown(),
    Field::new(
        "MetricsServer.Port",
        Kind::Uint16,
        "METRICS_PORT",
        "0",
        "Port on loopback for /metrics, for clients with a certificate. 0 takes a free one.",
    )
    .shown(),
    Field::new(
        "MetricsServer.CAFile",
        Kind::Text,
        "METRICS_CA_FILE_PATH",
        "",
        "PEM bundle of the authorities of who may read the metrics.",
    )
    .required()
    .shown(),
    Field::new(
        "MetricsServer.CertFile",
        Kind::Text,
        "METRICS_CERT_FILE_PATH",
        "",
        "PEM certificate of the metrics port.",
    )
    .required()
    .shown(),
    Field::new(
        "MetricsServer.KeyFile",
        Kind::Text,
        "METRICS_KEY_FILE_PATH",
        "",
        "PEM key of that certificate.",
    )
    .required()
    .shown(),
    Field::new(
        "Config.PProfPort",
        Kind::Uint32,
        "PPROF_PORT",
        "0",
        "Port on loopback for /debug/pprof/. 0 takes a free one.",
    )
    .shown(),
    Field::new(
        "Config.UseRFC339",
        Kind::Bool,
        "USE_RFC339",
        "false",
        "`true` or `1`: log lines begin with UTC in the form of RFC 3339.",
    ),
];

impl DropIn for RlpGateway {
    const PROGRAM: Program = Program {
        name: "rlp-gateway",
        about: "rlp-gateway: the HTTP gateway of a reverse log proxy. GET /v2/read as server-sent events.",
        fields: FIELDS,
        settings: gateway::SETTINGS,
        replaced: &["GATEWAY_TOKEN_FILE", "GATEWAY_DISABLE_ACCESS_CONTROL"],
        config_error: "failed to load config from environment",
        config_exit: 1,
        pprof_port: "PPROF_PORT",
        seconds_only: true,
    };
    type Config = gateway::Config;

    fn read(values: &Values<'_>, faults: &mut Faults) -> Self::Config {
        let uaa = values.text("LOG_ADMIN_ADDR");
        let own = values.own(&placeholders(&uaa), faults, gateway::Config::from_env);
        let logs = Logs::Grpc {
            addr: values.text("LOGS_PROVIDER_ADDR"),
            server_name: values.text("LOGS_PROVIDER_COMMON_NAME"),
            tls: values.tls_files([
                "LOGS_PROVIDER_CA_PATH",
                "LOGS_PROVIDER_CLIENT_CERT_PATH",
                "LOGS_PROVIDER_CLIENT_KEY_PATH",
            ]),
        };
        let own = own.unwrap_or_else(|| gateway::Config::new(logs.clone()));
        let stream_timeout = values.interval("STREAM_TIMEOUT");
        if stream_timeout.is_zero() {
            faults.config("STREAM_TIMEOUT must be longer than nothing");
        }
        let config = gateway::Config {
            addr: listen_addr(values, faults),
            listen_tls: Some((values.path("HTTP_CERT_PATH"), values.path("HTTP_KEY_PATH"))),
            logs,
            access: access(values, own.access.clone(), faults),
            stream_timeout,
            metrics: Some(MetricsEndpoint {
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, values.port16("METRICS_PORT"))),
                tls: values.tls_files([
                    "METRICS_CA_FILE_PATH",
                    "METRICS_CERT_FILE_PATH",
                    "METRICS_KEY_FILE_PATH",
                ]),
            }),
            ..own
        };
        check_files(&config, faults);
        config
    }

    fn drain(config: &Self::Config) -> Duration {
        config.drain_timeout + CLOSING
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<(), Fault> {
        match gateway::start(config, lifecycle).await {
            Ok(_) => Ok(()),
            Err(gateway::Error::Bind { addr, source }) => Err(Fault::late(
                EXIT_SETUP,
                listen_text(&addr.to_string(), &source),
            )),
            Err(error) => Err(Fault::late(EXIT_SETUP, super::chain(&error))),
        }
    }
}

/// Settings that the stage must have. They are put in afterwards, but for UAA's address, of which the stage knows which part
/// counts.
fn placeholders(uaa: &str) -> [(&'static str, &str); 13] {
    let uaa = if is_base_address(uaa) {
        uaa
    } else {
        "http://uaa"
    };
    [
        ("LOGS_PROVIDER_ADDR", "-"),
        ("LOGS_PROVIDER_CA_PATH", "-"),
        ("LOGS_PROVIDER_CLIENT_CERT_PATH", "-"),
        ("LOGS_PROVIDER_CLIENT_KEY_PATH", "-"),
        ("LOG_ADMIN_ADDR", uaa),
        ("LOG_ADMIN_CA_PATH", "-"),
        ("LOG_ADMIN_CLIENT_ID", "-"),
        ("LOG_ADMIN_CLIENT_SECRET", "-"),
        ("LOG_ACCESS_ADDR", "http://capi"),
        ("LOG_ACCESS_ADDR_EXTERNAL", "http://capi"),
        ("LOG_ACCESS_CA_PATH", "-"),
        ("LOG_ACCESS_CERT_PATH", "-"),
        ("LOG_ACCESS_KEY_PATH", "-"),
    ]
}

/// An address as Go's listener takes it: without a host it is every interface, `localhost` is 127.0.0.1.
fn listen_addr(values: &Values<'_>, faults: &mut Faults) -> SocketAddr {
    let text = values.text("GATEWAY_ADDR");
    let parsed = match text.strip_prefix(':') {
        Some(port) => port
            .parse()
            .ok()
            .map(|port: u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        None => text.replace("localhost:", "127.0.0.1:").parse().ok(),
    };
    parsed.unwrap_or_else(|| {
        let reason =
            format!("listen tcp: address {text}: not an address such as 127.0.0.1:8088 or :8088");
        faults.push(Fault::late(EXIT_SETUP, reason));
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    })
}

/// UAA and Cloud Controller, with the limits that the settings of ours say.
fn access(values: &Values<'_>, own: Access, faults: &mut Faults) -> Access {
    let own = match own {
        Access::Platform(own) => *own,
        _ => PlatformConfig::default(),
    };
    let urls = [
        "LOG_ADMIN_ADDR",
        "LOG_ACCESS_ADDR",
        "LOG_ACCESS_ADDR_EXTERNAL",
    ];
    let given: Vec<&str> = urls
        .into_iter()
        .filter(|name| values.optional(name).is_some())
        .collect();
    super::base_urls(values, &given, faults);
    Access::Platform(Box::new(PlatformConfig {
        uaa_ca: values.path("LOG_ADMIN_CA_PATH"),
        uaa_client: values.text("LOG_ADMIN_CLIENT_ID"),
        uaa_secret: Secret::new(values.text("LOG_ADMIN_CLIENT_SECRET")),
        capi_url: values.text("LOG_ACCESS_ADDR"),
        capi_external_url: values.optional("LOG_ACCESS_ADDR_EXTERNAL"),
        capi_tls: values.tls_files([
            "LOG_ACCESS_CA_PATH",
            "LOG_ACCESS_CERT_PATH",
            "LOG_ACCESS_KEY_PATH",
        ]),
        capi_server_name: values.text("LOG_ACCESS_COMMON_NAME"),
        skip_verify: values.flag("SKIP_CERT_VERIFY"),
        ..own
    }))
}

/// Every file that is named. Those that are not named were told as missing variables.
fn check_files(config: &gateway::Config, faults: &mut Faults) {
    let fault =
        |what: &'static str| move |reason| Fault::late(EXIT_SETUP, format!("{what}: {reason}"));
    let named = |tls: &TlsFiles| {
        [&tls.ca, &tls.cert, &tls.key]
            .iter()
            .all(|path| !path.as_os_str().is_empty())
    };
    if let Logs::Grpc { tls, .. } = &config.logs
        && named(tls)
    {
        faults.tls(
            ClientTls::mutual(tls),
            fault("failed to load TLS config for the logs provider"),
        );
    }
    if let Access::Platform(platform) = &config.access {
        if !platform.uaa_ca.as_os_str().is_empty() {
            faults.tls(
                ClientTls::ca_only(&platform.uaa_ca),
                fault("failed to load UAA CA certificate"),
            );
        }
        if named(&platform.capi_tls) {
            faults.tls(
                ClientTls::mutual_with(&platform.capi_tls, Profile::Http),
                fault("failed to load CAPI TLS config"),
            );
        }
    }
    if let Some((cert, key)) = &config.listen_tls
        && !cert.as_os_str().is_empty()
        && !key.as_os_str().is_empty()
    {
        faults.tls(
            ServerTls::server_only(cert, key, Profile::Http),
            fault("failed to load HTTP TLS config"),
        );
    }
    if let Some(metrics) = &config.metrics
        && named(&metrics.tls)
    {
        faults.tls(
            ServerTls::mutual(&metrics.tls, Profile::Http),
            fault("failed to load metrics TLS config"),
        );
    }
}
