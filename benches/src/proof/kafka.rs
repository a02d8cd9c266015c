//! A Kafka broker in KRaft mode, and what is in its topic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Arrivals;
use crate::process::free_addr;

/// A broker whose jars are in a folder.
pub struct Broker {
    lib: PathBuf,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// The topic that is read.
pub const TOPIC: &str = "cf-proof";

impl Broker {
    /// One below `dir`, formatted and not started.
    ///
    /// # Errors
    /// When the jars cannot be run.
    pub fn new(lib: &Path, dir: &Path) -> Result<Broker> {
        let (port, controller) = (free_addr()?.port(), free_addr()?.port());
        let config = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=CONTROLLER://127.0.0.1:{controller},PLAINTEXT://127.0.0.1:{port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={}\nnum.partitions=6\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n",
            dir.join("kafka-data").display()
        );
        fs::write(dir.join("kafka.properties"), config)?;
        let broker = Broker {
            lib: lib.to_owned(),
            dir: dir.to_owned(),
            port,
            child: None,
        };
        let formatted = broker
            .java("kafka.tools.StorageTool")
            // Any 16 bytes in URL-safe base64.
            .args(["format", "-t", "bG9nZ3JlZ2F0b3Iga2Fma2", "-c"])
            .arg(dir.join("kafka.properties"))
            .output()
            .context("cannot start java")?;
        ensure!(formatted.status.success(), "{formatted:?}");
        Ok(broker)
    }

    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-cp"])
            .arg(self.lib.join("*"))
            .arg(class);
        java
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<()> {
        let path = self.dir.join("kafka.log");
        let log = fs::File::create(&path)?;
        let child = self
            .java("kafka.Kafka")
            .arg(self.dir.join("kafka.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let child = self.child.insert(child);
        let deadline = Instant::now() + Duration::from_secs(120);
        while !fs::read_to_string(&path)?.contains("Kafka Server started") {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the broker does not serve: {}", fs::read_to_string(&path)?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the broker does not run")?;
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        child.wait()?;
        Ok(())
    }

    /// Everything in the topic, in the order of each partition. A source is in one partition.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn arrivals(&self) -> Result<Arrivals> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.addr())
            .set("group.id", "proof")
            .set("enable.auto.commit", "false")
            .create()?;
        let patience = Duration::from_secs(20);
        let metadata = consumer.fetch_metadata(Some(TOPIC), patience)?;
        let topic = metadata.topics().first().context("no such topic")?;
        let (mut all, mut left) = (TopicPartitionList::new(), 0);
        for partition in topic.partitions() {
            let (low, high) = consumer.fetch_watermarks(TOPIC, partition.id(), patience)?;
            all.add_partition_offset(TOPIC, partition.id(), Offset::Beginning)?;
            left += high - low;
        }
        consumer.assign(&all)?;
        let mut arrivals = Arrivals::new();
        while left > 0 {
            let message = consumer
                .poll(patience)
                .context("the topic ends too early")??;
            let source = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            arrivals.line(&source, message.payload().unwrap_or_default());
            left -= 1;
        }
        Ok(arrivals)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
