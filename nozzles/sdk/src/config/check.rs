//! What types cannot say: bounds, and what must fit together.

use std::fmt::Display;
use std::time::Duration;

use loggregator_envelope::Kind;

use super::document::{Parts, destination_key};
use super::model::{
    BufferConfig, DestinationConfig, EnrichmentConfig, IntakeConfig, NAMES, NozzleSection,
    OauthConfig, SelectConfig, TestCase,
};
use super::read::{Problems, not_one_of, unknown_key};
use super::source::FILE;
use super::tree::{Node, join, steps};
use super::values::{Secret, Size, Time};
use crate::filter::Filter;
use crate::intake::{self, address};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A name that people read in a column, and that every file system takes.
const LONGEST_NAME: usize = 64;

/// Checks what could be read.
pub(super) fn all(problems: &mut Problems<'_>, root: &Node, parts: &Parts) {
    let mut check = Check { problems, root };
    if let Some(nozzle) = &parts.nozzle {
        check.nozzle(nozzle);
    }
    if let Some(intake) = &parts.intake {
        check.intake(intake);
    }
    if let Some(select) = &parts.select {
        check.select(select);
    }
    if let Some(buffer) = &parts.buffer {
        check.buffer(buffer);
    }
    if let Some(enrichment) = &parts.enrichment {
        check.enrichment(enrichment);
    }
    check.names(&parts.destinations);
    for (i, destination) in parts.destinations.iter().enumerate() {
        if let Some(destination) = destination {
            let of = Of {
                path: format!("destination[{i}]"),
                key: format!("destination.{}", destination.name),
            };
            check.destination(&of, destination, parts.buffer.as_ref());
        }
    }
    for (i, test) in parts.tests.iter().enumerate() {
        if let Some(test) = test {
            check.test(&format!("test[{i}]"), test, &parts.destinations);
        }
    }
}

/// A table: the way to it, and how it is called.
struct Of {
    path: String,
    key: String,
}

impl Of {
    fn top(path: &str) -> Of {
        Of {
            path: path.to_owned(),
            key: path.to_owned(),
        }
    }

    fn under(&self, key: &str) -> Of {
        Of {
            path: join(&self.path, key),
            key: join(&self.key, key),
        }
    }
}

struct Check<'a, 'p> {
    problems: &'a mut Problems<'p>,
    root: &'a Node,
}

impl Check<'_, '_> {
    fn wrong(&mut self, of: &Of, key: &str, message: impl Into<String>) {
        let span = self.root.place(&steps(&join(&of.path, key)));
        self.problems.add(join(&of.key, key), &span, message);
    }

    fn within<T: PartialOrd + Display>(&mut self, of: &Of, key: &str, value: T, least: T, most: T) {
        if value < least || value > most {
            self.wrong(of, key, format!("{value} is not from {least} to {most}"));
        }
    }

    fn time(&mut self, of: &Of, key: &str, time: Time, least: Duration, most: Duration) {
        self.within(of, key, time, Time(least), Time(most));
    }

    /// A time for which 0 means that it is off.
    fn time_or_off(&mut self, of: &Of, key: &str, time: Time, least: Duration, most: Duration) {
        if time.0 != Duration::ZERO {
            self.time(of, key, time, least, most);
        }
    }

    fn name(&mut self, of: &Of, name: &str) {
        let first = name.chars().next();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !first.is_some_and(|c| c.is_ascii_alphanumeric())
            || !name.chars().all(plain)
            || name.len() > LONGEST_NAME
        {
            self.wrong(
                of,
                "name",
                format!(
                    "`{name}` cannot be the name of a file: write letters, digits, `-`, `_` and `.`, at most {LONGEST_NAME}, \
                     a letter or digit first"
                ),
            );
        }
    }

    fn filter(&mut self, of: &Of, text: Option<&str>) {
        let Some(Err(error)) = text.map(Filter::parse) else {
            return;
        };
        let span = self.root.place(&steps(&join(&of.path, "filter")));
        let span = self.problems.source.character(&span, error.at);
        self.problems
            .add(join(&of.key, "filter"), &span, error.message);
    }

    /// `secret`: a token or password is sent there.
    fn url(&mut self, of: &Of, url: &str, schemes: &[&str; 2], secret: bool) {
        let host = url.split_once("://").filter(|(scheme, rest)| {
            schemes.contains(scheme) && !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':'])
        });
        let blank = |c: char| c.is_whitespace() || c.is_control();
        if host.is_none() || url.contains(blank) {
            let forms: Vec<String> = schemes.iter().map(|it| format!("{it}://HOST")).collect();
            self.wrong(
                of,
                "url",
                format!("must have the form {}", forms.join(" or ")),
            );
        } else if let Err(reason) = address::check(url, (schemes[1], schemes[0]), secret) {
            self.wrong(of, "url", reason);
        }
    }

    fn nozzle(&mut self, nozzle: &NozzleSection) {
        let of = Of::top("nozzle");
        self.name(&of, &nozzle.name);
        self.time_or_off(&of, "max_silence", nozzle.max_silence, SECOND, 30 * DAY);
        self.time_or_off(&of, "max_stuck", nozzle.max_stuck, SECOND, 30 * DAY);
        self.time(
            &of,
            "drain_timeout",
            nozzle.drain_timeout,
            MILLISECOND,
            HOUR,
        );
    }

    fn intake(&mut self, intake: &IntakeConfig) {
        match intake {
            IntakeConfig::InProcess(_) => {}
            IntakeConfig::Rlp(rlp) => {
                let of = Of::top("intake.rlp");
                if rlp.addrs.is_empty() {
                    self.wrong(&of, "addrs", "is empty: at least one address is needed");
                }
                for (i, addr) in rlp.addrs.iter().enumerate() {
                    if !is_host_and_port(addr) {
                        let message = format!("`{addr}` has not the form HOST:PORT");
                        self.wrong(&of, &format!("addrs[{i}]"), message);
                    }
                }
                if rlp.server_name.is_empty() {
                    self.wrong(&of, "server_name", "is empty");
                }
                let every = rlp.resolve_interval;
                self.time(&of, "resolve_interval", every, 100 * MILLISECOND, DAY);
                self.message(&of, rlp.max_message);
            }
            IntakeConfig::WebSocket(web) => {
                let of = Of::top("intake.websocket");
                let secret = web.token.is_some() || web.oauth.is_some();
                self.url(&of, &web.url, &["wss", "ws"], secret);
                self.message(&of, web.max_message);
                self.tokens(&of, web.token.as_ref(), web.oauth.as_ref());
            }
            IntakeConfig::Gateway(gateway) => {
                let of = Of::top("intake.gateway");
                let secret = gateway.token.is_some() || gateway.oauth.is_some();
                self.url(&of, &gateway.url, &["https", "http"], secret);
                self.message(&of, gateway.max_message);
                self.tokens(&of, gateway.token.as_ref(), gateway.oauth.as_ref());
            }
        }
    }

    fn message(&mut self, of: &Of, bytes: Size) {
        self.within(of, "max_message", bytes, Size(64 << 10), Size(1 << 30));
    }

    fn tokens(&mut self, of: &Of, token: Option<&Secret>, oauth: Option<&OauthConfig>) {
        if let Some(oauth) = oauth {
            if token.is_some() {
                self.wrong(
                    of,
                    "token",
                    "there is an `oauth` too: only one of them can be used",
                );
            }
            self.oauth(&of.under("oauth"), oauth);
        }
    }

    fn oauth(&mut self, of: &Of, oauth: &OauthConfig) {
        self.url(of, &oauth.url, &["https", "http"], true);
        if oauth.client.is_empty() {
            self.wrong(of, "client", "is empty");
        }
        match (&oauth.user, &oauth.password) {
            (Some(_), None) => self.wrong(of, "password", "is missing: there is a `user`"),
            (None, Some(_)) => self.wrong(of, "user", "is missing: there is a `password`"),
            _ => {}
        }
    }

    fn select(&mut self, select: &SelectConfig) {
        let of = Of::top("select");
        if let Some(shard) = &select.shard_id
            && let Err(why) = intake::check_shard_id(shard)
        {
            let shard = shard.escape_debug();
            let message = format!("`{shard}` cannot name a subscription: {why}");
            self.wrong(&of, "shard_id", message);
        }
        if let Some(name) = &select.deterministic_name {
            self.member(&of, "deterministic_name", name);
        }
        let known = [
            Kind::Log,
            Kind::Counter,
            Kind::Gauge,
            Kind::Timer,
            Kind::Event,
        ]
        .map(Kind::name);
        for (i, kind) in select.kinds.iter().enumerate() {
            if !known.contains(&kind.as_str()) {
                self.wrong(&of, &format!("kinds[{i}]"), not_one_of(kind, &known));
            }
        }
        for (i, source) in select.source_ids.iter().enumerate() {
            if source.is_empty() {
                self.wrong(&of, &format!("source_ids[{i}]"), "is empty");
            }
        }
        self.filter(&of, select.filter.as_deref());
    }

    fn member(&mut self, of: &Of, key: &str, id: &str) {
        const LONGEST: usize = 256;
        let odd = |c: char| c.is_control() || c.is_whitespace();
        if id.is_empty() {
            self.wrong(of, key, "is empty");
        } else if id.len() > LONGEST {
            let message = format!("is longer than {LONGEST} bytes");
            self.wrong(of, key, message);
        } else if id.starts_with('#') || id.contains(odd) {
            let message = format!(
                "`{}` may not begin with `#`, nor have blanks or control characters",
                id.escape_debug()
            );
            self.wrong(of, key, message);
        }
    }

    fn buffer(&mut self, buffer: &BufferConfig) {
        const LEAST: Size = Size(64 << 10);
        match buffer {
            BufferConfig::Memory(memory) => {
                let of = Of::top("buffer.memory");
                self.within(&of, "max_bytes", memory.max_bytes, LEAST, Size(1 << 46));
            }
            BufferConfig::Disk(disk) => {
                let of = Of::top("buffer.disk");
                if disk.path.as_os_str().is_empty() {
                    self.wrong(&of, "path", "is empty");
                }
                self.within(&of, "max_bytes", disk.max_bytes, LEAST, Size(1 << 50));
                if disk.segment_bytes > disk.max_bytes {
                    let message = format!(
                        "{} is more than the whole buffer ({}, buffer.disk.max_bytes)",
                        disk.segment_bytes, disk.max_bytes
                    );
                    self.wrong(&of, "segment_bytes", message);
                } else {
                    let segment = disk.segment_bytes;
                    self.within(&of, "segment_bytes", segment, Size(4 << 10), Size(4 << 30));
                }
                let sync = disk.sync_interval;
                self.time_or_off(&of, "sync_interval", sync, MILLISECOND, HOUR);
            }
        }
    }

    fn enrichment(&mut self, enrichment: &EnrichmentConfig) {
        let of = Of::top("enrichment");
        self.url(&of, &enrichment.url, &["https", "http"], true);
        self.oauth(&of.under("oauth"), &enrichment.oauth);
        self.time(&of, "refresh", enrichment.refresh, SECOND, 30 * DAY);
        self.time(&of, "expire", enrichment.expire, SECOND, 365 * DAY);
        if enrichment.expire < enrichment.refresh {
            let message = format!(
                "{} is shorter than `refresh` ({}): every name would expire before it is asked for again",
                enrichment.expire, enrichment.refresh
            );
            self.wrong(&of, "expire", message);
        }
        let rate = enrichment.requests_per_second;
        self.within(&of, "requests_per_second", rate, 1, 10_000);
        self.within(&of, "max_apps", enrichment.max_apps, 1, 10_000_000);
    }

    fn names(&mut self, destinations: &[Option<DestinationConfig>]) {
        if destinations.is_empty() && self.root.get("destination").is_none() {
            let message = "is missing: at least one [[destination]] is needed";
            self.problems.add("destination", &FILE, message);
        }
        let nodes = self.root.get("destination").and_then(Node::list);
        let nodes = nodes.unwrap_or_default();
        let names: Vec<_> = nodes
            .iter()
            .map(|node| node.get("name").and_then(Node::text))
            .collect();
        for (i, name) in names.iter().enumerate() {
            let Some(name) = name else { continue };
            let of = Of {
                path: format!("destination[{i}]"),
                key: destination_key(&nodes[i], i),
            };
            self.name(&of, name);
            // Names differ in files, metrics and variables of the environment; capitals would make them differ in two.
            let same = |other: &&str| other.eq_ignore_ascii_case(name);
            if let Some(first) = names[..i]
                .iter()
                .position(|other| other.as_ref().is_some_and(same))
            {
                let place = self.problems.source.place(&nodes[first].span);
                let line = place
                    .at
                    .map_or(String::new(), |(line, _)| format!(" in line {line}"));
                let message = format!("the destination{line} has this name already");
                self.wrong(&of, "name", message);
            }
        }
    }

    fn destination(&mut self, of: &Of, config: &DestinationConfig, buffer: Option<&BufferConfig>) {
        self.filter(of, config.filter.as_deref());
        let batch = of.under("batch");
        if let Some(events) = config.batch.events {
            self.within(&batch, "events", events, 1, 1_000_000);
        }
        if let Some(bytes) = config.batch.bytes {
            self.within(&batch, "bytes", bytes, Size(1), Size(1 << 30));
        }
        if let Some(linger) = config.batch.linger {
            self.time_or_off(
                &batch,
                "linger",
                linger,
                Duration::from_micros(1),
                10 * MINUTE,
            );
        }
        if let Some(in_flight) = config.batch.in_flight {
            self.within(&batch, "in_flight", in_flight, 1, 1024);
        }
        if let (Some(share), Some(buffer)) = (config.backlog.max_bytes, buffer) {
            let (most, key) = match buffer {
                BufferConfig::Memory(memory) => (memory.max_bytes, "buffer.memory.max_bytes"),
                BufferConfig::Disk(disk) => (disk.max_bytes, "buffer.disk.max_bytes"),
            };
            if share > most || share.0 == 0 {
                let message =
                    format!("{share} is not from 1 to what the whole buffer has ({most}, {key})");
                self.wrong(&of.under("backlog"), "max_bytes", message);
            }
        }
        let retry = of.under("retry");
        self.time(&retry, "min", config.retry.min, MILLISECOND, HOUR);
        self.time(&retry, "max", config.retry.max, MILLISECOND, DAY);
        if config.retry.max < config.retry.min {
            let message = format!(
                "{} is shorter than `min` ({})",
                config.retry.max, config.retry.min
            );
            self.wrong(&retry, "max", message);
        }
        self.time(
            &retry,
            "timeout",
            config.retry.timeout,
            10 * MILLISECOND,
            DAY,
        );
        let pause = config.breaker.pause;
        self.time(&of.under("breaker"), "pause", pause, MILLISECOND, DAY);
        if let Some(quota) = &config.quota {
            let of = of.under("quota");
            self.within(&of, "events", quota.events, 1, u64::MAX);
            self.within(&of, "burst", quota.burst, 1, 3600);
        }
    }

    fn test(&mut self, path: &str, test: &TestCase, destinations: &[Option<DestinationConfig>]) {
        let of = Of::top(path);
        if let Err(error) = test.envelope.encode() {
            self.wrong(&of, &join("envelope", error.key), error.message);
        }
        for name in test.names.keys() {
            if !NAMES.contains(&name.as_str()) {
                let message = unknown_key(name, &NAMES);
                self.wrong(&of, &format!("names.{name}"), message);
            }
        }
        // One that could not be read has its own errors.
        let known: Option<Vec<&str>> = destinations
            .iter()
            .map(|it| it.as_ref().map(|it| it.name.as_str()))
            .collect();
        for (i, expect) in test.expect.iter().enumerate() {
            let of = of.under(&format!("expect[{i}]"));
            if let Some(known) = &known
                && !known.contains(&expect.destination.as_str())
            {
                let message = not_one_of(&expect.destination, known);
                self.wrong(&of, "destination", message);
            }
            if expect.rejected.is_some() && (expect.body.is_some() || !expect.fields.is_empty()) {
                let message = "what is rejected has neither `body` nor `fields`";
                self.wrong(&of, "rejected", message);
            }
        }
    }
}

/// `host:port`, with an IPv6 address in brackets.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| !host.contains([':', '/', ' ', '@'])),
        };
        host.is_some_and(|host| !host.is_empty()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for right in ["a:1", "10.0.0.1:8082", "[::1]:8082", "rlp.internal:65535"] {
            assert!(is_host_and_port(right), "{right}");
        }
        for wrong in [
            "",
            "a",
            "a:",
            ":1",
            "::1:80",
            "a:0",
            "a:65536",
            "https://a:1",
            "[x]:1",
        ] {
            assert!(!is_host_and_port(wrong), "{wrong}");
        }
    }
}
