//! The settings of the checks that the Go programs have not, under the prefix of the program that has them.

use std::num::NonZeroUsize;
use std::time::Duration;

use loggregator_service::config::{Reader, Setting};

use super::config::{Limits, LocalCheck, TokenCheck};

/// The settings of the checks for a program whose variables begin with this prefix.
macro_rules! access_settings {
    ($prefix:literal) => {
        &[
            Setting::new(
                concat!($prefix, "TOKEN_CHECK"),
                "remote",
                "Who judges whether a token is an admin's. remote: UAA is asked about each token. local: signed tokens are \
                 checked here with UAA's public keys, only opaque ones by UAA; a revoked token then holds until it \
                 expires, when its streams end.",
            ).takes("remote|local"),
            Setting::new(
                concat!($prefix, "TOKEN_KEY_REFRESH"),
                "5m",
                "local: how often UAA's keys are fetched.",
            ),
            Setting::new(
                concat!($prefix, "TOKEN_KEY_REFETCH_FLOOR"),
                "10s",
                "local: the least time between two attempts to fetch them, however many tokens name unknown keys.",
            ),
            Setting::new(
                concat!($prefix, "TOKEN_KEY_MAX_AGE"),
                "1h",
                "local: how long keys hold that cannot be refreshed; then signed tokens are denied.",
            ),
            Setting::new(
                concat!($prefix, "TOKEN_LEEWAY"),
                "60s",
                "local: by how much UAA's clock and this one may differ.",
            ),
            Setting::optional(
                concat!($prefix, "TOKEN_ISSUER"),
                "local: the issuer that a token must have, as UAA's /.well-known/openid-configuration names it; must be set \
                 then. UAA's other zones may sign with the same keys.",
            ).takes("URL"),
            Setting::optional(
                concat!($prefix, "TOKEN_AUDIENCE"),
                "local: the audience that a token must have among its own. Unset: any.",
            ).takes("NAME"),
            Setting::new(
                concat!($prefix, "ACCESS_ALLOWED_FOR"),
                "30s",
                "How long a token that UAA or the Cloud Controller allowed stays so without asking again. 0s: always \
                 ask.",
            ),
            Setting::new(
                concat!($prefix, "ACCESS_DENIED_FOR"),
                "5s",
                "How long a token that they denied stays so without asking again. 0s: always ask.",
            ),
            Setting::new(
                concat!($prefix, "ACCESS_MAX_CACHED"),
                "10000",
                "Their answers that are kept, and different checks under way, at most; the answers that end first go \
                 first.",
            ),
            Setting::new(
                concat!($prefix, "ACCESS_MAX_IN_FLIGHT"),
                "64",
                "Requests under way to each of UAA and the Cloud Controller; others wait.",
            ),
            Setting::new(
                concat!($prefix, "ACCESS_TIMEOUT"),
                "20s",
                "Time for one check, waiting included; then it is denied.",
            ),
            Setting::new(
                concat!($prefix, "ACCESS_BREAKER_FAILURES"),
                "5",
                "After so many failures in a row UAA or the Cloud Controller is left alone for a while: what no kept \
                 answer covers is denied at once.",
            ),
            Setting::new(
                concat!($prefix, "ACCESS_BREAKER_MAX_PAUSE"),
                "30s",
                "The longest such while; the first is half a second.",
            ),
        ]
    };
}
pub(crate) use access_settings;

/// One table of two. `N` is the sum of their lengths; more is filled up with the first setting.
pub(crate) const fn joined<const N: usize>(one: &[Setting], other: &[Setting]) -> [Setting; N] {
    let mut all = [one[0]; N];
    let mut i = 0;
    while i < N {
        if i < one.len() {
            all[i] = one[i];
        } else if i - one.len() < other.len() {
            all[i] = other[i - one.len()];
        }
        i += 1;
    }
    all
}

/// Reads the settings that [`access_settings`] makes.
pub(crate) fn read(reader: &mut Reader<'_>, prefix: &str) -> (TokenCheck, Limits) {
    let name = |rest: &str| format!("{prefix}{rest}");
    let limits = Limits {
        allowed_for: reader.value(&name("ACCESS_ALLOWED_FOR")),
        denied_for: reader.value(&name("ACCESS_DENIED_FOR")),
        max_cached: reader
            .value::<NonZeroUsize>(&name("ACCESS_MAX_CACHED"))
            .get(),
        max_in_flight: reader
            .value::<NonZeroUsize>(&name("ACCESS_MAX_IN_FLIGHT"))
            .get(),
        timeout: positive(reader, &name("ACCESS_TIMEOUT")),
        breaker_failures: reader.value(&name("ACCESS_BREAKER_FAILURES")),
        breaker_max_pause: positive(reader, &name("ACCESS_BREAKER_MAX_PAUSE")),
        ..Limits::default()
    };
    if limits.breaker_failures == 0 {
        reader.reject(&name("ACCESS_BREAKER_FAILURES"), "must be at least 1");
    }
    let local = LocalCheck {
        key_refresh: positive(reader, &name("TOKEN_KEY_REFRESH")),
        refetch_floor: positive(reader, &name("TOKEN_KEY_REFETCH_FLOOR")),
        keys_hold_for: positive(reader, &name("TOKEN_KEY_MAX_AGE")),
        leeway: reader.value(&name("TOKEN_LEEWAY")),
        issuer: reader.optional(&name("TOKEN_ISSUER")).unwrap_or_default(),
        audience: reader.optional(&name("TOKEN_AUDIENCE")),
    };
    if local.keys_hold_for < local.key_refresh {
        let reason = "must not be shorter than the interval at which keys are fetched";
        reader.reject(&name("TOKEN_KEY_MAX_AGE"), reason);
    }
    let tokens = match reader.value::<String>(&name("TOKEN_CHECK")).as_str() {
        "local" => {
            if local.issuer.is_empty() {
                reader.conflict(format!(
                    "{prefix}TOKEN_CHECK=local needs {prefix}TOKEN_ISSUER: UAA's other zones may sign with the same keys"
                ));
            }
            TokenCheck::Local(local)
        }
        "remote" => TokenCheck::Remote,
        _ => {
            reader.reject(&name("TOKEN_CHECK"), "must be remote or local");
            TokenCheck::Remote
        }
    };
    (tokens, limits)
}

fn positive(reader: &mut Reader<'_>, name: &str) -> Duration {
    let value: Duration = reader.value(name);
    if value.is_zero() {
        reader.reject(name, "must be longer than nothing");
    }
    value
}
