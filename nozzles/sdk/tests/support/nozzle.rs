//! A whole nozzle, fed by the test.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loggregator_nozzle::compliance::{Feed, Peer as _};
use loggregator_nozzle::config::NozzleConfig;
use loggregator_nozzle::{Kinds, Running, start};
use loggregator_proto::v2;
use loggregator_service::Lifecycle;
use loggregator_service::ledger::Subscription;
use tokio::time::Instant;

use super::{Scripted, ScriptedKind};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn line(n: u64, source_id: &str) -> v2::Envelope {
    v2::Envelope {
        source_id: source_id.to_owned(),
        tags: [
            ("app_name".to_owned(), "shop".to_owned()),
            ("space_name".to_owned(), "dev".to_owned()),
            ("organization_name".to_owned(), "acme".to_owned()),
        ]
        .into(),
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: format!("line {n}").into_bytes().into(),
            r#type: 0,
        })),
        ..v2::Envelope::default()
    }
}

pub struct Nozzle {
    pub running: Running,
    pub lifecycle: Lifecycle,
    pub feed: Arc<Feed>,
}

pub fn config(text: &str) -> NozzleConfig {
    NozzleConfig::parse(Path::new("test.toml"), text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

pub fn kinds() -> Kinds {
    Kinds::new().with(ScriptedKind)
}

impl Nozzle {
    pub async fn start(text: &str) -> Nozzle {
        let feed = Arc::new(Feed::default());
        let lifecycle = Lifecycle::new();
        let upstream = Some(Arc::clone(&feed) as _);
        let running = start(config(text), &kinds(), upstream, &lifecycle).await;
        Nozzle {
            running: running.unwrap(),
            lifecycle,
            feed,
        }
    }

    pub fn feed(&self, n: u64) {
        let lines: Vec<_> = (0..n).map(|n| line(n, "app")).collect();
        self.feed.push(&lines);
    }

    pub fn line(&self, name: &str) -> Subscription {
        let report = self.running.report();
        assert!(report.balanced(), "{report:?}");
        let mut lines = report.subscriptions.into_iter();
        lines.find(|line| line.id == name).unwrap()
    }

    pub async fn until(&self, name: &str, met: impl Fn(&Subscription) -> bool) -> Subscription {
        let since = Instant::now();
        loop {
            let line = self.line(name);
            if met(&line) {
                return line;
            }
            assert!(since.elapsed() < PATIENCE, "{line:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn settled(&self, name: &str, n: u64) -> Subscription {
        self.until(name, |line| line.received == n && line.pending == 0)
            .await
    }

    pub async fn until_reasons(&self, met: impl Fn(&[String]) -> bool) {
        let since = Instant::now();
        loop {
            let reasons = self.running.readiness().reasons();
            if met(&reasons) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{reasons:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A file with one destination, `d`.
pub fn file(peer: &Scripted, extra: &str, more: &str) -> String {
    format!(
        "[nozzle]\nname = \"test\"\ndrain_timeout = \"30s\"\n{extra}\n\
         [[destination]]\nname = \"d\"\nbatch.linger = \"1ms\"\nretry.min = \"5ms\"\nretry.max = \"20ms\"\n{more}\n\
         [destination.scripted]\n{}\n",
        peer.config()
    )
}
