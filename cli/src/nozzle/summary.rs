//! What a configuration means: for `check`, and for what `run` says when it starts.

use std::path::Path;

use loggregator_envelope::{Kind, KindSet};
use loggregator_nozzle::config::{
    BufferConfig, ConfigErrors, DestinationConfig, Full, IntakeConfig, NozzleConfig, OauthConfig,
    Secret, Size,
};
use loggregator_nozzle::filter::Filter;
use loggregator_nozzle::{Kinds, Plan};
use serde::Serialize;
use serde_json::{Map, Value};

/// A configuration in words.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Name of the nozzle.
    pub name: String,
    /// Where envelopes come from.
    pub intake: String,
    /// What is asked for.
    pub select: String,
    /// What stands between.
    pub buffer: String,
    /// Where names come from, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrichment: Option<String>,
    /// Its admin server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Where envelopes go.
    pub destinations: Vec<DestinationSummary>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// A destination in words.
#[derive(Debug, Serialize)]
pub struct DestinationSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it promises.
    pub guarantee: String,
    /// Its filter, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The kinds of envelopes that can reach it.
    pub envelopes: Vec<&'static str>,
    /// What happens when its share of the buffer is full.
    pub backlog: String,
    /// How much goes at once.
    pub batch: String,
    /// When something is tried again.
    pub retry: String,
    /// Whether nothing is sent.
    pub dry_run: bool,
}

impl Summary {
    /// In words.
    ///
    /// # Errors
    /// When a destination's section is wrong.
    pub fn of(config: &NozzleConfig, kinds: &Kinds) -> Result<Summary, ConfigErrors> {
        let mut warnings = Vec::new();
        intake_warnings(&config.intake, &mut warnings);
        let mut destinations = Vec::new();
        for destination in &config.destinations {
            let Some(kind) = kinds.get(&destination.kind) else {
                continue;
            };
            let plan = kind.plan(&destination.section)?;
            destination_warnings(config, destination, &*plan, &mut warnings);
            destinations.push(DestinationSummary::of(config, destination, &*plan));
        }
        general_warnings(config, &mut warnings);
        Ok(Summary {
            name: config.nozzle.name.clone(),
            intake: intake(&config.intake),
            select: select(config),
            buffer: buffer(&config.buffer),
            enrichment: config.enrichment.as_ref().map(|it| it.url.clone()),
            admin: config
                .nozzle
                .admin_addr
                .map(|addr| format!("http://{addr}")),
            destinations,
            warnings,
        })
    }

    /// For people, a line each.
    pub fn render(&self) -> String {
        let mut text = format!("nozzle {}\n", self.name);
        let mut rows = vec![
            ("intake", self.intake.clone()),
            ("select", self.select.clone()),
            ("buffer", self.buffer.clone()),
        ];
        rows.extend(self.enrichment.clone().map(|names| ("names", names)));
        rows.extend(self.admin.clone().map(|admin| ("admin", admin)));
        for (name, value) in rows {
            text.push_str(&format!("  {name:<11} {value}\n"));
        }
        for destination in &self.destinations {
            let dry = if destination.dry_run {
                ", dry run: nothing is sent"
            } else {
                ""
            };
            text.push_str(&format!(
                "  destination {} ({}{dry})\n    {}\n",
                destination.name, destination.kind, destination.guarantee
            ));
            if let Some(filter) = &destination.filter {
                text.push_str(&format!("    filter   {filter}\n"));
            }
            text.push_str(&format!(
                "    takes    {}\n    backlog  {}\n    batch    {}\n    retry    {}\n",
                destination.envelopes.join(", "),
                destination.backlog,
                destination.batch,
                destination.retry,
            ));
        }
        text
    }
}

impl DestinationSummary {
    fn of(config: &NozzleConfig, of: &DestinationConfig, plan: &dyn Plan) -> DestinationSummary {
        let limits = plan.limits();
        let batch = &of.batch;
        let share = match of.backlog.max_bytes {
            Some(share) => format!("at most {share}"),
            None if config.destinations.len() == 1 => "the whole buffer".to_owned(),
            None => "an equal share of the buffer".to_owned(),
        };
        let full = match of.backlog.full {
            Full::DropNewest => "beyond that the newest is dropped",
            Full::DropOldest => "beyond that the oldest is dropped",
        };
        let attempts = match of.retry.attempts {
            0 => "for ever".to_owned(),
            n => format!("{n} times, then dead letter"),
        };
        DestinationSummary {
            name: of.name.clone(),
            kind: of.kind.clone(),
            guarantee: plan.guarantee(),
            filter: of.filter.clone(),
            envelopes: names(reaching(config, of, plan)),
            backlog: format!("{share}; {full}"),
            batch: format!(
                "{} events or {}, after {}; {} at a time",
                batch.events.unwrap_or(limits.batch_events),
                batch.bytes.unwrap_or(Size(limits.batch_bytes as u64)),
                batch
                    .linger
                    .unwrap_or(loggregator_nozzle::config::Time(limits.linger)),
                batch.in_flight.unwrap_or(limits.in_flight),
            ),
            retry: format!(
                "{attempts}, after {} to {}; each attempt at most {}",
                of.retry.min, of.retry.max, of.retry.timeout
            ),
            dry_run: of.dry_run,
        }
    }
}

fn intake(intake: &IntakeConfig) -> String {
    match intake {
        IntakeConfig::Rlp(rlp) => format!(
            "gRPC from {} (certificates of `{}`)",
            rlp.addrs.join(", "),
            rlp.server_name
        ),
        IntakeConfig::WebSocket(web) => format!("WebSocket from {}", web.url),
        IntakeConfig::Gateway(gateway) => format!("server-sent events from {}", gateway.url),
        IntakeConfig::InProcess(_) => {
            "the pipeline in the same process, or a running `up`".to_owned()
        }
    }
}

fn select(config: &NozzleConfig) -> String {
    let select = &config.select;
    let kinds = if select.kinds.is_empty() {
        "what the destinations take".to_owned()
    } else {
        select.kinds.join(", ")
    };
    let mut text = format!(
        "{kinds}, as shard `{}`",
        select.shard_id.as_ref().unwrap_or(&config.nozzle.name)
    );
    if !select.source_ids.is_empty() {
        text.push_str(&format!("; only {}", select.source_ids.join(", ")));
    }
    if let Some(filter) = &select.filter {
        text.push_str(&format!("; filter {filter}"));
    }
    text
}

fn buffer(buffer: &BufferConfig) -> String {
    match buffer {
        BufferConfig::Memory(memory) => format!("{} in memory", memory.max_bytes),
        BufferConfig::Disk(disk) => format!(
            "{} on disk in {}, written through after {} at the latest",
            disk.max_bytes,
            disk.path.display(),
            disk.sync_interval
        ),
    }
}

const KINDS: [Kind; 5] = [
    Kind::Log,
    Kind::Counter,
    Kind::Gauge,
    Kind::Timer,
    Kind::Event,
];

fn names(kinds: KindSet) -> Vec<&'static str> {
    let there = KINDS.into_iter().filter(|kind| kinds.contains(*kind));
    there.map(Kind::name).collect()
}

/// The kinds of envelopes that can come all the way to a destination.
fn reaching(config: &NozzleConfig, of: &DestinationConfig, plan: &dyn Plan) -> KindSet {
    let selected = KINDS
        .into_iter()
        .filter(|kind| config.select.kinds.iter().any(|name| name == kind.name()))
        .map(KindSet::of)
        .fold(KindSet::EMPTY, KindSet::union);
    let selected = if config.select.kinds.is_empty() {
        KindSet::ALL
    } else {
        selected
    };
    let filter = |text: &Option<String>| match text.as_deref().map(Filter::parse) {
        Some(Ok(filter)) => filter.kinds(),
        _ => KindSet::ALL,
    };
    selected
        .intersection(filter(&config.select.filter))
        .intersection(filter(&of.filter))
        .intersection(plan.accepts())
}

fn destination_warnings(
    config: &NozzleConfig,
    of: &DestinationConfig,
    plan: &dyn Plan,
    warnings: &mut Vec<String>,
) {
    let name = &of.name;
    if names(reaching(config, of, plan)).is_empty() {
        warnings.push(format!(
            "destination.{name}: nothing can ever come here: its kind, its filter and [select] have no kind of envelope in common"
        ));
    }
    let selected = &config.select.source_ids;
    if let Some(Ok(filter)) = of.filter.as_deref().map(Filter::parse)
        && let Some(wanted) = filter.source_ids()
        && !selected.is_empty()
        && !wanted.iter().any(|id| selected.contains(id))
    {
        warnings.push(format!(
            "destination.{name}.filter: asks for source ids that select.source_ids leaves out"
        ));
    }
    let section = format!("destination.{name}.{}", of.kind);
    for (key, message) in plan.warnings() {
        warnings.push(format!("{section}.{key}: {message}"));
    }
    if let Ok(table) = of.section.read::<Map<String, Value>>() {
        unverified_within(&section, &table, warnings);
    }
    if let Some(longest) = plan.longest_delivery()
        && of.retry.timeout.0 <= longest
    {
        warnings.push(format!(
            "destination.{name}.retry.timeout: {:?} is not longer than one delivery may take by the limits of {} ({longest:?}): one that is given up in the middle goes again as a whole",
            of.retry.timeout.0, of.kind
        ));
    }
    if of.dry_run {
        warnings.push(format!("destination.{name}.dry_run: nothing is sent"));
    }
    if matches!(config.buffer, BufferConfig::Memory(_)) && of.retry.attempts > 0 {
        warnings.push(format!(
            "destination.{name}.retry.attempts: without [buffer.disk] what is given up is only counted: there are no dead letters"
        ));
    }
}

fn general_warnings(config: &NozzleConfig, warnings: &mut Vec<String>) {
    if matches!(config.buffer, BufferConfig::Memory(_)) {
        // A scrape page shows the present, and a file on this machine is seldom away.
        let lasting: Vec<&str> = config
            .destinations
            .iter()
            .filter(|of| !matches!(of.kind.as_str(), "prometheus" | "file"))
            .map(|of| of.name.as_str())
            .collect();
        if !lasting.is_empty() {
            warnings.push(format!(
                "buffer: what waits in memory for {} is lost with the process, and dead letters are only counted; [buffer.disk] keeps both",
                lasting.join(", ")
            ));
        }
    }
    match config.nozzle.admin_addr {
        None => warnings.push(
            "nozzle.admin_addr: is not set: no metrics, no health, no ledger, no `nozzle tap`"
                .to_owned(),
        ),
        Some(addr) if !addr.ip().is_loopback() => warnings.push(format!(
            "nozzle.admin_addr: {addr} is open to the network: whoever reaches it reads which apps log how much (/talkers) and where to, without a password"
        )),
        Some(_) => {}
    }
    if let Some(enrichment) = &config.enrichment {
        if enrichment.skip_verify {
            warnings.push(unverified("enrichment"));
        }
        oauth_warnings("enrichment.oauth", &enrichment.oauth, warnings);
    }
}

fn intake_warnings(intake: &IntakeConfig, warnings: &mut Vec<String>) {
    let mut file = |key: &str, path: &Path| {
        if let Err(error) = std::fs::File::open(path) {
            warnings.push(format!("{key}: cannot read {}: {error}", path.display()));
        }
    };
    match intake {
        IntakeConfig::InProcess(_) => {}
        IntakeConfig::Rlp(rlp) => {
            file("intake.rlp.ca_file", &rlp.ca_file);
            file("intake.rlp.cert_file", &rlp.cert_file);
            file("intake.rlp.key_file", &rlp.key_file);
        }
        IntakeConfig::WebSocket(web) => {
            if let Some(ca) = &web.ca_file {
                file("intake.websocket.ca_file", ca);
            }
            let with = (&web.token, &web.oauth, web.skip_verify);
            token_warnings("intake.websocket", with, warnings);
        }
        IntakeConfig::Gateway(gateway) => {
            if let Some(ca) = &gateway.ca_file {
                file("intake.gateway.ca_file", ca);
            }
            let with = (&gateway.token, &gateway.oauth, gateway.skip_verify);
            token_warnings("intake.gateway", with, warnings);
        }
    }
}

fn token_warnings(
    key: &str,
    (token, oauth, skip_verify): (&Option<Secret>, &Option<OauthConfig>, bool),
    warnings: &mut Vec<String>,
) {
    if skip_verify {
        warnings.push(unverified(key));
    }
    match (token, oauth) {
        (Some(token), _) => secret(&format!("{key}.token"), token, warnings),
        (None, Some(oauth)) => oauth_warnings(&format!("{key}.oauth"), oauth, warnings),
        (None, None) => warnings.push(format!(
            "{key}: neither `token` nor `oauth`: most servers refuse that"
        )),
    }
}

fn oauth_warnings(key: &str, oauth: &OauthConfig, warnings: &mut Vec<String>) {
    if oauth.skip_verify {
        warnings.push(unverified(key));
    }
    secret(&format!("{key}.secret"), &oauth.secret, warnings);
    if let Some(password) = &oauth.password {
        secret(&format!("{key}.password"), password, warnings);
    }
}

fn secret(key: &str, secret: &Secret, warnings: &mut Vec<String>) {
    if let Err(error) = secret.read() {
        warnings.push(format!("{key}: {:#}", anyhow::Error::new(error)));
    }
}

fn unverified(key: &str) -> String {
    format!("{key}.skip_verify: whoever answers is believed")
}

/// Every `skip_verify = true` in a section, however deep.
fn unverified_within(key: &str, table: &Map<String, Value>, warnings: &mut Vec<String>) {
    if table.get("skip_verify").and_then(Value::as_bool) == Some(true) {
        warnings.push(unverified(key));
    }
    for (name, value) in table {
        if let Value::Object(inner) = value {
            unverified_within(&format!("{key}.{name}"), inner, warnings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nozzle::kinds;

    fn warnings(text: &str) -> Vec<String> {
        let config = NozzleConfig::load(Path::new("a.toml"), text, [], &kinds()).unwrap();
        Summary::of(&config, &kinds()).unwrap().warnings
    }

    #[test]
    fn what_is_probably_not_meant_is_told() {
        let text = r#"
[nozzle]
name = "a"
[intake.gateway]
url = "https://gateway"
token = "hunter2"
skip_verify = true
[select]
kinds = ["log"]
source_ids = ["web"]
[[destination]]
name = "never"
filter = 'kind == "counter"'
dry_run = true
[destination.file]
path = "-"
[[destination]]
name = "siem"
filter = 'source_id == "db"'
retry = { attempts = 3 }
[destination.syslog]
url = "syslog://siem"
"#;
        assert_eq!(
            warnings(text),
            [
                "intake.gateway.skip_verify: whoever answers is believed",
                "destination.never: nothing can ever come here: its kind, its filter and [select] have no kind of envelope in common",
                "destination.never.dry_run: nothing is sent",
                "destination.siem.filter: asks for source ids that select.source_ids leaves out",
                "destination.siem.retry.attempts: without [buffer.disk] what is given up is only counted: there are no dead letters",
                "buffer: what waits in memory for siem is lost with the process, and dead letters are only counted; [buffer.disk] keeps both",
                "nozzle.admin_addr: is not set: no metrics, no health, no ledger, no `nozzle tap`",
            ]
        );
    }

    #[test]
    fn what_opens_a_door_is_told() {
        let text = r#"
[nozzle]
name = "a"
admin_addr = "0.0.0.0:9000"
[buffer.disk]
path = "state"
[[destination]]
name = "topic"
[destination.kafka]
brokers = ["kafka:9092"]
topic = "logs"
sasl = { mechanism = "plain", username = "u", password = "hunter2" }
[[destination]]
name = "siem"
[destination.syslog]
url = "syslog-tls://siem"
tls.skip_verify = true
"#;
        assert_eq!(
            warnings(text),
            [
                "destination.topic.kafka.sasl.mechanism: PLAIN without a table tls: whoever is on the way can read the password or token",
                "destination.siem.syslog.tls.skip_verify: whoever answers is believed",
                "nozzle.admin_addr: 0.0.0.0:9000 is open to the network: whoever reaches it reads which apps log how much (/talkers) and where to, without a password",
            ]
        );
    }

    #[test]
    fn a_delivery_that_would_be_given_up_in_the_middle_is_warned_of() {
        let text = r#"[nozzle]
name = "a"
admin_addr = "127.0.0.1:1"
[buffer.disk]
path = "buffer"
[[destination]]
name = "each"
retry.timeout = "30s"
[destination.http]
url = "http://localhost/{source_id}"
timeout = "10s"
[[destination]]
name = "one"
retry.timeout = "30s"
[destination.http]
url = "http://localhost/"
timeout = "10s"
[[destination]]
name = "drain"
retry.timeout = "20s"
[destination.syslog]
url = "https://localhost/"
"#;
        assert_eq!(
            warnings(text),
            [
                "destination.each.retry.timeout: 30s is not longer than one delivery may take by the limits of http (30s): one that is given up in the middle goes again as a whole",
                "destination.drain.retry.timeout: 20s is not longer than one delivery may take by the limits of syslog (40s): one that is given up in the middle goes again as a whole",
            ]
        );
    }

    #[test]
    fn a_plain_file_has_no_warnings() {
        let text = "[nozzle]\nname = \"a\"\nadmin_addr = \"127.0.0.1:1\"\n[[destination]]\nname = \"x\"\n[destination.file]\npath = \"-\"\n";
        assert!(warnings(text).is_empty(), "{:?}", warnings(text));
    }
}
