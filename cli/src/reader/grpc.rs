//! Reading from dopplers: v2 gRPC, one call per doppler, merged.

use super::{Heard, Wanted};
use crate::exit::{Coded, Exit};
use crate::target::{Reach, TargetArgs};
use anyhow::Result;
use loggregator_client::{
    Batch, Connector, DOPPLER, DopplerSet, EgressStream, Selectors, StreamStats,
};
use loggregator_envelope::{Frame, Kind, KindSet};
use loggregator_net::{ClientTls, TlsFiles};
use loggregator_proto::v2::selector::Message;
use loggregator_proto::v2::{
    CounterSelector, EgressBatchRequest, EventSelector, GaugeSelector, LogSelector, TimerSelector,
};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How long the first connection may take before the command gives up.
const FIRST_CONNECTION: Duration = Duration::from_secs(5);
/// How long a router that took the connection may be silent before it counts as subscribed.
const SILENT_ANSWER: Duration = Duration::from_secs(1);
/// How often the state of the connections is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// No doppler for so long: perhaps the pipeline was started anew, with other ports and certificates.
const LOOK_FOR_ANOTHER: Duration = Duration::from_secs(1);

pub(super) async fn read(
    target: TargetArgs,
    addrs: Vec<String>,
    tls: TlsFiles,
    wanted: Wanted,
    say: Sender<Heard>,
) {
    if let Err(error) = run(&target, addrs, tls, &wanted, &say).await {
        // Nobody listens any more: then nobody wants to know.
        say.send(Heard::Failed(error)).await.ok();
    }
}

async fn run(
    target: &TargetArgs,
    mut addrs: Vec<String>,
    mut tls: TlsFiles,
    wanted: &Wanted,
    say: &Sender<Heard>,
) -> Result<()> {
    let mut stream = subscribe(&addrs, &tls, wanted)?;
    first_answer(&mut stream, &addrs).await?;
    let mut watch = Watch::new(&stream.stats(), &tls);
    let partly = if watch.open < addrs.len() {
        format!("{} of ", watch.open)
    } else {
        String::new()
    };
    let dopplers = if addrs.len() == 1 {
        "doppler"
    } else {
        "dopplers"
    };
    if say
        .send(Heard::Ready(format!("{partly}{} {dopplers}", addrs.len())))
        .await
        .is_err()
    {
        return Ok(());
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let batch = tokio::select! {
            batch = stream.next() => match batch {
                Some(batch) => Some(batch),
                None => return Ok(()),
            },
            _ = look.tick() => None,
            () = say.closed() => return Ok(()),
        };
        // That the connection is back is told before what it brings.
        let notice = if batch.is_none() || watch.open == 0 {
            watch.look(&stream.stats()).map(Heard::Notice)
        } else {
            None
        };
        for heard in notice.into_iter().chain(batch.map(understood)) {
            if say.send(heard).await.is_err() {
                return Ok(());
            }
        }
        if !watch.gone_for(LOOK_FOR_ANOTHER) {
            continue;
        }
        match target.reach() {
            Ok(Reach::Dopplers {
                addrs: now,
                tls: files,
            }) if watch.is_another(&addrs, &now, &files) => {
                (addrs, tls) = (now, files);
                stream = subscribe(&addrs, &tls, wanted)?;
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(notice) = watch.ended(&error)
                    && say.send(Heard::Notice(notice)).await.is_err()
                {
                    return Ok(());
                }
            }
        }
    }
}

fn understood(batch: Batch) -> Heard {
    match Frame::parse(batch.bytes) {
        Ok(parsed) => Heard::Frame(parsed.frame, parsed.rejected),
        Err(error) => Heard::Notice(format!(
            "{} sent something that is no batch of envelopes: {error}",
            batch.doppler
        )),
    }
}

/// Waits until the subscription stands. One that never could fails soon; a router that holds its answer back until it has
/// something to send (the Go one) is taken at its connection.
async fn first_answer(stream: &mut EgressStream, addrs: &[String]) -> Result<()> {
    let began = Instant::now();
    while timeout(LOOK, stream.answered(addrs.len())).await.is_err() {
        let stats = stream.stats();
        if stats.open > 0 && began.elapsed() >= SILENT_ANSWER {
            return Ok(());
        }
        let refused = stats.open == 0 && stats.reconnects >= 2 * addrs.len() as u64;
        if refused || began.elapsed() >= FIRST_CONNECTION {
            return Err(unreachable(
                addrs,
                &stats.last_error.unwrap_or_else(|| "no answer".to_owned()),
            ));
        }
    }
    Ok(())
}

fn subscribe(addrs: &[String], files: &TlsFiles, wanted: &Wanted) -> Result<EgressStream> {
    let tls = ClientTls::mutual(files)?;
    let set = DopplerSet::fixed(addrs.iter().cloned(), Connector::new(DOPPLER, Some(tls)));
    Ok(EgressStream::open(&set, request(wanted)))
}

/// A selector per source and kind.
fn request(wanted: &Wanted) -> EgressBatchRequest {
    let any = [String::new()];
    let sources = if wanted.sources.is_empty() {
        &any[..]
    } else {
        &wanted.sources[..]
    };
    let mut selectors = Selectors::new();
    for source in sources {
        for message in messages(wanted.kinds) {
            selectors = selectors.select(source, message);
        }
    }
    selectors
        .shard(wanted.subscription_id.as_deref().unwrap_or_default())
        .request()
}

fn messages(kinds: KindSet) -> impl Iterator<Item = Message> {
    [
        (Kind::Log, Message::Log(LogSelector {})),
        (Kind::Counter, Message::Counter(CounterSelector::default())),
        (Kind::Gauge, Message::Gauge(GaugeSelector::default())),
        (Kind::Timer, Message::Timer(TimerSelector {})),
        (Kind::Event, Message::Event(EventSelector {})),
    ]
    .into_iter()
    .filter_map(move |(kind, message)| kinds.contains(kind).then_some(message))
}

fn unreachable(addrs: &[String], reason: &str) -> anyhow::Error {
    let message = format!(
        "cannot subscribe at {}: {}\n\
         Is the pipeline running, and is the certificate one that it trusts? `loggregator status` tells.",
        addrs.join(", "),
        plain(reason)
    );
    Coded::error(Exit::Unreachable, message)
}

/// The reason without what gRPC puts around it.
fn plain(reason: &str) -> &str {
    let inner = reason
        .split_once("desc = \"transport: ")
        .and_then(|(_, rest)| rest.strip_suffix('"'));
    inner.unwrap_or(reason)
}

/// Notices when connections go and come.
struct Watch {
    open: usize,
    gone_since: Option<Instant>,
    /// When the key in use was written; a new pipeline writes a new one.
    key_written: Option<SystemTime>,
    /// Whether it was told that there is no pipeline any more.
    told_ended: bool,
}

impl Watch {
    fn new(stats: &StreamStats, files: &TlsFiles) -> Self {
        Self {
            open: stats.open,
            gone_since: None,
            key_written: written(files),
            told_ended: false,
        }
    }

    /// What to tell, if anything changed.
    fn look(&mut self, stats: &StreamStats) -> Option<String> {
        let before = std::mem::replace(&mut self.open, stats.open);
        self.gone_since = match (stats.open, self.gone_since) {
            (0, None) => Some(Instant::now()),
            (0, since) => since,
            _ => None,
        };
        let of = if stats.dopplers == 1 {
            "the doppler".to_owned()
        } else {
            format!(
                "{} of {} dopplers",
                before.abs_diff(stats.open),
                stats.dopplers
            )
        };
        match stats.open.cmp(&before) {
            std::cmp::Ordering::Less => {
                let reason = stats
                    .last_error
                    .as_deref()
                    .map(|error| format!(" ({})", plain(error)))
                    .unwrap_or_default();
                Some(format!("connection to {of} lost{reason}; reconnecting"))
            }
            std::cmp::Ordering::Greater => Some(format!(
                "connected to {of} again; lines of the time in between may be missing"
            )),
            std::cmp::Ordering::Equal => None,
        }
    }

    /// What to tell, once, when there is no pipeline to connect to.
    fn ended(&mut self, error: &anyhow::Error) -> Option<String> {
        if std::mem::replace(&mut self.told_ended, true) {
            return None;
        }
        let text = error.to_string();
        Some(format!(
            "{}; waiting for it to come back",
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_end_matches('.')
        ))
    }

    fn gone_for(&self, time: Duration) -> bool {
        self.gone_since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Whether what the state folder says now is another pipeline than the one that was lost.
    fn is_another(&mut self, before: &[String], now: &[String], files: &TlsFiles) -> bool {
        let written = written(files);
        let other = before != now || self.key_written != written;
        if other {
            self.key_written = written;
            self.told_ended = false;
            // It gets its time to connect.
            self.gone_since = Some(Instant::now());
        }
        other
    }
}

fn written(files: &TlsFiles) -> Option<SystemTime> {
    std::fs::metadata(&files.key)
        .and_then(|meta| meta.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(open: usize, dopplers: usize) -> StreamStats {
        StreamStats {
            open,
            dopplers,
            last_error: Some("broken".to_owned()),
            ..StreamStats::default()
        }
    }

    #[test]
    fn a_selector_for_each_source_and_kind() {
        let wanted = Wanted {
            sources: vec!["a".to_owned(), "b".to_owned()],
            kinds: KindSet::of(Kind::Log).union(KindSet::of(Kind::Timer)),
            subscription_id: Some("mine".to_owned()),
        };
        let built = request(&wanted);
        assert_eq!(built.shard_id, "mine");
        let pairs: Vec<_> = built
            .selectors
            .iter()
            .map(|s| {
                (
                    s.source_id.as_str(),
                    matches!(s.message, Some(Message::Log(_))),
                )
            })
            .collect();
        assert_eq!(
            pairs,
            [("a", true), ("a", false), ("b", true), ("b", false)]
        );
        let all = request(&Wanted {
            sources: Vec::new(),
            kinds: KindSet::ALL,
            subscription_id: None,
        });
        assert_eq!(all.selectors.len(), 5);
        assert!(
            all.selectors
                .iter()
                .all(|selector| selector.source_id.is_empty())
        );
    }

    #[test]
    fn reasons_are_for_people() {
        let go = r#"UNAVAILABLE: connection error: desc = "transport: 127.0.0.1:1: refused""#;
        assert_eq!(plain(go), "127.0.0.1:1: refused");
        assert_eq!(
            plain("UNAVAILABLE: the doppler is stopping"),
            "UNAVAILABLE: the doppler is stopping"
        );
    }

    #[test]
    fn a_connection_that_goes_and_comes_is_told_once_each() {
        let mut watch = Watch::new(&stats(1, 1), &files("/nowhere".as_ref()));
        assert_eq!(watch.look(&stats(1, 1)), None);
        assert!(watch.look(&stats(0, 1)).unwrap().contains("lost (broken)"));
        assert_eq!(watch.look(&stats(0, 1)), None);
        assert!(watch.gone_for(Duration::ZERO));
        assert!(watch.look(&stats(1, 1)).unwrap().contains("again"));
        assert!(!watch.gone_for(Duration::ZERO));
        assert!(
            Watch::new(&stats(3, 3), &files("/nowhere".as_ref()))
                .look(&stats(2, 3))
                .unwrap()
                .contains("1 of 3 dopplers")
        );
    }

    fn files(key: &std::path::Path) -> TlsFiles {
        TlsFiles {
            ca: "ca".into(),
            cert: "cert".into(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn another_pipeline_is_known_by_its_addresses_or_its_keys() {
        let temp = tempfile::tempdir().unwrap();
        let key = temp.path().join("key");
        std::fs::write(&key, "first").unwrap();
        let at = ["127.0.0.1:8082".to_owned()];
        let mut watch = Watch::new(&stats(1, 1), &files(&key));
        assert!(!watch.is_another(&at, &at, &files(&key)));
        assert!(watch.is_another(&at, &["127.0.0.1:1".to_owned()], &files(&key)));
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options()
            .write(true)
            .open(&key)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(watch.is_another(&at, &at, &files(&key)));
        assert!(
            !watch.is_another(&at, &at, &files(&key)),
            "it is tried once"
        );
    }
}
