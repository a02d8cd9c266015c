//! The compliance suite against a receiver of remote write.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Answers, Got, samples, serve, status};
use loggregator_nozzle::compliance::{self, Behaviour, Peer};
use loggregator_nozzle::{Kinds, Rendered};
use loggregator_nozzle_prometheus::PrometheusKind;
use loggregator_proto::v2;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Receiver {
    script: Arc<Script>,
    addr: SocketAddr,
    stop: Mutex<CancellationToken>,
    dir: TempDir,
}

struct Script {
    how: Mutex<Behaviour>,
    taken: Mutex<Vec<Rendered>>,
}

impl Answers for Script {
    async fn answer(&self, got: Got) -> http::Response<Bytes> {
        let lines: Vec<String> = samples(&got.body).iter().map(|s| s.line()).collect();
        let wait = {
            let mut how = self.how.lock();
            match &mut *how {
                Behaviour::Fail(0) => *how = Behaviour::Healthy,
                Behaviour::Fail(left) => {
                    *left -= 1;
                    return status(503);
                }
                Behaviour::Poison(text)
                    if lines.iter().any(|line| line.contains(text.as_str())) =>
                {
                    return status(400);
                }
                _ => {}
            }
            let taken = lines.into_iter().map(|line| Rendered {
                fields: Vec::new(),
                body: line.into(),
            });
            self.taken.lock().extend(taken);
            match &*how {
                Behaviour::Slow(time) => *time,
                _ => Duration::ZERO,
            }
        };
        tokio::time::sleep(wait).await;
        status(204)
    }
}

impl Receiver {
    async fn start() -> Receiver {
        let script = Arc::new(Script {
            how: Mutex::new(Behaviour::Healthy),
            taken: Mutex::default(),
        });
        let (addr, stop) = serve(([127, 0, 0, 1], 0).into(), Arc::clone(&script));
        Receiver {
            script,
            addr,
            stop: Mutex::new(stop),
            dir: tempfile::tempdir().unwrap(),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.lock().cancel();
    }
}

impl Peer for Receiver {
    fn config(&self) -> String {
        format!("remote_write.url = \"http://{}/api/v1/write\"", self.addr)
    }

    fn scratch(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn can(&self, how: &Behaviour) -> bool {
        // A receiver takes a request or does not.
        !matches!(how, Behaviour::Partial(_))
    }

    async fn behave(&self, how: Behaviour) {
        let away = how == Behaviour::Away;
        *self.script.how.lock() = how;
        let was_away = self.stop.lock().is_cancelled();
        if away {
            self.stop.lock().cancel();
            // Until nobody listens there.
            while tokio::net::TcpStream::connect(self.addr).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } else if was_away {
            *self.stop.lock() = serve(self.addr, Arc::clone(&self.script)).1;
        }
    }

    async fn received(&self) -> Vec<Rendered> {
        self.script.taken.lock().clone()
    }

    /// A gauge with a tag of its own, which is a series of its own.
    fn envelope(&self, n: u64, source_id: &str) -> v2::Envelope {
        let mut envelope = v2::Envelope {
            timestamp: 1_700_000_000_000_000_000 + i64::try_from(n).unwrap() * 1_000_000,
            source_id: source_id.to_owned(),
            message: Some(common::events::gauge(&[("sample", "", 1.0)])),
            ..v2::Envelope::default()
        };
        let tag = ("number".to_owned(), format!("event {n:06}"));
        envelope.tags.extend([tag]);
        envelope
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_complies() {
    let kinds = Kinds::new().with(PrometheusKind::new());
    let left_out = compliance::run(&kinds, "prometheus", Receiver::start).await;
    assert_eq!(left_out, ["partial"]);
}
