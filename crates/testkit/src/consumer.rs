//! Readers that check what they read: nothing twice, nothing out of order, every gap counted.

use crate::sequence::{Arrived, Checker};
use crate::sse::{SseEvent, SseStream};
use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use loggregator_client::ws::{WsEvent, WsStream};
use loggregator_client::{EgressStream, V1Stream, payloads};
use loggregator_envelope::{Frame, V1Builder};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a subscription may take to stand.
const OPENING: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Seen {
    checker: Checker,
    /// Messages that were no envelopes.
    unreadable: u64,
    /// Connections lost.
    reconnects: u64,
}

/// A subscription that is read in the background.
pub struct Consumer {
    seen: Arc<Mutex<Seen>>,
    reading: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Reads a v2 stream; returns when `dopplers` of its calls stand.
    ///
    /// # Errors
    /// When they do not within twenty seconds.
    pub async fn v2(mut stream: EgressStream, dopplers: usize) -> Result<Self> {
        let opened = tokio::time::timeout(OPENING, stream.answered(dopplers)).await;
        opened.with_context(|| format!("the subscription does not stand: {:?}", stream.stats()))?;
        Ok(Self::spawn(async move |seen, mut gate| {
            while let Some(batch) = gate.next(stream.next()).await {
                let parsed = Frame::parse(batch.bytes);
                let mut seen = seen.lock();
                seen.reconnects = stream.stats().reconnects;
                match parsed {
                    Ok(parsed) => {
                        seen.unreadable += u64::from(parsed.rejected);
                        seen.checker.frame(&parsed.frame);
                    }
                    Err(_) => seen.unreadable += 1,
                }
            }
        }))
    }

    /// Reads a v1 stream; returns when `dopplers` of its calls stand.
    ///
    /// # Errors
    /// When they do not within twenty seconds.
    pub async fn v1(mut stream: V1Stream, dopplers: usize) -> Result<Self> {
        let opened = tokio::time::timeout(OPENING, stream.answered(dopplers)).await;
        opened.with_context(|| format!("the subscription does not stand: {:?}", stream.stats()))?;
        Ok(Self::spawn(async move |seen, mut gate| {
            let mut builder = V1Builder::new();
            while let Some(batch) = gate.next(stream.next()).await {
                let mut seen = seen.lock();
                for payload in payloads(&batch.bytes) {
                    seen.unreadable += u64::from(builder.push(&payload).is_err());
                }
                seen.checker.frame(&builder.finish());
            }
        }))
    }

    /// Reads a WebSocket; returns when it is connected.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn web(mut stream: WsStream) -> Result<Self> {
        let connected = async {
            loop {
                if let WsEvent::Connected = stream.next().await? {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(OPENING, connected)
            .await
            .context("the WebSocket does not connect")??;
        Ok(Self::spawn(async move |seen, mut gate| {
            let mut builder = V1Builder::new();
            while let Some(event) = gate.next(async { Some(stream.next().await) }).await {
                let mut next = Some(event);
                let mut unreadable = 0;
                // What is at hand is one frame.
                while let Some(Ok(WsEvent::Envelope(payload))) = &next {
                    unreadable += u64::from(builder.push(payload).is_err());
                    next = stream.next().now_or_never();
                }
                let mut seen = seen.lock();
                seen.unreadable += unreadable;
                seen.checker.frame(&builder.finish());
                match next {
                    Some(Ok(WsEvent::Disconnected { .. })) => seen.reconnects += 1,
                    Some(Err(_)) => break,
                    Some(Ok(WsEvent::Connected | WsEvent::Envelope(_))) | None => {}
                }
            }
        }))
    }

    /// Reads the gateway; returns when it answered.
    ///
    /// # Errors
    /// When it refuses, or does not answer within twenty seconds.
    pub async fn sse(mut stream: SseStream) -> Result<Self> {
        let connected = async {
            loop {
                if let SseEvent::Connected = stream.next().await? {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(OPENING, connected)
            .await
            .context("the gateway does not answer")??;
        Ok(Self::spawn(async move |seen, mut gate| {
            while let Some(event) = gate.next(async { Some(stream.next().await) }).await {
                match event {
                    Ok(SseEvent::Envelopes(frame)) => seen.lock().checker.frame(&frame),
                    Ok(SseEvent::Connected) => {}
                    Ok(SseEvent::Disconnected) => seen.lock().reconnects += 1,
                    Err(_) => {
                        seen.lock().unreadable += 1;
                        break;
                    }
                }
            }
        }))
    }

    fn spawn<F>(read: impl FnOnce(Arc<Mutex<Seen>>, Gate) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::<Mutex<Seen>>::default();
        let (reading, gate) = watch::channel(true);
        let task = tokio::spawn(read(Arc::clone(&seen), Gate(gate)));
        Self {
            seen,
            reading,
            task,
        }
    }

    /// Stops reading without closing: the connection fills up.
    pub fn pause(&self) {
        self.reading.send_replace(false);
    }

    /// Reads on.
    pub fn resume(&self) {
        self.reading.send_replace(true);
    }

    /// What arrived so far.
    pub fn checker(&self) -> Checker {
        self.seen.lock().checker.clone()
    }

    /// Numbered lines that arrived so far.
    pub fn lines(&self) -> u64 {
        self.seen.lock().checker.lines()
    }

    /// What arrived of one source.
    pub fn of(&self, source: &str) -> Arrived {
        self.seen.lock().checker.of(source)
    }

    /// What the pipeline itself said that this reader lost.
    pub fn told_lost(&self) -> u64 {
        self.seen.lock().checker.told_lost
    }

    /// Messages that were no envelopes.
    pub fn unreadable(&self) -> u64 {
        self.seen.lock().unreadable
    }

    /// Connections lost and made again.
    pub fn reconnects(&self) -> u64 {
        self.seen.lock().reconnects
    }

    /// Leaves, and says what had arrived.
    pub async fn stop(self) -> Checker {
        self.task.abort();
        // The task's end is the connection's end.
        let _aborted = self.task.await.is_err();
        self.seen.lock().checker.clone()
    }
}

/// Lets a reader through while reading is on.
struct Gate(watch::Receiver<bool>);

impl Gate {
    async fn next<T>(&mut self, next: impl Future<Output = Option<T>>) -> Option<T> {
        self.0.wait_for(|reading| *reading).await.ok()?;
        next.await
    }
}
