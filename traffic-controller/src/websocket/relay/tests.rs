//! A relay between dopplers that do what the test says and a client that speaks frames by hand.
#![allow(
    clippy::disallowed_methods,
    reason = "the test is both ends of the queue"
)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use loggregator_proto::events;
use loggregator_service::ledger::{Source, Subscription};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::accounts::{Accounts, Identity};
use crate::upstream::Unread;
use crate::websocket::{FIREHOSE, PROGRAM};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Long enough for a busy machine, short enough for a test.
fn timing() -> Timing {
    Timing {
        ping_interval: Duration::from_millis(100),
        pong_deadline: Duration::from_secs(20),
        slow_after: Duration::from_secs(20),
        drop_after: Duration::from_secs(40),
        close_within: Duration::from_millis(500),
        drain_within: Duration::from_secs(10),
        write_buffer: 1024,
        ..Timing::default()
    }
}

struct Dopplers {
    batches: mpsc::UnboundedReceiver<Bytes>,
    missed: Arc<AtomicU64>,
    _left: oneshot::Sender<()>,
}

impl Batches for Dopplers {
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let from = |bytes| Batch {
            bytes,
            doppler: "doppler:8082".into(),
        };
        self.batches.poll_recv(cx).map(|batch| batch.map(from))
    }

    fn finish(&mut self, _: Duration) {
        self.batches.close();
    }

    fn take_missed(&mut self) -> u64 {
        self.missed.swap(0, Ordering::SeqCst)
    }

    fn close(mut self: Box<Self>) -> Unread {
        let mut records = Records::default();
        let mut envelopes = 0;
        while let Ok(batch) = self.batches.try_recv() {
            envelopes += records.load(batch).unwrap_or(0) as u64;
        }
        let missed = self.take_missed();
        Unread { envelopes, missed }
    }
}

struct Rig {
    client: Client<DuplexStream>,
    dopplers: mpsc::UnboundedSender<Bytes>,
    /// What the relay was too slow for, as a shared subscription tells it.
    missed: Arc<AtomicU64>,
    /// Resolves when the relay left the dopplers.
    left: oneshot::Receiver<()>,
    relay: JoinHandle<End>,
    stop: CancellationToken,
    denied: Arc<Notify>,
    accounts: Arc<Accounts>,
    slow: Arc<AtomicUsize>,
}

/// A relay whose line holds `line` bytes.
async fn rig(timing: Timing, line: usize) -> Rig {
    let (server, client) = tokio::io::duplex(line);
    let rig = rig_over(server, timing).await;
    Rig {
        client: Client::new(client),
        ..rig
    }
}

async fn rig_over<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: IO,
    timing: Timing,
) -> Rig {
    rig_on(line::Counted::new(io), timing).await
}

async fn rig_on(line: impl Line, timing: Timing) -> Rig {
    let (dopplers, batches) = mpsc::unbounded_channel();
    let (left_sender, left) = oneshot::channel();
    let accounts = Accounts::new(PROGRAM, "test".to_owned(), 10);
    let account = accounts.open(
        Identity {
            id: "s".to_owned(),
            peer: "peer".to_owned(),
            selector: "firehose".to_owned(),
            endpoint: FIREHOSE,
        },
        false,
    );
    let stop = CancellationToken::new();
    let slow = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&slow);
    let on_slow = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let missed = Arc::new(AtomicU64::new(0));
    let batches = Box::new(Dopplers {
        batches,
        missed: Arc::clone(&missed),
        _left: left_sender,
    });
    let stopped = stop.clone().cancelled_owned();
    let denied = Arc::new(Notify::new());
    let denied_now = Arc::clone(&denied);
    let over = Box::pin(async move {
        tokio::select! {
            () = stopped => End::Stopped,
            () = denied_now.notified() => End::Denied,
        }
    });
    let subscribed = Subscribed::new(batches, account);
    let relay = Relay::new(line, Bytes::new(), subscribed, timing, over, on_slow).await;
    let relay = tokio::spawn(relay.run());
    let nobody = Client::new(tokio::io::duplex(1).0);
    Rig {
        client: nobody,
        dopplers,
        missed,
        left,
        relay,
        stop,
        denied,
        accounts,
        slow,
    }
}

impl Rig {
    fn send(&self, payloads: &[&[u8]]) {
        self.dopplers.send(batch(payloads)).unwrap();
    }

    /// Waits for the end and returns it with the closed account, which must balance.
    async fn end(self) -> (End, Subscription) {
        let end = self.relay.await.unwrap();
        (end, closed(&self.accounts))
    }
}

/// The only account, which must be closed and balance.
fn closed(accounts: &Accounts) -> Subscription {
    let report = accounts.report();
    assert!(report.balanced(), "{report:?}");
    let line = report.subscriptions.into_iter().next().unwrap();
    assert_eq!((line.open, line.pending), (false, 0));
    line
}

fn batch(payloads: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::new();
    for payload in payloads {
        bytes.push(0x0a);
        prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
        bytes.extend_from_slice(payload);
    }
    bytes.into()
}

/// The client's end, frame by frame; answers nothing by itself.
struct Client<IO> {
    reader: ReadHalf<IO>,
    writer: WriteHalf<IO>,
}

impl<IO: AsyncRead + AsyncWrite> Client<IO> {
    fn new(io: IO) -> Self {
        let (reader, writer) = tokio::io::split(io);
        Self { reader, writer }
    }

    /// The next frame's first byte without the FIN bit, and its payload; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.reader.read_exact(&mut head).await.ok()?;
        assert_eq!(
            head[0] & 0xf0,
            0x80,
            "one unfragmented frame each, no extension"
        );
        let len = match head[1] {
            126 => u64::from(self.reader.read_u16().await.ok()?),
            127 => self.reader.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut payload = vec![0; len as usize];
        self.reader.read_exact(&mut payload).await.ok()?;
        Some((head[0] & 0x0f, payload))
    }

    /// The next frame that is no ping.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.frame().await? {
                (PING, _) => {}
                frame => return Some(frame),
            }
        }
    }

    /// Sends a masked frame.
    async fn say(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0xff);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.writer.write_all(&frame).await.unwrap();
    }
}

fn close(code: u16, reason: &str) -> Option<(u8, Vec<u8>)> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    Some((CLOSE, payload))
}

fn binary(payload: &[u8]) -> Option<(u8, Vec<u8>)> {
    Some((BINARY, payload.to_vec()))
}

#[tokio::test]
async fn a_ping_comes_first_then_each_payload_as_one_binary_message_unchanged() {
    let mut rig = rig(timing(), 1 << 20).await;
    assert_eq!(rig.client.frame().await, Some((PING, vec![])));
    let big = vec![7; 100_000];
    rig.send(&[b"one", b"", b"\xff\x00 no protobuf"]);
    rig.send(&[&big]);
    for payload in [&b"one"[..], b"", b"\xff\x00 no protobuf", &big] {
        assert_eq!(rig.client.next().await, binary(payload));
    }
    rig.client.say(CLOSE, &1000u16.to_be_bytes()).await;
    assert_eq!(rig.client.next().await, close(1000, ""));
    let (end, line) = rig.end().await;
    assert_eq!((end, line.received, line.delivered), (End::Client, 4, 4));
}

#[tokio::test]
async fn the_next_ping_follows_the_pong() {
    let mut rig = rig(timing(), 1 << 20).await;
    assert_eq!(rig.client.frame().await, Some((PING, vec![])));
    for _ in 0..3 {
        let ponged = Instant::now();
        rig.client.say(PONG, b"whatever").await;
        assert_eq!(rig.client.frame().await, Some((PING, vec![])));
        assert!(ponged.elapsed() >= timing().ping_interval);
    }
}

#[tokio::test]
async fn a_silent_client_is_closed_with_1008_although_data_flows() {
    let deadline = Duration::from_millis(200);
    let mut rig = rig(
        Timing {
            pong_deadline: deadline,
            ..timing()
        },
        1 << 20,
    )
    .await;
    let started = Instant::now();
    let dopplers = rig.dopplers.clone();
    let flow = tokio::spawn(async move {
        while dopplers.send(batch(&[b"data"])).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let last = loop {
        match rig.client.next().await {
            Some((BINARY, payload)) => assert_eq!(payload, b"data"),
            other => break other,
        }
    };
    let reason = "Client did not respond to ping before keep-alive timeout expired.";
    assert_eq!(last, close(1008, reason));
    assert!(started.elapsed() >= deadline);
    assert_eq!(rig.client.next().await, None);
    flow.await.unwrap();
    assert_eq!(rig.end().await.0, End::KeepAlive);
}

#[tokio::test]
async fn what_a_shared_subscription_went_on_without_is_told_before_what_follows() {
    let mut rig = rig(timing(), 1 << 20).await;
    rig.send(&[b"before"]);
    assert_eq!(rig.client.next().await, binary(b"before"));
    rig.missed.store(7, Ordering::SeqCst);
    rig.send(&[b"after", b"that"]);
    let (opcode, notice) = rig.client.next().await.unwrap();
    let notice = events::Envelope::decode(&notice[..]).unwrap();
    let counter = notice.counter_event.unwrap();
    assert_eq!(
        (
            opcode,
            notice.origin.as_str(),
            counter.name.as_str(),
            counter.delta
        ),
        (BINARY, "doppler", "TruncatingBuffer.DroppedMessages", 7)
    );
    assert_eq!(rig.client.next().await, binary(b"after"));
    assert_eq!(rig.client.next().await, binary(b"that"));
    rig.client.say(CLOSE, &1000u16.to_be_bytes()).await;
    assert_eq!(rig.client.next().await, close(1000, ""));
    let (_, line) = rig.end().await;
    // The notice is one of those that were received and delivered.
    assert_eq!((line.received, line.delivered), (7 + 4, 4));
    assert_eq!(line.dropped.get("shared_behind"), Some(&7));
}

#[tokio::test]
async fn who_may_read_no_more_is_closed_with_1008_and_why() {
    let mut rig = rig(timing(), 1 << 20).await;
    rig.send(&[b"one"]);
    assert_eq!(rig.client.next().await, binary(b"one"));
    rig.denied.notify_one();
    let reason = "Authorization is no longer valid.";
    assert_eq!(rig.client.next().await, close(1008, reason));
    rig.client.say(CLOSE, &1008u16.to_be_bytes()).await;
    assert_eq!(rig.client.next().await, None);
    let (end, line) = rig.end().await;
    assert_eq!((end, line.delivered), (End::Denied, 1));
}

#[tokio::test]
async fn pings_are_answered_and_messages_ignored() {
    let mut rig = rig(timing(), 1 << 20).await;
    rig.client.say(TEXT, b"hello").await;
    rig.client.say(BINARY, &[1; 200]).await;
    rig.client.say(PING, b"are you there").await;
    assert_eq!(
        rig.client.next().await,
        Some((PONG, b"are you there".to_vec()))
    );
}

#[tokio::test]
async fn a_close_is_echoed_and_leaves_the_dopplers_at_once() {
    let mut rig = rig(timing(), 1 << 20).await;
    let mut reason = 4001u16.to_be_bytes().to_vec();
    reason.extend(b"bye");
    rig.client.say(CLOSE, &reason).await;
    assert_eq!(rig.client.next().await, Some((CLOSE, reason)));
    assert_eq!(rig.client.next().await, None);
    assert!((&mut rig.left).await.is_err(), "the stream was dropped");
    assert_eq!(rig.end().await.0, End::Client);
}

#[tokio::test]
async fn a_vanished_client_leaves_the_dopplers_and_what_it_did_not_get_is_counted() {
    let mut rig = rig(timing(), 4096).await;
    rig.send(&[[1; 1000].as_slice(); 100]);
    for _ in 0..10 {
        assert_eq!(rig.client.next().await, binary(&[1; 1000]));
    }
    drop(rig.client);
    assert!((&mut rig.left).await.is_err(), "the stream was dropped");
    rig.client = Client::new(tokio::io::duplex(1).0);
    let slow = Arc::clone(&rig.slow);
    let (end, line) = rig.end().await;
    assert_eq!(end, End::Client);
    assert_eq!(
        slow.load(Ordering::SeqCst),
        0,
        "a client that leaves with a backlog is no slow consumer"
    );
    assert_eq!(line.received, 100);
    // Read by the client, or in the line of 4096 bytes when it vanished.
    assert!((10..=14).contains(&line.delivered), "{}", line.delivered);
    assert_eq!(line.dropped["disconnected"], 100 - line.delivered);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_reported_once_and_dropped() {
    let (slow_after, drop_after) = (Duration::from_millis(200), Duration::from_millis(300));
    let rig = rig(
        Timing {
            slow_after,
            drop_after,
            ..timing()
        },
        4096,
    )
    .await;
    let started = Instant::now();
    for _ in 0..10 {
        rig.send(&[[1; 1000].as_slice(); 10]);
    }
    let slow = Arc::clone(&rig.slow);
    let (end, line) = rig.end().await;
    assert_eq!((end, slow.load(Ordering::SeqCst)), (End::SlowConsumer, 1));
    assert!(started.elapsed() >= drop_after, "{:?}", started.elapsed());
    assert_eq!(line.received, 100, "what had arrived unread is counted too");
    assert!(line.delivered <= 4);
    assert_eq!(line.dropped["slow_consumer"], 100 - line.delivered);
}

#[tokio::test]
async fn a_slow_client_that_takes_the_write_in_the_last_second_is_closed_with_1000() {
    let slow_after = Duration::from_millis(100);
    let mut rig = rig(
        Timing {
            slow_after,
            ..timing()
        },
        4096,
    )
    .await;
    rig.send(&[[1; 1000].as_slice(); 100]);
    while rig.slow.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut got = 0;
    let last = loop {
        match rig.client.next().await {
            Some((BINARY, _)) => got += 1,
            other => break other,
        }
    };
    assert_eq!(last, close(1000, ""));
    let (end, line) = rig.end().await;
    assert_eq!(end, End::SlowConsumer);
    assert_eq!((line.delivered, line.received), (got, 100));
}

#[tokio::test]
async fn a_client_on_a_slow_line_is_no_slow_consumer() {
    // One message takes many times the limit, byte by byte.
    let slow_after = Duration::from_millis(150);
    let mut rig = rig(
        Timing {
            slow_after,
            ..timing()
        },
        64,
    )
    .await;
    rig.send(&[&[1; 3000]]);
    let mut seen: Vec<u8> = Vec::new();
    let started = Instant::now();
    while seen.len() < 2 + 4 + 3000 {
        let mut some = [0; 100];
        let n = rig.client.reader.read(&mut some).await.unwrap();
        seen.extend(&some[..n]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(started.elapsed() > 2 * slow_after);
    rig.client.say(CLOSE, &[]).await;
    let slow = Arc::clone(&rig.slow);
    let (end, line) = rig.end().await;
    assert_eq!(
        (end, line.delivered, slow.load(Ordering::SeqCst)),
        (End::Client, 1, 0)
    );
}

#[tokio::test]
async fn a_stop_delivers_what_has_arrived_and_says_goodbye() {
    let mut rig = rig(timing(), 4096).await;
    for i in 0..100u8 {
        rig.send(&[&[i; 500]]);
    }
    // The line is full, most of it is still with the dopplers.
    assert_eq!(rig.client.next().await, binary(&[0; 500]));
    rig.stop.cancel();
    for i in 1..100u8 {
        assert_eq!(rig.client.next().await, binary(&[i; 500]));
    }
    assert!((&mut rig.left).await.is_err());
    assert_eq!(rig.client.next().await, close(1001, ""));
    rig.client.say(CLOSE, &1001u16.to_be_bytes()).await;
    assert_eq!(rig.client.next().await, None);
    let (end, line) = rig.end().await;
    assert_eq!(
        (end, line.received, line.delivered),
        (End::Stopped, 100, 100)
    );
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let rig = rig(
        Timing {
            drain_within: Duration::from_millis(100),
            ..timing()
        },
        4096,
    )
    .await;
    rig.send(&[[1; 1000].as_slice(); 50]);
    while rig.accounts.report().subscriptions[0].received == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.stop.cancel();
    let (end, line) = rig.end().await;
    assert_eq!((end, line.received), (End::Stopped, 50));
    assert!(line.dropped["shutdown"] >= 45);
}

#[tokio::test]
async fn frames_that_are_none_and_messages_that_are_too_big_end_it_by_name() {
    let mut unmasked = rig(timing(), 1 << 20).await;
    unmasked
        .client
        .writer
        .write_all(&[0x81, 1, b'x'])
        .await
        .unwrap();
    assert_eq!(unmasked.client.next().await, close(1002, ""));
    assert_eq!(unmasked.end().await.0, End::Protocol);

    let mut big = rig(
        Timing {
            max_client_message: 1000,
            ..timing()
        },
        1 << 20,
    )
    .await;
    big.client.say(BINARY, &[0; 1001]).await;
    assert_eq!(big.client.next().await, close(1009, ""));
    assert_eq!(big.end().await.0, End::TooBig);
}

#[tokio::test]
async fn the_end_of_the_dopplers_stream_is_a_normal_close() {
    let mut rig = rig(timing(), 1 << 20).await;
    rig.send(&[b"last"]);
    rig.dopplers = mpsc::unbounded_channel().0;
    assert_eq!(rig.client.next().await, binary(b"last"));
    assert_eq!(rig.client.next().await, close(1000, ""));
    assert_eq!(rig.end().await.0, End::Upstream);
}

#[tokio::test]
async fn a_malformed_batch_is_counted_and_the_stream_goes_on() {
    let mut rig = rig(timing(), 1 << 20).await;
    rig.dopplers
        .send(Bytes::from_static(b"\x0a\x02ok\x0a\x09short"))
        .unwrap();
    rig.send(&[b"next"]);
    assert_eq!(rig.client.next().await, binary(b"ok"));
    assert_eq!(rig.client.next().await, binary(b"next"));
    let report = rig.accounts.report();
    assert!(report.balanced());
    assert_eq!(report.ingress.rejected["malformed_batch"], 1);
}

/// Counts the writes to a connection.
struct Writes<IO>(IO, Arc<AtomicUsize>);

impl<IO: AsyncRead + Unpin> AsyncRead for Writes<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Writes<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_is_at_hand_goes_out_in_few_writes() {
    let (server, client) = tokio::io::duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let timing = Timing {
        write_buffer: 64 << 10,
        ..timing()
    };
    let mut rig = rig_over(Writes(server, Arc::clone(&writes)), timing).await;
    rig.client = Client::new(client);
    for _ in 0..100 {
        rig.send(&[[1; 200].as_slice(); 10]);
    }
    for _ in 0..1000 {
        assert_eq!(rig.client.next().await, binary(&[1; 200]));
    }
    // 204,000 bytes: three or four full buffers and the rest; the ping may have gone alone.
    assert!(
        writes.load(Ordering::SeqCst) <= 8,
        "{} writes",
        writes.load(Ordering::SeqCst)
    );
}

#[tokio::test]
async fn what_waits_when_the_client_says_goodbye_still_goes_out_and_is_delivered() {
    let timing = Timing {
        close_within: Duration::from_secs(20),
        write_buffer: 64 << 10,
        ..timing()
    };
    let mut rig = rig(timing, 64).await;
    rig.send(&[[1; 100].as_slice(); 20]);
    while rig.accounts.report().subscriptions[0].received == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.client.say(CLOSE, &1000u16.to_be_bytes()).await;
    assert!((&mut rig.left).await.is_err(), "the close frame was read");
    for _ in 0..20 {
        assert_eq!(rig.client.next().await, binary(&[1; 100]));
    }
    assert_eq!(rig.client.next().await, close(1000, ""));
    let (end, line) = rig.end().await;
    assert_eq!((end, line.received, line.delivered), (End::Client, 20, 20));
}

#[tokio::test]
async fn what_never_left_is_not_delivered_although_the_client_said_goodbye() {
    // One frame that is longer than what may wait, so that the answer to the close frame has no room at first.
    let mut rig = rig(timing(), 64).await;
    rig.send(&[&[1; 8000]]);
    while rig.accounts.report().subscriptions[0].received == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.client.say(CLOSE, &1000u16.to_be_bytes()).await;
    assert!((&mut rig.left).await.is_err(), "the close frame was read");
    for _ in 0..100 {
        let mut some = [0; 64];
        rig.client.reader.read_exact(&mut some).await.unwrap();
    }
    rig.client = Client::new(tokio::io::duplex(1).0);
    let (end, line) = rig.end().await;
    assert_eq!((end, line.received, line.delivered), (End::Client, 1, 0));
    assert_eq!(line.dropped.get("disconnected"), Some(&1));
}

/// A connection that encrypts: it takes what it is given, and says how much of it waits.
struct Encrypting<IO> {
    io: line::Counted<IO>,
    unsent: u64,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Line for Encrypting<IO> {
    fn taken(&self) -> u64 {
        self.io.taken()
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Encrypting<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Encrypting<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    /// Never: something waits for good.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn what_waits_encrypted_when_the_client_vanishes_is_not_delivered() {
    let (server, client) = tokio::io::duplex(1 << 20);
    let io = line::Counted::new(server);
    let mut rig = rig_on(Encrypting { io, unsent: 150 }, timing()).await;
    rig.client = Client::new(client);
    rig.send(&[[1; 100].as_slice(); 3]);
    for _ in 0..3 {
        assert_eq!(rig.client.next().await, binary(&[1; 100]));
    }
    rig.client = Client::new(tokio::io::duplex(1).0);
    let (end, line) = rig.end().await;
    // 3 frames of 102 bytes and a ping; the last 150 bytes never left.
    assert_eq!((end, line.received, line.delivered), (End::Client, 3, 1));
    assert_eq!(line.dropped.get("disconnected"), Some(&2));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_a_slow_consumer_although_little_comes_for_it() {
    let timing = Timing {
        slow_after: Duration::from_millis(300),
        drop_after: Duration::from_millis(400),
        write_buffer: 1 << 20,
        ..timing()
    };
    let rig = rig(timing, 4096).await;
    rig.send(&[[1; 1000].as_slice(); 10]);
    let dopplers = rig.dopplers.clone();
    let trickle = tokio::spawn(async move {
        // 30 seconds at most, if it is not found out.
        for _ in 0..1000 {
            if dopplers.send(batch(&[b"a line"])).is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        false
    });
    assert!(trickle.await.unwrap(), "nobody noticed");
    let slow = Arc::clone(&rig.slow);
    let (end, _) = rig.end().await;
    assert_eq!((end, slow.load(Ordering::SeqCst)), (End::SlowConsumer, 1));
}

/// The count in the next frame, which must be a notice of what was missed.
async fn notice(client: &mut Client<DuplexStream>) -> u64 {
    let (opcode, notice) = client.next().await.unwrap();
    assert_eq!(opcode, BINARY);
    let notice = events::Envelope::decode(&notice[..]).unwrap();
    notice.counter_event.unwrap().delta
}

#[tokio::test]
async fn what_was_missed_is_told_and_booked_as_such_when_the_process_stops() {
    let mut rig = rig(timing(), 1 << 20).await;
    rig.send(&[b"before"]);
    assert_eq!(rig.client.next().await, binary(b"before"));
    rig.missed.store(7, Ordering::SeqCst);
    rig.send(&[b"after"]);
    rig.stop.cancel();
    assert_eq!(notice(&mut rig.client).await, 7);
    assert_eq!(rig.client.next().await, binary(b"after"));
    assert_eq!(rig.client.next().await, close(1001, ""));
    rig.client.say(CLOSE, &1001u16.to_be_bytes()).await;
    let (_, line) = rig.end().await;
    assert_eq!((line.received, line.delivered), (7 + 3, 3));
    assert_eq!(line.dropped.get("shared_behind"), Some(&7));
}

#[tokio::test]
async fn what_was_missed_is_told_when_the_dopplers_stream_ends() {
    let mut rig = rig(timing(), 1 << 20).await;
    assert_eq!(rig.client.frame().await, Some((PING, vec![])));
    rig.missed.store(7, Ordering::SeqCst);
    rig.dopplers = mpsc::unbounded_channel().0;
    assert_eq!(notice(&mut rig.client).await, 7);
    assert_eq!(rig.client.next().await, close(1000, ""));
    let (_, line) = rig.end().await;
    assert_eq!((line.received, line.delivered), (7 + 1, 1));
    assert_eq!(line.dropped.get("shared_behind"), Some(&7));
}

#[tokio::test]
async fn what_was_missed_is_booked_as_such_when_the_client_leaves() {
    let mut rig = rig(timing(), 1 << 20).await;
    assert_eq!(rig.client.frame().await, Some((PING, vec![])));
    rig.missed.store(7, Ordering::SeqCst);
    rig.client.say(CLOSE, &1000u16.to_be_bytes()).await;
    assert_eq!(rig.client.next().await, close(1000, ""));
    let (_, line) = rig.end().await;
    assert_eq!(
        (line.received, line.dropped.get("shared_behind")),
        (7, Some(&7))
    );
    assert_eq!(line.dropped.get("disconnected"), None);
}

#[tokio::test]
async fn a_relay_that_is_aborted_books_what_had_arrived() {
    let rig = rig(timing(), 64).await;
    for _ in 0..5 {
        rig.send(&[[1; 1000].as_slice(); 3]);
    }
    while rig.accounts.report().subscriptions[0].received == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.relay.abort();
    assert!(rig.relay.await.unwrap_err().is_cancelled());
    let line = closed(&rig.accounts);
    assert_eq!((line.received, line.delivered), (15, 0));
    assert_eq!(line.dropped.get("shutdown"), Some(&15));
}
