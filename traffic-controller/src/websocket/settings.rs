//! The settings of a traffic controller, in one table.

use loggregator_service::config::Setting;

use crate::access::platform::settings::{access_settings, joined};

/// What this program's own variables begin with.
pub const PREFIX: &str = "TRAFFIC_CONTROLLER_";

/// Every setting of the program, with its default. Names that the Go traffic controller knows are kept.
pub const SETTINGS: &[Setting] = &joined::<{ OWN.len() + ACCESS.len() }>(OWN, ACCESS);

/// Those of the checks by UAA and the Cloud Controller.
const ACCESS: &[Setting] = access_settings!("TRAFFIC_CONTROLLER_");

const OWN: &[Setting] = &[
    Setting::new(
        "TRAFFIC_CONTROLLER_LISTEN_ADDR",
        "[::]:8081",
        "Address of the WebSocket port for clients. Port 0 takes a free one.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE",
        "PEM certificate for the WebSocket port. Unset: plain HTTP, for use on one machine or behind a proxy only.",
    ).flag("listen-cert-file"),
    Setting::optional(
        "TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE",
        "PEM key of that certificate (PKCS#1, PKCS#8 or SEC1).",
    ).flag("listen-key-file"),
    Setting::new(
        "ROUTER_ADDRS",
        "",
        "Dopplers to read, comma-separated host:port. All addresses that a name resolves to are read.",
    ).flag("dopplers").takes("HOST:PORT,…"),
    Setting::new(
        "TRAFFIC_CONTROLLER_RESOLVE_INTERVAL",
        "5s",
        "How often the names in ROUTER_ADDRS are resolved again, to find dopplers that came and went.",
    ),
    Setting::required(
        "ROUTER_CA_FILE",
        "PEM bundle of the authorities that sign the dopplers' and the agent's certificates.",
    ).flag("ca-file"),
    Setting::required(
        "ROUTER_CERT_FILE",
        "PEM client certificate for the dopplers and the agent.",
    ).flag("cert-file"),
    Setting::required("ROUTER_KEY_FILE", "PEM key of that certificate.").flag("key-file"),
    Setting::new(
        "TRAFFIC_CONTROLLER_TLS_RELOAD_INTERVAL",
        "5s",
        "How often certificate files and the token file are looked at. Unusable new ones are reported and the old kept.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_TOKEN_FILE",
        "File of tokens, one a line, each followed by `doppler.firehose` or the application ids that it may read. \
         This or TRAFFIC_CONTROLLER_UAA_HOST is required unless access control is disabled.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL",
        "false",
        "true: everybody who reaches the port may read everything, whatever else is set.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_UAA_HOST",
        "UAA's address, such as https://uaa.service.cf.internal:8443. With it, UAA and the Cloud Controller say who may \
         read.",
    ).flag("uaa-url").takes("URL"),
    Setting::optional(
        "TRAFFIC_CONTROLLER_UAA_CA_CERT",
        "PEM bundle of the authorities that sign UAA's certificate.",
    ).flag("uaa-ca-file").takes("FILE"),
    Setting::new(
        "TRAFFIC_CONTROLLER_UAA_CLIENT",
        "doppler",
        "UAA client that checks tokens.",
    ).takes("NAME"),
    Setting::optional(
        "TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET",
        "Secret of the UAA client.",
    )
    .secret(),
    Setting::optional(
        "TRAFFIC_CONTROLLER_API_HOST",
        "The Cloud Controller's address, such as https://cloud-controller-ng.service.cf.internal:9023.",
    ).flag("capi-url").takes("URL"),
    Setting::optional(
        "CC_CA_FILE",
        "PEM bundle of the authorities that sign the Cloud Controller's certificate.",
    ).flag("capi-ca-file"),
    Setting::optional(
        "CC_CERT_FILE",
        "PEM client certificate for the Cloud Controller.",
    ).flag("capi-cert-file"),
    Setting::optional("CC_KEY_FILE", "PEM key of that certificate.").flag("capi-key-file"),
    Setting::optional(
        "CC_SERVER_NAME",
        "Name in the Cloud Controller's certificate. Unset: the host of its address.",
    ).flag("capi-server-name").takes("NAME"),
    Setting::new(
        "TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY",
        "false",
        "true: the certificates of UAA and Cloud Controller are not verified. Tokens can then be read on the way.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_RECHECK_PATIENCE",
        "10m",
        "How long an open stream goes on when it is time to check its token again and nobody can say.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_SYSTEM_DOMAIN",
        "Cookies that /set-cookie gives out are for doppler.<this domain>. Unset: for the host that is asked.",
    ).takes("DOMAIN"),
    Setting::optional(
        "TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG",
        "File for the security event log, one CEF line per HTTP request. A new one is made when it was moved away. Unset: \
         none.",
    ).takes("FILE"),
    Setting::optional(
        "TRAFFIC_CONTROLLER_IP",
        "Address of this machine, the destination address in the security event log. Required with it.",
    ).takes("IP"),
    Setting::new(
        "TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS",
        "2000",
        "Client streams held at once; more are answered with 503.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_MAX_CONNECTIONS",
        "10000",
        "Connections held at once that are no client streams (yet); more are closed at once and counted.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_WRITE_BUFFER",
        "64KiB",
        "Bytes collected for a client before they are written, 1KiB to 1MiB. With one batch of the dopplers, which is \
         at most their largest message, this is what a client that does not read holds.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SHARED_BUFFER",
        "8MiB",
        "Clients that ask for the same application share one subscription. Bytes held of one for clients that are behind \
         others; one that falls behind by more misses envelopes, counted and told.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SHARED_BUFFER_TOTAL",
        "64MiB",
        "The same for all shared subscriptions together.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_PING_INTERVAL",
        "15s",
        "From a client's pong to the next ping.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_PONG_DEADLINE",
        "30s",
        "From a ping to the latest moment for its pong; a client that misses it is closed with 1008.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER",
        "5s",
        "A client whose connection takes no byte for this long counts as slow and is fed no more; a second later it is \
         dropped.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_ADMIN_ADDR",
        "Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger, such as 127.0.0.1:9081. Unset: \
         none.",
    ),
    Setting::optional(
        "AGENT_GRPC_ADDRESS",
        "host:port of the local agent for this traffic controller's own metrics and events, its certificate named \
         `metron`. Unset: they are not sent.",
    ).flag("agent-addr").takes("HOST:PORT"),
    Setting::new(
        "TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL",
        "1m",
        "Interval of this traffic controller's own metrics as envelopes. 0s: never.",
    ).flag("metric-interval"),
    Setting::new(
        "TRAFFIC_CONTROLLER_DRAIN_TIMEOUT",
        "3s",
        "How long a client may take, at a stop, for what was already received for it.",
    ),
];
