//! An Apache Kafka broker in KRaft mode, as a child process on ephemeral ports.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loggregator_testkit::Certs;
use tempfile::TempDir;

/// Where a listener is, by what it asks of clients.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Nothing.
    pub plaintext: u16,
    /// TLS with a client certificate, and SCRAM-SHA-512.
    pub scram: u16,
    /// SASL PLAIN.
    pub plain: u16,
    /// SASL OAUTHBEARER with unsigned tokens.
    pub oauth: u16,
    /// Nothing; clients are told that it is at `advertised`.
    pub proxied: u16,
    pub advertised: u16,
    controller: u16,
}

/// A broker. It is stopped, and its files are removed, with the value.
pub struct Broker {
    lib: PathBuf,
    dir: TempDir,
    pub ports: Ports,
    pub certs: Certs,
    child: Option<Child>,
}

/// Password of every user.
pub const PASSWORD: &str = "correct horse";

/// The folder with the broker's jars; without it the test says that it was skipped.
pub fn installed(test: &str) -> Option<PathBuf> {
    let lib = std::env::var_os("LOGGREGATOR_TEST_KAFKA").map(PathBuf::from);
    if lib.is_none() {
        let line = format!("{test}: no Kafka broker (LOGGREGATOR_TEST_KAFKA)");
        println!("skipped: {line}");
        if let Some(skips) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
            let mut file = fs::OpenOptions::new().append(true).open(skips).unwrap();
            writeln!(file, "{line}").unwrap();
        }
    }
    lib
}

impl Broker {
    /// Starts one, with these lines more in its configuration.
    pub fn start(lib: PathBuf, more: &str) -> Broker {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker {
            lib,
            dir,
            ports: free_ports(),
            certs: Certs::generate().unwrap(),
            child: None,
        };
        fs::write(broker.file("server.properties"), broker.properties(more)).unwrap();
        let scram = format!("SCRAM-SHA-512=[name=nozzle,password={PASSWORD}]");
        let config = broker.file("server.properties");
        // Any 16 bytes in URL-safe base64.
        let id = "bG9nZ3JlZ2F0b3Iga2Fma2";
        let formatted = broker
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", id, "-c"])
            .arg(&config)
            .args(["--add-scram", &scram])
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{formatted:?}");
        broker.run();
        broker
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp"])
            .arg(self.lib.join("*"))
            .arg(class);
        java
    }

    fn properties(&self, more: &str) -> String {
        let Ports {
            plaintext,
            scram,
            plain,
            oauth,
            proxied,
            advertised,
            controller,
        } = self.ports;
        let tls = self.certs.tls("doppler");
        let identity = self.file("broker.pem");
        let mut pem = fs::read(tls.key).unwrap();
        pem.extend(fs::read(tls.cert).unwrap());
        fs::write(&identity, pem).unwrap();
        let login = "org.apache.kafka.common.security";
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=CONTROLLER://127.0.0.1:{controller},PLAINTEXT://127.0.0.1:{plaintext},SCRAM://127.0.0.1:{scram},PLAIN://127.0.0.1:{plain},OAUTH://127.0.0.1:{oauth},PROXIED://127.0.0.1:{proxied}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{plaintext},SCRAM://127.0.0.1:{scram},PLAIN://127.0.0.1:{plain},OAUTH://127.0.0.1:{oauth},PROXIED://127.0.0.1:{advertised}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SCRAM:SASL_SSL,PLAIN:SASL_PLAINTEXT,OAUTH:SASL_PLAINTEXT,PROXIED:PLAINTEXT\n\
             listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.scram.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             listener.name.scram.ssl.keystore.type=PEM\n\
             listener.name.scram.ssl.keystore.location={}\n\
             listener.name.scram.ssl.truststore.type=PEM\n\
             listener.name.scram.ssl.truststore.location={}\n\
             listener.name.scram.ssl.client.auth=required\n\
             listener.name.plain.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.plain.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_nozzle=\"{PASSWORD}\" user_limited=\"{PASSWORD}\" user_guest=\"{PASSWORD}\";\n\
             listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER\n\
             listener.name.oauth.oauthbearer.sasl.jaas.config={login}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:nozzle\n\
             log.dirs={}\n\
             num.partitions=4\n\
             log.retention.ms=-1\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.num.partitions=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             {more}\n",
            identity.display(),
            tls.ca.display(),
            self.file("data").display(),
        )
    }

    /// Starts the process and waits until it serves.
    pub fn run(&mut self) {
        let log = self.file("broker.log");
        let output = fs::File::create(&log).unwrap();
        let child = self
            .java("kafka.Kafka")
            .arg(self.file("server.properties"))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(180);
        while !text(&log).contains("Kafka Server started") {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended: {}", text(&log));
            assert!(Instant::now() < deadline, "not ready: {}", text(&log));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it as an operator does.
    pub fn terminate(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Allows a user an operation on a topic.
    pub fn allow(&self, user: &str, operation: &str, topic: &str) {
        let done = self
            .java("org.apache.kafka.tools.AclCommand")
            .args(["--bootstrap-server", &self.address(), "--add"])
            .args(["--allow-principal", &format!("User:{user}")])
            .args(["--operation", operation, "--topic", topic])
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// Address of the listener that asks for nothing.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plaintext)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn free_ports() -> Ports {
    // All at once, so that they differ.
    let held: Vec<TcpListener> = (0..7)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let port = |i: usize| held[i].local_addr().unwrap().port();
    Ports {
        plaintext: port(0),
        scram: port(1),
        plain: port(2),
        oauth: port(3),
        proxied: port(4),
        advertised: port(5),
        controller: port(6),
    }
}
