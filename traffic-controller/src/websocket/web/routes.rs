//! Which request asks for what.
//!
//! The rules are those of the Go traffic controller's router: paths are compared after percent decoding and must match
//! exactly, without a trailing slash; a path with empty or dot segments is redirected to its clean form; a variable
//! matches one segment that is not empty. Methods are not looked at here.

use http::Uri;
use loggregator_proto::plumbing::{Filter, LogFilter, MetricFilter, SubscriptionRequest, filter};

use crate::access::{Plus, unescape};
use crate::urls;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/firehose/{subscription-id}`.
    Firehose {
        /// The subscription id: connections that share it share the stream.
        id: String,
        /// What to keep.
        keep: Keep,
    },
    /// `/apps/{app-id}/stream`.
    App {
        /// The application.
        id: String,
    },
    /// `/set-cookie`.
    SetCookie,
    /// The clean form of this path is elsewhere.
    Moved(String),
    /// Nothing is here.
    NotFound,
    /// The path is not valid percent encoding, or an id in it is not UTF-8.
    Malformed,
}

/// The firehose's `filter-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// No filter.
    All,
    /// `filter-type=logs`.
    Logs,
    /// `filter-type=metrics`.
    Metrics,
}

impl Route {
    /// The route of a request target.
    pub(crate) fn of(uri: &Uri) -> Self {
        let Some(path) = unescape(uri.path().as_bytes(), Plus::Literal) else {
            return Self::Malformed;
        };
        let clean = urls::clean(&path);
        if clean != *path {
            return Self::Moved(urls::location(&clean, uri.query()));
        }
        let mut segments = path.split(|&byte| byte == b'/').skip(1);
        let found = match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some(b"firehose"), Some(id), None, _) => (id, true),
            (Some(b"apps"), Some(id), Some(b"stream"), None) => (id, false),
            (Some(b"set-cookie"), None, None, _) => return Self::SetCookie,
            _ => return Self::NotFound,
        };
        match (std::str::from_utf8(found.0), found.1) {
            (Ok(""), _) => Self::NotFound,
            (Ok(id), true) => Self::Firehose {
                id: id.to_owned(),
                keep: Keep::of(uri.query().unwrap_or("")),
            },
            (Ok(id), false) => Self::App { id: id.to_owned() },
            // An id that cannot stand in a protobuf string could never be subscribed to.
            (Err(_), _) => Self::Malformed,
        }
    }

    /// The subscription that a doppler is asked for; `None` for what is no stream.
    pub(crate) fn subscription(&self) -> Option<SubscriptionRequest> {
        match self {
            Self::Firehose { id, keep } => {
                let message = match keep {
                    Keep::All => None,
                    Keep::Logs => Some(filter::Message::Log(LogFilter {})),
                    Keep::Metrics => Some(filter::Message::Metric(MetricFilter {})),
                };
                let filter = message.map(|message| Filter {
                    app_id: String::new(),
                    message: Some(message),
                });
                Some(SubscriptionRequest {
                    shard_id: id.clone(),
                    filter,
                })
            }
            Self::App { id } => Some(SubscriptionRequest {
                shard_id: String::new(),
                filter: Some(Filter {
                    app_id: id.clone(),
                    message: None,
                }),
            }),
            _ => None,
        }
    }

    /// A short text of what is asked for, for the ledger.
    pub(crate) fn selector(&self) -> String {
        match self {
            Self::Firehose {
                keep: Keep::All, ..
            } => "firehose".to_owned(),
            Self::Firehose {
                keep: Keep::Logs, ..
            } => "firehose logs".to_owned(),
            Self::Firehose {
                keep: Keep::Metrics,
                ..
            } => "firehose metrics".to_owned(),
            Self::App { id } => format!("app {id}"),
            Self::SetCookie | Self::Moved(_) | Self::NotFound | Self::Malformed => String::new(),
        }
    }
}

impl Keep {
    /// The first `filter-type` counts; other values, other spellings and other parameters mean no filter.
    fn of(query: &str) -> Self {
        for (name, value) in urls::pairs(query) {
            if *name == *b"filter-type" {
                return match &*value {
                    b"logs" => Self::Logs,
                    b"metrics" => Self::Metrics,
                    _ => Self::All,
                };
            }
        }
        Self::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(target: &str) -> Route {
        Route::of(&target.parse().unwrap())
    }

    fn firehose(id: &str, keep: Keep) -> Route {
        Route::Firehose {
            id: id.to_owned(),
            keep,
        }
    }

    #[test]
    fn the_two_endpoints_and_nothing_else() {
        assert_eq!(route("/firehose/a"), firehose("a", Keep::All));
        assert_eq!(route("/firehose/a?"), firehose("a", Keep::All));
        assert_eq!(
            route("/apps/x/stream?filter-type=logs"),
            Route::App { id: "x".to_owned() }
        );
        for missing in [
            "/",
            "/firehose",
            "/firehose/",
            "/firehose/a/",
            "/firehose/a/b",
            "/apps/x",
            "/apps/x/stream/",
            "/apps/x/recentlogs",
            "/apps/x/containermetrics",
            "/Firehose/a",
            "/set-cookie2",
        ] {
            assert_eq!(route(missing), Route::NotFound, "{missing}");
        }
    }

    #[test]
    fn cookies_have_one_path() {
        assert_eq!(route("/set-cookie"), Route::SetCookie);
        assert_eq!(route("/set%2Dcookie?a=b"), Route::SetCookie);
        assert_eq!(route("/set-cookie/"), Route::NotFound);
        assert_eq!(route("/set-cookie/a"), Route::NotFound);
        assert_eq!(
            route("//set-cookie"),
            Route::Moved("/set-cookie".to_owned())
        );
    }

    #[test]
    fn the_first_filter_type_counts_and_only_in_its_exact_spelling() {
        for (query, keep) in [
            ("filter-type=logs", Keep::Logs),
            ("filter-type=metrics", Keep::Metrics),
            ("a=b&filter-type=metrics&filter-type=logs", Keep::Metrics),
            ("filter-type=&filter-type=logs", Keep::All),
            ("filter-type=Logs", Keep::All),
            ("filter%2Dtype=l%6Fgs", Keep::Logs),
            ("Filter-Type=logs", Keep::All),
            ("x=%zz&filter-type=logs", Keep::Logs),
        ] {
            assert_eq!(
                route(&format!("/firehose/a?{query}")),
                firehose("a", keep),
                "{query}"
            );
        }
    }

    #[test]
    fn ids_are_decoded_and_a_decoded_slash_is_a_slash() {
        assert_eq!(route("/firehose/a%20b+c"), firehose("a b+c", Keep::All));
        assert_eq!(route("/firehose/%E2%82%AC"), firehose("€", Keep::All));
        assert_eq!(route("/firehose/a%2Fb"), Route::NotFound);
        assert_eq!(route("/%66irehose/a"), firehose("a", Keep::All));
        assert_eq!(route("/firehose/%FF"), Route::Malformed);
        assert_eq!(route("/firehose/%4"), Route::Malformed);
    }

    #[test]
    fn unclean_paths_are_redirected_with_their_query() {
        for (from, to) in [
            ("//firehose/a", "/firehose/a"),
            (
                "/firehose//a?filter-type=logs",
                "/firehose/a?filter-type=logs",
            ),
            ("/./firehose/x/../a", "/firehose/a"),
            ("/../..", "/"),
            ("/firehose//", "/firehose/"),
            ("/firehose//a%20b", "/firehose/a%20b"),
            ("/firehose/a%2F%2Fb", "/firehose/a/b"),
        ] {
            assert_eq!(route(from), Route::Moved(to.to_owned()), "{from}");
        }
    }

    #[test]
    fn what_a_doppler_is_asked_for() {
        let all = route("/firehose/s").subscription().unwrap();
        assert_eq!((all.shard_id.as_str(), all.filter), ("s", None));
        let logs = route("/firehose/s?filter-type=logs")
            .subscription()
            .unwrap()
            .filter
            .unwrap();
        assert_eq!(logs.message, Some(filter::Message::Log(LogFilter {})));
        let app = route("/apps/a/stream").subscription().unwrap();
        assert_eq!(app.shard_id, "");
        assert_eq!(
            app.filter.unwrap(),
            Filter {
                app_id: "a".to_owned(),
                message: None
            }
        );
        assert_eq!(route("/").subscription(), None);
    }
}
