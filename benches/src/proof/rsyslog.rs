//! An rsyslog that takes TLS and writes what it gets into a file.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use loggregator_testkit::Certs;

use super::Arrivals;
use crate::process::free_addr;

/// A receiver with a client certificate demanded.
pub struct Rsyslog {
    dir: PathBuf,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Rsyslog {
    /// One below `dir`; not started.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn new(dir: &Path, certs: &Certs) -> Result<Rsyslog> {
        let addr = free_addr()?;
        let tls = certs.tls("doppler");
        let config = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\" defaultNetstreamDriver=\"gtls\"\n\
             defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{cert}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
             module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")\n\
             template(name=\"line\" type=\"string\" string=\"%app-name%|%msg%\\n\")\n\
             ruleset(name=\"in\") {{ action(type=\"omfile\" file=\"{dir}/received\" template=\"line\") }}\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"in\")\n",
            dir = dir.display(),
            ca = tls.ca.display(),
            cert = tls.cert.display(),
            key = tls.key.display(),
            port = addr.port(),
        );
        fs::write(dir.join("rsyslog.conf"), config)?;
        Ok(Rsyslog {
            dir: dir.to_owned(),
            addr,
            child: None,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<()> {
        let log = fs::File::create(self.dir.join("rsyslog.log"))?;
        let child = Command::new("rsyslogd")
            .args(["-n", "-f"])
            .arg(self.dir.join("rsyslog.conf"))
            .arg("-i")
            .arg(self.dir.join("rsyslog.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start rsyslogd; it is in Debian's rsyslog and rsyslog-gnutls")?;
        let child = self.child.insert(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.addr).is_err() {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(self.dir.join("rsyslog.log"))?;
                bail!("rsyslogd does not listen: {said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("rsyslogd does not run")?;
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        child.wait()?;
        Ok(())
    }

    /// What it has received, in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn arrivals(&self) -> Result<Arrivals> {
        let mut arrivals = Arrivals::new();
        let lines = BufReader::new(fs::File::open(self.dir.join("received"))?);
        for line in lines.split(b'\n') {
            let line = line?;
            let at = line.iter().position(|byte| *byte == b'|');
            let (source, text) = line.split_at(at.unwrap_or_default());
            let text = text.strip_prefix(b"|").unwrap_or(text).trim_ascii();
            arrivals.line(&String::from_utf8_lossy(source), text);
        }
        Ok(arrivals)
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
