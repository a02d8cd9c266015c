//! The settings of a gateway, in one table.

use loggregator_service::config::Setting;

use crate::access::platform::settings::{access_settings, joined};

/// What this program's own variables begin with.
pub const PREFIX: &str = "GATEWAY_";

/// Every setting of the program, with its default. Names that the Go gateway knows are kept.
pub const SETTINGS: &[Setting] = &joined::<{ OWN.len() + CHECKS.len() }>(OWN, CHECKS);

/// Those of the checks by UAA and the Cloud Controller.
const CHECKS: &[Setting] = access_settings!("GATEWAY_");

const OWN: &[Setting] = &[
    Setting::new(
        "GATEWAY_ADDR",
        "127.0.0.1:8088",
        "Address of the HTTP port for clients; `:8088` is that port on all addresses. Port 0 takes a free one.",
    ).flag("listen-addr"),
    Setting::optional(
        "HTTP_CERT_PATH",
        "PEM certificate for the HTTP port. Unset: plain HTTP, for use on one machine or behind a proxy only.",
    ).flag("listen-cert-file"),
    Setting::optional(
        "HTTP_KEY_PATH",
        "PEM key of that certificate (PKCS#1, PKCS#8 or SEC1).",
    ).flag("listen-key-file"),
    Setting::required(
        "LOGS_PROVIDER_ADDR",
        "Reverse log proxy to read from, host:port.",
    ).flag("rlp-addr").takes("HOST:PORT"),
    Setting::required(
        "LOGS_PROVIDER_CA_PATH",
        "PEM bundle of the authorities that sign the reverse log proxy's certificate.",
    ).flag("rlp-ca-file"),
    Setting::required(
        "LOGS_PROVIDER_CLIENT_CERT_PATH",
        "PEM client certificate for the reverse log proxy.",
    ).flag("rlp-cert-file"),
    Setting::required(
        "LOGS_PROVIDER_CLIENT_KEY_PATH",
        "PEM key of that certificate.",
    ).flag("rlp-key-file"),
    Setting::new(
        "LOGS_PROVIDER_COMMON_NAME",
        "reverselogproxy",
        "Name that the reverse log proxy's certificate must carry.",
    ).flag("rlp-server-name").takes("NAME"),
    Setting::optional(
        "GATEWAY_TOKEN_FILE",
        "File of tokens, one a line, each followed by `doppler.firehose` or the source ids that it may read. This or \
         LOG_ADMIN_ADDR is required unless access control is disabled.",
    ),
    Setting::new(
        "GATEWAY_DISABLE_ACCESS_CONTROL",
        "false",
        "true: everybody who reaches the port may read everything, whatever else is set.",
    ),
    Setting::optional(
        "LOG_ADMIN_ADDR",
        "UAA's address, such as https://uaa.service.cf.internal:8443; a path in it is passed over. With it, UAA and the \
         Cloud Controller say who may read.",
    ).flag("uaa-url").takes("URL"),
    Setting::optional(
        "LOG_ADMIN_CA_PATH",
        "PEM bundle of the authorities that sign UAA's certificate.",
    ).flag("uaa-ca-file"),
    Setting::optional("LOG_ADMIN_CLIENT_ID", "UAA client that may check tokens.").flag("uaa-client").takes("NAME"),
    Setting::optional("LOG_ADMIN_CLIENT_SECRET", "Secret of the UAA client.").secret(),
    Setting::optional(
        "LOG_ACCESS_ADDR",
        "The Cloud Controller's internal address, such as https://cloud-controller-ng.service.cf.internal:9023.",
    ).flag("capi-url").takes("URL"),
    Setting::optional(
        "LOG_ACCESS_ADDR_EXTERNAL",
        "The Cloud Controller's public address, asked about service instances.",
    ).flag("capi-external-url").takes("URL"),
    Setting::optional(
        "LOG_ACCESS_CA_PATH",
        "PEM bundle of the authorities that sign the Cloud Controller's certificate.",
    ).flag("capi-ca-file"),
    Setting::optional(
        "LOG_ACCESS_CERT_PATH",
        "PEM client certificate for the Cloud Controller.",
    ).flag("capi-cert-file"),
    Setting::optional("LOG_ACCESS_KEY_PATH", "PEM key of that certificate.").flag("capi-key-file"),
    Setting::optional(
        "LOG_ACCESS_COMMON_NAME",
        "Name that the Cloud Controller's certificate must carry. Unset: the host of its address.",
    ).flag("capi-server-name").takes("NAME"),
    Setting::new(
        "SKIP_CERT_VERIFY",
        "false",
        "true: the certificates of UAA and Cloud Controller are not verified. Not for production.",
    ),
    Setting::new(
        "STREAM_TIMEOUT",
        "14m",
        "How long a response lasts before the client is asked to come back.",
    ),
    Setting::new(
        "GATEWAY_RESUME_GRACE",
        "10s",
        "How long a stream that ended with STREAM_TIMEOUT is kept for its client to go on with. 0s: not at all.",
    ),
    Setting::new(
        "GATEWAY_PROVIDER_WAIT",
        "2s",
        "How long a new stream waits for a reverse log proxy that is away before it is answered with 503, so that the proxy may \
         be restarted under clients that give up after a few attempts. 0s: not at all.",
    ),
    Setting::new(
        "GATEWAY_HEARTBEAT_INTERVAL",
        "15s",
        "From the last event of a stream to a heartbeat.",
    ),
    Setting::new(
        "GATEWAY_RECHECK_PATIENCE",
        "10m",
        "How long an open stream goes on when it is time to check its token again and nobody can say.",
    ),
    Setting::new(
        "GATEWAY_MAX_STREAMS",
        "2000",
        "Streams open at once, and as many kept for their clients; more are answered with 503.",
    ),
    Setting::new(
        "GATEWAY_MAX_CONNECTIONS",
        "10000",
        "Connections held at once; more are closed at once and counted.",
    ),
    Setting::new(
        "GATEWAY_MAX_QUERY_BYTES",
        "48KiB",
        "Longest query; a longer one is answered with 414. A GUID as a source id takes 47 bytes.",
    ),
    Setting::new(
        "GATEWAY_MAX_SELECTORS",
        "10000",
        "Most combinations of sources and kinds that one query may ask for; more are answered with 400.",
    ),
    Setting::new(
        "GATEWAY_WRITE_TIMEOUT",
        "60s",
        "A client whose connection takes no byte for this long is cut, a response over HTTP/2 of which no further piece \
         (64 KiB) is taken for this to twice this time is reset, and when a stream's end has come the client has this \
         long for the rest.",
    ),
    Setting::new(
        "GATEWAY_TLS_RELOAD_INTERVAL",
        "5s",
        "How often certificate files and the token file are looked at. Unusable new ones are reported and the old kept.",
    ),
    Setting::new(
        "GATEWAY_ACCESS_LOG",
        "true",
        "true: a line on standard output for each request when it has ended.",
    ),
    Setting::new(
        "METRICS_PORT",
        "0",
        "Port of the HTTPS endpoint /metrics on 127.0.0.1, which asks for a client certificate. 0 takes a free one.",
    ).takes("PORT"),
    Setting::optional(
        "METRICS_CA_FILE_PATH",
        "PEM bundle of the authorities that sign the certificates of who may read the metrics. Unset, with the two \
         below: no such endpoint.",
    ).flag("metrics-ca-file"),
    Setting::optional(
        "METRICS_CERT_FILE_PATH",
        "PEM certificate of the metrics endpoint.",
    ).flag("metrics-cert-file"),
    Setting::optional("METRICS_KEY_FILE_PATH", "PEM key of that certificate.").flag("metrics-key-file"),
    Setting::optional(
        "GATEWAY_ADMIN_ADDR",
        "Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger, such as 127.0.0.1:9088. Unset: \
         none.",
    ),
    Setting::new(
        "GATEWAY_DRAIN_TIMEOUT",
        "3s",
        "How long a client may take, at a stop, for what was already received for it.",
    ),
];
