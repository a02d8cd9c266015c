//! Names from a Cloud Controller that is well, slow, busy, wrong, or away.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loggregator_client::message;
use loggregator_nozzle::config::EnrichmentConfig;
use loggregator_nozzle::enrich::{CloudController, Directory};
use loggregator_nozzle::{Event, Names};
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use loggregator_testkit::platform::{
    App, CLIENT_ID, CLIENT_SECRET, Endpoint, Fault, Mode, PASSWORD, PlatformStub, USER,
};
use loggregator_testkit::{Certs, eventually};
use prost::Message as _;

fn guid(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn app(n: usize) -> App {
    let pair = |what: &str, n: usize| (format!("{what}-guid-{n}"), format!("{what}-{n}"));
    App {
        guid: guid(n),
        name: format!("app-{n}"),
        space: pair("space", n % 7),
        org: pair("org", n % 3),
        labels: vec![("team".to_owned(), format!("t{n}"))],
        annotations: Vec::new(),
    }
}

fn event(n: usize) -> Event {
    event_of(&guid(n), &[])
}

fn event_of(source: &str, tags: &[(&str, &str)]) -> Event {
    let envelope = message::log("line").source(source, "0");
    let envelope = tags.iter().fold(envelope, |envelope, (name, value)| {
        envelope.tag(name, value)
    });
    Event::new(0, 0, envelope.build().encode_to_vec().into())
}

struct Rig {
    certs: Certs,
    stub: PlatformStub,
    lifecycle: Lifecycle,
}

/// One nozzle's names.
struct Known {
    directory: Arc<dyn Directory>,
    metrics: Metrics,
    lifecycle: Lifecycle,
}

impl Rig {
    fn new() -> Rig {
        let (certs, lifecycle) = (Certs::generate().unwrap(), Lifecycle::new());
        let stub = PlatformStub::start(&certs, &lifecycle).unwrap();
        Rig {
            certs,
            stub,
            lifecycle,
        }
    }

    fn start(&self, more: &str, folder: Option<&Path>) -> Known {
        let text = format!(
            "url = \"{}\"\n{more}\n[oauth]\nurl = \"{}\"\nclient = \"{CLIENT_ID}\"\nsecret = \"{CLIENT_SECRET}\"\nca_file = {:?}\n",
            self.stub.capi_external_url,
            self.stub.uaa_url,
            self.certs.ca()
        );
        self.start_with(&text, folder)
    }

    fn start_with(&self, text: &str, folder: Option<&Path>) -> Known {
        let config: EnrichmentConfig = toml::from_str(text).unwrap();
        let (metrics, lifecycle) = (Metrics::new(), Lifecycle::new());
        let directory = CloudController::start(&config, folder, &metrics, &lifecycle).unwrap();
        Known {
            directory,
            metrics,
            lifecycle,
        }
    }

    fn asked(&self, endpoint: Endpoint) -> u64 {
        self.stub.all_calls().total(endpoint)
    }

    async fn stop(self) {
        self.lifecycle.shutdown(Duration::from_secs(5)).await;
    }
}

impl Known {
    fn names(&self, n: usize) -> Option<Arc<Names>> {
        self.directory.names(&event(n))
    }

    async fn knows(&self, n: usize) -> Arc<Names> {
        eventually("the names are known", async || self.names(n).is_some()).await;
        self.names(n).unwrap()
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|l| l == line)
    }

    async fn stop(self) {
        assert!(
            self.lifecycle
                .shutdown(Duration::from_secs(5))
                .await
                .finished()
        );
    }
}

/// Scenario: a platform with 12,000 apps.
/// Guarantee: three requests at the start and all names are known; nothing more is asked, however many events come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_apps_are_known_after_few_requests() {
    let rig = Rig::new();
    rig.stub.set_apps((0..12_000).map(app).collect());
    let known = rig.start("", None);
    let names = known.knows(11_999).await;
    let expected = Names {
        app: "app-11999".into(),
        space_id: "space-guid-1".into(),
        space: "space-1".into(),
        org_id: "org-guid-2".into(),
        org: "org-2".into(),
        ..Names::default()
    };
    assert_eq!(*names, expected);
    assert!((0..12_000).all(|n| {
        known
            .names(n)
            .is_some_and(|names| names.app == format!("app-{n}"))
    }));
    assert!(known.metric("loggregator_nozzle_names_apps 12000"));
    assert_eq!(rig.asked(Endpoint::Apps), 3);
    // The tag of an envelope that is about an app though its source is not.
    let routed = event_of("gorouter", &[("app_id", &guid(5))]);
    assert_eq!(known.directory.names(&routed).unwrap().app, "app-5");
    known.stop().await;
    rig.stop().await;
}

/// Scenario: apps are pushed after the start; ids come that are no apps.
/// Guarantee: they are asked for in one request, 200 at most; what is unknown is not asked for again soon; no id that is not a
/// GUID is, nor one whose envelope says everything itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_apps_are_gathered_and_asked_for() {
    let rig = Rig::new();
    rig.stub.set_apps(vec![app(1)]);
    let known = rig.start("labels = true\nrequests_per_second = 100", None);
    known.knows(1).await;
    rig.stub.set_apps((1..450).map(app).collect());
    assert!((1..500).filter(|n| known.names(*n).is_none()).count() >= 498);
    for odd in [
        "doppler",
        "",
        "../../v3/users?",
        "00000000-0000-4000-8000-00000000000g",
    ] {
        assert!(known.directory.names(&event_of(odd, &[])).is_none());
    }
    let names = known.knows(449).await;
    assert_eq!(names.labels, [("team".to_owned(), "t449".to_owned())]);
    eventually("all are known", async || {
        (1..450).all(|n| known.names(n).is_some())
    })
    .await;
    assert!(known.names(470).is_none());
    eventually("the others are known to be unknown", async || {
        known.metric("loggregator_nozzle_names_unknown_ids 50")
    })
    .await;
    let calls = rig.asked(Endpoint::Apps);
    assert!((4..=8).contains(&calls), "{calls} requests");
    let requests = rig.stub.all_calls().requests;
    assert!(requests.iter().all(|line| line.len() < 8192));
    let some = requests.iter().filter(|line| line.contains("guids="));
    assert!(
        some.clone()
            .all(|line| line.matches("0000-4000-8000").count() <= 200)
    );
    known.stop().await;

    let known = rig.start("", None);
    known.knows(1).await;
    let tags = [
        ("app_name", "a"),
        ("space_name", "s"),
        ("organization_name", "o"),
    ];
    assert!(
        known
            .directory
            .names(&event_of(&guid(900), &tags))
            .is_none()
    );
    assert!(known.metric("loggregator_nozzle_names_lookups_total{outcome=\"tags\"} 1"));
    known.names(901);
    eventually("another one was asked for", async || {
        let requests = rig.stub.all_calls().requests;
        requests.iter().any(|line| line.contains(&guid(901)))
    })
    .await;
    let requests = rig.stub.all_calls().requests;
    assert!(!requests.iter().any(|line| line.contains(&guid(900))));
    known.stop().await;
    rig.stop().await;
}

/// Scenario: the Cloud Controller is busy, wrong, and away; the token is revoked.
/// Guarantee: what is known stays, the rest comes when it is well again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_at_the_cloud_controller_costs_no_name_that_is_known() {
    let rig = Rig::new();
    rig.stub.set_apps(vec![app(1)]);
    rig.stub.set_fault(Endpoint::Apps, Mode::Limited(1).into());
    let known = rig.start("", None);
    eventually("it was told to ask less", async || {
        known.metric("loggregator_nozzle_names_requests_total{call=\"all\",outcome=\"limited\"} 1")
    })
    .await;
    assert_eq!(rig.asked(Endpoint::Apps), 1);
    rig.stub.set_fault(Endpoint::Apps, Fault::slow(300));
    known.knows(1).await;

    rig.stub.set_apps((1..10).map(app).collect());
    for (n, mode) in [
        (2, Mode::Status(500)),
        (3, Mode::WrongJson),
        (4, Mode::Close),
    ] {
        rig.stub.set_fault(Endpoint::Apps, mode.clone().into());
        let before = rig.asked(Endpoint::Apps);
        assert!(known.names(n).is_none());
        eventually("it was asked in vain", async || {
            rig.asked(Endpoint::Apps) > before
        })
        .await;
        assert!(
            known.names(1).is_some() && known.names(n).is_none(),
            "{mode:?}"
        );
        rig.stub.set_fault(Endpoint::Apps, Fault::default());
        known.knows(n).await;
    }
    // Its token is not known any more: it gets another one.
    let calls = rig.stub.all_calls().counts;
    let tokens: Vec<&String> = calls[&Endpoint::Apps].keys().collect();
    assert_eq!(tokens.len(), 1);
    rig.stub.forget(tokens[0]);
    known.knows(5).await;
    assert_eq!(rig.asked(Endpoint::OauthToken), 2);
    known.stop().await;
    rig.stop().await;
}

/// Scenario: a nozzle stops; the next one starts while the Cloud Controller and the UAA are away.
/// Guarantee: it has all names at once, from the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_survive_a_restart() {
    let rig = Rig::new();
    let folder = tempfile::tempdir().unwrap();
    rig.stub.set_apps((0..100).map(app).collect());
    let known = rig.start("", Some(folder.path()));
    known.knows(99).await;
    known.stop().await;
    for endpoint in [Endpoint::Apps, Endpoint::OauthToken] {
        rig.stub.set_fault(endpoint, Mode::Hang.into());
    }
    let known = rig.start("", Some(folder.path()));
    assert!((0..100).all(|n| known.names(n).is_some()));
    known.stop().await;
    rig.stop().await;
}

/// Scenario: tokens live for two seconds, by the password grant; the UAA is away for a while.
/// Guarantee: they are renewed before they expire, and asked for again when it is back. The wrong password is told, and
/// not shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_before_they_expire() {
    let rig = Rig::new();
    rig.stub.set_apps(vec![app(1)]);
    rig.stub.set_token_life(2);
    let text = |password: &str| {
        format!(
            "url = \"{}\"\n[oauth]\nurl = \"{}\"\nclient = \"{CLIENT_ID}\"\nsecret = \"{CLIENT_SECRET}\"\nuser = \"{USER}\"\npassword = \"{password}\"\nca_file = {:?}\n",
            rig.stub.capi_external_url,
            rig.stub.uaa_url,
            rig.certs.ca()
        )
    };
    let known = rig.start_with(&text(PASSWORD), None);
    known.knows(1).await;
    eventually("it was renewed twice", async || {
        rig.asked(Endpoint::OauthToken) >= 3
    })
    .await;
    rig.stub
        .set_fault(Endpoint::OauthToken, Mode::Status(503).into());
    let failed = |known: &Known| {
        known.metric("loggregator_nozzle_token_requests_total{for=\"names\",outcome=\"failed\"} 0")
    };
    eventually("it is refused", async || !failed(&known)).await;
    rig.stub.set_fault(Endpoint::OauthToken, Fault::default());
    rig.stub.set_apps(vec![app(1), app(2)]);
    known.knows(2).await;
    known.stop().await;

    let wrong = rig.start_with(&text("wrong"), None);
    eventually("it is refused", async || !failed(&wrong)).await;
    assert!(wrong.names(1).is_none());
    wrong.stop().await;
    rig.stop().await;
}
