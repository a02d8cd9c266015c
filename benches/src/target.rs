//! The servers of a run: started for it, or there already.

use std::net::SocketAddr;
use std::path::Path;

use crate::BenchError;
use crate::certs::{self, Files};
use crate::plan::{Plan, Readers, Target};
use crate::process::{Places, Sample, Server, free_addr, sample};

/// Addresses, identity and processes of the target.
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) doppler: SocketAddr,
    /// The traffic controller or the reverse log proxy.
    pub(crate) front: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) files: Files,
    pub(crate) servers: Vec<Server>,
    pub(crate) pids: Vec<(String, u32)>,
}

/// Starts what is to be started.
pub(crate) fn open(plan: &Plan, dir: &Path) -> Result<Opened, BenchError> {
    match &plan.target {
        Target::Running {
            doppler,
            front,
            files,
            pids,
        } => Ok(Opened {
            name: doppler.to_string(),
            doppler: *doppler,
            front: *front,
            admin: None,
            files: files.clone(),
            servers: Vec::new(),
            pids: pids
                .iter()
                .map(|pid| (format!("pid {pid}"), *pid))
                .collect(),
        }),
        Target::Start {
            name,
            doppler,
            controller,
            proxy,
        } => {
            let files = certs::write(dir)?;
            let places = Places {
                addr: free_addr()?,
                admin: free_addr()?,
                files: files.clone(),
                doppler: None,
                log_bytes: plan.log_bytes,
            };
            let admin = doppler.contains("{admin}").then_some(places.admin);
            let mut servers = vec![Server::start(name, doppler, &places, dir)?];
            let front = match plan.readers {
                Readers::WebSockets(_) => controller.as_ref().map(|it| ("traffic-controller", it)),
                Readers::Proxied(_) => proxy.as_ref().map(|it| ("rlp", it)),
                _ => None,
            };
            if let Some((name, command)) = front {
                let places = Places {
                    addr: free_addr()?,
                    admin: free_addr()?,
                    doppler: Some(servers[0].addr),
                    ..places
                };
                servers.push(Server::start(name, command, &places, dir)?);
            }
            Ok(Opened {
                name: name.clone(),
                doppler: servers[0].addr,
                front: servers.get(1).map(|s| s.addr),
                admin,
                files,
                pids: servers.iter().map(|s| (s.name.clone(), s.pid())).collect(),
                servers,
            })
        }
    }
}

/// Figures of all processes now.
pub(crate) fn sample_all(opened: &Opened) -> Result<Vec<Sample>, BenchError> {
    opened
        .pids
        .iter()
        .map(|(name, pid)| {
            sample(*pid).map_err(|e| {
                let said = opened
                    .servers
                    .iter()
                    .find(|s| s.pid() == *pid)
                    .map(Server::said)
                    .unwrap_or_default();
                BenchError::new(format!("{name} is gone: {e} {said}"))
            })
        })
        .collect()
}
