//! Each answer about access, whole.

use loggregator_service::Lifecycle;
use loggregator_testkit::platform::{Endpoint, Fault, Grant, Mode, PlatformStub};

use crate::log::logged;
use crate::rig::{APP, Answer, OTHER_APP, Rig};

const BASIC: &str = "www-authenticate: Basic";
const TEXT: &str = "content-type: text/plain; charset=utf-8";

fn answer(status: u16, headers: &[&str], body: &str) -> Answer {
    let mut headers: Vec<_> = headers.iter().map(|line| (*line).to_owned()).collect();
    headers.push(format!("content-length: {}", body.len()));
    headers.sort();
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

fn allowed() -> Answer {
    let nosniff = "x-content-type-options: nosniff";
    answer(
        400,
        &[TEXT, nosniff, "sec-websocket-version: 13"],
        "Bad Request\n",
    )
}

fn refused() -> Answer {
    answer(
        401,
        &[BASIC, TEXT],
        "You are not authorized. invalid authorization",
    )
}

#[tokio::test]
async fn the_firehose_is_for_admins() {
    let rig = Rig::new().await;
    rig.stub.grant("admin", Grant::admin());
    rig.stub.grant("a d+min", Grant::admin());
    let only_logs = Grant {
        scopes: vec!["logs.admin".to_owned(), "cloud_controller.admin".to_owned()],
        ..Grant::default()
    };
    rig.stub.grant("logs", only_logs);
    let expired = Grant {
        lifetime_s: Some(-1),
        ..Grant::admin()
    };
    rig.stub.grant("expired", expired);

    let no_token = answer(
        401,
        &[BASIC, TEXT],
        "You are not authorized. authorization not provided",
    );
    for headers in [
        vec![],
        vec![("authorization", "")],
        vec![("cookie", "authorization=%zz")],
        vec![("cookie", "Authorization=bearer+admin")],
    ] {
        let got = rig.get("/firehose/x", &headers).await;
        assert_eq!(got, no_token, "{headers:?}");
    }
    assert_eq!(rig.stub.all_calls().total(Endpoint::CheckToken), 0);

    for headers in [
        ("authorization", "bearer admin"),
        ("authorization", "admin"),
        (
            "cookie",
            "x=y; authorization=bearer+admin; authorization=no",
        ),
        ("cookie", "authorization=bearer%20a+d%2Bmin"),
    ] {
        let got = rig.get("/firehose/x", &[headers]).await;
        assert_eq!(got, allowed(), "{headers:?}");
    }
    assert_eq!(rig.stub.calls(Endpoint::CheckToken, "admin"), 1, "kept");
    for token in [
        "bearer nobody",
        "bearer logs",
        "bearer expired",
        "Bearer admin",
        "bearer ",
        "bearer  admin",
    ] {
        let got = rig.get("/firehose/x", &[("authorization", token)]).await;
        assert_eq!(got, refused(), "{token}");
    }
    assert_eq!(rig.stub.calls(Endpoint::CheckToken, "Bearer admin"), 1);
    assert_eq!(rig.stub.all_calls().total(Endpoint::LogAccess), 0);

    let handshake = [
        ("authorization", "bearer admin"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(rig.get("/firehose/x", &handshake).await.status, 101);
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_is_for_those_whom_the_cloud_controller_shows_the_application() {
    let rig = Rig::new().await;
    rig.stub.grant("dev", Grant::apps(&[APP]));
    rig.stub.grant("admin", Grant::admin());
    let path = format!("/apps/{APP}/stream");
    let unauthorized = answer(401, &[BASIC], "");
    assert_eq!(rig.get(&path, &[]).await, unauthorized);

    for headers in [
        ("authorization", "Bearer dev"),
        ("authorization", "bEARER dev"),
        ("authorization", "bearer admin"),
        ("cookie", "authorization=bearer+dev"),
    ] {
        assert_eq!(rig.get(&path, &[headers]).await, allowed(), "{headers:?}");
    }
    // Another tenant's application, and nobody's token.
    let other = format!("/apps/{OTHER_APP}/stream");
    let dev = [("authorization", "bearer dev")];
    assert_eq!(rig.get(&other, &dev).await, answer(404, &[], ""));
    let nobody = [("authorization", "bearer nobody")];
    assert_eq!(rig.get(&path, &nobody).await, unauthorized);

    for (status, expected) in [
        (401, unauthorized.clone()),
        (403, answer(404, &[], "")),
        (404, answer(404, &[], "")),
        (204, answer(500, &[], "")),
        (418, answer(500, &[], "")),
        (500, answer(500, &[], "")),
    ] {
        let fault = Fault::from(Mode::Status(status));
        rig.stub.set_fault(Endpoint::LogAccess, fault);
        let token = format!("bearer status-{status}");
        let got = rig.get(&path, &[("authorization", &token)]).await;
        assert_eq!(got, expected, "{status}");
    }
    assert_eq!(rig.stub.all_calls().total(Endpoint::CheckToken), 0);
    let log = logged();
    for line in [
        "Error: authorization not provided".to_owned(),
        format!("Non 200 response from CC API: 403 for \"{APP}\""),
        format!("Non 200 response from CC API: 500 for \"{APP}\""),
    ] {
        assert!(log.contains(&line), "{line}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_guid_reaches_nobody_with_or_without_a_token() {
    let rig = Rig::new().await;
    rig.stub.grant("admin", Grant::admin());
    for id in [
        "x",
        "..%2e",
        "efe5c422e8a742c2a52b98bffd8d6a07",
        "efe5c422-e8a7-42c2-a52b-98bffd8d6a07%3Fx",
        "efe5c422-e8a7-42c2-a52b-98bffd8d6a07%00",
        "efe5c422-e8a7-42c2-a52b-98bffd8d6a0%37%23",
        "%7Befe5c422-e8a7-42c2-a52b-98bffd8d6a07%7D",
    ] {
        for headers in [vec![], vec![("authorization", "bearer admin")]] {
            let got = rig.get(&format!("/apps/{id}/stream"), &headers).await;
            assert_eq!(got, answer(401, &[], ""), "{id}");
        }
    }
    for (path, status) in [
        ("/apps/../../v3/info/stream", 301),
        ("/apps/..%2f..%2fv3%2finfo/stream", 301),
        ("/apps/%2e%2e/stream", 301),
        ("/apps/a%2fb/stream", 404),
    ] {
        let got = rig.get(path, &[("authorization", "bearer admin")]).await;
        assert_eq!(got.status, status, "{path}");
    }
    assert!(rig.stub.all_calls().requests.is_empty());
    // The same id in another spelling of its characters is the id.
    let spelt = "efe5c422%2De8a7-42c2-a52b-98bffd8d6a07";
    assert_eq!(rig.stream(spelt, "bearer admin").await, 400);
    let asked = format!("GET /internal/v4/log_access/{APP}");
    assert_eq!(rig.stub.all_calls().requests, [asked]);
    rig.stop().await;
}

#[tokio::test]
async fn redirects_are_followed_and_the_authorization_stays_at_home() {
    let rig = Rig::new().await;
    rig.stub.grant("dev", Grant::apps(&[APP]));
    let other = Lifecycle::new();
    let elsewhere = PlatformStub::start(&rig.certs, &other).unwrap();
    elsewhere.grant("dev", Grant::apps(&["*"]));
    let to = |base: &str| {
        Fault::from(Mode::Redirect(format!(
            "{base}/internal/v4/log_access/{APP}"
        )))
    };

    rig.stub
        .set_fault(Endpoint::LogAccess, to(&elsewhere.capi_url));
    assert_eq!(rig.stream(APP, "bearer dev").await, 401);
    assert_eq!(elsewhere.calls(Endpoint::LogAccess, "dev"), 0);
    assert_eq!(elsewhere.calls(Endpoint::LogAccess, ""), 1);

    // In a circle, at home.
    rig.stub
        .set_fault(Endpoint::LogAccess, to(&rig.stub.capi_url));
    rig.stub.reset_calls();
    assert_eq!(rig.stream(APP, "bearer again").await, 500);
    assert_eq!(rig.stub.calls(Endpoint::LogAccess, "again"), 11);

    // UAA does not send its clients elsewhere.
    let uaa = Mode::Redirect(format!("{}/check_token", elsewhere.uaa_url));
    rig.stub.set_fault(Endpoint::CheckToken, uaa.into());
    assert_eq!(rig.firehose("bearer dev").await, 401);
    assert_eq!(elsewhere.all_calls().total(Endpoint::CheckToken), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_refusal_is_one_line_whether_the_answer_is_kept_or_not() {
    const UNSEEN: &str = "0ddba11e-1111-4222-8333-444444444444";
    let rig = Rig::new().await;
    rig.stub.grant("dev", Grant::apps(&[APP]));
    for _ in 0..3 {
        assert_eq!(rig.stream(UNSEEN, "bearer dev").await, 404);
        assert_eq!(rig.firehose("bearer dev").await, 401);
    }
    assert_eq!(rig.stub.calls(Endpoint::LogAccess, "dev"), 1);
    let log = logged();
    let line = format!("Non 200 response from CC API: 404 for \"{UNSEEN}\"");
    assert_eq!(log.matches(&line).count(), 3);
    // Where the Go program has no line, and nowhere a second one by the front door, which names the peer.
    assert!(
        log.contains("access denied: invalid authorization\n"),
        "{log}"
    );
    assert!(!log.contains("access denied peer="), "{log}");
    rig.stop().await;
}

#[tokio::test]
async fn nothing_of_a_token_is_logged_or_answered() {
    let rig = Rig::new().await;
    let secret = "seKret-7d1f";
    for fault in [
        Mode::None,
        Mode::Status(500),
        Mode::WrongJson,
        Mode::Close,
        Mode::Status(401),
    ] {
        for endpoint in [Endpoint::CheckToken, Endpoint::LogAccess] {
            rig.stub.set_fault(endpoint, fault.clone().into());
        }
        for token in [format!("bearer {secret}"), format!("Bearer {secret}")] {
            for path in ["/firehose/x".to_owned(), format!("/apps/{APP}/stream")] {
                let got = rig.get(&path, &[("authorization", &token)]).await;
                assert!(!format!("{got:?}").contains(secret));
                let cookie = format!("authorization={}", token.replace(' ', "+"));
                let got = rig.get(&path, &[("cookie", &cookie)]).await;
                assert!(!format!("{got:?}").contains(secret));
            }
        }
    }
    let metrics = rig.metrics().await;
    rig.stop().await;
    let log = logged();
    assert!(log.contains("Error getting auth data: "), "{log}");
    for text in [&log, &metrics] {
        assert!(!text.contains(secret));
        assert!(!text.contains(loggregator_testkit::platform::CLIENT_SECRET));
    }
}
