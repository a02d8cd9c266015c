//! Nobody gets in because something is wrong.

use std::time::Duration;

use loggregator_testkit::eventually;
use loggregator_testkit::platform::{Endpoint, Fault, Grant, Mode};
use traffic_controller::access::PlatformConfig;

use crate::log::logged;
use crate::rig::{APP, Rig};

/// Every way in which a service can fail.
fn faults() -> Vec<Mode> {
    vec![
        Mode::Status(500),
        Mode::Status(503),
        Mode::Status(302),
        Mode::Status(201),
        Mode::Hang,
        Mode::Close,
    ]
}

/// Impatient, and without a pause after failures, so that each is a failure of its own.
fn impatient(config: &mut PlatformConfig) {
    config.limits.timeout = Duration::from_millis(300);
    config.limits.breaker_failures = 1000;
}

#[tokio::test]
async fn no_failure_is_an_allowance_and_none_is_kept() {
    let rig = Rig::with(|config, _| impatient(config)).await;
    rig.stub.grant("admin", Grant::admin());
    for mode in [faults(), vec![Mode::WrongJson]].concat() {
        rig.stub
            .set_fault(Endpoint::CheckToken, mode.clone().into());
        assert_eq!(rig.firehose("bearer admin").await, 401, "{mode:?}");
    }
    for mode in faults() {
        rig.stub.set_fault(Endpoint::LogAccess, mode.clone().into());
        assert_eq!(rig.stream(APP, "bearer admin").await, 500, "{mode:?}");
    }
    // Well again: the very next request passes, except for the denials that were answers.
    for endpoint in [Endpoint::CheckToken, Endpoint::LogAccess] {
        rig.stub.set_fault(endpoint, Fault::default());
    }
    assert_eq!(rig.stream(APP, "bearer admin").await, 400);
    eventually("the denial by status 302 expires", async || {
        rig.firehose("bearer admin").await == 400
    })
    .await;
    let log = logged();
    assert!(log.contains("Could not get app information: ["), "{log}");
    rig.stop().await;
}

#[tokio::test]
async fn services_that_are_not_there_or_not_who_they_should_be_let_nobody_in() {
    let nowhere = |config: &mut PlatformConfig, _: &_| {
        config.uaa_url = "https://127.0.0.1:1".to_owned();
        config.capi_url = "https://127.0.0.1:1".to_owned();
    };
    let rig = Rig::with(nowhere).await;
    rig.stub.grant("admin", Grant::admin());
    assert_eq!(rig.firehose("bearer admin").await, 401);
    assert_eq!(rig.stream(APP, "bearer admin").await, 500);
    rig.stop().await;

    // Another authority's certificates, and another name.
    let strangers = loggregator_testkit::Certs::generate().unwrap();
    let wrong = |config: &mut PlatformConfig, _: &_| {
        config.uaa_ca = strangers.ca();
        config.capi_server_name = "somebody-else".to_owned();
    };
    let rig = Rig::with(wrong).await;
    rig.stub.grant("admin", Grant::admin());
    assert_eq!(rig.firehose("bearer admin").await, 401);
    assert_eq!(rig.stream(APP, "bearer admin").await, 500);
    assert!(
        rig.stub.all_calls().requests.is_empty(),
        "no token was sent"
    );
    rig.stop().await;

    // Unless the operator says that it does not matter.
    let rig = Rig::with(|config, certs| {
        wrong(config, certs);
        config.skip_verify = true;
    })
    .await;
    rig.stub.grant("admin", Grant::admin());
    assert_eq!(rig.firehose("bearer admin").await, 400);
    assert_eq!(rig.stream(APP, "bearer admin").await, 400);
    rig.stop().await;
}

#[tokio::test]
async fn kept_answers_hold_while_a_service_is_left_alone_and_it_is_found_again() {
    let rig = Rig::with(|config, _| {
        config.limits.breaker_failures = 3;
        config.limits.allowed_for = Duration::from_secs(600);
    })
    .await;
    for token in ["known", "new"] {
        rig.stub.grant(token, Grant::admin());
    }
    assert_eq!(rig.firehose("bearer known").await, 400);
    rig.stub
        .set_fault(Endpoint::CheckToken, Mode::Status(500).into());
    rig.stub.reset_calls();
    for i in 0..100 {
        assert_eq!(rig.firehose(&format!("bearer {i}")).await, 401);
    }
    let asked = rig.stub.all_calls().total(Endpoint::CheckToken);
    assert!((3..50).contains(&asked), "asked {asked} times");
    assert_eq!(rig.firehose("bearer known").await, 400);
    let metrics = rig.metrics().await;
    let open = "loggregator_access_breaker_open{target=\"uaa\"} 1";
    assert!(metrics.contains(open), "{metrics}");

    rig.stub.set_fault(Endpoint::CheckToken, Fault::default());
    eventually("UAA is asked again", async || {
        rig.firehose("bearer new").await == 400
    })
    .await;
    assert!(
        rig.metrics()
            .await
            .contains("loggregator_access_breaker_open{target=\"uaa\"} 0")
    );
    rig.stop().await;
}
