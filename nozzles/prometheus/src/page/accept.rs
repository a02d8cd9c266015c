//! Which format a scraper gets.

use crate::config::Profile;

/// A format of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics text of this version; what we write is the same in both.
    OpenMetrics(Version),
    /// `io.prometheus.client.MetricFamily`, each behind its length: the only one with native histograms.
    Protobuf,
}

/// Version of OpenMetrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V0_0_1,
    V1_0_0,
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics(Version::V1_0_0) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
            Format::OpenMetrics(Version::V0_0_1) => {
                "application/openmetrics-text; version=0.0.1; charset=utf-8"
            }
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The best of what the `Accept` header asks for (RFC 9110, section 12.5.1); the first of equals. Text 0.0.4 where
    /// nothing else fits: a scraper that asks for something unheard of still gets a page.
    pub(crate) fn negotiate(accept: &str, profile: Profile) -> Format {
        let mut best: Option<(f32, Format)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1.0;
            let (mut version, mut encoding, mut proto) = ("", "", "");
            for parameter in parts {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.parse().unwrap_or(0.0),
                    "version" => version = value,
                    "encoding" => encoding = value,
                    "proto" => proto = value,
                    _ => {}
                }
            }
            let format = match media.as_str() {
                "application/vnd.google.protobuf"
                    if encoding == "delimited" && proto == "io.prometheus.client.MetricFamily" =>
                {
                    Format::Protobuf
                }
                // The exporter never knew it, and its explicit timestamps are milliseconds.
                "application/openmetrics-text" if profile == Profile::Clean => match version {
                    "0.0.1" => Format::OpenMetrics(Version::V0_0_1),
                    "" | "1.0.0" => Format::OpenMetrics(Version::V1_0_0),
                    _ => continue,
                },
                "text/plain" | "text/*" | "*/*" if matches!(version, "" | "0.0.4") => Format::Text,
                _ => continue,
            };
            if quality > 0.0 && best.is_none_or(|(known, _)| quality > known) {
                best = Some((quality, format));
            }
        }
        best.map_or(Format::Text, |(_, format)| format)
    }
}

/// Whether an answer may be compressed with gzip (`Accept-Encoding`, RFC 9110, section 12.5.3).
pub(crate) fn takes_gzip(accept: &str) -> bool {
    let mut any = false;
    for coding in accept.split(',') {
        let (name, rest) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = rest
            .trim()
            .strip_prefix("q=")
            .is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        match name.trim() {
            "gzip" | "x-gzip" => return !refused,
            "*" => any = !refused,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_the_best_that_they_ask_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let v1 = Format::OpenMetrics(Version::V1_0_0);
        for (accept, clean, exporter) in [
            ("", Format::Text, Format::Text),
            ("*/*", Format::Text, Format::Text),
            (prometheus, v1, Format::Text),
            (native, Format::Protobuf, Format::Protobuf),
            (
                "text/plain;q=0.9, application/openmetrics-text; version=\"1.0.0\"; q=0.8",
                Format::Text,
                Format::Text,
            ),
            (
                "application/openmetrics-text; version=0.0.1",
                Format::OpenMetrics(Version::V0_0_1),
                Format::Text,
            ),
            (
                "application/openmetrics-text; version=2.0.0",
                Format::Text,
                Format::Text,
            ),
            (
                "application/vnd.google.protobuf;q=1, text/plain;q=0.1",
                Format::Text,
                Format::Text,
            ),
            (
                "application/openmetrics-text;q=0, image/png",
                Format::Text,
                Format::Text,
            ),
        ] {
            assert_eq!(Format::negotiate(accept, Profile::Clean), clean, "{accept}");
            assert_eq!(
                Format::negotiate(accept, Profile::FirehoseExporter),
                exporter,
                "{accept}"
            );
        }
        for (accept, gzip) in [
            ("gzip", true),
            ("deflate, gzip;q=1.0", true),
            ("gzip;q=0", false),
            ("*", true),
            ("*;q=0, br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accept), gzip, "{accept}");
        }
    }
}
