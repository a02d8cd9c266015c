//! Real receivers, started and stopped by the tests on ports of their own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loggregator_testkit::Certs;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// A receiver's process, its folder, and the file it writes.
pub struct Peer {
    dir: TempDir,
    command: Box<dyn Fn(&Path) -> Command + Send>,
    child: Option<Child>,
    pub port: u16,
}

/// How a receiver is reached.
pub enum Security<'a> {
    Plain,
    /// TLS, and only with a client certificate of this CA.
    Mutual(&'a Certs),
}

/// Appends to the list of tests that could not run.
#[allow(clippy::print_stdout, reason = "for whoever runs the tests")]
fn skip(test: &str, reason: &str) {
    println!("{test}: skipped: {reason}");
    if let Some(list) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().append(true).open(list);
        writeln!(file.unwrap(), "{test}: {reason}").unwrap();
    }
}

/// rsyslog's program, which `scripts/test` installs.
pub fn rsyslogd(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("LOGGREGATOR_TEST_RSYSLOG")
        .map_or_else(|| PathBuf::from("/usr/sbin/rsyslogd"), PathBuf::from);
    if !path.is_file() {
        skip(test, "no rsyslog with its TLS module");
        return None;
    }
    Some(path)
}

/// The folder into which `scripts/test` unpacks syslog-ng.
pub fn syslog_ng(test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOGGREGATOR_TEST_SYSLOG_NG").map(PathBuf::from);
    let root = root.filter(|root| root.join("usr/sbin/syslog-ng").is_file());
    if root.is_none() {
        skip(test, "no syslog-ng");
    }
    root
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Peer {
    fn new(
        config: &str,
        port: u16,
        dir: TempDir,
        command: impl Fn(&Path) -> Command + Send + 'static,
    ) -> Peer {
        std::fs::write(dir.path().join("config"), config).unwrap();
        let mut peer = Peer {
            dir,
            command: Box::new(command),
            child: None,
            port,
        };
        peer.start();
        peer
    }

    /// rsyslog that writes each message as `template` says, a list of properties.
    pub fn rsyslog(program: PathBuf, security: Security<'_>, template: &str) -> Peer {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let at = dir.path().display();
        let mut config = format!(
            "global(workDirectory=\"{at}\" maxMessageSize=\"128k\" parser.escapeControlCharactersOnReceive=\"off\")\n"
        );
        if let Security::Mutual(certs) = security {
            let files = certs.tls("doppler");
            let (ca, cert, key) = (
                files.ca.display(),
                files.cert.display(),
                files.key.display(),
            );
            writeln!(
                config,
                "global(defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{ca}\"\n  \
                defaultNetstreamDriverCertFile=\"{cert}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
                module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" \
                streamDriver.authMode=\"x509/certvalid\")"
            )
            .unwrap();
        } else {
            config.push_str("module(load=\"imtcp\")\n");
        }
        write!(
            config,
            "{template}\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
            action(type=\"omfile\" file=\"{at}/out\" template=\"out\")\n"
        )
        .unwrap();
        Peer::new(&config, port, dir, move |dir| {
            let mut command = Command::new(&program);
            command.arg("-n").arg("-f").arg(dir.join("config"));
            command.arg("-i").arg(dir.join("pid"));
            command
        })
    }

    /// syslog-ng that writes each message as `template` says.
    pub fn syslog_ng(root: PathBuf, template: &str) -> Peer {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let at = dir.path().display();
        let config = format!(
            "@version: 3.38\n\
            options {{ keep-hostname(yes); use-dns(no); dns-cache(no); check-hostname(no); log-msg-size(131072);\n  \
            frac-digits(6); ts-format(iso); flush-lines(1); keep-timestamp(yes); }};\n\
            source in {{ syslog(ip(\"127.0.0.1\") port({port}) transport(\"tcp\")); }};\n\
            destination out {{ file(\"{at}/out\" template(\"{template}\")); }};\n\
            log {{ source(in); destination(out); }};\n"
        );
        Peer::new(&config, port, dir, move |dir| {
            let libraries = root.join("usr/lib/syslog-ng");
            let modules = std::fs::read_dir(&libraries)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let mut modules = modules;
            let modules = modules
                .find(|path| path.join("libsyslogformat.so").is_file())
                .unwrap();
            let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
            command.env("LD_LIBRARY_PATH", &libraries);
            command
                .args(["-F", "--no-caps"])
                .arg(format!("--module-path={}", modules.display()));
            for (flag, file) in [
                ("-f", "config"),
                ("-p", "pid"),
                ("-c", "control"),
                ("-R", "persist"),
            ] {
                command.arg(flag).arg(dir.join(file));
            }
            command
        })
    }

    /// Starts it, and returns when it can be reached.
    pub fn start(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = (self.command)(self.dir.path());
        let command = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let begin = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {}", log());
            assert!(begin.elapsed() < LONG, "it does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    /// Stops it as a service manager does.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            assert!(Command::new("kill").arg(pid).status().unwrap().success());
            child.wait().unwrap();
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The lines that it wrote so far; the last one may be torn.
    pub fn lines(&self) -> Vec<String> {
        let bytes = std::fs::read(self.dir.path().join("out")).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Waits until `done` says so of its lines.
    pub async fn until(&self, done: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let lines = self.lines();
            if done(&lines) {
                return lines;
            }
            assert!(
                begin.elapsed() < LONG,
                "{} lines, the last {:?}",
                lines.len(),
                lines.last()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be gone.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
