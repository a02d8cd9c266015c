//! Hostile and broken clients: counted, answered, and their neighbours do not notice.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loggregator_net::{TlsStream, tls_connect};
use loggregator_proto::{rpc, v2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

/// A healthy emitter and reader beside the trouble.
struct Healthy {
    sender: Sender,
    reader: V2Reader,
    next: usize,
}

impl Healthy {
    async fn start(doppler: &Doppler) -> Self {
        let client = doppler.connect();
        let reader = client
            .batched(request("", vec![selector("healthy", any_log())]))
            .await;
        doppler.subscribed(1).await;
        Self {
            sender: client.batch_sender().await,
            reader,
            next: 0,
        }
    }

    /// What goes in comes out.
    async fn check(&mut self) {
        self.sender.batch(logs("healthy", self.next, 10)).await;
        assert_eq!(self.reader.take(10).await, logs("healthy", self.next, 10));
        self.next += 10;
    }
}

async fn tls(doppler: &Doppler) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(doppler.running.grpc_addr).await.unwrap();
    tls_connect(stream, &doppler.tls, "doppler", PATIENCE)
        .await
        .unwrap()
}

fn open(doppler: &Doppler) -> u64 {
    doppler.running.server.open.load(Ordering::Relaxed)
}

async fn only_the_healthy_one_is_left(doppler: &Doppler) {
    eventually("the broken connections to be gone", || {
        (open(doppler) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn random_bytes_on_the_port() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let mut random = Random(7);
    for _ in 0..50 {
        let mut stream = TcpStream::connect(doppler.running.grpc_addr).await.unwrap();
        let garbage: Vec<u8> = (0..random.below(4_000)).map(|_| random.byte()).collect();
        // The server may hang up while we still write.
        stream.write_all(&garbage).await.ok();
        stream.shutdown().await.ok();
    }
    healthy.check().await;
    only_the_healthy_one_is_left(&doppler).await;
    healthy.check().await;
}

#[tokio::test]
async fn random_bytes_inside_tls() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let mut random = Random(11);
    for round in 0..50 {
        let mut stream = tls(&doppler).await;
        let mut garbage = BytesMut::new();
        if round % 2 == 0 {
            garbage.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            garbage.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]); // empty SETTINGS
        }
        garbage.extend((0..random.below(4_000)).map(|_| random.byte()));
        stream.write_all(&garbage).await.ok();
        stream.flush().await.ok();
        drop(stream);
    }
    healthy.check().await;
    only_the_healthy_one_is_left(&doppler).await;
    healthy.check().await;
}

#[tokio::test]
async fn half_open_connections_hold_nobody_up() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(doppler.running.grpc_addr).await.unwrap());
    }
    let mut half = Vec::new();
    for _ in 0..20 {
        let mut stream = tls(&doppler).await;
        stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        stream.flush().await.unwrap();
        half.push(stream);
    }
    healthy.check().await;
    drop((silent, half));
    only_the_healthy_one_is_left(&doppler).await;
    healthy.check().await;
}

/// An HTTP/2 connection below our own client, to send what it would not send.
pub async fn raw_h2(doppler: &Doppler) -> h2::client::SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(tls(doppler).await).await.unwrap();
    tokio::spawn(async move {
        connection.await.ok();
    });
    client.ready().await.unwrap()
}

pub fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("https://doppler{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// Status and text of a call, from trailers or from a trailers-only response.
pub async fn status(response: h2::client::ResponseFuture) -> Result<(String, String), h2::Error> {
    let response = within("a response", response).await?;
    let (head, mut body) = response.into_parts();
    let mut headers = head.headers;
    if !headers.contains_key("grpc-status") {
        while let Some(data) = within("data", body.data()).await {
            data?;
        }
        headers = within("trailers", body.trailers())
            .await?
            .unwrap_or_default();
    }
    let text = |name| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned()
    };
    Ok((text("grpc-status"), text("grpc-message")))
}

#[tokio::test]
async fn truncated_messages_end_only_their_stream() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let mut client = raw_h2(&doppler).await;
    let whole = encode(&v2::EnvelopeBatch {
        batch: logs("app", 0, 3),
    });
    let mut framed = BytesMut::from(&[0][..]);
    framed.extend_from_slice(&u32::try_from(whole.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&whole);
    let before = doppler.report().ingress.accepted;
    for path in [
        rpc::INGRESS_BATCH_SENDER,
        rpc::INGRESS_SENDER,
        rpc::DOPPLER_INGESTOR_PUSHER,
        rpc::INGRESS_SEND,
    ] {
        for length in [1, 4, 5, framed.len() - 1] {
            let (response, mut stream) = client.send_request(call(path), false).unwrap();
            stream
                .send_data(framed.clone().split_to(length).freeze(), true)
                .unwrap();
            let (code, text) = status(response).await.unwrap();
            assert_ne!(code, "0", "{path}, {length} bytes: {text}");
        }
    }
    assert_eq!(doppler.report().ingress.accepted, before);
    healthy.check().await;
    doppler.assert_balanced();
}

#[tokio::test]
async fn a_message_that_claims_a_hundred_megabytes_is_refused_by_its_header() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let mut client = raw_h2(&doppler).await;
    for path in [rpc::INGRESS_BATCH_SENDER, rpc::EGRESS_BATCHED_RECEIVER] {
        let (response, mut stream) = client.send_request(call(path), false).unwrap();
        let mut header = BytesMut::from(&[0][..]);
        header.extend_from_slice(&100_000_000_u32.to_be_bytes());
        stream.send_data(header.freeze(), false).unwrap();
        let (code, text) = status(response).await.unwrap();
        assert_eq!(code, "8", "{path}: {text}");
        assert!(
            text.starts_with("grpc: received message larger than max (100000000 vs. 10485760)"),
            "{text}"
        );
    }
    healthy.check().await;
}

#[tokio::test]
async fn streams_opened_and_reset_at_once_in_thousands() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let mut client = raw_h2(&doppler).await;
    for round in 0..3_000 {
        let path = if round % 2 == 0 {
            rpc::EGRESS_BATCHED_RECEIVER
        } else {
            rpc::INGRESS_BATCH_SENDER
        };
        let (response, mut stream) = client.send_request(call(path), false).unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        if round % 100 == 0 {
            client = client.ready().await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    // The connection still works, and so does the neighbour.
    let (response, mut stream) = client
        .send_request(call("/no.Service/Method"), false)
        .unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(status(response).await.unwrap().0, "12");
    healthy.check().await;
    doppler.subscribed(1).await;
    doppler.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connects_and_disconnects_leave_nothing_behind() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let round = async |connections: usize| {
        for _ in 0..connections / 20 {
            let mut open = Vec::new();
            for _ in 0..20 {
                let client = doppler.connect();
                open.push(tokio::spawn(async move {
                    let mut reader = client.batched(firehose("")).await;
                    client.send_batch(logs("other", 0, 1)).await;
                    reader.batch().await;
                }));
            }
            for task in open {
                within("a connection", task).await.unwrap();
            }
        }
        only_the_healthy_one_is_left(&doppler).await;
    };
    round(200).await;
    healthy.check().await;
    let before = resident_bytes();
    round(1_000).await;
    healthy.check().await;
    doppler.subscribed(1).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(
        grown < 24 << 20,
        "{grown} bytes more after a thousand connections"
    );
    assert!(doppler.running.server.accepted.load(Ordering::Relaxed) >= 1_200);
    doppler.assert_balanced();
}

#[tokio::test]
async fn malformed_input_beside_a_healthy_stream() {
    let doppler = Doppler::start().await;
    let mut healthy = Healthy::start(&doppler).await;
    let client = doppler.connect();
    let mut random = Random(23);
    let mut senders = Vec::new();
    for path in [
        rpc::INGRESS_BATCH_SENDER,
        rpc::INGRESS_SENDER,
        rpc::DOPPLER_INGESTOR_PUSHER,
    ] {
        senders.push(client.sender(path).await);
    }
    for _ in 0..200 {
        for sender in &mut senders {
            let garbage: Vec<u8> = (0..random.below(300)).map(|_| random.byte()).collect();
            sender.raw(garbage).await;
        }
        healthy.check().await;
    }
    for sender in senders {
        assert_eq!(
            sender.finish().await,
            Ok(Some(Bytes::new())),
            "the streams went on"
        );
    }
    assert!(doppler.report().ingress.rejected_total() > 100);
    doppler.assert_balanced();
}

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A small generator (xorshift), so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Trailing silence after a hang-up: the server closes a connection whose preface never comes.
#[tokio::test]
async fn a_plain_text_client_is_hung_up_on() {
    let doppler = Doppler::start().await;
    let mut stream = TcpStream::connect(doppler.running.grpc_addr).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: doppler\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "still open");
}
