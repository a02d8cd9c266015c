//! Requests that do not become a stream.

use std::sync::Arc;

use loggregator_net::grpc::Status;
use tempfile::TempDir;
use traffic_controller::Access;

use crate::client::{Client, Head};
use crate::rig::Rig;

const GUID: &str = "efe5c422-e8a7-42c2-a52b-98bffd8d6a07";

const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
const NOSNIFF: (&str, &str) = ("x-content-type-options", "nosniff");

/// Head and body as they are on the wire.
async fn answer(rig: &Rig, method: &str, target: &str, headers: &[(&str, &str)]) -> (Head, String) {
    let (mut client, head) = Client::ask(rig.addr(), method, target, headers).await;
    let body = match method {
        "HEAD" => String::new(),
        _ => client.body(&head).await,
    };
    (head, body)
}

fn text(status: u16, body: &str) -> (Head, String) {
    let length = body.len().to_string();
    let head = Head::of(status, &[TEXT, NOSNIFF, ("content-length", &length)]);
    (head, body.to_owned())
}

fn refused(status: u16, error: &str, message: &str) -> (Head, String) {
    let body = format!("{{\"message\":\"{message}\",\"error\":\"{error}\"}}\n\n");
    text(status, &body)
}

fn not_found() -> (Head, String) {
    refused(404, "not_found", "resource not found")
}

#[tokio::test]
async fn there_is_one_path() {
    let rig = Rig::new().await;
    let missing = text(404, "404 page not found\n");
    for path in [
        "/",
        "/v2",
        "/v2/read/",
        "/v2/reads",
        "/V2/read",
        "/v1/read?log",
    ] {
        assert_eq!(answer(&rig, "GET", path, &[]).await, missing, "{path}");
    }
    for (path, clean) in [
        ("//v2/read", "/v2/read"),
        (
            "/v2//read?log&shard_id=a%20b",
            "/v2/read?log&shard_id=a%20b",
        ),
        ("/x/../v2/./read?log", "/v2/read?log"),
    ] {
        let moved = Head::of(301, &[("location", clean), ("content-length", "0")]);
        assert_eq!(answer(&rig, "GET", path, &[]).await, (moved, String::new()));
    }
    assert_eq!(answer(&rig, "GET", "/v2/%zz", &[]).await.0.status, 400);
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_query_has_its_bytes() {
    let rig = Rig::with(|config| {
        config.max_query = 40;
        config.max_selectors = 3;
    })
    .await;
    let method = refused(405, "method_not_allowed", "method not allowed");
    let empty = refused(400, "empty_query", "query cannot be empty");
    let no_type = refused(
        400,
        "missing_envelope_type",
        "query must provide at least one envelope type",
    );
    let too_many = refused(
        400,
        "too_many_selectors",
        "query asks for too many combinations of sources and envelope types",
    );
    let long = format!("/v2/read?log&shard_id={}", "x".repeat(40));
    for (verb, target, expected) in [
        ("POST", "/v2/read?log", &method),
        ("PUT", "/v2/read", &method),
        ("OPTIONS", "/v2/read?log", &method),
        ("GET", "/v2/read", &empty),
        ("GET", "/v2/read?", &empty),
        ("GET", "/v2/read?log;counter", &empty),
        ("GET", "/v2/read?shard_id=a", &no_type),
        ("GET", "/v2/read?LOG", &no_type),
        (
            "GET",
            "/v2/read?log&event&source_id=a&source_id=b",
            &too_many,
        ),
        (
            "GET",
            "/v2/read?log&shard_id=%ff",
            &refused(400, "invalid_query", "query must be valid UTF-8"),
        ),
        (
            "GET",
            &long,
            &refused(414, "query_too_long", "query is too long"),
        ),
    ] {
        let seen = answer(&rig, verb, target, &[]).await;
        assert_eq!(seen, *expected, "{verb} {target}");
    }
    // HEAD has the head of the 405 and no body.
    let (head, _) = answer(&rig, "HEAD", "/v2/read?log", &[]).await;
    assert_eq!(head, method.0);
}

/// Who may read what: an admin, and the holder of one application.
fn tokens(dir: &TempDir) -> Access {
    let path = dir.path().join("tokens");
    std::fs::write(&path, format!("admin doppler.firehose\nshop {GUID}\n")).unwrap();
    Access::TokenFile(path)
}

#[tokio::test]
async fn whoever_may_not_read_learns_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::with(|config| config.access = tokens(&dir)).await;
    let mine = format!("/v2/read?log&source_id={GUID}");
    let both = format!("{mine}&source_id=other");
    let shop = [("authorization", "bearer shop")];
    for (verb, target, headers) in [
        // Whatever else is wrong with it: authorisation comes first.
        ("GET", "/v2/read?log", &[][..]),
        ("GET", "/v2/read", &[]),
        ("POST", "/v2/read?log", &[]),
        ("GET", &mine, &[]),
        ("GET", &mine, &[("authorization", "")]),
        ("GET", &mine, &[("authorization", "bearer nobody")]),
        // A cookie is no authorisation here.
        ("GET", &mine, &[("cookie", "authorization=bearer+admin")]),
        // Everything is for admins, and so is every other source.
        ("GET", "/v2/read?log", &shop),
        ("GET", "/v2/read?log&source_id=", &shop),
        ("GET", &both, &shop),
    ] {
        let seen = answer(&rig, verb, target, headers).await;
        assert_eq!(seen, not_found(), "{verb} {target} {headers:?}");
        assert_eq!(seen.1.len(), 54);
    }
    assert!(rig.opened.none());
    for (target, token) in [
        (mine.as_str(), "bearer shop"),
        ("/v2/read?log", "bearer admin"),
        ("/v2/read?log&source_id=", "bearer admin"),
        (&both, "bearer admin"),
    ] {
        let (_client, head) =
            Client::ask(rig.addr(), "GET", target, &[("authorization", token)]).await;
        assert_eq!(head.status, 200, "{target} {token}");
        rig.opened.next().await;
    }
    // Whoever may read learns what else is wrong.
    let (head, _) = answer(&rig, "POST", &mine, &shop).await;
    assert_eq!(head.status, 405);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_a_503() {
    let rig = Rig::new().await;
    rig.proxy.refuse(Status::unavailable("nobody there"));
    let unavailable = refused(
        503,
        "streaming_unavailable",
        "streaming is temporarily unavailable",
    );
    assert_eq!(answer(&rig, "GET", "/v2/read?log", &[]).await, unavailable);
}

#[tokio::test]
async fn one_stream_too_many_is_turned_away_until_another_leaves() {
    let mut rig = Rig::with(|config| config.max_streams = 2).await;
    let first = Client::get(rig.addr(), "/v2/read?log").await;
    let second = Client::get(rig.addr(), "/v2/read?log").await;
    assert_eq!((first.1.status, second.1.status), (200, 200));
    let full = refused(
        503,
        "streaming_unavailable",
        "streaming is temporarily unavailable",
    );
    assert_eq!(answer(&rig, "GET", "/v2/read?log", &[]).await, full);
    let subscription = rig.opened.next().await;
    drop(first);
    subscription.closed().await;
    let mut status = 503;
    while status == 503 {
        // The slot is given back when the first client's body has been dropped.
        status = Client::get(rig.addr(), "/v2/read?log").await.1.status;
    }
    assert_eq!(status, 200);
    drop(Arc::clone(&rig.proxy));
}
