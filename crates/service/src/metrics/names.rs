//! Every metric of the project, in one table.
//!
//! Names follow the Prometheus conventions: prefix `loggregator_`, base units, `_total` for counters. Whoever adds a
//! metric adds it here; the reference page `docs/metrics.md` is rendered from the table and a test compares the two.

use std::fmt::Write as _;

pub use super::def::{Kind, MetricDef, Unit};

/// A part of the table.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Heading in the reference page.
    pub title: &'static str,
    /// Which programs have these metrics, in a sentence.
    pub intro: &'static str,
    /// The rows.
    pub metrics: &'static [&'static MetricDef],
}

macro_rules! table {
    ($($title:literal, $intro:literal => {
        $($ident:ident: $kind:expr, $unit:ident, $name:literal, [$($label:literal),*], $help:literal;)*
    })*) => {
        $($(
            #[doc = $help]
            pub static $ident: MetricDef =
                MetricDef { name: $name, kind: $kind, unit: Unit::$unit, labels: &[$($label),*], help: $help };
        )*)*
        /// The whole table.
        pub static SECTIONS: &[Section] =
            &[$(Section { title: $title, intro: $intro, metrics: &[$(&$ident),*] }),*];
    };
}

const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;

table! {
    "Every program", "Served by every admin server." => {
        BUILD_INFO: GAUGE, Count, "loggregator_build_info", ["version"],
            "Always 1; the label tells the version.";
        READY: GAUGE, Count, "loggregator_ready", [],
            "1 when the component is ready to do its work, else 0; /readyz tells why.";
        ADMIN_REFUSED: COUNTER, Connections, "loggregator_admin_refused_connections_total", [],
            "Connections to the admin server that were closed because too many were open.";
        LOG_LINES_SUPPRESSED: COUNTER, Count, "loggregator_log_lines_suppressed_total", [],
            "Process log lines left out because their place in the code had logged too often.";
        LOG_LINES_DROPPED: COUNTER, Count, "loggregator_log_lines_dropped_total", [],
            "Process log lines lost because standard error did not take them.";
        TASK_RESTARTS: COUNTER, Count, "loggregator_task_restarts_total", ["task"],
            "Restarts of a supervised task after a failure.";
        PROCESS_RESIDENT_BYTES: GAUGE, Bytes, "process_resident_memory_bytes", [],
            "Resident memory.";
        PROCESS_RESIDENT_MAX_BYTES: GAUGE, Bytes, "process_resident_memory_max_bytes", [],
            "Largest resident memory since the start.";
        PROCESS_VIRTUAL_BYTES: GAUGE, Bytes, "process_virtual_memory_bytes", [],
            "Virtual memory.";
        PROCESS_CPU_SECONDS: COUNTER, Seconds, "process_cpu_seconds_total", [],
            "CPU time in user and system mode.";
        PROCESS_OPEN_FDS: GAUGE, Count, "process_open_fds", [],
            "Open file descriptors.";
        PROCESS_MAX_FDS: GAUGE, Count, "process_max_fds", [],
            "Most file descriptors that may be open.";
        PROCESS_THREADS: GAUGE, Count, "process_threads", [],
            "Threads.";
        PROCESS_START_SECONDS: GAUGE, Seconds, "process_start_time_seconds", [],
            "Time of the start, in seconds since the epoch.";
    }
    "Servers and connections", "Of every component that listens or connects; `listener` names the port by its role, such as `grpc`, `role` what the certificate is for." => {
        SERVER_CONNECTIONS: GAUGE, Connections, "loggregator_server_connections", ["listener"],
            "Open connections.";
        SERVER_ACCEPTED: COUNTER, Connections, "loggregator_server_accepted_connections_total", ["listener"],
            "Connections accepted.";
        SERVER_REFUSED: COUNTER, Connections, "loggregator_server_refused_connections_total", ["listener"],
            "Connections closed at once because the limit was reached.";
        SERVER_HANDSHAKE_FAILURES: COUNTER, Connections, "loggregator_server_handshake_failures_total", ["listener"],
            "Connections that did not complete the TLS or HTTP/2 handshake.";
        SERVER_ACCEPT_ERRORS: COUNTER, Count, "loggregator_server_accept_errors_total", ["listener"],
            "Errors of accept(2), such as no free file descriptor.";
        TLS_RELOADS: COUNTER, Count, "loggregator_tls_reloads_total", ["role"],
            "Times that changed certificate files were taken over.";
        TLS_RELOAD_FAILURES: COUNTER, Count, "loggregator_tls_reload_failures_total", ["role"],
            "Times that changed certificate files were unusable and the old ones kept.";
    }
    "agent", "What the agent takes in on the emitter's machine and hands on to the dopplers." => {
        AGENT_INGRESS: COUNTER, Envelopes, "loggregator_agent_ingress_envelopes_total", ["input"],
            "Envelopes received, by input: grpc, udp, syslog_udp, syslog_tcp, file, stdin.";
        AGENT_INGRESS_BYTES: COUNTER, Bytes, "loggregator_agent_ingress_bytes_total", ["input"],
            "Bytes received, by input.";
        AGENT_REJECTED: COUNTER, Envelopes, "loggregator_agent_rejected_envelopes_total", ["input", "reason"],
            "Envelopes, datagrams or lines that could not be understood.";
        AGENT_DROPPED: COUNTER, Envelopes, "loggregator_agent_dropped_envelopes_total", ["reason"],
            "Envelopes accepted and lost before a doppler took them.";
        AGENT_EGRESS: COUNTER, Envelopes, "loggregator_agent_egress_envelopes_total", [],
            "Envelopes that a connection to a doppler took.";
        AGENT_EGRESS_BYTES: COUNTER, Bytes, "loggregator_agent_egress_bytes_total", [],
            "Bytes of batches that a connection to a doppler took.";
        AGENT_ORIGIN_MAPPINGS: COUNTER, Envelopes, "loggregator_agent_origin_mappings_total", [],
            "Envelopes without a source id that were given that of their origin tag.";
        AGENT_BUFFER_BYTES: GAUGE, Bytes, "loggregator_agent_buffer_bytes", [],
            "Bytes waiting for a doppler.";
        AGENT_BUFFER_LIMIT_BYTES: GAUGE, Bytes, "loggregator_agent_buffer_limit_bytes", [],
            "Bytes that may wait for a doppler before the oldest are dropped.";
        AGENT_COUNTER_SERIES: GAUGE, Count, "loggregator_agent_counter_series", [],
            "Counters whose totals are kept.";
        AGENT_COUNTER_EVICTIONS: COUNTER, Count, "loggregator_agent_counter_evictions_total", [],
            "Counters that were forgotten because the table of totals was full: their totals start over.";
        AGENT_IN_DOUBT: COUNTER, Envelopes, "loggregator_agent_in_doubt_envelopes_total", [],
            "Envelopes that may have been lost with a broken connection to a doppler: an upper bound.";
        AGENT_MOVED: COUNTER, Envelopes, "loggregator_agent_moved_envelopes_total", [],
            "Envelopes that went to another doppler because theirs left or did not answer.";
        AGENT_KERNEL_DROPS: COUNTER, Count, "loggregator_agent_kernel_dropped_datagrams_total", ["input"],
            "Datagrams that the kernel dropped because the socket's receive buffer was full.";
        AGENT_LINES: COUNTER, Count, "loggregator_agent_unusual_lines_total", ["kind"],
            "Lines and syslog messages that were split, truncated, or left out because they were blank.";
        AGENT_DOPPLERS: GAUGE, Connections, "loggregator_agent_dopplers", ["state"],
            "Dopplers known, by state: connected, away.";
        AGENT_FILES: GAUGE, Count, "loggregator_agent_followed_files", [],
            "Files being followed.";
    }
    "doppler", "What the router takes in, keeps and sends to its subscribers." => {
        DOPPLER_INGRESS: COUNTER, Envelopes, "loggregator_doppler_ingress_envelopes_total", ["api"],
            "Envelopes accepted, by interface: v1, v2.";
        DOPPLER_INGRESS_FRAMES: COUNTER, Frames, "loggregator_doppler_ingress_frames_total", ["api"],
            "Frames accepted.";
        DOPPLER_INGRESS_BYTES: COUNTER, Bytes, "loggregator_doppler_ingress_bytes_total", [],
            "Bytes of accepted frames.";
        DOPPLER_REJECTED: COUNTER, Envelopes, "loggregator_doppler_rejected_envelopes_total", ["reason"],
            "Envelopes refused as malformed; a frame whose outer framing is broken counts as one.";
        DOPPLER_DROPPED: COUNTER, Envelopes, "loggregator_doppler_dropped_envelopes_total", ["direction", "reason"],
            "Envelopes lost, every subscriber's copy counted, by direction (ingress, egress) and reason.";
        DOPPLER_EGRESS: COUNTER, Envelopes, "loggregator_doppler_egress_envelopes_total", ["api"],
            "Envelopes taken by subscribers' connections, every copy counted.";
        DOPPLER_EGRESS_BYTES: COUNTER, Bytes, "loggregator_doppler_egress_bytes_total", ["api"],
            "Bytes of messages taken by subscribers' connections.";
        DOPPLER_EGRESS_MESSAGES: COUNTER, Count, "loggregator_doppler_egress_messages_total", ["api"],
            "Messages taken by subscribers' connections; envelopes per message tell how much is joined.";
        DOPPLER_SUBSCRIPTIONS: GAUGE, Connections, "loggregator_doppler_subscriptions", ["api"],
            "Subscriptions with a connection.";
        DOPPLER_SUBSCRIPTIONS_REFUSED: COUNTER, Count, "loggregator_doppler_refused_subscriptions_total", ["reason"],
            "Subscriptions refused: too many, or a request that cannot be served.";
        DOPPLER_LOG_BYTES: GAUGE, Bytes, "loggregator_doppler_log_bytes", [],
            "Bytes of memory that the log holds.";
        DOPPLER_LOG_LIMIT_BYTES: GAUGE, Bytes, "loggregator_doppler_log_limit_bytes", [],
            "Bytes of memory that the log may hold.";
        DOPPLER_LOG_FRAMES: GAUGE, Frames, "loggregator_doppler_log_frames", [],
            "Frames in the log.";
        DOPPLER_LOG_ENVELOPES: GAUGE, Envelopes, "loggregator_doppler_log_envelopes", [],
            "Envelopes in the log.";
        DOPPLER_LOG_AGE_SECONDS: GAUGE, Seconds, "loggregator_doppler_log_oldest_age_seconds", [],
            "Age of the oldest frame in the log: how long a reader may stall without loss.";
    }
    "traffic-controller", "What the traffic controller reads from the dopplers and writes to its clients." => {
        TC_INGRESS: COUNTER, Envelopes, "loggregator_traffic_controller_ingress_envelopes_total", [],
            "Envelopes received from dopplers; what several clients share counts once.";
        TC_EGRESS: COUNTER, Envelopes, "loggregator_traffic_controller_egress_envelopes_total", ["endpoint"],
            "Envelopes taken by clients' connections, by endpoint: firehose, stream.";
        TC_EGRESS_BYTES: COUNTER, Bytes, "loggregator_traffic_controller_egress_bytes_total", ["endpoint"],
            "Bytes of envelopes taken by clients' connections.";
        TC_DROPPED: COUNTER, Envelopes, "loggregator_traffic_controller_dropped_envelopes_total", ["endpoint", "reason"],
            "Envelopes received for a client and lost.";
        TC_REJECTED: COUNTER, Envelopes, "loggregator_traffic_controller_rejected_envelopes_total", ["reason"],
            "Messages or envelopes from dopplers that could not be understood.";
        TC_CLIENTS: GAUGE, Connections, "loggregator_traffic_controller_clients", ["endpoint"],
            "Open client connections.";
        TC_SLOW_CONSUMERS: COUNTER, Connections, "loggregator_traffic_controller_slow_consumers_total", ["endpoint"],
            "Clients that were closed because they did not read.";
        TC_TOKEN_FILE_READS: COUNTER, Count, "loggregator_traffic_controller_token_file_reads_total", ["outcome"],
            "Times that a changed token file was taken over (used) or could not be and the tokens of before stayed (unusable).";
        TC_CLOSED: COUNTER, Connections, "loggregator_traffic_controller_closed_clients_total", ["endpoint", "reason"],
            "Client connections that ended, by reason.";
        TC_REQUESTS: COUNTER, Count, "loggregator_traffic_controller_requests_total", ["endpoint", "status"],
            "Requests answered, by endpoint and HTTP status.";
        TC_SECURITY_LOG_LINES: COUNTER, Count, "loggregator_traffic_controller_security_log_lines_total", ["outcome"],
            "Lines of the security event log: written, failed (the file could not be written to) or dropped (the disk stood still).";
        TC_SHARED_STREAMS: GAUGE, Count, "loggregator_traffic_controller_shared_streams", [],
            "Subscriptions at the dopplers that clients with equal requests share.";
        TC_SHARED_READERS: GAUGE, Connections, "loggregator_traffic_controller_shared_stream_readers", [],
            "Clients that read them.";
        TC_SHARED_BYTES: GAUGE, Bytes, "loggregator_traffic_controller_shared_bytes", [],
            "Bytes held for clients that are behind others of the same shared subscription.";
        TC_SHARED_MISSED: COUNTER, Envelopes, "loggregator_traffic_controller_shared_missed_envelopes_total", [],
            "Envelopes that clients were too far behind for, every client's copy counted.";
        TC_DOPPLERS: GAUGE, Connections, "loggregator_traffic_controller_dopplers", ["state"],
            "Dopplers known, by state: connected, away.";
    }
    "Access checks", "Of the traffic controller and the gateway, where UAA and the Cloud Controller decide who may read; `target` is what is asked: uaa, capi_log_access, capi_service_instances, token_keys." => {
        ACCESS_CHECKS: COUNTER, Count, "loggregator_access_checks_total", ["target", "outcome"],
            "Questions by what came of them: allowed, denied, failed (no usable answer), held_back (not asked, because the service is being left alone or too many were under way). Checks that nobody waits for any more before they are sent count nowhere.";
        ACCESS_CHECK_SECONDS: COUNTER, Seconds, "loggregator_access_check_seconds_total", ["target"],
            "Time that answers took, summed up.";
        ACCESS_LAST_LATENCY: GAUGE, Seconds, "loggregator_access_last_latency_seconds", ["target"],
            "How long the last answer took; 0 before the first.";
        ACCESS_IN_FLIGHT: GAUGE, Count, "loggregator_access_checks_in_flight", ["target"],
            "Questions under way.";
        ACCESS_BREAKER_OPEN: GAUGE, Count, "loggregator_access_breaker_open", ["target"],
            "1 while the service is left alone because it failed too often in a row.";
        ACCESS_CACHE_LOOKUPS: COUNTER, Count, "loggregator_access_cache_lookups_total", ["cache", "outcome"],
            "Looks into the cache of answers (tokens: UAA's, sources: the Cloud Controller's): hit, joined (the same was being asked), miss, refused (too many different questions under way).";
        ACCESS_CACHE_ENTRIES: GAUGE, Count, "loggregator_access_cache_entries", ["cache"],
            "Answers kept and checks under way.";
        ACCESS_CACHE_EVICTED: COUNTER, Count, "loggregator_access_cache_evicted_total", ["cache"],
            "Answers that made room before their time was up.";
        ACCESS_LOCAL_CHECKS: COUNTER, Count, "loggregator_access_local_checks_total", ["outcome"],
            "Signed tokens checked here: accepted, refused.";
        ACCESS_KEYS: GAUGE, Count, "loggregator_access_token_keys", [],
            "UAA's public keys that are known.";
        ACCESS_KEY_AGE: GAUGE, Seconds, "loggregator_access_token_keys_age_seconds", [],
            "Time since they were fetched.";
    }
    "rlp", "What the reverse log proxy reads from the dopplers and gives to its readers; `endpoint` is `batched_receiver`, `receiver` or `in_process`." => {
        RLP_INGRESS: COUNTER, Envelopes, "loggregator_rlp_ingress_envelopes_total", [],
            "Envelopes received from dopplers.";
        RLP_EGRESS: COUNTER, Envelopes, "loggregator_rlp_egress_envelopes_total", ["endpoint"],
            "Envelopes taken by readers' connections.";
        RLP_EGRESS_BYTES: COUNTER, Bytes, "loggregator_rlp_egress_bytes_total", ["endpoint"],
            "Bytes of messages taken by readers' connections.";
        RLP_DROPPED: COUNTER, Envelopes, "loggregator_rlp_dropped_envelopes_total", ["endpoint", "reason"],
            "Envelopes received for a reader and lost.";
        RLP_REJECTED: COUNTER, Envelopes, "loggregator_rlp_rejected_envelopes_total", ["reason"],
            "Batches from dopplers whose framing is broken; each counts as one envelope.";
        RLP_STREAMS: GAUGE, Connections, "loggregator_rlp_streams", ["endpoint"],
            "Open streams.";
        RLP_ENDED: COUNTER, Connections, "loggregator_rlp_ended_streams_total", ["endpoint", "reason"],
            "Streams that ended, by reason.";
        RLP_REFUSED: COUNTER, Count, "loggregator_rlp_refused_streams_total", ["reason"],
            "Streams refused, by reason: streams and subscriptions (too many), selectors (nothing selected), bad_request.";
        RLP_SHARED_STREAMS: GAUGE, Count, "loggregator_rlp_shared_streams", [],
            "Subscriptions at the dopplers that readers with equal requests share.";
        RLP_SHARED_READERS: GAUGE, Connections, "loggregator_rlp_shared_stream_readers", [],
            "Readers of them.";
        RLP_SHARED_BYTES: GAUGE, Bytes, "loggregator_rlp_shared_bytes", [],
            "Bytes held for readers that are behind others of the same shared subscription.";
        RLP_SHARED_MISSED: COUNTER, Envelopes, "loggregator_rlp_shared_missed_envelopes_total", [],
            "Envelopes that readers were too far behind for, every reader's copy counted.";
        RLP_DOPPLERS: GAUGE, Connections, "loggregator_rlp_dopplers", ["state"],
            "Dopplers known, by state: connected, away.";
    }
    "rlp-gateway", "What the HTTP gateway reads from the reverse log proxy and writes to its clients." => {
        GATEWAY_INGRESS: COUNTER, Envelopes, "loggregator_gateway_ingress_envelopes_total", [],
            "Envelopes received from the reverse log proxy.";
        GATEWAY_REJECTED: COUNTER, Envelopes, "loggregator_gateway_rejected_envelopes_total", ["reason"],
            "Messages from the reverse log proxy that could not be understood; each counts as one envelope.";
        GATEWAY_EGRESS: COUNTER, Envelopes, "loggregator_gateway_egress_envelopes_total", [],
            "Envelopes whose event was taken by a client's connection.";
        GATEWAY_EGRESS_BYTES: COUNTER, Bytes, "loggregator_gateway_egress_bytes_total", [],
            "Bytes of data events taken by clients' connections.";
        GATEWAY_DROPPED: COUNTER, Envelopes, "loggregator_gateway_dropped_envelopes_total", ["reason"],
            "Envelopes received for a client and lost.";
        GATEWAY_STREAMS: GAUGE, Connections, "loggregator_gateway_streams", [],
            "Open streams.";
        GATEWAY_ENDED: COUNTER, Connections, "loggregator_gateway_ended_streams_total", ["reason"],
            "Streams that ended, by reason.";
        GATEWAY_PARKED: GAUGE, Connections, "loggregator_gateway_parked_streams", [],
            "Streams whose time was over and that are kept for their clients to go on with.";
        GATEWAY_UNPARKED: COUNTER, Connections, "loggregator_gateway_unparked_streams_total", ["outcome"],
            "Kept streams that a client went on with (resumed) or nobody did in time (expired).";
        GATEWAY_REQUESTS: COUNTER, Count, "loggregator_gateway_requests_total", ["status"],
            "Requests by HTTP status; 499: the client left before there was an answer.";
        GATEWAY_STALLED: COUNTER, Count, "loggregator_gateway_stalled_responses_total", [],
            "HTTP/2 responses that were reset because the client took nothing more of them.";
        GATEWAY_PROVIDER_CONNECTED: GAUGE, Connections, "loggregator_gateway_provider_connected", [],
            "1 while the connection to the reverse log proxy stands.";
        GATEWAY_ACCESS_LOG_DROPPED: COUNTER, Count, "loggregator_gateway_access_log_dropped_lines_total", [],
            "Access log lines lost because standard output did not take them.";
    }
    "nozzle: prometheus", "Of destinations of the kind `prometheus`; `destination` is its name." => {
        NOZZLE_PROMETHEUS_SERIES: GAUGE, Count, "loggregator_nozzle_prometheus_series", ["destination"],
            "Series that exist; a histogram is one.";
        NOZZLE_PROMETHEUS_STREAMS: GAUGE, Count, "loggregator_nozzle_prometheus_streams", ["destination"],
            "Different names with different tags that are told apart, refused ones included.";
        NOZZLE_PROMETHEUS_SAMPLES: COUNTER, Count, "loggregator_nozzle_prometheus_samples_total", ["destination", "kind"],
            "Samples by kind of envelope: counter, gauge (one per value), timer, log.";
        NOZZLE_PROMETHEUS_REFUSED: COUNTER, Count, "loggregator_nozzle_prometheus_refused_samples_total", ["destination", "reason"],
            "Samples that no series could take: invalid_name, name_collision, type_conflict, reserved_name, series_limit, family_limit, labels_too_long, negative_duration.";
        NOZZLE_PROMETHEUS_IGNORED: COUNTER, Count, "loggregator_nozzle_prometheus_ignored_timers_total", ["destination"],
            "Timers that are not exported, such as the router's view of its own request to an app.";
        NOZZLE_PROMETHEUS_EXPIRED: COUNTER, Count, "loggregator_nozzle_prometheus_expired_series_total", ["destination"],
            "Series that ended because no sample came any more.";
        NOZZLE_PROMETHEUS_SCRAPES: COUNTER, Count, "loggregator_nozzle_prometheus_scrapes_total", ["destination", "format"],
            "Pages rendered, by format: text, openmetrics, protobuf.";
        NOZZLE_PROMETHEUS_SCRAPES_REFUSED: COUNTER, Count, "loggregator_nozzle_prometheus_refused_scrapes_total", ["destination", "reason"],
            "Scrapes refused, by reason: password, busy.";
        NOZZLE_PROMETHEUS_SCRAPE_SECONDS: COUNTER, Seconds, "loggregator_nozzle_prometheus_scrape_seconds_total", ["destination"],
            "Time that rendering and compressing took.";
        NOZZLE_PROMETHEUS_PAGE_BYTES: GAUGE, Bytes, "loggregator_nozzle_prometheus_page_bytes", ["destination"],
            "Size of the last page, uncompressed.";
        NOZZLE_PROMETHEUS_WRITES: COUNTER, Count, "loggregator_nozzle_prometheus_remote_write_requests_total", ["destination", "outcome"],
            "Requests of remote write, by outcome: written, later (5xx, 429), refused (other 4xx), failed (no answer).";
        NOZZLE_PROMETHEUS_WRITTEN: COUNTER, Count, "loggregator_nozzle_prometheus_remote_write_samples_total", ["destination"],
            "Samples that the receiver confirmed, stale markers included.";
        NOZZLE_PROMETHEUS_MARKERS: COUNTER, Count, "loggregator_nozzle_prometheus_remote_write_ended_series_total", ["destination"],
            "Series whose end the receiver was told.";
        NOZZLE_PROMETHEUS_MARKERS_DROPPED: COUNTER, Count, "loggregator_nozzle_prometheus_remote_write_lost_ends_total", ["destination"],
            "Series whose end the receiver could not be told: it shows their last value for five minutes more.";
    }
    "rlp-gateway, as the Go gateway names them", "Only on the metrics endpoint of the gateway that asks for a client certificate. The names are kept, whatever our conventions." => {
        LAST_UAA_LATENCY: GAUGE, Count, "LastUAALatency", [],
            "Nanoseconds that UAA's last answer took.";
        LAST_LOG_ACCESS_LATENCY: GAUGE, Count, "LastCAPIV4LogAccessLatency", [],
            "Nanoseconds that the Cloud Controller's last answer about an application took.";
        LAST_SERVICE_INSTANCES_LATENCY: GAUGE, Count, "LastCAPIV2ServiceInstancesLatency", [],
            "Nanoseconds that the Cloud Controller's last answer about a service instance took.";
        LAST_APPS_LATENCY: GAUGE, Count, "LastCAPIV3AppsLatency", [],
            "Always 0.";
        LAST_LIST_SERVICE_INSTANCES_LATENCY: GAUGE, Count, "LastCAPIV2ListServiceInstancesLatency", [],
            "Always 0.";
        PROMHTTP_ERRORS: COUNTER, Count, "promhttp_metric_handler_errors_total", ["cause"],
            "Total number of internal errors encountered by the promhttp metric handler.";
    }
    "nozzle: syslog", "Of every destination of the kind syslog; `destination` is its name." => {
        SYSLOG_MESSAGES: COUNTER, Count, "loggregator_nozzle_syslog_messages_total", ["destination"],
            "Messages written, each time that one was.";
        SYSLOG_BYTES: COUNTER, Bytes, "loggregator_nozzle_syslog_bytes_total", ["destination"],
            "Bytes of messages with their framing.";
        SYSLOG_AGAIN: COUNTER, Count, "loggregator_nozzle_syslog_repeated_messages_total", ["destination"],
            "Messages written that may have arrived before: an upper bound of duplicates.";
        SYSLOG_CONNECTIONS: COUNTER, Connections, "loggregator_nozzle_syslog_connections_total", ["destination"],
            "Connections that were made.";
        SYSLOG_CONNECTED: GAUGE, Count, "loggregator_nozzle_syslog_connected", ["destination"],
            "1 while there is a connection, else 0.";
        SYSLOG_FAILURES: COUNTER, Count, "loggregator_nozzle_syslog_connection_failures_total", ["destination", "reason"],
            "Connections that could not be made (connect, connect_timeout, tls) or broke (closed, timeout, reset, broken); over HTTPS requests that were not taken (status, request).";
        SYSLOG_UNACKNOWLEDGED: GAUGE, Bytes, "loggregator_nozzle_syslog_unacknowledged_bytes", ["destination"],
            "Bytes written that the receiver's system has not acknowledged.";
    }
    "nozzle: intake and names", "A nozzle's subscription at the dopplers, its tokens, and what it knows of apps. The label `for` of tokens is `intake` or `names`." => {
        NOZZLE_INTAKE_BATCHES: COUNTER, Frames, "loggregator_nozzle_intake_batches_total", [],
            "Batches received.";
        NOZZLE_INTAKE_BYTES: COUNTER, Bytes, "loggregator_nozzle_intake_bytes_total", [],
            "Bytes of these batches, in the form in which the nozzle keeps them.";
        NOZZLE_INTAKE_LAST_BATCH: GAUGE, Seconds, "loggregator_nozzle_intake_last_batch_timestamp_seconds", [],
            "When the latest batch came, in seconds since 1970; 0 if none did.";
        NOZZLE_INTAKE_STREAMS: GAUGE, Connections, "loggregator_nozzle_intake_streams", [],
            "Streams that stand.";
        NOZZLE_INTAKE_RECONNECTS: COUNTER, Connections, "loggregator_nozzle_intake_reconnects_total", ["reason"],
            "Streams that ended and are opened again; `slow_consumer` when the other side said that the nozzle is too slow, `silence` when nothing came for max_silence, `expired` when the other side ends every stream after a while.";
        NOZZLE_INTAKE_MALFORMED: COUNTER, Count, "loggregator_nozzle_intake_malformed_total", [],
            "Messages of a WebSocket or events of a gateway that hold no envelopes.";
        NOZZLE_INTAKE_NOT_SELECTED: COUNTER, Envelopes, "loggregator_nozzle_intake_not_selected_total", [],
            "Envelopes that came though they were not asked for, because the other side cannot select so finely.";
        NOZZLE_INTAKE_CERTIFICATE_RELOADS: COUNTER, Count, "loggregator_nozzle_intake_certificate_reloads_total", ["outcome"],
            "Changed certificate files that were taken over, or could not be used.";
        NOZZLE_TOKEN_REQUESTS: COUNTER, Count, "loggregator_nozzle_token_requests_total", ["for", "outcome"],
            "Tokens asked of a UAA.";
        NOZZLE_TOKEN_EXPIRY: GAUGE, Seconds, "loggregator_nozzle_token_expiry_timestamp_seconds", ["for"],
            "When the token expires, in seconds since 1970; 0 if there is none.";
        NOZZLE_NAMES_LOOKUPS: COUNTER, Count, "loggregator_nozzle_names_lookups_total", ["outcome"],
            "Events for which names were looked up: `hit`, `stale` (served, and asked for again), `negative` (the Cloud Controller does not know the app), `miss` (asked for now), `tags` (no app's id, or the envelope's tags suffice).";
        NOZZLE_NAMES_REQUESTS: COUNTER, Count, "loggregator_nozzle_names_requests_total", ["call", "outcome"],
            "Requests to the Cloud Controller: `all` apps page by page or `some` by id; `limited` when it asked for fewer.";
        NOZZLE_NAMES_KNOWN: GAUGE, Count, "loggregator_nozzle_names_apps", [],
            "Apps whose names are known.";
        NOZZLE_NAMES_UNKNOWN: GAUGE, Count, "loggregator_nozzle_names_unknown_ids", [],
            "Ids that the Cloud Controller did not know.";
        NOZZLE_NAMES_WAITING: GAUGE, Count, "loggregator_nozzle_names_waiting_ids", [],
            "Ids that wait to be asked for.";
        NOZZLE_NAMES_REFUSED: COUNTER, Count, "loggregator_nozzle_names_refused_total", [],
            "Ids that were not noted down to be asked for because too many wait already.";
        NOZZLE_NAMES_EVICTED: COUNTER, Count, "loggregator_nozzle_names_evicted_total", [],
            "Apps that were forgotten because max_apps were known, least recently used first.";
        NOZZLE_NAMES_EXPIRED: COUNTER, Count, "loggregator_nozzle_names_expired_total", [],
            "Apps that were forgotten because the Cloud Controller had not confirmed them for too long.";
        NOZZLE_NAMES_AGE: GAUGE, Seconds, "loggregator_nozzle_names_age_seconds", [],
            "Time since the Cloud Controller last answered, or since the snapshot was made.";
        NOZZLE_NAMES_SNAPSHOTS: COUNTER, Count, "loggregator_nozzle_names_snapshots_total", ["outcome"],
            "Snapshots of the names written to disk.";
    }
    "nozzle", "What a nozzle takes in and what becomes of it. `destination` is a destination's name. For each destination, received = delivered + filtered + dropped + dead-lettered + pending; with a buffer on disk these go on over restarts, everything else counts from the start of the process." => {
        NOZZLE_RECEIVED: COUNTER, Envelopes, "loggregator_nozzle_received_envelopes_total", [],
            "Envelopes that the intake received.";
        NOZZLE_ACCEPTED: COUNTER, Envelopes, "loggregator_nozzle_accepted_envelopes_total", [],
            "Envelopes that the buffer took.";
        NOZZLE_REJECTED: COUNTER, Envelopes, "loggregator_nozzle_rejected_envelopes_total", ["reason"],
            "Envelopes that it did not: filter (select.filter does not hold for them), malformed (a batch whose framing is broken counts as one), or what the buffer gives as its reason (disk_full, disk_error, too_large).";
        NOZZLE_UPSTREAM_LOST: COUNTER, Envelopes, "loggregator_nozzle_upstream_lost_envelopes_total", ["origin"],
            "Envelopes that a doppler (loggregator.doppler) or a reverse log proxy (loggregator.rlp) says it lost, in the stream. A Go proxy counts the losses of all its readers.";
        NOZZLE_SILENCE_SECONDS: GAUGE, Seconds, "loggregator_nozzle_intake_silence_seconds", [],
            "Time since the last envelope arrived.";
        NOZZLE_BUFFER_BYTES: GAUGE, Bytes, "loggregator_nozzle_buffer_bytes", [],
            "Bytes that the buffer holds.";
        NOZZLE_BUFFER_LIMIT_BYTES: GAUGE, Bytes, "loggregator_nozzle_buffer_limit_bytes", [],
            "Bytes that it may hold.";
        NOZZLE_BUFFER_SEGMENTS: GAUGE, Count, "loggregator_nozzle_buffer_segments", [],
            "Pieces in which its space is given back: segment files on disk, frames in memory.";
        NOZZLE_BUFFER_MEMORY_BYTES: GAUGE, Bytes, "loggregator_nozzle_buffer_memory_bytes", [],
            "Newest events that a buffer on disk keeps in memory too.";
        NOZZLE_BUFFER_REFUSED: COUNTER, Envelopes, "loggregator_nozzle_buffer_refused_envelopes_total", ["reason"],
            "Envelopes that it could not take: disk_full, disk_error, too_large (longer than a segment).";
        NOZZLE_BUFFER_DAMAGED: COUNTER, Envelopes, "loggregator_nozzle_buffer_damaged_events_total", [],
            "Events found damaged on the disk.";
        NOZZLE_BUFFER_SYNCS: COUNTER, Count, "loggregator_nozzle_buffer_syncs_total", [],
            "How often its segments were synced.";
        NOZZLE_BUFFER_SYNC_SECONDS: COUNTER, Seconds, "loggregator_nozzle_buffer_sync_seconds_total", [],
            "How long that took.";
        NOZZLE_BUFFER_READ_ERRORS: COUNTER, Count, "loggregator_nozzle_buffer_read_errors_total", [],
            "Reads of the buffer's files that failed. Each is done again, three times within a second; then what cannot be read is given up page by page, and the events in it are `dropped` as `damaged`.";
        NOZZLE_BUFFER_SYNC_ERRORS: COUNTER, Count, "loggregator_nozzle_buffer_sync_errors_total", [],
            "Syncs that failed: what was written since the last good one may not survive a crash of the machine.";
        NOZZLE_BUFFER_READS: COUNTER, Count, "loggregator_nozzle_buffer_reads_total", [],
            "Blocks read from the disk, for destinations that are behind what is in memory.";
        NOZZLE_BACKLOG_LIMIT_BYTES: GAUGE, Bytes, "loggregator_nozzle_backlog_limit_bytes", ["destination"],
            "Bytes of the buffer that may wait for the destination.";
        NOZZLE_BACKLOG_FULL: GAUGE, Count, "loggregator_nozzle_backlog_full", ["destination"],
            "1 while the destination's share of the buffer is full and new events are skipped for it.";
        NOZZLE_BACKLOG_SKIPPED: GAUGE, Envelopes, "loggregator_nozzle_backlog_skipped_events", ["destination"],
            "Pending events that it will not get, because its share was full; dropped once the cursor has come to them.";
        NOZZLE_DESTINATION_RECEIVED: COUNTER, Envelopes, "loggregator_nozzle_destination_received_events_total", ["destination"],
            "Events that the buffer took since the destination was added.";
        NOZZLE_DELIVERED: COUNTER, Envelopes, "loggregator_nozzle_delivered_events_total", ["destination"],
            "Events that the destination confirmed and that the cursor has passed.";
        NOZZLE_DELIVERED_BYTES: COUNTER, Bytes, "loggregator_nozzle_delivered_bytes_total", ["destination"],
            "Bytes of the envelopes that it confirmed.";
        NOZZLE_FILTERED: COUNTER, Envelopes, "loggregator_nozzle_filtered_events_total", ["destination", "rule"],
            "Events left out on purpose: kind (the destination can do nothing with them) or filter (its filter does not hold).";
        NOZZLE_DROPPED: COUNTER, Envelopes, "loggregator_nozzle_dropped_events_total", ["destination", "reason"],
            "Events lost: backlog_full (its share of the buffer was full), damaged (the disk gave other bytes back), quota (the app sent too much).";
        NOZZLE_DEAD_LETTERED: COUNTER, Envelopes, "loggregator_nozzle_dead_lettered_events_total", ["destination", "reason"],
            "Events that it refused for good: oversize, retries_exhausted, or a reason of its kind.";
        NOZZLE_PENDING: GAUGE, Envelopes, "loggregator_nozzle_pending_events", ["destination"],
            "Events that wait for it, those on their way included.";
        NOZZLE_PENDING_BYTES: GAUGE, Bytes, "loggregator_nozzle_pending_bytes", ["destination"],
            "Bytes of the buffer that wait for it.";
        NOZZLE_LAG_SECONDS: GAUGE, Seconds, "loggregator_nozzle_lag_seconds", ["destination"],
            "Time since the oldest event that waits for it was received; 0 when none waits.";
        NOZZLE_RETRIED: COUNTER, Envelopes, "loggregator_nozzle_retried_events_total", ["destination", "reason"],
            "Events that were tried again, by the reason for which they had not been taken.";
        NOZZLE_FAILURES: COUNTER, Count, "loggregator_nozzle_failures_total", ["destination"],
            "Batches of which something has to be tried again.";
        NOZZLE_IN_FLIGHT: GAUGE, Count, "loggregator_nozzle_in_flight_batches", ["destination"],
            "Batches on their way.";
        NOZZLE_CONCURRENCY: GAUGE, Count, "loggregator_nozzle_concurrency_limit", ["destination"],
            "Batches that may be on their way at a time, as the destination's answers suggest.";
        NOZZLE_RATE_HELD: COUNTER, Seconds, "loggregator_nozzle_rate_held_seconds_total", ["destination"],
            "Time for which a batch could have been sent and was held back by `rate`.";
        NOZZLE_BREAKER: GAUGE, Count, "loggregator_nozzle_breaker_state", ["destination"],
            "Circuit breaker: 0 closed, 1 half-open (one batch at a time is tried), 2 open (nothing is tried).";
        NOZZLE_BATCH_EVENTS: Kind::Histogram(&[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0]), Envelopes, "loggregator_nozzle_batch_events", ["destination"],
            "Events per batch that was answered.";
        NOZZLE_BATCH_BYTES: Kind::Histogram(&[1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0]), Bytes, "loggregator_nozzle_batch_bytes", ["destination"],
            "Bytes of envelopes per batch that was answered.";
        NOZZLE_DELIVERY_SECONDS: Kind::Histogram(&[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0]), Seconds, "loggregator_nozzle_delivery_seconds", ["destination"],
            "Time until a batch was answered, failures included.";
        NOZZLE_FILTER_EVENTS: COUNTER, Envelopes, "loggregator_nozzle_filter_events_total", ["destination", "outcome"],
            "Events that the filter looked at: matched, not_matched.";
        NOZZLE_FILTER_SUSPECT: GAUGE, Count, "loggregator_nozzle_filter_suspect", ["destination", "matched"],
            "1 when a filter has matched none, or all, of 10,000 events or more.";
        NOZZLE_QUOTA_NOTICES: COUNTER, Count, "loggregator_nozzle_quota_notices_total", ["destination"],
            "Lines delivered in the place of events over their quota. They count in no other metric.";
        NOZZLE_DEAD_LETTER_BYTES: GAUGE, Bytes, "loggregator_nozzle_dead_letter_bytes", ["destination"],
            "Bytes of dead letters on disk.";
        NOZZLE_DEAD_LETTERS_GONE: COUNTER, Envelopes, "loggregator_nozzle_dead_letters_gone_total", ["destination", "reason"],
            "Dead letters that cannot be replayed: evicted (older than what has room), not_kept (there is no disk, or it failed).";
        NOZZLE_TAPS: GAUGE, Count, "loggregator_nozzle_taps", [],
            "Taps that are open.";
        NOZZLE_TAP_LEFT_OUT: COUNTER, Envelopes, "loggregator_nozzle_tap_left_out_events_total", [],
            "Events that matched a tap and were not shown: more than its rate, or its reader was too slow. Nothing else is affected.";
        NOZZLE_TOP_LINES: COUNTER, Envelopes, "loggregator_nozzle_top_source_lines_total", ["source_id", "app", "space", "org"],
            "Log lines of the 20 sources that sent most of them; too large by what the source before had when it took its place.";
        NOZZLE_TOP_BYTES: COUNTER, Bytes, "loggregator_nozzle_top_source_bytes_total", ["source_id", "app", "space", "org"],
            "Bytes of envelopes of the 20 sources that sent most of them.";
    }

    "nozzle: kafka", "Of every destination of the kind kafka; `destination` is its name; most are what librdkafka says of itself, every `statistics_interval`." => {
        KAFKA_DELIVERED: COUNTER, Count, "loggregator_nozzle_kafka_delivered_records_total", ["destination", "topic"],
            "Records that the brokers confirmed.";
        KAFKA_TOPIC_OVERFLOW: COUNTER, Envelopes, "loggregator_nozzle_kafka_topic_overflow_total", ["destination"],
            "Envelopes whose topic would have been one more than max_topics.";
        KAFKA_QUEUE_RECORDS: GAUGE, Count, "loggregator_nozzle_kafka_queue_records", ["destination"],
            "Records in the client, waiting or on their way.";
        KAFKA_QUEUE_BYTES: GAUGE, Bytes, "loggregator_nozzle_kafka_queue_bytes", ["destination"],
            "Bytes of these.";
        KAFKA_QUEUE_MAX_BYTES: GAUGE, Bytes, "loggregator_nozzle_kafka_queue_max_bytes", ["destination"],
            "Bytes that there may be.";
        KAFKA_QUEUE_FULL: COUNTER, Count, "loggregator_nozzle_kafka_queue_full_total", ["destination"],
            "Times that a record had to wait for room in the client.";
        KAFKA_QUEUE_TIME: GAUGE, Seconds, "loggregator_nozzle_kafka_queue_seconds", ["destination", "statistic"],
            "How long records waited in the client before they were sent; statistic is mean or p99.";
        KAFKA_RTT: GAUGE, Seconds, "loggregator_nozzle_kafka_rtt_seconds", ["destination", "statistic"],
            "How long brokers took to answer a request; statistic is mean or p99.";
        KAFKA_THROTTLE: GAUGE, Seconds, "loggregator_nozzle_kafka_throttle_seconds", ["destination"],
            "Longest pause that a broker asked for because of a quota.";
        KAFKA_BROKERS_UP: GAUGE, Connections, "loggregator_nozzle_kafka_brokers_up", ["destination"],
            "Brokers that the client is connected to.";
        KAFKA_REQUESTS: COUNTER, Count, "loggregator_nozzle_kafka_requests_total", ["destination"],
            "Requests sent to brokers.";
        KAFKA_SENT_BYTES: COUNTER, Bytes, "loggregator_nozzle_kafka_sent_bytes_total", ["destination"],
            "Bytes sent to brokers, compressed.";
        KAFKA_REQUEST_ERRORS: COUNTER, Count, "loggregator_nozzle_kafka_request_errors_total", ["destination"],
            "Requests that could not be sent.";
        KAFKA_REQUEST_RETRIES: COUNTER, Count, "loggregator_nozzle_kafka_request_retries_total", ["destination"],
            "Requests sent again by the client itself.";
        KAFKA_REQUEST_TIMEOUTS: COUNTER, Count, "loggregator_nozzle_kafka_request_timeouts_total", ["destination"],
            "Requests that no broker answered in time.";
        KAFKA_CLIENT_ERRORS: COUNTER, Count, "loggregator_nozzle_kafka_client_errors_total", ["destination", "code"],
            "Errors of the client as a whole: connect, tls, authentication, kafka_error.";
        KAFKA_PRODUCER_RESTARTS: COUNTER, Count, "loggregator_nozzle_kafka_producer_restarts_total", ["destination"],
            "Clients that had to be given up and made anew.";
        KAFKA_TRANSACTIONS: COUNTER, Count, "loggregator_nozzle_kafka_transactions_total", ["destination", "result"],
            "Transactions by their end: committed or aborted.";
    }
}

/// Every metric of the table.
pub fn all() -> impl Iterator<Item = &'static MetricDef> {
    SECTIONS
        .iter()
        .flat_map(|section| section.metrics.iter().copied())
}

/// The reference page.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         What `GET /metrics` of a component's admin server answers, in Prometheus text form. This page is rendered\n\
         from the table in `crates/service/src/metrics/names.rs`; a test compares the two.\n",
    );
    for section in SECTIONS {
        write!(out, "\n## {}\n\n{}\n\n", section.title, section.intro).ok();
        out.push_str(
            "| metric | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for metric in section.metrics {
            let labels: Vec<String> = metric
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let labels = if labels.is_empty() {
                "–".to_owned()
            } else {
                labels.join(", ")
            };
            let (kind, unit) = (metric.kind.name(), metric.unit.name());
            writeln!(
                out,
                "| `{}` | {kind} | {unit} | {labels} | {} |",
                metric.name, metric.help
            )
            .ok();
        }
    }
    out
}
