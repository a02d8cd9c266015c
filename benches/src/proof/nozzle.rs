//! A nozzle as a process of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use loggregator_service::ledger::{Report, Subscription};
use loggregator_testkit::{Pipeline, fetch, get};

use crate::process::free_addr;

/// `loggregator nozzle run`, its files below a folder of its own.
pub struct Nozzle {
    binary: PathBuf,
    file: PathBuf,
    log: PathBuf,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Nozzle {
    /// One with these destinations (TOML), a disk buffer of so many bytes below `dir`, reading the pipeline's reverse log
    /// proxy; not started.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn new(
        binary: &Path,
        dir: &Path,
        pipeline: &Pipeline,
        buffer: &str,
        destinations: &str,
    ) -> Result<Nozzle> {
        let admin = free_addr()?;
        let tls = pipeline.certs.tls("client");
        let config = format!(
            "[nozzle]\nname = \"proof\"\nadmin_addr = \"{admin}\"\ndrain_timeout = \"20s\"\n\n\
             [intake.rlp]\naddrs = [\"{}\"]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\n\
             [select]\nkinds = [\"log\"]\nfilter = 'source_id startswith \"app-\"'\n\n\
             [buffer.disk]\npath = {:?}\nmax_bytes = \"{buffer}\"\n\n{destinations}",
            pipeline.rlp.running().grpc_addr,
            tls.ca,
            tls.cert,
            tls.key,
            dir.join("state"),
        );
        let file = dir.join("proof.toml");
        fs::write(&file, config)?;
        Ok(Nozzle {
            binary: binary.to_owned(),
            file,
            log: dir.join("nozzle.log"),
            admin,
            child: None,
        })
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it ends instead.
    pub async fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .args(["nozzle", "run"])
            .arg(&self.file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let child = self.child.insert(child);
        while get(self.admin, "/healthz").await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the nozzle ended with {status}:\n{}",
                    fs::read_to_string(&self.log)?
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the nozzle does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Errors
    /// When it does not run, or does not end in good order.
    pub async fn terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the nozzle does not run")?;
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = tokio::task::spawn_blocking(move || child.wait()).await??;
        if !status.success() {
            bail!(
                "the nozzle ended with {status}:\n{}",
                fs::read_to_string(&self.log)?
            );
        }
        Ok(())
    }

    /// Its ledger now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ledger(&self) -> Result<Report> {
        fetch(self.admin).await
    }

    /// The largest value of a metric now; 0 when it is not there. `labels` is a part of its label list.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let page = String::from_utf8(get(self.admin, "/metrics").await?)?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = rest.rsplit_once(' ')?;
            let whole = found.is_empty() || found.starts_with('{');
            (whole && found.contains(labels)).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.fold(0.0, f64::max))
    }

    /// Waits until nothing waits for any destination whose name is in the list.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn settled(&self, destinations: &[&str], limit: Duration) -> Result<Report> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut before = u64::MAX;
        loop {
            let report = self.ledger().await?;
            let mine = report.subscriptions.iter();
            let pending: u64 = mine
                .filter(|subscription| destinations.contains(&subscription.id.as_str()))
                .map(|subscription| subscription.pending)
                .sum();
            // Nothing waits and nothing more comes.
            if pending == 0 && report.ingress.accepted == before {
                return Ok(report);
            }
            before = report.ingress.accepted;
            if tokio::time::Instant::now() > deadline {
                bail!("{pending} events still wait after {limit:?}: {report:#?}");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for Nozzle {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The part of a ledger about one destination.
///
/// # Errors
/// When there is no such destination.
pub fn destination<'a>(report: &'a Report, name: &str) -> Result<&'a Subscription> {
    let mut all = report.subscriptions.iter();
    all.find(|subscription| subscription.id == name)
        .with_context(|| format!("no destination {name} in {report:#?}"))
}
