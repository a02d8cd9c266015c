//! A program that stands in for a Go one, as a process with exactly the environment that it is given.

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Variables of a process.
pub type Vars = BTreeMap<String, String>;

/// `vars` with these set; an empty value is set to nothing, as the tests of the platform do.
pub fn with(vars: &Vars, more: &[(&str, &str)]) -> Vars {
    let mut vars = vars.clone();
    vars.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    vars
}

/// `vars` without these.
pub fn without(vars: &Vars, names: &[&str]) -> Vars {
    let mut vars = vars.clone();
    vars.retain(|name, _| !names.contains(&name.as_str()));
    vars
}

/// A program that runs.
pub struct Process {
    child: Child,
    errors: Arc<Mutex<Vec<u8>>>,
    reads_errors: Option<JoinHandle<()>>,
    reads_output: Option<JoinHandle<Vec<u8>>>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

fn command(path: &str, vars: &Vars) -> Command {
    let mut command = Command::new(path);
    command.env_clear().envs(vars).stdin(Stdio::null());
    command
}

/// Runs a program that is to end by itself.
pub fn run(path: &str, vars: &Vars, args: &[&str]) -> Ended {
    let Output {
        status,
        stdout,
        stderr,
    } = command(path, vars).args(args).output().unwrap();
    Ended {
        code: status.code(),
        output: String::from_utf8(stdout).unwrap(),
        errors: String::from_utf8(stderr).unwrap(),
    }
}

impl Process {
    /// Starts it.
    pub fn start(path: &str, vars: &Vars) -> Self {
        let mut child = command(path, vars)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (mut stderr, into) = (child.stderr.take().unwrap(), Arc::clone(&errors));
        let reads_errors = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let mut stdout = child.stdout.take().unwrap();
        let reads_output = std::thread::spawn(move || {
            let mut output = Vec::new();
            stdout.read_to_end(&mut output).unwrap();
            output
        });
        Self {
            child,
            errors,
            reads_errors: Some(reads_errors),
            reads_output: Some(reads_output),
        }
    }

    /// What it wrote to standard error so far.
    pub fn errors(&self) -> String {
        String::from_utf8(self.errors.lock().unwrap().clone()).unwrap()
    }

    /// Waits until it wrote something that matches, and returns the first group.
    pub fn wait_for(&mut self, pattern: &str) -> String {
        let pattern = Regex::new(pattern).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let errors = self.errors();
            if let Some(found) = pattern.captures(&errors) {
                return found
                    .get(1)
                    .map(|group| group.as_str().to_owned())
                    .unwrap_or_default();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {pattern}: {ended:?}\n{errors}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The port of an announcement, by the pattern that the platform's tests wait for.
    pub fn port(&mut self, what: &str) -> u16 {
        self.wait_for(&format!(r"{what} bound to: .*:(\d+)"))
            .parse()
            .unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reads_errors.take().unwrap().join().unwrap();
        let output = self.reads_output.take().unwrap().join().unwrap();
        Ended {
            code: status.code(),
            output: String::from_utf8(output).unwrap(),
            errors: self.errors(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.child.kill().is_err();
        let _reaped = self.child.wait().is_ok();
    }
}

impl Ended {
    /// The lines of standard error without their time, which must be in the default form: with a fraction or, before the
    /// form is known, without.
    pub fn lines(&self) -> Vec<String> {
        let time = Regex::new(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(\.\d{6})? ").unwrap();
        self.errors
            .lines()
            .map(|line| {
                assert!(time.is_match(line), "no time: {line}");
                time.replace(line, "").into_owned()
            })
            .collect()
    }
}

/// `GET path` over plain HTTP: the head, and the body.
pub fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
