//! Signed tokens, checked without asking UAA about each.

use std::time::Duration;

use loggregator_testkit::eventually;
use loggregator_testkit::platform::{Endpoint, Fault, Grant, ISSUER, Mode, Rotation};
use serde_json::{Value, json};
use traffic_controller::access::{LocalCheck, TokenCheck};

use crate::rig::{APP, OTHER_APP, Rig};

async fn rig(change: impl FnOnce(&mut LocalCheck)) -> Rig {
    let mut check = LocalCheck {
        issuer: ISSUER.to_owned(),
        ..LocalCheck::default()
    };
    change(&mut check);
    Rig::with(|config, _| config.tokens = TokenCheck::Local(check)).await
}

fn bearer(token: &str) -> String {
    format!("bearer {token}")
}

#[tokio::test]
async fn uaa_is_not_asked_about_signed_tokens_and_still_about_opaque_ones() {
    let rig = rig(|_| {}).await;
    let admin = rig.stub.issue(Grant::admin(), &Value::Null).unwrap();
    let dev = rig.stub.issue(Grant::apps(&[APP]), &Value::Null).unwrap();
    rig.stub.grant("opaque", Grant::admin());
    for _ in 0..3 {
        assert_eq!(rig.firehose(&bearer(&admin)).await, 400);
        assert_eq!(rig.firehose(&bearer(&dev)).await, 401);
        assert_eq!(rig.stream(APP, &bearer(&dev)).await, 400);
        assert_eq!(rig.stream(OTHER_APP, &bearer(&dev)).await, 404);
        assert_eq!(rig.firehose("bearer opaque").await, 400);
    }
    let calls = rig.stub.all_calls();
    assert_eq!(calls.total(Endpoint::CheckToken), 1);
    assert_eq!(calls.total(Endpoint::TokenKeys), 1);
    assert_eq!(calls.of(Endpoint::LogAccess, &dev), 2);
    let metrics = rig.metrics().await;
    assert!(
        metrics.contains("loggregator_access_token_keys 1\n"),
        "{metrics}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn bad_tokens_reach_nobody() {
    let rig = rig(|check| check.audience = Some("doppler".to_owned())).await;
    let stub = &rig.stub;
    let good = json!({
        "exp": 9_999_999_999_u64, "iss": ISSUER, "aud": "doppler", "scope": ["doppler.firehose"]
    });
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let kid = stub.key_id();
    assert_eq!(
        rig.firehose(&bearer(&stub.sign(&header("RS256", &kid), &good).unwrap()))
            .await,
        400
    );
    let expired = Grant {
        lifetime_s: Some(-3600),
        ..Grant::admin()
    };
    let mut changed = stub.issue(Grant::admin(), &Value::Null).unwrap();
    changed.pop();
    changed.push('!');
    let bad = [
        stub.issue(expired, &Value::Null).unwrap(),
        stub.issue(Grant::admin(), &json!({ "exp": null })).unwrap(),
        stub.issue(Grant::admin(), &json!({ "aud": "others" }))
            .unwrap(),
        // Another zone of this UAA, which signs with the same key.
        stub.issue(
            Grant::admin(),
            &json!({ "iss": "https://zone.uaa.stub/oauth/token" }),
        )
        .unwrap(),
        stub.issue(Grant::admin(), &json!({ "iss": null })).unwrap(),
        stub.issue(Grant::admin(), &json!({ "jti": "x-r" }))
            .unwrap(),
        stub.sign(&header("none", &kid), &good).unwrap(),
        stub.sign(&header("HS256", &kid), &good).unwrap(),
        stub.sign(&header("RS256", "../../etc/passwd"), &good)
            .unwrap(),
        changed,
    ];
    for (i, token) in bad.iter().enumerate() {
        assert_eq!(rig.firehose(&bearer(token)).await, 401, "{i}");
        assert_eq!(rig.stream(APP, &bearer(token)).await, 401, "{i}");
    }
    let calls = stub.all_calls();
    assert_eq!(calls.total(Endpoint::CheckToken), 0);
    assert_eq!(calls.total(Endpoint::LogAccess), 0);
    rig.stop().await;
}

#[tokio::test]
async fn keys_rotate_and_unknown_ids_do_not_hammer_uaa() {
    let rig = rig(|check| check.refetch_floor = Duration::from_millis(300)).await;
    let old = rig.stub.issue(Grant::admin(), &Value::Null).unwrap();
    assert_eq!(rig.firehose(&bearer(&old)).await, 400);
    rig.stub.rotate(Rotation::Add).unwrap();
    let new = rig.stub.issue(Grant::admin(), &Value::Null).unwrap();
    eventually("the added key is known", async || {
        rig.firehose(&bearer(&new)).await == 400
    })
    .await;
    assert_eq!(rig.firehose(&bearer(&old)).await, 400);

    rig.stub.rotate(Rotation::Replace).unwrap();
    let newest = rig.stub.issue(Grant::admin(), &Value::Null).unwrap();
    eventually("the new key is known", async || {
        rig.firehose(&bearer(&newest)).await == 400
    })
    .await;
    assert_eq!(rig.firehose(&bearer(&old)).await, 401);
    assert_eq!(rig.firehose(&bearer(&new)).await, 401);
    rig.stop().await;

    let rig = self::rig(|_| {}).await;
    for i in 0..100 {
        let header = json!({ "alg": "RS256", "kid": format!("garbage-{i}") });
        let claims = json!({ "exp": 9_999_999_999_u64 });
        let token = rig.stub.sign(&header, &claims).unwrap();
        assert_eq!(rig.firehose(&bearer(&token)).await, 401);
    }
    assert_eq!(rig.stub.all_calls().total(Endpoint::TokenKeys), 1);
    rig.stop().await;
}

#[tokio::test]
async fn keys_hold_for_a_while_when_uaa_is_away_and_then_nobody_gets_in() {
    let rig = rig(|check| {
        check.key_refresh = Duration::from_millis(100);
        check.refetch_floor = Duration::from_millis(100);
        check.keys_hold_for = Duration::from_secs(4);
    })
    .await;
    let admin = rig.stub.issue(Grant::admin(), &Value::Null).unwrap();
    assert_eq!(rig.firehose(&bearer(&admin)).await, 400);
    for mode in [Mode::Status(500), Mode::WrongJson, Mode::Close] {
        rig.stub.set_fault(Endpoint::TokenKeys, mode.into());
        let before = rig.stub.all_calls().total(Endpoint::TokenKeys);
        eventually("the keys are asked for in vain", async || {
            rig.stub.all_calls().total(Endpoint::TokenKeys) > before
        })
        .await;
        assert_eq!(rig.firehose(&bearer(&admin)).await, 400);
    }
    eventually("the keys are too old", async || {
        rig.firehose(&bearer(&admin)).await == 401
    })
    .await;
    assert_eq!(rig.stream(APP, &bearer(&admin)).await, 500);
    // What is past its time is so without a key.
    let expired = Grant {
        lifetime_s: Some(-3600),
        ..Grant::admin()
    };
    let expired = rig.stub.issue(expired, &Value::Null).unwrap();
    assert_eq!(rig.stream(APP, &bearer(&expired)).await, 401);
    rig.stub.set_fault(Endpoint::TokenKeys, Fault::default());
    eventually("UAA is back", async || {
        rig.firehose(&bearer(&admin)).await == 400
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let rig = rig(|check| check.leeway = Duration::ZERO).await;
    for path in ["/firehose/x".to_owned(), format!("/apps/{APP}/stream")] {
        let short = Grant {
            lifetime_s: Some(2),
            apps: vec![APP.to_owned()],
            ..Grant::admin()
        };
        let token = rig.stub.issue(short, &Value::Null).unwrap();
        let (head, frames) = rig.whole_stream(&path, &bearer(&token)).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // A ping, then the close frame: 1008, policy violation.
        assert_eq!(frames[..2], [0x89, 0x00], "{frames:?}");
        assert_eq!(
            (frames[2], &frames[4..6]),
            (0x88, &1008_u16.to_be_bytes()[..])
        );
    }
    rig.stop().await;
}
