//! `trafficcontroller`: the traffic controller.

use super::faults::{Fault, Faults, io_text, listen_text};
use super::go_env::{Field, Kind, Program, Values};
use super::host::DropIn;
use loggregator_net::{ClientTls, Profile, ServerTls};
use loggregator_service::Lifecycle;
use std::fs::OpenOptions;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use traffic_controller::access::{PlatformConfig, Secret};
use traffic_controller::{Access, SecurityEventLog};

/// The traffic controller.
pub struct TrafficController;

/// Exit code after an error while it starts.
const EXIT_SETUP: u8 = 1;
/// Settings that the stage must have and that are put in afterwards.
const PLACEHOLDERS: [(&str, &str); 6] = [
    ("ROUTER_CA_FILE", "-"),
    ("ROUTER_CERT_FILE", "-"),
    ("ROUTER_KEY_FILE", "-"),
    ("TRAFFIC_CONTROLLER_UAA_HOST", "http://uaa"),
    ("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", "-"),
    ("TRAFFIC_CONTROLLER_API_HOST", "http://capi"),
];
/// What a stop may take beyond the time that clients have for what was already received: the deployment's drain script
/// waits for 5 s in all.
const CLOSING: Duration = Duration::from_secs(1);

const FIELDS: &[Field] = &[
    Field::new(
        "Config.IP",
        Kind::Text,
        "TRAFFIC_CONTROLLER_IP",
        "",
        "Destination address in the security event log. Must be set.",
    ),
    Field::new(
        "Config.ApiHost",
        Kind::Text,
        "TRAFFIC_CONTROLLER_API_HOST",
        "",
        "Base URL of the Cloud Controller's internal API, which says who may read an application.",
    ),
    Field::new(
        "Config.OutgoingDropsondePort",
        Kind::Uint32,
        "TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT",
        "0",
        "Port for WebSockets on every interface. 0 takes a free one.",
    ),
    Field::new(
        "Config.OutgoingCertFile",
        Kind::Text,
        "TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE",
        "",
        "PEM certificate of that port.",
    ),
    Field::new(
        "Config.OutgoingKeyFile",
        Kind::Text,
        "TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE",
        "",
        "PEM key of that certificate (PKCS#1, PKCS#8 or SEC1).",
    ),
    Field::new(
        "Config.SystemDomain",
        Kind::Text,
        "TRAFFIC_CONTROLLER_SYSTEM_DOMAIN",
        "",
        "Cookies are for doppler.<this domain>. Must be set.",
    ),
    Field::new(
        "Config.SkipCertVerify",
        Kind::Bool,
        "TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY",
        "false",
        "`true` or `1`: do not verify the certificates of UAA and Cloud Controller.",
    ),
    Field::new(
        "Config.UaaHost",
        Kind::Text,
        "TRAFFIC_CONTROLLER_UAA_HOST",
        "",
        "Base URL of UAA, which says who may read the firehose.",
    ),
    Field::new(
        "Config.UaaCACert",
        Kind::Text,
        "TRAFFIC_CONTROLLER_UAA_CA_CERT",
        "",
        "PEM bundle of UAA's authorities. Must be set, even when access control is off.",
    ),
    Field::new(
        "Config.UaaClient",
        Kind::Text,
        "TRAFFIC_CONTROLLER_UAA_CLIENT",
        "",
        "UAA client that asks.",
    ),
    Field::new(
        "Config.UaaClientSecret",
        Kind::Text,
        "TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET",
        "",
        "Its secret. Must be set.",
    )
    .secret(),
    Field::new(
        "Config.SecurityEventLog",
        Kind::Text,
        "TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG",
        "",
        "File for one CEF line per request. Unset: none.",
    ),
    Field::new(
        "Config.PProfPort",
        Kind::Uint32,
        "TRAFFIC_CONTROLLER_PPROF_PORT",
        "0",
        "Port on loopback for /debug/pprof/. 0 takes a free one.",
    ),
    Field::new(
        "Config.MetricEmitterInterval",
        Kind::Duration,
        "TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL",
        "1m",
        "Interval of own metrics. 0s: never.",
    ),
    Field::new(
        "Config.DisableAccessControl",
        Kind::Bool,
        "TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL",
        "false",
        "`true` or `1`: everybody who reaches the port may read everything.",
    ),
    Field::new(
        "Config.RouterAddrs",
        Kind::List,
        "ROUTER_ADDRS",
        "",
        "Dopplers to read, comma-separated host:port. All addresses that a name resolves to are read.",
    ),
    Field::new(
        "CCTLSClientConfig.CertFile",
        Kind::Text,
        "CC_CERT_FILE",
        "",
        "PEM client certificate for the Cloud Controller. Must be set, even when access control is off.",
    ),
    Field::new(
        "CCTLSClientConfig.KeyFile",
        Kind::Text,
        "CC_KEY_FILE",
        "",
        "PEM key of that certificate.",
    ),
    Field::new(
        "CCTLSClientConfig.CAFile",
        Kind::Text,
        "CC_CA_FILE",
        "",
        "PEM bundle of the Cloud Controller's authorities.",
    ),
    Field::new(
        "CCTLSClientConfig.ServerName",
        Kind::Text,
        "CC_SERVER_NAME",
        "",
        "Name that the Cloud Controller's certificate must carry.",
    ),
    Field::new(
        "Agent.GRPCAddress",
        Kind::Text,
        "AGENT_GRPC_ADDRESS",
        "",
        "host:port of the local agent for own metrics and events. Unset: they are not sent.",
    ),
    Field::new(
        "GRPC.CAFile",
        Kind::Text,
        "ROUTER_CA_FILE",
        "",
        "PEM bundle of the authorities of dopplers and agent. Must be set.",
    ),
    Field::new(
        "GRPC.CertFile",
        Kind::Text,
        "ROUTER_CERT_FILE",
        "",
        "PEM client certificate for dopplers and agent. Must be set.",
    ),
    Field::new(
        "GRPC.KeyFile",
        Kind::Text,
        "ROUTER_KEY_FILE",
        "",
        "PEM key of that certificate. Must be set.",
    ),
    Field::new(
        "Config.UseRFC339",
        Kind::Bool,
        "USE_RFC339",
        "false",
        "`true` or `1`: log lines begin with UTC in the form of RFC 3339.",
    ),
];

impl DropIn for TrafficController {
    const PROGRAM: Program = Program {
        name: "trafficcontroller",
        about: "trafficcontroller: a traffic controller. Gives what all dopplers have to WebSocket clients.",
        fields: FIELDS,
        settings: traffic_controller::SETTINGS,
        replaced: &[
            "TRAFFIC_CONTROLLER_LISTEN_ADDR",
            "TRAFFIC_CONTROLLER_TOKEN_FILE",
        ],
        config_error: "Unable to load config",
        config_exit: 2,
        pprof_port: "TRAFFIC_CONTROLLER_PPROF_PORT",
        seconds_only: false,
    };
    type Config = traffic_controller::Config;

    fn read(values: &Values<'_>, faults: &mut Faults) -> Self::Config {
        must_be_set(values, faults);
        let own = values
            .own(&PLACEHOLDERS, faults, traffic_controller::Config::from_env)
            .unwrap_or_default();
        let listen_tls = (
            values.path("TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE"),
            values.path("TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE"),
        );
        let config = traffic_controller::Config {
            doppler_tls: values.tls_files([
                "ROUTER_CA_FILE",
                "ROUTER_CERT_FILE",
                "ROUTER_KEY_FILE",
            ]),
            listen_tls: Some(listen_tls),
            listen_addr: listen_addr(values, faults),
            dopplers: values.list("ROUTER_ADDRS"),
            access: access(values, own.access.clone(), faults),
            system_domain: values.optional("TRAFFIC_CONTROLLER_SYSTEM_DOMAIN"),
            security_log: security_log(values, faults),
            agent_addr: values.optional("AGENT_GRPC_ADDRESS"),
            metric_interval: values.interval("TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL"),
            ..own
        };
        check_files(values, &config, faults);
        config
    }

    fn drain(config: &Self::Config) -> Duration {
        config.timing.drain_within + CLOSING
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<(), Fault> {
        tracing::info!("Startup: Setting up the loggregator traffic controller");
        super::announce_dopplers(&config.dopplers);
        match traffic_controller::start(config, lifecycle).await {
            Ok(_) => Ok(()),
            Err(traffic_controller::Error::Bind { addr, source }) => {
                let port = format!(":{}", addr.port());
                Err(Fault::late(EXIT_SETUP, listen_text(&port, &source)))
            }
            Err(error) => Err(Fault::late(EXIT_SETUP, super::chain(&error))),
        }
    }

    fn stopping() {
        tracing::info!("Shutting down");
    }
}

/// The checks of the Go program's configuration, in its order.
fn must_be_set(values: &Values<'_>, faults: &mut Faults) {
    for (name, text) in [
        (
            "TRAFFIC_CONTROLLER_SYSTEM_DOMAIN",
            "need system domain in order to create the proxies",
        ),
        (
            "TRAFFIC_CONTROLLER_IP",
            "need IP address for access logging",
        ),
        (
            "ROUTER_CA_FILE",
            "invalid router config, no GRPC.CAFile provided",
        ),
        (
            "ROUTER_CERT_FILE",
            "invalid router config, no GRPC.CertFile provided",
        ),
        (
            "ROUTER_KEY_FILE",
            "invalid router config, no GRPC.KeyFile provided",
        ),
        (
            "TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET",
            "missing UAA client secret",
        ),
    ] {
        if values.text(name).is_empty() {
            faults.config(text);
        }
    }
    let is_set = |name| !values.text(name).is_empty();
    if is_set("TRAFFIC_CONTROLLER_UAA_HOST") && !is_set("TRAFFIC_CONTROLLER_UAA_CA_CERT") {
        faults.config("missing UAA CA certificate");
    }
}

fn listen_addr(values: &Values<'_>, faults: &mut Faults) -> SocketAddr {
    let fault = |reason| Fault::late(EXIT_SETUP, reason);
    let port = values.port32("TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT", faults, fault);
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

fn security_log(values: &Values<'_>, faults: &mut Faults) -> Option<SecurityEventLog> {
    let path: PathBuf = values
        .optional("TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG")?
        .into();
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    if let Err(error) = opened {
        let text = format!(
            "Unable to open access log: open {}: {}",
            path.display(),
            io_text(&error)
        );
        faults.push(Fault::late(EXIT_SETUP, text));
    }
    Some(SecurityEventLog {
        path,
        ip: values.text("TRAFFIC_CONTROLLER_IP"),
    })
}

/// UAA and Cloud Controller, with the limits that the settings of ours say; nobody where access control is off.
fn access(values: &Values<'_>, own: Access, faults: &mut Faults) -> Access {
    if values.flag("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL") {
        return Access::None;
    }
    let own = match own {
        Access::Platform(own) => *own,
        _ => PlatformConfig::default(),
    };
    super::base_urls(
        values,
        &["TRAFFIC_CONTROLLER_UAA_HOST", "TRAFFIC_CONTROLLER_API_HOST"],
        faults,
    );
    Access::Platform(Box::new(PlatformConfig {
        uaa_url: values.text("TRAFFIC_CONTROLLER_UAA_HOST"),
        uaa_ca: values.path("TRAFFIC_CONTROLLER_UAA_CA_CERT"),
        uaa_client: values.text("TRAFFIC_CONTROLLER_UAA_CLIENT"),
        uaa_secret: Secret::new(values.text("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET")),
        capi_url: values.text("TRAFFIC_CONTROLLER_API_HOST"),
        capi_external_url: None,
        capi_tls: values.tls_files(["CC_CA_FILE", "CC_CERT_FILE", "CC_KEY_FILE"]),
        capi_server_name: values.text("CC_SERVER_NAME"),
        skip_verify: values.flag("TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY"),
        ..own
    }))
}

/// Every file that the Go program reads while it starts, also those that are not used when access control is off.
fn check_files(values: &Values<'_>, config: &traffic_controller::Config, faults: &mut Faults) {
    let fault =
        |what: &'static str| move |reason| Fault::late(EXIT_SETUP, format!("{what}{reason}"));
    let doppler = &config.doppler_tls;
    let named = [&doppler.ca, &doppler.cert, &doppler.key];
    if named.iter().all(|path| !path.as_os_str().is_empty()) {
        faults.tls(
            ClientTls::mutual(doppler),
            fault("Could not use GRPC creds for server: "),
        );
    }
    let uaa = values.path("TRAFFIC_CONTROLLER_UAA_CA_CERT");
    faults.tls(
        ClientTls::ca_only(&uaa),
        fault("Unable to create UAA HTTP Client: "),
    );
    let capi = values.tls_files(["CC_CA_FILE", "CC_CERT_FILE", "CC_KEY_FILE"]);
    faults.tls(
        ClientTls::mutual_with(&capi, Profile::Http),
        fault("Unable to create CC HTTP Client: "),
    );
    if let Some((cert, key)) = &config.listen_tls {
        faults.tls(ServerTls::server_only(cert, key, Profile::Http), fault(""));
    }
}
