//! The HTTP client: what it sends, what it refuses to take, and when it gives up.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::time::Duration;

use bytes::Bytes;
use loggregator_net::http::client::{Client, ClientError, Limits, Question};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Answers one connection with these bytes, then closes it; gives what was asked.
async fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"token=x") {
            io.read_buf(&mut request).await.unwrap();
        }
        io.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (format!("http://{addr}"), asked)
}

fn client(max_body: usize) -> Client {
    Client {
        tls: None,
        server_name: None,
        limits: Limits {
            max_body,
            ..Limits::default()
        },
    }
}

fn question(uri: &str) -> Question {
    let mut question = Question::new(Bytes::new());
    *question.uri_mut() = uri.parse().unwrap();
    question
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test]
async fn a_request_is_sent_as_it_is_on_a_connection_of_its_own() {
    let (url, asked) = server("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").await;
    let mut post = question(&format!("{url}/a%2Fb?c=d"));
    *post.method_mut() = http::Method::POST;
    *post.body_mut() = Bytes::from_static(b"token=x");
    let answer = client(10).send(post, soon()).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (404, &b"no"[..])
    );
    let host = url.strip_prefix("http://").unwrap();
    let expected = format!(
        "POST /a%2Fb?c=d HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 7\r\n\r\ntoken=x"
    );
    assert_eq!(asked.await.unwrap(), expected);
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_whole() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n123456\r\n0\r\n\r\n";
    let (url, _) = server(chunked).await;
    let answer = client(6).send(question(&url), soon()).await.unwrap();
    assert_eq!(&answer.body[..], b"123456");
    let (url, _) = server(chunked).await;
    let error = client(5).send(question(&url), soon()).await.unwrap_err();
    assert!(
        matches!(error, ClientError::TooLong { limit: 5, .. }),
        "{error}"
    );
    let (url, _) = server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123").await;
    let error = client(10).send(question(&url), soon()).await.unwrap_err();
    assert!(matches!(error, ClientError::Body { .. }), "{error}");
    let (url, _) = server("SSH-2.0-nobody\r\n").await;
    let error = client(10).send(question(&url), soon()).await.unwrap_err();
    assert!(matches!(error, ClientError::Exchange { .. }), "{error}");
}

#[tokio::test]
async fn errors_name_the_place_and_nothing_more() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let uri = format!("http://bob:s3cret@{addr}/s3cret?s3cret");
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = client(1).send(question(&uri), deadline).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("http://{addr}: no answer in time")
    );
    let error = client(1).send(question("https://x:1/s3cret"), soon()).await;
    let no_tls = "https://x:1: no certificates are set up for https";
    assert_eq!(error.unwrap_err().to_string(), no_tls);
    for uri in ["/s3cret", "ftp://x/s3cret"] {
        let error = client(1).send(question(uri), soon()).await.unwrap_err();
        assert!(matches!(error, ClientError::Address), "{error}");
    }
}
