//! Checks against a server that answers both for UAA and for the Cloud Controller, and remembers what it was asked.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use loggregator_net::http as web;
use parking_lot::Mutex;

use super::*;

const APP: &str = "efe5c422-e8a7-42c2-a52b-98bffd8d6a07";
const OTHER: &str = "00000000-0000-0000-0000-00000000000A";

/// Method, path, authorization and body of a request.
type Seen = (Method, String, String, String);

#[derive(Default)]
struct Stub {
    seen: Mutex<Vec<Seen>>,
    /// Status and body for UAA.
    uaa: Mutex<(u16, &'static str)>,
    /// Statuses for `log_access` and for `service_instances`.
    capi: Mutex<(u16, u16)>,
}

struct Handler(Arc<Stub>);

impl web::Handler for Handler {
    fn handle(
        &self,
        request: web::Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = web::Response> + Send>> {
        let stub = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let path = head.uri.path().to_owned();
            let authorization = head.headers.get("authorization");
            let authorization = authorization.map_or("", |value| value.to_str().unwrap());
            stub.seen.lock().push((
                head.method,
                path.clone(),
                authorization.to_owned(),
                String::from_utf8(body.to_vec()).unwrap(),
            ));
            let (status, body) = match path.as_str() {
                "/check_token" => *stub.uaa.lock(),
                path if path.starts_with("/internal/v4/log_access/") => (stub.capi.lock().0, ""),
                _ => (stub.capi.lock().1, ""),
            };
            let mut answer = Response::new(web::full(body));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            answer
        })
    }
}

struct Rig {
    stub: Arc<Stub>,
    platform: Arc<Platform>,
    _lifecycle: Lifecycle,
}

impl Rig {
    fn new() -> Self {
        Self::with(TokenCheck::Remote)
    }

    fn with(tokens: TokenCheck) -> Self {
        let lifecycle = Lifecycle::new();
        let server = web::Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", server.local_addr());
        let stub = Arc::new(Stub::default());
        *stub.uaa.lock() = (200, r#"{"scope":["doppler.firehose"]}"#);
        *stub.capi.lock() = (200, 404);
        let handler = Arc::new(Handler(Arc::clone(&stub)));
        let serve = server.serve(None, handler, web::Settings::default(), lifecycle.token());
        lifecycle.spawn("stub", serve);
        let config = PlatformConfig {
            uaa_url: url.clone(),
            uaa_client: "doppler".to_owned(),
            uaa_secret: Secret::new("hush"),
            capi_url: format!("{url}/"),
            capi_external_url: Some(url),
            tokens,
            ..PlatformConfig::default()
        };
        let platform = Platform::start(&config, Duration::from_secs(5), &lifecycle).unwrap();
        Self {
            stub,
            platform,
            _lifecycle: lifecycle,
        }
    }

    fn asked(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.stub.seen.lock())
    }
}

fn who(text: &str) -> Credentials {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", text.parse().unwrap());
    Credentials::from_headers(&headers)
}

fn log_access(id: &str, text: &str) -> Seen {
    let path = format!("/internal/v4/log_access/{id}");
    (Method::GET, path, text.to_owned(), String::new())
}

const YES: Result<Allowed, Denied> = Ok(Allowed {
    recheck_after: None,
});

#[tokio::test]
async fn the_firehose_is_uaas_question_asked_once_per_token() {
    let rig = Rig::new();
    for _ in 0..3 {
        assert_eq!(rig.platform.firehose(&who("bearer a+b c")).await, YES);
    }
    let asked = (
        Method::POST,
        "/check_token".to_owned(),
        "Basic ZG9wcGxlcjpodXNo".to_owned(),
        "token=a%2Bb+c".to_owned(),
    );
    assert_eq!(rig.asked(), [asked]);
    assert_ne!(rig.platform.latencies().uaa, Duration::ZERO);

    rig.stub.uaa.lock().1 = r#"{"scope":["logs.admin"]}"#;
    let denied = rig.platform.firehose(&who("Bearer a")).await;
    assert_eq!(denied, Err(Denied::Refused));
    assert_eq!(rig.asked()[0].3, "token=Bearer+a");
    let none = Credentials::from_headers(&HeaderMap::new());
    assert_eq!(rig.platform.firehose(&none).await, Err(Denied::NoToken));
    assert_eq!(rig.asked(), []);
}

#[tokio::test]
async fn an_application_is_the_cloud_controllers_question_and_a_guid() {
    let rig = Rig::new();
    assert_eq!(rig.platform.app_stream(APP, &who("Bearer x")).await, YES);
    assert_eq!(rig.platform.app_stream(APP, &who("Bearer x")).await, YES);
    assert_eq!(rig.platform.app_stream(OTHER, &who("Bearer x")).await, YES);
    let expected = [log_access(APP, "Bearer x"), log_access(OTHER, "Bearer x")];
    assert_eq!(rig.asked(), expected);

    for (status, denied) in [
        (401, Denied::Refused),
        (403, Denied::NotFound),
        (404, Denied::NotFound),
        (
            418,
            Denied::Unavailable("the Cloud Controller answered 418".to_owned()),
        ),
        (
            500,
            Denied::Unavailable("the Cloud Controller answered 500".to_owned()),
        ),
    ] {
        rig.stub.capi.lock().0 = status;
        let token = format!("bearer {status}");
        assert_eq!(
            rig.platform.app_stream(APP, &who(&token)).await,
            Err(denied)
        );
    }
    rig.asked();
    for id in [
        "",
        "app",
        "..",
        "../../v3/info",
        "efe5c422-e8a7-42c2-a52b-98bffd8d6a07?",
    ] {
        let denied = rig.platform.app_stream(id, &who("bearer x")).await;
        assert_eq!(denied, Err(Denied::NotAnAppId), "{id}");
    }
    let none = Credentials::from_headers(&HeaderMap::new());
    let denied = rig.platform.app_stream(APP, &none).await;
    assert_eq!(denied, Err(Denied::NoToken));
    assert_eq!(rig.asked(), []);
}

#[tokio::test]
async fn the_gateway_asks_about_an_admin_first_and_then_about_each_source() {
    let rig = Rig::new();
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let (none, both) = (ids(&[]), ids(&[APP, OTHER]));
    assert_eq!(rig.platform.latencies(), Latencies::default());
    assert_eq!(rig.platform.sources(&none, &who("bearerx")).await, YES);
    assert_eq!(rig.asked()[0].3, "token=x");
    rig.stub.uaa.lock().1 = r#"{"scope":["logs.admin"]}"#;
    assert_eq!(rig.platform.sources(&none, &who("y")).await, YES);
    rig.asked();

    // No admin, whether UAA knows the token or not.
    *rig.stub.uaa.lock() = (400, r#"{"error":"invalid_token"}"#);
    let denied = Err(Denied::NotFound);
    assert_eq!(rig.platform.sources(&none, &who("bearer z")).await, denied);
    assert_eq!(rig.platform.sources(&both, &who("bearer z")).await, YES);
    let Latencies {
        log_access,
        service_instances,
        ..
    } = rig.platform.latencies();
    assert_ne!(log_access, Duration::ZERO);
    assert_eq!(service_instances, Duration::ZERO);
    let paths: Vec<_> = rig.asked().into_iter().map(|seen| seen.1).collect();
    let log_access = |id| format!("/internal/v4/log_access/{id}");
    let expected = [
        "/check_token".to_owned(),
        log_access(APP),
        log_access(OTHER),
    ];
    assert_eq!(paths, expected);

    // An id that is none reaches nobody; the first refusal decides.
    let odd = ids(&["../x", APP]);
    assert_eq!(rig.platform.sources(&odd, &who("bearer z")).await, denied);
    assert_eq!(rig.asked(), []);
    *rig.stub.capi.lock() = (403, 200);
    assert_eq!(rig.platform.sources(&both, &who("bearer s")).await, YES);
    *rig.stub.capi.lock() = (404, 403);
    assert_eq!(rig.platform.sources(&both, &who("bearer t")).await, denied);
    let asked = rig.asked();
    assert_eq!(asked[2].1, format!("/v3/service_instances/{APP}"));
    assert_eq!(asked[2].2, "bearer s");
    assert_eq!(asked.len(), 5 + 3);
    assert_ne!(rig.platform.latencies().service_instances, Duration::ZERO);

    // An answer that says nothing about the bearer is no denial.
    *rig.stub.capi.lock() = (503, 404);
    let away = |why: &str| Err(Denied::Unavailable(why.to_owned()));
    let answered = away("the Cloud Controller answered 503");
    assert_eq!(
        rig.platform.sources(&both, &who("bearer v")).await,
        answered
    );
    rig.asked();

    // UAA gives no JSON: nobody gets in, not even with an application of theirs.
    *rig.stub.capi.lock() = (200, 200);
    *rig.stub.uaa.lock() = (200, "<html>");
    let silent = away(NO_STANDING);
    assert_eq!(rig.platform.sources(&both, &who("bearer u")).await, silent);
    assert_eq!(rig.platform.firehose(&who("bearer u")).await, silent);
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_kept_answers_hold() {
    let rig = Rig::new();
    assert_eq!(rig.platform.firehose(&who("bearer known")).await, YES);
    *rig.stub.uaa.lock() = (500, r#"{"scope":["doppler.firehose"]}"#);
    rig.asked();
    let (mut refused, mut silent) = (0, 0);
    for i in 0..50 {
        match rig.platform.firehose(&who(&format!("bearer {i}"))).await {
            Err(Denied::Refused) => refused += 1,
            Err(Denied::Unavailable(_)) => silent += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused >= 5 && silent > 0, "{refused} {silent}");
    let asked = rig.asked().len();
    assert!((5..50).contains(&asked), "{asked}");
    assert_eq!(rig.platform.firehose(&who("bearer known")).await, YES);
    assert_eq!(rig.asked(), []);
}

#[tokio::test]
async fn a_token_that_is_too_long_reaches_nobody() {
    let rig = Rig::new();
    let (long, ids) = (who(&"a".repeat(32 * 1024 + 1)), [APP.to_owned()]);
    let refused = Err(Denied::Refused);
    assert_eq!(rig.platform.firehose(&long).await, refused);
    assert_eq!(rig.platform.app_stream(APP, &long).await, refused);
    assert_eq!(rig.platform.sources(&ids, &long).await, refused);
    assert_eq!(rig.asked(), []);
    assert_eq!(
        rig.platform.firehose(&who(&"a".repeat(32 * 1024))).await,
        YES
    );
}

#[tokio::test]
async fn without_keys_nothing_is_said_about_a_signed_token() {
    let check = LocalCheck {
        issuer: "https://uaa".to_owned(),
        ..LocalCheck::default()
    };
    let rig = Rig::with(TokenCheck::Local(check));
    // {"alg":"RS256"}.{"exp":9999999999}
    let signed = who("bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjk5OTk5OTk5OTl9.AAAA");
    let ids = [APP.to_owned()];
    let silent = Err(Denied::Unavailable(Refusal::NoKeys.to_string()));
    assert_eq!(rig.platform.firehose(&signed).await, silent);
    assert_eq!(rig.platform.app_stream(APP, &signed).await, silent);
    assert_eq!(rig.platform.sources(&ids, &signed).await, silent);
}

#[test]
fn local_checks_do_not_start_without_an_issuer() {
    let config = PlatformConfig {
        uaa_url: "http://uaa".to_owned(),
        capi_url: "http://cc".to_owned(),
        tokens: TokenCheck::Local(LocalCheck::default()),
        ..PlatformConfig::default()
    };
    let error = Platform::start(&config, Duration::from_secs(5), &Lifecycle::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokens are to be checked locally and there is no issuer that they must have"
    );
}

#[test]
fn addresses_are_checked_and_not_repeated() {
    let lifecycle = Lifecycle::new();
    let start = |url: &str| {
        let config = PlatformConfig {
            uaa_url: url.to_owned(),
            capi_url: "http://cc".to_owned(),
            ..PlatformConfig::default()
        };
        let error = Platform::start(&config, Duration::from_secs(5), &lifecycle).err();
        error.map(|error| error.to_string())
    };
    let form = "the address of UAA is not of the form https://host:port";
    for url in [
        "",
        "uaa:8443",
        "ftp://uaa",
        "https://",
        "http://uaa/?s3cret",
    ] {
        assert_eq!(start(url).as_deref(), Some(form), "{url}");
    }
    let files = "UAA has an https:// address and there are no certificate files for it";
    assert_eq!(start("https://uaa").as_deref(), Some(files));
    assert_eq!(start("http://uaa"), None);
}
