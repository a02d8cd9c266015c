//! What is sent, and the nozzle that sends it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use loggregator_nozzle::config::Section;
use loggregator_nozzle::{Batch, BufferIdentity, Context, Delivery, Event, Kind, Outcome, Plan};
use loggregator_nozzle_file::FileKind;
use loggregator_nozzle_http::HttpKind;
use loggregator_nozzle_syslog::SyslogKind;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use loggregator_testkit::{Certs, log_line};
use tempfile::TempDir;

use crate::sink::{self, SERVER, Sink};
use crate::{Took, Wire, cpu};

const SOURCES: usize = 100;
const LONG: Duration = Duration::from_secs(10);
/// Where nothing listens: to ask for limits, one need not connect.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// What is sent.
pub struct Work {
    pub wire: Wire,
    pub certs: Certs,
    pub folder: TempDir,
    /// An envelope of each source.
    bodies: Vec<bytes::Bytes>,
    per_batch: usize,
    pub batches: usize,
    in_flight: usize,
    /// A batch as it arrives: in one piece, in datagrams, or in bodies of requests.
    pub pages: Vec<Vec<u8>>,
}

impl Work {
    /// Has the nozzle send one batch, to know its bytes.
    pub async fn new(wire: Wire, events: usize, payload: usize) -> Work {
        let bodies: Vec<_> = (0..SOURCES as u32)
            .map(|source| log_line(source, payload))
            .collect();
        let mut work = Work {
            wire,
            certs: Certs::generate().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            bodies,
            per_batch: 0,
            batches: 1,
            in_flight: 1,
            pages: Vec::new(),
        };
        let limits = work.plan(NOWHERE).limits();
        // As the framework fills them; and all alike, with each source as often as the others.
        let fit = limits.batch_bytes / work.bodies[0].len();
        work.per_batch = fit.min(limits.batch_events) / SOURCES * SOURCES;
        work.in_flight = limits.in_flight;
        assert!(
            work.per_batch > 0,
            "a hundred envelopes do not fit into a batch"
        );
        work.pages = work.captured().await;
        work.batches = events.div_ceil(work.per_batch);
        work
    }

    /// The bytes of a batch, as the nozzle sends them.
    async fn captured(&mut self) -> Vec<Vec<u8>> {
        if self.wire == Wire::File {
            self.deliver(NOWHERE, 0).await;
            return vec![std::fs::read(self.file()).unwrap()];
        }
        let per_batch = self.per_batch;
        if self.wire == Wire::Udp {
            // No more at a time than the receiver's system keeps; each source is in it.
            self.per_batch = SOURCES;
        }
        let listening = sink::listen(self.wire, &self.certs.tls(SERVER), true).await;
        self.deliver(listening.addr, 0).await;
        let mut pages = listening.pages().await;
        if self.wire == Wire::Udp {
            assert_eq!(pages.len(), SOURCES, "a datagram was lost");
            self.per_batch = per_batch;
            pages = std::iter::repeat_n(pages, per_batch / SOURCES)
                .flatten()
                .collect();
        }
        pages
    }

    /// The file of the nozzle `file`.
    pub fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("out")
    }

    /// Bytes of a batch as it arrives.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }

    /// Bytes of a run, with the first batch.
    pub fn sent(&self) -> usize {
        (self.batches + 1) * self.bytes()
    }

    fn plan(&self, addr: SocketAddr) -> Box<dyn Plan> {
        let files = self.certs.tls("client");
        let tls = format!(
            "[tls]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\nserver_name = {SERVER:?}\n",
            files.ca, files.cert, files.key
        );
        let (kind, section): (Box<dyn Kind>, String) = match self.wire {
            Wire::File => (Box::new(FileKind), format!("path = {:?}\n", self.file())),
            Wire::Http => (Box::new(HttpKind), format!("url = \"http://{addr}/\"\n")),
            Wire::Https => (
                Box::new(SyslogKind),
                format!("url = \"https-batch://{addr}/\"\n{tls}"),
            ),
            Wire::Tcp => (
                Box::new(SyslogKind),
                format!("url = \"syslog://{addr}\"\nsettle = \"0s\"\n"),
            ),
            Wire::Tls => (
                Box::new(SyslogKind),
                format!("url = \"syslog-tls://{addr}\"\nsettle = \"0s\"\n{tls}"),
            ),
            Wire::Udp => (
                Box::new(SyslogKind),
                format!("url = \"syslog-udp://{addr}\"\n"),
            ),
        };
        let section = Section::from_text(&section).unwrap();
        kind.plan(&section)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn batch(&self, number: usize) -> Batch {
        let first = number * self.per_batch;
        let event = |n: usize| {
            let body = self.bodies[n % SOURCES].clone();
            Event::new(n as u64, 1_700_000_000_000_000_000, body)
        };
        Batch::new((first..first + self.per_batch).map(event).collect(), 0)
    }

    /// A run of the nozzle.
    pub async fn nozzle(&self) -> Took {
        if self.wire == Wire::File {
            std::fs::remove_file(self.file()).ok();
            let took = self.deliver(NOWHERE, self.batches).await;
            let written = std::fs::metadata(self.file()).unwrap().len();
            assert_eq!(written, ((self.batches + 1) * self.bytes()) as u64);
            return Took::since(took.0, took.1);
        }
        let sink = Sink::start(self.wire, &self.certs.tls(SERVER));
        let (started, cpu) = self.deliver(sink.addr, self.batches).await;
        // Nobody confirms a datagram.
        let sent = Took::since(started, cpu);
        sink.has_read(self.sent());
        match self.wire {
            Wire::Udp => sent,
            _ => Took::since(started, cpu),
        }
    }

    /// Delivers a batch, and then so many; says when these began, and with how much processor time.
    async fn deliver(&self, addr: SocketAddr, batches: usize) -> (Instant, f64) {
        let lifecycle = Lifecycle::new();
        let context = Context {
            nozzle: "bench".to_owned(),
            name: "bench".to_owned(),
            metrics: Metrics::empty(),
            lifecycle: lifecycle.clone(),
            buffer: BufferIdentity::new("bench"),
            state_dir: None,
        };
        let plan = self.plan(addr);
        let destination = plan.start(context).await.unwrap();
        let deliver = |number| {
            let batch = self.batch(number);
            let destination = &destination;
            async move {
                match destination.deliver(&batch).await {
                    Delivery::All => {}
                    Delivery::Each(each) => {
                        let other = each.iter().find(|one| **one != Outcome::Delivered);
                        assert_eq!(other, None);
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        deliver(0).await;
        let (started, cpu) = (Instant::now(), cpu());
        stream::iter(1..=batches)
            .map(deliver)
            .buffered(self.in_flight)
            .for_each(|()| async {})
            .await;
        destination.close().await;
        drop(destination);
        lifecycle.shutdown(LONG).await;
        (started, cpu)
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn print(&self, what: &str, took: Took) {
        let events = self.batches * self.per_batch;
        println!(
            "{what}: {events} events of {} bytes, {} as they arrive, in batches of {}, in {:.2} s: {:.0} a second, {:.0} MB/s, \
            {:.3} s of processor time a million",
            self.bodies[0].len(),
            self.bytes() / self.per_batch,
            self.per_batch,
            took.seconds,
            events as f64 / took.seconds,
            (self.batches * self.bytes()) as f64 / took.seconds / 1e6,
            took.cpu / (events as f64 / 1e6),
        );
    }
}
