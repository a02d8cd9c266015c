//! Nozzles in the process of `up`: they read from its reverse log proxy without a network in between.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use loggregator_net::grpc::Status;
use loggregator_nozzle::config::{BufferConfig, DestinationConfig, IntakeConfig, NozzleConfig};
use loggregator_nozzle::intake::{Envelopes, Opening, Upstream};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use traffic_controller::provider::{self, Provider};

use super::ports::{Transport, choose};
use crate::nozzle::live::Live;
use crate::nozzle::reload::Again;
use crate::nozzle::{kinds, load_again, load_or_refuse};
use crate::state::{NozzleEndpoints, StateDir};
use crate::view::{Palette, count};

/// Nozzles that are read and not started.
pub struct Planned {
    configs: Vec<(PathBuf, NozzleConfig)>,
    page: Option<SocketAddr>,
}

/// Reads the files; the exit code when one is wrong, after its errors were told.
///
/// # Errors
/// When there is no such file, or two nozzles have the same name.
pub fn plan(
    files: &[PathBuf],
    dir: &StateDir,
    palette: Palette,
) -> Result<Result<Planned, ExitCode>> {
    let mut configs: Vec<(PathBuf, NozzleConfig)> = Vec::new();
    for file in files {
        let config = match load_or_refuse(file, Some(dir.file(STATE)), palette)? {
            Ok(config) => config,
            Err(code) => return Ok(Err(code)),
        };
        let same = configs
            .iter()
            .find(|(_, other)| other.nozzle.name == config.nozzle.name);
        if let Some((other, _)) = same {
            anyhow::bail!(
                "{} and {} are both called `{}`: names tell nozzles apart",
                other.display(),
                file.display(),
                config.nozzle.name
            );
        }
        configs.push((file.clone(), config));
    }
    Ok(Ok(Planned {
        configs,
        page: None,
    }))
}

/// Stands for a file where there is none.
const OWN: &str = "(up)";
/// The folder of the nozzles' state in that of `up`.
const STATE: &str = "nozzles";
/// The name of the nozzle that `up` brings along.
pub const PROMETHEUS: &str = "prometheus";

impl Planned {
    /// Adds the nozzle of the page that Prometheus scrapes; unless there is one of this name, or one that serves such a page,
    /// which stands for it.
    ///
    /// # Errors
    /// When its configuration is wrong, which is a fault of this program.
    pub fn with_prometheus(mut self, addr: SocketAddr) -> Result<Self> {
        if self.configs.iter().any(|(_, it)| stands_for_own(it)) {
            return Ok(self);
        }
        // A quiet pipeline is no reason to subscribe anew, and a scrape page has no past to keep.
        let text = format!(
            "[nozzle]\nname = \"{PROMETHEUS}\"\nmax_silence = \"0s\"\n[buffer.memory]\n[[destination]]\nname = \"{PROMETHEUS}\"\n\
             [destination.prometheus]\nlisten_addr = \"{addr}\"\n"
        );
        let file = PathBuf::from(OWN);
        let config = NozzleConfig::load(&file, &text, [], &kinds())?;
        self.configs.push((file, config));
        self.page = Some(addr);
        Ok(self)
    }

    /// Where the page is, if `up` brings it along.
    pub fn page(&self) -> Option<SocketAddr> {
        self.page
    }
}

/// Whether this nozzle has the name of the one that `up` brings along, or serves a page as that does: perhaps on the same
/// port.
fn stands_for_own(config: &NozzleConfig) -> bool {
    let page = |destination: &DestinationConfig| {
        destination.kind == PROMETHEUS && !destination.section.has("remote_write")
    };
    config.nozzle.name == PROMETHEUS || config.destinations.iter().any(page)
}

/// A nozzle that runs in this process.
pub struct Nozzle {
    name: String,
    live: Arc<Live>,
    /// Where its configuration is read again; `None` for the one that `up` brings along.
    file: Option<PathBuf>,
    admin_addr: SocketAddr,
    destinations: Vec<String>,
    /// Whether what was not delivered is still there at the next start.
    durable: bool,
}

impl Planned {
    /// Starts them, each as a stage of its own.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn start(
        self,
        provider: &Arc<dyn Provider>,
        lifecycle: &Lifecycle,
    ) -> Result<Vec<Nozzle>> {
        let mut nozzles = Vec::new();
        for (file, config) in self.configs {
            nozzles.push(start(&file, config, provider, lifecycle).await?);
        }
        Ok(nozzles)
    }
}

async fn start(
    file: &Path,
    mut config: NozzleConfig,
    provider: &Arc<dyn Provider>,
    lifecycle: &Lifecycle,
) -> Result<Nozzle> {
    let name = config.nozzle.name.clone();
    let admin_addr = match config.nozzle.admin_addr {
        Some(addr) => addr,
        None => choose(Transport::Tcp, 0)?.addr,
    };
    config.nozzle.admin_addr = Some(admin_addr);
    let durable = matches!(config.buffer, BufferConfig::Disk(_));
    if let BufferConfig::Disk(disk) = &config.buffer {
        std::fs::create_dir_all(&disk.path)
            .with_context(|| format!("cannot make {}", disk.path.display()))?;
    }
    let destinations = config
        .destinations
        .iter()
        .map(|of| format!("{} ({})", of.name, of.kind))
        .collect();
    let upstream: Option<Arc<dyn Upstream>> = match config.intake {
        IntakeConfig::InProcess(_) => Some(Arc::new(InProcess(Arc::clone(provider)))),
        _ => None,
    };
    let stage = lifecycle.stage(&format!("nozzle-{name}"));
    let live = Live::start(config, kinds(), upstream, &stage)
        .await
        .with_context(|| format!("cannot start the nozzle of {}", file.display()))?;
    Ok(Nozzle {
        name,
        live,
        file: (file != Path::new(OWN)).then(|| file.to_owned()),
        admin_addr,
        destinations,
        durable,
    })
}

impl Nozzle {
    /// How it takes over what its file says now.
    pub fn reload(&self, state: &StateDir, palette: Palette) -> Option<(Arc<Live>, Again)> {
        let (file, addr) = (self.file.clone()?, self.admin_addr);
        let state = state.file(STATE);
        let again: Again = Box::new(move || {
            let mut config = load_again(&file, Some(state.clone()), palette)?;
            config.nozzle.admin_addr.get_or_insert(addr);
            Ok(config)
        });
        Some((Arc::clone(&self.live), again))
    }

    /// For `endpoints.json`.
    pub fn endpoints(&self) -> NozzleEndpoints {
        let admin = self.live.admin_addr().map(|addr| format!("http://{addr}"));
        NozzleEndpoints {
            name: self.name.clone(),
            admin: admin.unwrap_or_default(),
            destinations: self.destinations.clone(),
        }
    }

    /// What its destinations have not got, a line each, and whether it is lost.
    pub fn left(&self) -> Vec<(String, bool)> {
        let report = self.live.report().unwrap_or_default();
        let left = report.subscriptions.iter().filter(|it| it.pending > 0);
        left.map(|destination| {
            let (id, name) = (&destination.id, &self.name);
            let envelopes = count(destination.pending, "envelope");
            if self.durable {
                let line = format!("kept on disk: {envelopes} for {id} of the nozzle {name}");
                (line, false)
            } else {
                let line = format!("not delivered: {envelopes} for {id} of the nozzle {name}");
                (line, true)
            }
        })
        .collect()
    }
}

/// The reverse log proxy of this process, as nozzles know it.
struct InProcess(Arc<dyn Provider>);

impl Upstream for InProcess {
    fn open(&self, request: EgressBatchRequest) -> Opening {
        let opening = self.0.open(request);
        Box::pin(async move {
            let envelopes: Box<dyn Envelopes> = Box::new(Stream(opening.await?));
            Ok(envelopes)
        })
    }
}

struct Stream(Box<dyn provider::Envelopes>);

impl Envelopes for Stream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        self.0.poll_next(cx)
    }
}
