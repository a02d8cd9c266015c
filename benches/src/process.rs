//! The processes under test: starting them, and what the kernel says they used.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::certs::Files;

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// User and system time of all its threads, seconds.
    pub cpu: f64,
    /// Resident memory now, bytes.
    pub rss: u64,
    /// Most resident memory so far, bytes.
    pub peak: u64,
}

/// Reads the figures of process `pid`.
///
/// CPU time is what the scheduler says each thread has run, in nanoseconds; where the kernel does not tell that, user
/// plus system of `/proc/PID/stat`, ten milliseconds fine.
///
/// # Errors
/// When the process is gone.
pub fn sample(pid: u32) -> Result<Sample, BenchError> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).map_err(|e| BenchError::new(format!("{path}: {e}")))
    };
    let stat = read("stat")?;
    let status = read("status")?;
    let mut sample = parse(&stat, &status)
        .ok_or_else(|| BenchError::new(format!("/proc/{pid} is not understood")))?;
    if let Some(cpu) = scheduled(pid) {
        sample.cpu = cpu;
    }
    Ok(sample)
}

/// Seconds on a CPU of all threads alive. The servers under test keep their threads, so no time gets lost with one.
fn scheduled(pid: u32) -> Option<f64> {
    let mut nanos = 0u64;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    (nanos > 0).then_some(nanos as f64 / 1e9)
}

/// The kernel counts in hundredths of a second towards user space, on every architecture we run on.
const TICKS: f64 = 100.0;

fn parse(stat: &str, status: &str) -> Option<Sample> {
    // The name in the second field may hold spaces and brackets; what follows its last bracket does not.
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some(Sample {
        cpu: (user + system) / TICKS,
        rss: kib("VmRSS:")? * 1024,
        peak: kib("VmHWM:")? * 1024,
    })
}

/// A loopback address whose port was free a moment ago.
///
/// # Errors
/// When no port can be had.
pub fn free_addr() -> Result<SocketAddr, BenchError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|e| BenchError::new(format!("no free port: {e}")))
}

/// What a command line may refer to.
#[derive(Clone, Debug)]
pub struct Places {
    /// Address the server shall listen on.
    pub addr: SocketAddr,
    /// Address of its admin port.
    pub admin: SocketAddr,
    /// Certificates.
    pub files: Files,
    /// Address of the doppler, for a process that reads one.
    pub doppler: Option<SocketAddr>,
    /// Bound of the doppler's log, bytes.
    pub log_bytes: u64,
}

impl Places {
    fn fill(&self, text: &str) -> String {
        let path = |p: &Path| p.display().to_string();
        text.replace("{addr}", &self.addr.to_string())
            .replace("{port}", &self.addr.port().to_string())
            .replace("{admin}", &self.admin.to_string())
            .replace("{ca}", &path(&self.files.ca))
            .replace("{cert}", &path(&self.files.cert))
            .replace("{key}", &path(&self.files.key))
            .replace(
                "{doppler}",
                &self.doppler.map(|a| a.to_string()).unwrap_or_default(),
            )
            .replace("{log_bytes}", &self.log_bytes.to_string())
    }
}

/// A child process that is killed when this is dropped.
pub struct Server {
    /// Shown in reports.
    pub name: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its admin address, whether or not it serves one.
    pub admin: SocketAddr,
    child: Child,
    output: PathBuf,
}

impl Server {
    /// Starts `command` (placeholders filled in, words split at spaces) and waits until it accepts connections.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen within ten seconds; with what it wrote.
    pub fn start(
        name: &str,
        command: &str,
        places: &Places,
        dir: &Path,
    ) -> Result<Self, BenchError> {
        let filled = places.fill(command);
        let mut words = filled.split_ascii_whitespace();
        let (variables, program) = {
            let mut variables = Vec::new();
            loop {
                match words.next() {
                    None => return Err(BenchError::new(format!("no program in `{command}`"))),
                    Some(word) => match word.split_once('=') {
                        Some((key, value)) if !key.contains('/') => {
                            variables.push((key.to_owned(), value.to_owned()));
                        }
                        _ => break (variables, word.to_owned()),
                    },
                }
            }
        };
        let output = dir.join(format!("{name}.log"));
        let failed = |e: std::io::Error| BenchError::new(format!("{program}: {e}"));
        let log = File::create(&output).map_err(failed)?;
        let child = Command::new(&program)
            .args(words)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut server = Self {
            name: name.to_owned(),
            addr: places.addr,
            admin: places.admin,
            child,
            output,
        };
        server.wait_ready(Duration::from_secs(10))?;
        Ok(server)
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<(), BenchError> {
        let started = Instant::now();
        while TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(BenchError::new(format!(
                    "{} ended with {status}: {}",
                    self.name,
                    self.said()
                )));
            }
            if started.elapsed() > limit {
                return Err(BenchError::new(format!(
                    "{} does not listen: {}",
                    self.name,
                    self.said()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of what it wrote so far.
    #[must_use]
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Present figures.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sample(&self) -> Result<Sample, BenchError> {
        sample(self.pid())
            .map_err(|e| BenchError::new(format!("{e}; {} wrote: {}", self.name, self.said())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Asks a started server's admin port for its ledger.
///
/// # Errors
/// When there is none, or what it says is not JSON.
pub fn ledger(admin: SocketAddr) -> Result<serde_json::Value, BenchError> {
    let failed = |e: std::io::Error| BenchError::new(format!("{admin}: {e}"));
    let mut socket = TcpStream::connect_timeout(&admin, Duration::from_secs(1)).map_err(failed)?;
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(failed)?;
    let request = format!("GET /ledger HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(failed)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body)
        .unwrap_or_default();
    serde_json::from_str(body).map_err(|e| BenchError::new(format!("{admin}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_an_awkward_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 100 1000 200";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(
            parse(stat, status),
            Some(Sample {
                cpu: 2.0,
                rss: 1 << 20,
                peak: 2 << 20
            })
        );
    }

    #[test]
    fn a_process_that_ends_is_reported_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            ca: "ca".into(),
            cert: "cert".into(),
            key: "key".into(),
        };
        let addr = free_addr().unwrap();
        let places = Places {
            addr,
            admin: addr,
            files,
            doppler: None,
            log_bytes: 1,
        };
        let error = Server::start("x", "A=1 /bin/ls /no/such/{ca}", &places, dir.path())
            .err()
            .unwrap();
        assert!(error.to_string().contains("/no/such/ca"), "{error}");
    }
}
