//! The suite that every nozzle passes, with the broker behind a proxy that can be told how to behave.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_nozzle::compliance::{self, Behaviour, Peer};
use loggregator_nozzle::{Kinds, Rendered};
use loggregator_nozzle_kafka::KafkaKind;
use loggregator_proto::v2;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::support::{make_topic, read, shared};

/// What the topic of a case takes at most.
const MOST: usize = 20_000;

struct Kafka {
    broker: Arc<Broker>,
    topic: String,
    delivery: &'static str,
    poison: Mutex<Option<String>>,
    behaviour: watch::Sender<Behaviour>,
    proxy: JoinHandle<()>,
    scratch: TempDir,
}

impl Kafka {
    async fn start(broker: Arc<Broker>, delivery: &'static str) -> Kafka {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let topic = format!("compliance-{number}");
        let most = MOST.to_string();
        make_topic(&broker.address(), &topic, &[("max.message.bytes", &most)]).await;
        let (behaviour, behaves) = watch::channel(Behaviour::Healthy);
        let (from, to) = (broker.ports.advertised, broker.ports.proxied);
        Kafka {
            broker,
            topic,
            delivery,
            poison: Mutex::default(),
            behaviour,
            proxy: tokio::spawn(proxy(from, to, behaves)),
            scratch: tempfile::tempdir().unwrap(),
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

impl Peer for Kafka {
    fn config(&self) -> String {
        // The options keep the reconnects of a client short, for the sake of the test's time only.
        format!(
            "brokers = [\"127.0.0.1:{}\"]\ntopic = \"{}\"\nvalue = \"text\"\ncompression = \"none\"\n\
             delivery = \"{}\"\nstall_timeout = \"2s\"\nmax_record_bytes = 50000\n\
             options = {{ \"reconnect.backoff.ms\" = 20 }}\n",
            self.broker.ports.advertised, self.topic, self.delivery
        )
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    fn can(&self, how: &Behaviour) -> bool {
        // What fails for a passing reason, in part or as a whole, the client sends again by itself.
        !matches!(how, Behaviour::Fail(_) | Behaviour::Partial(_))
    }

    async fn behave(&self, how: Behaviour) {
        match how {
            Behaviour::Poison(text) => *self.poison.lock() = Some(text),
            how => {
                self.behaviour.send_replace(how);
            }
        }
    }

    async fn received(&self) -> Vec<Rendered> {
        let got = read(&self.broker.address(), &self.topic).await;
        got.into_iter()
            .map(|got| {
                let mut fields = vec![("topic", self.topic.clone())];
                fields.extend(got.key.map(|key| ("key", key)));
                fields.push(("timestamp", got.timestamp.to_string()));
                for name in ["content_type", "kind"] {
                    let header = got.headers.iter().find(|(key, _)| key == name);
                    fields.extend(header.map(|(_, value)| (name, value.clone())));
                }
                Rendered {
                    fields,
                    body: got.value.into(),
                }
            })
            .collect()
    }

    /// A poisoned line is longer than the broker takes.
    fn envelope(&self, n: u64, source_id: &str) -> v2::Envelope {
        let mut text = format!("event {n:06} of {source_id}");
        if self
            .poison
            .lock()
            .as_ref()
            .is_some_and(|poison| text.contains(poison))
        {
            text.push_str(&"x".repeat(MOST + MOST / 2));
        }
        v2::Envelope {
            timestamp: 1_700_000_000_000_000_000,
            source_id: source_id.to_owned(),
            message: Some(v2::envelope::Message::Log(v2::Log {
                payload: text.into_bytes().into(),
                r#type: 0,
            })),
            ..v2::Envelope::default()
        }
    }
}

/// Hands on what comes to one port to another one, as it is told.
async fn proxy(from: u16, to: u16, mut behaves: watch::Receiver<Behaviour>) {
    loop {
        if *behaves.borrow_and_update() == Behaviour::Away {
            behaves.changed().await.ok();
            continue;
        }
        let listener = TcpListener::bind(("127.0.0.1", from)).await.unwrap();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    connections.spawn(connection(client, to, behaves.clone()));
                }
                changed = behaves.changed() => {
                    if changed.is_err() || *behaves.borrow_and_update() == Behaviour::Away {
                        break;
                    }
                }
            }
        }
        connections.shutdown().await;
    }
}

async fn connection(client: TcpStream, to: u16, mut behaves: watch::Receiver<Behaviour>) {
    let Ok(broker) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let answers = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_broker.read(&mut buffer).await {
            loop {
                let Behaviour::Slow(wait) = *behaves.borrow_and_update() else {
                    break;
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => break,
                    _ = behaves.changed() => {}
                }
            }
            if to_client.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_broker) => {}
        () = answers => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_modes_comply() {
    let Some(broker) = shared("compliance").await else {
        return;
    };
    let kinds = Kinds::new().with(KafkaKind);
    for delivery in ["at_least_once", "exactly_once"] {
        let start = || Kafka::start(Arc::clone(&broker), delivery);
        let left_out = compliance::run(&kinds, "kafka", start).await;
        assert_eq!(left_out, ["retries", "partial"], "{delivery}");
    }
}
