//! The configuration as librdkafka wants it.

use std::time::Duration;

use loggregator_nozzle::Reason;
use loggregator_nozzle::config::{Secret, Size, Time};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{Config, Guarantee, Mechanism, OAuth, Sasl, Tls};
use crate::grant::Grant;

/// Code of a secret that cannot be read.
pub(crate) const SECRET: &str = "secret";

/// Settings of librdkafka that have a key of their own here, or that a guarantee hangs on.
const OWN: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("client.id", "client_id"),
    ("compression.type", "compression"),
    ("compression.codec", "compression"),
    ("compression.level", "compression_level"),
    ("linger.ms", "linger"),
    ("queue.buffering.max.ms", "linger"),
    ("queue.buffering.max.kbytes", "queue_bytes"),
    ("queue.buffering.max.messages", "queue_bytes"),
    ("message.max.bytes", "max_record_bytes"),
    ("topic.metadata.propagation.max.ms", "topic_grace"),
    ("statistics.interval.ms", "statistics_interval"),
    ("transactional.id", "delivery"),
    ("enable.idempotence", "delivery"),
    ("acks", "delivery"),
    ("request.required.acks", "delivery"),
    ("retries", "delivery"),
    ("message.send.max.retries", "delivery"),
    ("message.timeout.ms", "delivery"),
    ("delivery.timeout.ms", "delivery"),
    ("enable.gapless.guarantee", "delivery"),
    ("queuing.strategy", "delivery"),
    ("partitioner", "key"),
    ("security.protocol", "tls"),
    ("ssl.ca.location", "tls.ca_file"),
    ("ssl.certificate.location", "tls.cert_file"),
    ("ssl.key.location", "tls.key_file"),
    ("ssl.key.password", "tls.key_password"),
    (
        "ssl.endpoint.identification.algorithm",
        "tls.verify_hostname",
    ),
    ("enable.ssl.certificate.verification", "tls.skip_verify"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.password"),
    ("sasl.oauthbearer.config", "sasl.oauth"),
    ("sasl.oauthbearer.method", "sasl.oauth"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "sasl.oauth"),
];

/// What is wrong with the configuration as a whole, without looking at secrets: pairs of key and message.
pub(crate) fn check(config: &Config, wrong: &mut Vec<(String, String)>) {
    let mut say = |key: &str, message: String| wrong.push((key.to_owned(), message));
    if config.brokers.is_empty() {
        say("brokers", "needs at least one host:port".to_owned());
    }
    for broker in &config.brokers {
        let port = broker.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) || broker.contains([',', ' ', '/']) {
            say("brokers", format!("`{broker}` is not host:port"));
        }
    }
    if let Some(tls) = &config.tls {
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            let message = "cert_file and key_file come together or not at all";
            say("tls", message.to_owned());
        }
        if tls.skip_verify && tls.ca_file.is_some() {
            let message = "skip_verify makes ca_file useless; leave one of them out";
            say("tls.skip_verify", message.to_owned());
        }
    }
    if let Some(sasl) = &config.sasl {
        check_sasl(sasl, &mut say);
    }
    for (name, value) in &config.options {
        let key = format!("options.{name}");
        let own = OWN.iter().find(|(own, _)| own == name);
        if let Some((_, own)) = own {
            say(&key, format!("has a key of its own: `{own}`"));
        } else if let Some(text) = option_text(value) {
            let mut alone = ClientConfig::new();
            alone.set(name, text);
            if let Err(error) = alone.create_native_config() {
                say(&key, told(&error));
            }
        } else {
            say(&key, "must be a text, a number or a boolean".to_owned());
        }
    }
}

/// What is allowed and probably not meant: pairs of key and message.
pub(crate) fn warnings(config: &Config) -> Vec<(String, String)> {
    let mut warnings = Vec::new();
    if let (Some(sasl), None) = (&config.sasl, &config.tls)
        && matches!(sasl.mechanism, Mechanism::Plain | Mechanism::Oauthbearer)
    {
        let message = format!(
            "{} without a table tls: whoever is on the way can read the password or token",
            sasl.mechanism.name()
        );
        warnings.push(("sasl.mechanism".to_owned(), message));
    }
    warnings
}

fn check_sasl(sasl: &Sasl, say: &mut impl FnMut(&str, String)) {
    if sasl.mechanism == Mechanism::Oauthbearer {
        match &sasl.oauth {
            Some(oauth) => check_oauth(oauth, say),
            None => say("sasl.oauth", "oauthbearer needs this table".to_owned()),
        }
        for (key, there) in [
            ("sasl.username", sasl.username.is_some()),
            ("sasl.password", sasl.password.is_some()),
        ] {
            if there {
                say(key, "oauthbearer has none; see sasl.oauth".to_owned());
            }
        }
    } else {
        let name = sasl.mechanism.name();
        for (key, there) in [
            ("sasl.username", sasl.username.is_some()),
            ("sasl.password", sasl.password.is_some()),
        ] {
            if !there {
                say(key, format!("{name} needs it"));
            }
        }
        if sasl.oauth.is_some() {
            say("sasl.oauth", format!("{name} has no use for it"));
        }
    }
}

/// Either a token, or who gives one.
fn check_oauth(oauth: &OAuth, say: &mut impl FnMut(&str, String)) {
    match (&oauth.token, &oauth.url) {
        (None, None) => say(
            "sasl.oauth",
            "needs `token`, or `url`, `client` and `secret`".to_owned(),
        ),
        (Some(_), Some(_)) => say("sasl.oauth.url", "there is a `token` already".to_owned()),
        (Some(_), None) => {
            for (key, there) in [
                ("client", oauth.client.is_some()),
                ("secret", oauth.secret.is_some()),
                ("scope", oauth.scope.is_some()),
                ("ca_file", oauth.ca_file.is_some()),
            ] {
                if there {
                    say(
                        &format!("sasl.oauth.{key}"),
                        "is of use with `url` only".to_owned(),
                    );
                }
            }
        }
        (None, Some(_)) => {
            if let Err((key, message)) = Grant::of(oauth) {
                say(&format!("sasl.oauth.{key}"), message);
            }
        }
    }
}

/// What librdkafka finds wrong, without its wrapper's words.
fn told(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, message, _, _) => message.clone(),
        other => other.to_string(),
    }
}

fn option_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// The settings of a client, secrets read.
///
/// # Errors
/// When a secret cannot be read.
pub(crate) fn settings(config: &Config, client_id: &str) -> Result<ClientConfig, Reason> {
    let mut to = ClientConfig::new();
    to.set_log_level(RDKafkaLogLevel::Info);
    to.set("bootstrap.servers", config.brokers.join(","));
    to.set(
        "client.id",
        config.client_id.as_deref().unwrap_or(client_id),
    );
    // Quick to be back when a broker is.
    to.set("reconnect.backoff.max.ms", "2000");
    to.set("socket.keepalive.enable", "true");
    to.set("statistics.interval.ms", millis(config.statistics_interval));
    to.set(
        "topic.metadata.propagation.max.ms",
        millis(config.topic_grace),
    );
    to.set("security.protocol", protocol(config));
    if let Some(tls) = &config.tls {
        set_tls(&mut to, tls)?;
    }
    if let Some(sasl) = &config.sasl {
        to.set("sasl.mechanisms", sasl.mechanism.name());
        if let Some(user) = &sasl.username {
            to.set("sasl.username", user);
        }
        if let Some(password) = &sasl.password {
            to.set("sasl.password", read("sasl.password", password)?);
        }
    }
    for (name, value) in &config.options {
        if let Some(text) = option_text(value) {
            to.set(name, text);
        }
    }
    Ok(to)
}

/// The settings of a producer; `transactional` is its transactional id.
///
/// # Errors
/// When a secret cannot be read.
pub(crate) fn producer(
    config: &Config,
    client_id: &str,
    transactional: &str,
) -> Result<ClientConfig, Reason> {
    let mut to = settings(config, client_id)?;
    to.set("enable.idempotence", "true");
    to.set("acks", "all");
    to.set("partitioner", "murmur2_random");
    to.set("compression.type", config.compression.name());
    if let Some(level) = config.compression_level {
        to.set("compression.level", level.to_string());
    }
    to.set("linger.ms", millis(config.linger));
    to.set("message.max.bytes", config.max_record_bytes.0.to_string());
    to.set("queue.buffering.max.kbytes", kib(config.queue_bytes));
    // Bytes are the bound.
    to.set("queue.buffering.max.messages", "0");
    match config.delivery {
        // The buffer stands behind the client: it has all the time that there is.
        Guarantee::AtLeastOnce => to.set("message.timeout.ms", "0"),
        Guarantee::ExactlyOnce => to.set("transactional.id", transactional),
    };
    Ok(to)
}

fn set_tls(to: &mut ClientConfig, tls: &Tls) -> Result<(), Reason> {
    // librdkafka's OpenSSL is built along and does not know where this system keeps its authorities.
    match &tls.ca_file {
        Some(file) => to.set("ssl.ca.location", file.display().to_string()),
        None => to.set("ssl.ca.location", "probe"),
    };
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        to.set("ssl.certificate.location", cert.display().to_string());
        to.set("ssl.key.location", key.display().to_string());
    }
    if let Some(password) = &tls.key_password {
        to.set("ssl.key.password", read("tls.key_password", password)?);
    }
    let identification = if tls.verify_hostname { "https" } else { "none" };
    to.set("ssl.endpoint.identification.algorithm", identification);
    to.set(
        "enable.ssl.certificate.verification",
        (!tls.skip_verify).to_string(),
    );
    Ok(())
}

/// How connections are made.
pub(crate) fn protocol(config: &Config) -> &'static str {
    match (&config.tls, &config.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    }
}

fn read(key: &str, secret: &Secret) -> Result<String, Reason> {
    secret
        .read()
        .map_err(|error| Reason::new(SECRET, format!("{key}: {error}")))
}

fn millis(time: Time) -> String {
    let most = Duration::from_secs(3600);
    time.0.min(most).as_millis().to_string()
}

fn kib(size: Size) -> String {
    (size.0 / 1024).clamp(1, i32::MAX as u64).to_string()
}
