//! Requests that do not become a stream.

use loggregator_net::{ClientTls, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use traffic_controller::Access;

use crate::client::{Answer, Ws, http, read_answer};
use crate::rig::{PATIENCE, Rig};

const GUID: &str = "/apps/efe5c422-e8a7-42c2-a52b-98bffd8d6a07/stream";

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let length = body.len().to_string();
    let length = ("content-length", length.as_str());
    let all = headers.iter().chain([&length]);
    let mut headers: Vec<_> = all
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    headers.sort();
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
const NOSNIFF: (&str, &str) = ("x-content-type-options", "nosniff");
const BASIC: (&str, &str) = ("www-authenticate", "Basic");
const VERSION: (&str, &str) = ("sec-websocket-version", "13");

#[tokio::test]
async fn paths_that_are_nothing_and_paths_that_are_elsewhere() {
    let rig = Rig::new().await;
    let missing = answer(404, &[TEXT, NOSNIFF], "404 page not found\n");
    for path in [
        "/",
        "/firehose/",
        "/firehose/a/",
        "/apps/x/recentlogs",
        "/firehose/a%2Fb",
    ] {
        assert_eq!(http(rig.addr(), "GET", path, &[]).await, missing, "{path}");
    }
    let moved = answer(301, &[("location", "/firehose/a?filter-type=logs")], "");
    assert_eq!(
        http(rig.addr(), "GET", "/x/..//firehose/a?filter-type=logs", &[]).await,
        moved
    );
    assert_eq!(
        http(rig.addr(), "GET", "/firehose/%zz", &[]).await.status,
        400
    );
    assert_eq!(rig.doppler().subscriptions(), 0);
}

#[tokio::test]
async fn what_is_no_handshake_is_told_so_and_subscribes_nowhere() {
    let rig = Rig::new().await;
    let bad = answer(400, &[TEXT, NOSNIFF, VERSION], "Bad Request\n");
    assert_eq!(http(rig.addr(), "GET", "/firehose/a", &[]).await, bad);
    assert_eq!(http(rig.addr(), "POST", GUID, &[]).await, bad);
    for i in 0..UPGRADE.len() {
        let mut headers = UPGRADE.to_vec();
        headers[i].1 = "wrong";
        assert_eq!(
            http(rig.addr(), "GET", "/firehose/a", &headers).await,
            bad,
            "{headers:?}"
        );
    }
    let method = http(rig.addr(), "PUT", "/firehose/a", &UPGRADE).await;
    assert_eq!(
        (method.status, method.body.as_str()),
        (405, "Method Not Allowed\n")
    );
    assert_eq!(method.header("sec-websocket-version"), Some("13"));
    assert_eq!(rig.doppler().subscriptions(), 0);
}

#[tokio::test]
async fn the_upgrade_has_its_three_headers_and_no_extension() {
    let rig = Rig::new().await;
    let mut headers = UPGRADE.to_vec();
    headers.push(("sec-websocket-extensions", "permessage-deflate"));
    headers.push(("sec-websocket-protocol", "chat"));
    headers.push(("origin", "https://elsewhere.example"));
    let mut answer = http(rig.addr(), "GET", "/firehose/a", &headers).await;
    answer.headers.retain(|(name, _)| name != "content-length");
    let expected = [
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("upgrade", "websocket"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((answer.status, answer.headers), (101, expected.to_vec()));
}

#[tokio::test]
async fn tokens_decide_who_reads_what() {
    let rig = Rig::with(1, |config, certs| {
        let path = certs.file("tokens");
        std::fs::write(
            &path,
            format!("admin doppler.firehose\nshop {}\n", &GUID[6..42]),
        )
        .unwrap();
        config.access = Access::TokenFile(path);
    })
    .await;
    let none = answer(
        401,
        &[BASIC, TEXT],
        "You are not authorized. authorization not provided",
    );
    let bad = answer(
        401,
        &[BASIC, TEXT],
        "You are not authorized. invalid authorization",
    );
    let app_401 = answer(401, &[BASIC], "");
    let app_404 = answer(404, &[], "");
    let other = "/apps/00000000-0000-0000-0000-000000000000/stream";
    for (path, header, expected) in [
        ("/firehose/a", None, &none),
        (
            "/firehose/a",
            Some(("authorization", "bearer nobody")),
            &bad,
        ),
        ("/firehose/a", Some(("authorization", "bearer shop")), &bad),
        ("/firehose/a", Some(("authorization", "Bearer admin")), &bad),
        (
            "/firehose/a",
            Some(("cookie", "authorization=bearer%zz")),
            &none,
        ),
        (GUID, None, &app_401),
        (GUID, Some(("authorization", "bearer nobody")), &app_401),
        (other, Some(("authorization", "bearer shop")), &app_404),
    ] {
        // Access is checked before the handshake.
        let headers: Vec<_> = header.into_iter().collect();
        assert_eq!(
            http(rig.addr(), "GET", path, &headers).await,
            *expected,
            "{path} {header:?}"
        );
    }
    assert_eq!(rig.doppler().subscriptions(), 0);

    for (path, token) in [
        ("/firehose/a", "bearer admin"),
        (GUID, "Bearer shop"),
        (other, "admin"),
    ] {
        Ws::connect_with(rig.addr(), path, token)
            .await
            .unwrap()
            .close()
            .await;
    }
    let mut with_cookie = UPGRADE.to_vec();
    with_cookie.push(("cookie", "a=b; authorization=bearer+admin"));
    assert_eq!(
        http(rig.addr(), "GET", "/firehose/a", &with_cookie)
            .await
            .status,
        101
    );
}

#[tokio::test]
async fn one_client_too_many_is_turned_away_until_another_leaves() {
    let rig = Rig::with(1, |config, _| config.max_subscriptions = 2).await;
    let first = Ws::connect(rig.addr(), "/firehose/a").await;
    let _second = Ws::connect(rig.addr(), GUID).await;
    let Err(Error::Http(refused)) = Ws::connect_with(rig.addr(), "/firehose/a", "").await else {
        panic!("not refused")
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(
        http(rig.addr(), "GET", "/firehose/a", &[]).await,
        answer(503, &[], "")
    );
    first.close().await;
    let mut again = Ws::connect_with(rig.addr(), "/firehose/a", "").await;
    while again.is_err() {
        // The slot is given back when the first client's task has ended.
        again = Ws::connect_with(rig.addr(), "/firehose/a", "").await;
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let rig = Rig::with(1, |config, certs| {
        let tls = certs.of("trafficcontroller");
        config.listen_tls = Some((tls.cert, tls.key));
    })
    .await;
    let mut io = TcpStream::connect(rig.addr()).await.unwrap();
    io.write_all(b"GET /firehose/a HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    io.read_to_string(&mut seen).await.unwrap();
    let expected =
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    assert_eq!(seen, expected);

    let tls = ClientTls::ca_only(&rig.certs.file("ca.crt")).unwrap();
    let tcp = TcpStream::connect(rig.addr()).await.unwrap();
    let mut io = tls_connect(tcp, &tls, "trafficcontroller", PATIENCE)
        .await
        .unwrap();
    io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    io.flush().await.unwrap();
    assert_eq!(read_answer(&mut io).await.status, 404);
}
