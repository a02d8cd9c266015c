//! A client that ends a stream gets all that its server counts as delivered.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use loggregator_net::grpc::{
    Message, MessageSource, Messages, Receipt, Request, Response, ServerSettings, Status,
};
use tokio::net::TcpListener;

const LONG: Duration = Duration::from_secs(20);

/// Counts what the connection took.
struct Taken(Arc<AtomicU64>);

impl Receipt for Taken {
    fn settle(self: Box<Self>, delivered: bool) {
        self.0.fetch_add(u64::from(delivered), Ordering::SeqCst);
    }
}

/// As many messages as it is asked for; after the end was asked for so many more.
struct Endless {
    taken: Arc<AtomicU64>,
    /// `None`: it leaves the end to the connection.
    more: Option<usize>,
    finishing: bool,
}

impl MessageSource for Endless {
    fn poll_message(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let last = if self.finishing {
            match &mut self.more {
                Some(0) => return Poll::Ready(None),
                more => {
                    *more = more.map(|more| more - 1);
                    true
                }
            }
        } else {
            false
        };
        let taken = Taken(Arc::clone(&self.taken));
        let bytes = Bytes::from(vec![u8::from(last); 3000]);
        let message = Message::from(bytes).with_receipt(Box::new(taken));
        Poll::Ready(Some(Ok(message)))
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.more.is_some()
    }
}

fn endless(taken: &Arc<AtomicU64>, more: Option<usize>) -> Running {
    let taken = Arc::clone(taken);
    let service = Serve(move |mut request: Request| -> Answer {
        let source = Endless {
            taken: Arc::clone(&taken),
            more,
            finishing: false,
        };
        Box::pin(async move {
            drop(request.messages.next().await);
            Response::Stream(Box::new(source))
        })
    });
    start_with(
        Some(server_tls()),
        Arc::new(service),
        ServerSettings::default(),
    )
}

/// How many messages still come, and how many of them are marked.
async fn rest(messages: &mut Messages) -> (u64, usize) {
    let (mut count, mut marked) = (0, 0);
    while let Some(message) = soon(messages.next()).await {
        count += 1;
        marked += usize::from(message.unwrap()[0]);
    }
    (count, marked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_connection_took_is_what_the_client_gets() {
    let taken = Arc::<AtomicU64>::default();
    let server = endless(&taken, None);
    let channel = channel(server.addr, Some(client_tls()));
    let mut other = channel.server_stream(FOREVER, Bytes::new()).await.unwrap();
    soon(other.next()).await.unwrap().unwrap();
    let mut got = 1;
    for _ in 0..20 {
        let mut messages = channel.server_stream(FOREVER, Bytes::new()).await.unwrap();
        for _ in 0..100 {
            soon(messages.next()).await.unwrap().unwrap();
        }
        messages.finish(LONG);
        got += 100 + rest(&mut messages).await.0;
        assert!(messages.next().await.is_none());
    }
    // The neighbour was not meant.
    for _ in 0..1000 {
        soon(other.next()).await.unwrap().unwrap();
    }
    got += 1000;
    other.finish(LONG);
    got += rest(&mut other).await.0;
    assert_eq!(taken.load(Ordering::SeqCst), got);
    until("the calls end", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_may_give_what_it_holds_before_it_ends() {
    let taken = Arc::<AtomicU64>::default();
    let server = endless(&taken, Some(500));
    let channel = channel(server.addr, Some(client_tls()));
    let mut messages = channel.server_stream(FOREVER, Bytes::new()).await.unwrap();
    soon(messages.next()).await.unwrap().unwrap();
    messages.finish(LONG);
    let (count, marked) = rest(&mut messages).await;
    assert_eq!(marked, 500);
    assert_eq!(taken.load(Ordering::SeqCst), 1 + count);
}

#[tokio::test]
async fn a_stream_that_has_nothing_ends_at_once() {
    let server = start(None);
    let channel = channel(server.addr, None);
    let mut idle = channel.server_stream(HANG, Bytes::new()).await.unwrap();
    until("the call arrives", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 1
    })
    .await;
    idle.finish(Duration::MAX / 4);
    assert_eq!(soon(idle.next()).await, None);
    // Before anybody has answered at all.
    let mut hasty = channel.server_stream(HANG, Bytes::new()).await.unwrap();
    hasty.finish(Duration::MAX / 4);
    assert_eq!(soon(hasty.next()).await, None);
    until("the calls end", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 0
    })
    .await;
}

fn frame(payload: &'static [u8]) -> Bytes {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0], &length[..], payload].concat().into()
}

fn trailers(status: u16) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status.into())])
}

/// A server of another make: a message comes at once, the others when it is asked something that it does not know. `answers`:
/// whether it says so.
async fn foreign(answers: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        let mut streams: Vec<h2::SendStream<Bytes>> = Vec::new();
        let mut kept = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let request: HttpRequest<h2::RecvStream> = request;
            let head = HttpResponse::builder().header("content-type", "application/grpc");
            match streams.first_mut() {
                None => {
                    let mut stream = respond
                        .send_response(head.body(()).unwrap(), false)
                        .unwrap();
                    stream.send_data(frame(b"early"), false).unwrap();
                    streams.push(stream);
                }
                Some(stream) => {
                    assert_eq!(request.uri().path(), "/loggregator.net.Streams/Finish");
                    stream.send_data(frame(b"under way"), false).unwrap();
                    stream.send_data(frame(b"as well"), false).unwrap();
                    if answers {
                        let mut head = head.body(()).unwrap();
                        head.headers_mut().extend(trailers(12));
                        respond.send_response(head, true).unwrap();
                    } else {
                        kept.push(respond);
                    }
                }
            }
        }
    });
    addr
}

#[tokio::test]
async fn a_server_that_does_not_know_how_is_read_as_far_as_its_answer() {
    let channel = channel(foreign(true).await, None);
    let mut messages = channel.server_stream(FOREVER, Bytes::new()).await.unwrap();
    assert_eq!(soon(messages.next()).await.unwrap().unwrap(), "early");
    messages.finish(Duration::MAX / 4);
    assert_eq!(soon(messages.next()).await.unwrap().unwrap(), "under way");
    assert_eq!(soon(messages.next()).await.unwrap().unwrap(), "as well");
    assert_eq!(soon(messages.next()).await, None);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_when_the_time_is_over() {
    let channel = channel(foreign(false).await, None);
    let mut messages = channel.server_stream(FOREVER, Bytes::new()).await.unwrap();
    assert_eq!(soon(messages.next()).await.unwrap().unwrap(), "early");
    messages.finish(Duration::from_millis(200));
    assert_eq!(soon(messages.next()).await.unwrap().unwrap(), "under way");
    assert_eq!(soon(messages.next()).await.unwrap().unwrap(), "as well");
    assert_eq!(soon(messages.next()).await, None);
}
