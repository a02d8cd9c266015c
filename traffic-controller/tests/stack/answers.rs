//! Requests that do not become a stream.

use loggregator_net::{ClientTls, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use traffic_controller::{Access, SecurityEventLog};

use crate::client::{Answer, Ws, http, read_answer};
use crate::rig::{PATIENCE, Rig, soon, until};

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
    let expected = answer(405, &[TEXT, NOSNIFF, VERSION], "Method Not Allowed\n");
    assert_eq!(method, expected);
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
async fn cookies_are_handed_back_and_a_long_form_ends_the_connection() {
    let rig = Rig::with(1, |config, _| {
        config.system_domain = Some("vcap.me".to_owned())
    })
    .await;
    let origin = ("access-control-allow-origin", "https://console.example");
    let cors = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", "Content-Type"),
        origin,
    ];
    let cookie =
        "authorization=bearer+iAmAnAdmin; Domain=doppler.vcap.me; HttpOnly; Secure; SameSite=Lax";
    let with = |more: &[(&'static str, &'static str)]| [&cors[..], more].concat();
    let post = |fields: &str| {
        format!(
            "POST /set-cookie HTTP/1.1\r\nhost: x\r\norigin: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{fields}",
            origin.1,
            fields.len()
        )
    };
    let fields = "CookieName=authorization&CookieValue=bearer%2BiAmAnAdmin";
    let mut io = TcpStream::connect(rig.addr()).await.unwrap();
    io.write_all(post(fields).as_bytes()).await.unwrap();
    let given = answer(200, &with(&[("set-cookie", cookie)]), "");
    assert_eq!(read_answer(&mut io).await, given);
    // The connection goes on, until a form is too long.
    io.write_all(post(&format!("{fields}&x={}", "y".repeat(4096))).as_bytes())
        .await
        .unwrap();
    let long = answer(400, &with(&[("connection", "close")]), "");
    assert_eq!(read_answer(&mut io).await, long);
    assert!(io.read_u8().await.is_err(), "it is closed");

    let headers = [("origin", origin.1)];
    let preflight = http(rig.addr(), "OPTIONS", "/set-cookie", &headers).await;
    assert_eq!(preflight, answer(400, &cors, ""));
    let query = format!("/set-cookie?{fields}");
    assert_eq!(http(rig.addr(), "GET", &query, &headers).await, given);
    let elsewhere = http(rig.addr(), "GET", "/set-cookie/", &headers).await;
    assert_eq!(
        elsewhere,
        answer(404, &[TEXT, NOSNIFF], "404 page not found\n")
    );
}

#[tokio::test]
async fn every_request_is_a_line_of_the_security_event_log() {
    let mut path = None;
    let rig = Rig::with(1, |config, certs| {
        let file = certs.file("cef");
        path = Some(file.clone());
        config.security_log = Some(SecurityEventLog {
            path: file,
            ip: "10.0.0.9".to_owned(),
        });
        config.access = Access::TokenFile(certs.file("tokens"));
        std::fs::write(certs.file("tokens"), "admin doppler.firehose\n").unwrap();
    })
    .await;
    let path = path.unwrap();
    let headers = [
        ("x-forwarded-for", "1.2.3.4:80, 5.6.7.8"),
        ("x-vcap-request-id", "a&b"),
    ];
    http(
        rig.addr(),
        "GET",
        "/firehose/a%20b?filter-type=logs",
        &headers,
    )
    .await;
    http(rig.addr(), "PUT", "//nowhere", &headers[..1]).await;
    Ws::connect_with(rig.addr(), "/firehose/a", "bearer admin")
        .await
        .unwrap()
        .close()
        .await;
    let read = || std::fs::read_to_string(&path).unwrap();
    until("three lines", || read().lines().count() == 3).await;
    let text = read();
    let lines: Vec<_> = text.lines().collect();
    let without_time = |line: &str| {
        let (start, rest) = line.split_once("|0|rt=").unwrap();
        let (time, rest) = rest.split_once(' ').unwrap();
        assert_eq!(time.len(), 13, "milliseconds: {time}");
        format!("{start}|0|{rest}")
    };
    let expected = |request: &str, id: &str, path: &str, method: &str, from: &str| {
        format!(
            "CEF:0|cloud_foundry|loggregator_trafficcontroller|1.0|{request}|{request}|0|\
             cs1Label=userAuthenticationMechanism cs1=oauth-access-token cs2Label=vcapRequestId cs2={id} \
             request={path} requestMethod={method} {from} dst=10.0.0.9 dpt=0"
        )
    };
    let shown = "/firehose/a%20b?filter-type=logs";
    let proxy = "src=1.2.3.4 spt=80";
    let (first, second) = (format!("GET {shown}"), "PUT //nowhere");
    assert_eq!(
        without_time(lines[0]),
        expected(&first, "a&amp;b", shown, "GET", proxy)
    );
    assert_eq!(
        without_time(lines[1]),
        expected(second, "", "//nowhere", "PUT", proxy)
    );
    assert!(lines[2].contains("|GET /firehose/a|") && lines[2].contains(" src=127.0.0.1 spt="));
    assert!(!text.contains("admin"), "no token in it");
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

#[tokio::test]
async fn connections_that_come_to_nothing_are_answered_or_closed_and_leave_nothing() {
    let rig = Rig::with(1, |config, certs| {
        let tls = certs.of("trafficcontroller");
        config.listen_tls = Some((tls.cert, tls.key));
    })
    .await;
    let tls = ClientTls::ca_only(&rig.certs.file("ca.crt")).unwrap();
    let connect = async || {
        let tcp = TcpStream::connect(rig.addr()).await.unwrap();
        tls_connect(tcp, &tls, "trafficcontroller", PATIENCE)
            .await
            .unwrap()
    };
    let mut half_open = Vec::new();
    let mut half_asked = Vec::new();
    for _ in 0..30 {
        let mut tcp = TcpStream::connect(rig.addr()).await.unwrap();
        tcp.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        half_open.push(tcp);
        let mut io = connect().await;
        io.write_all(b"GET /firehose/a HTTP/1.1\r\nauthorization: s3cret")
            .await
            .unwrap();
        io.flush().await.unwrap();
        half_asked.push(io);
    }
    // All that is read of a head that is too large, so that nothing is left over and the answer is not lost in a reset.
    let mut endless = format!("GET / HTTP/1.1\r\ns3cret: {}", "x".repeat(1 << 17));
    endless.truncate(1 << 17);
    // They cost others nothing.
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n", "HTTP/1.1 404 "),
        ("s3cret\r\n", "HTTP/1.1 400 "),
        (
            &format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)),
            "HTTP/1.1 414 ",
        ),
        (&endless, "HTTP/1.1 431 "),
        (
            &format!("GET / HTTP/1.1\r\n{}", "s3cret: x\r\n".repeat(1000)),
            "HTTP/1.1 431 ",
        ),
    ] {
        let mut io = connect().await;
        io.write_all(head.as_bytes()).await.unwrap();
        if *head != endless {
            let rest = b"host: x\r\nconnection: close\r\n\r\n";
            io.write_all(rest).await.unwrap();
        }
        io.flush().await.unwrap();
        let mut seen = Vec::new();
        // How the connection ends behind the answer is the client's business.
        drop(io.read_to_end(&mut seen).await);
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.starts_with(expected), "{expected}: {seen}");
        assert!(!seen.contains("s3cret"), "nothing is echoed");
    }
    for io in &mut half_asked {
        let mut seen = Vec::new();
        drop(soon("the end", io.read_to_end(&mut seen)).await);
        assert_eq!(seen, b"", "closed without an answer");
    }
    drop((half_open, half_asked));
    let none = "loggregator_server_connections{listener=\"websocket\"} 0";
    while !rig
        .admin("/metrics")
        .await
        .1
        .lines()
        .any(|line| line == none)
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(rig.doppler().subscriptions(), 0);
}
