//! Units of gauges: from what emitters say to base units.

/// A unit that is known: what it is called in Prometheus, and what a value must be multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    /// The base unit, which ends the name.
    pub base: &'static str,
    /// How a value becomes base units.
    pub scale: Scale,
    /// Ends of names that say the same and are left out.
    aliases: &'static [&'static str],
}

/// A factor, as a multiplication and a division: 9 ms are 0.009 s only when divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    times: f64,
    per: f64,
}

impl Scale {
    /// The value as it is.
    pub(crate) const ONE: Scale = Scale {
        times: 1.0,
        per: 1.0,
    };

    /// The value in base units.
    pub(crate) fn of(self, value: f64) -> f64 {
        value * self.times / self.per
    }
}

const fn known(base: &'static str, factor: f64, aliases: &'static [&'static str]) -> Option<Known> {
    Some(Known {
        base,
        scale: Scale {
            times: factor,
            per: 1.0,
        },
        aliases,
    })
}

const fn part(base: &'static str, per: f64, aliases: &'static [&'static str]) -> Option<Known> {
    Some(Known {
        base,
        scale: Scale { times: 1.0, per },
        aliases,
    })
}

/// What is known of this unit. Emitters write it as they like; what nobody can mean is not guessed.
pub(crate) fn of(unit: &str) -> Option<Known> {
    match unit {
        "B" | "b" | "byte" | "bytes" | "Bytes" => known("bytes", 1.0, &["bytes", "byte"]),
        "KiB" | "kib" => known("bytes", 1024.0, &["kib", "kibibytes", "kb"]),
        "MiB" | "mib" => known("bytes", 1_048_576.0, &["mib", "mebibytes", "mb"]),
        "GiB" | "gib" => known("bytes", 1_073_741_824.0, &["gib", "gibibytes", "gb"]),
        "kB" | "KB" | "kb" => known("bytes", 1e3, &["kb", "kilobytes"]),
        "MB" | "mb" => known("bytes", 1e6, &["mb", "megabytes"]),
        "GB" | "gb" => known("bytes", 1e9, &["gb", "gigabytes"]),
        "s" | "sec" | "secs" | "second" | "seconds" | "Seconds" => {
            known("seconds", 1.0, &["seconds", "second", "secs", "sec"])
        }
        "ms" | "msec" | "millisecond" | "milliseconds" => {
            part("seconds", 1e3, &["milliseconds", "millis", "ms"])
        }
        "us" | "µs" | "μs" | "microsecond" | "microseconds" => {
            part("seconds", 1e6, &["microseconds", "micros", "us"])
        }
        "ns" | "nanos" | "nanosecond" | "nanoseconds" => {
            part("seconds", 1e9, &["nanoseconds", "nanos", "ns"])
        }
        "min" | "minute" | "minutes" => known("seconds", 60.0, &["minutes", "minute"]),
        "h" | "hour" | "hours" => known("seconds", 3600.0, &["hours", "hour"]),
        "percentage" | "percent" | "Percent" | "%" => {
            part("ratio", 100.0, &["percentage", "percent", "ratio"])
        }
        _ => None,
    }
}

/// The name with its base unit at the end, once.
pub(crate) fn suffixed(name: &str, unit: Known) -> String {
    let all = unit.aliases.iter().chain([&unit.base]);
    let stem = all
        .filter_map(|alias| name.strip_suffix(alias)?.strip_suffix('_'))
        .find(|stem| !stem.is_empty());
    format!("{}_{}", stem.unwrap_or(name), unit.base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_ends_the_name_once() {
        for (name, unit, expected, nine) in [
            ("latency", "ms", "latency_seconds", 0.009),
            ("latency_ms", "ms", "latency_seconds", 0.009),
            ("uptime_seconds", "s", "uptime_seconds", 9.0),
            ("total_memory", "MiB", "total_memory_bytes", 9_437_184.0),
            ("cpu", "percentage", "cpu_ratio", 0.09),
            ("ms", "ms", "ms_seconds", 0.009),
        ] {
            let unit = of(unit).unwrap();
            let got = (suffixed(name, unit), unit.scale.of(9.0));
            assert_eq!(got, (expected.to_owned(), nine));
        }
        assert_eq!(of("Metric"), None);
        assert_eq!(of("count"), None);
    }
}
