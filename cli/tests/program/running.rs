//! Processes of the program under test, with their output collected.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these arguments, in a known environment.
pub fn loggregator<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loggregator"));
    command
        .args(args)
        .env("TZ", "UTC")
        .env_remove("LOGGREGATOR_STATE_DIR")
        .env_remove("LOG_LEVEL")
        .stdin(Stdio::null());
    command
}

/// What it prints; it must succeed.
pub fn stdout(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A stream that is read to its end in the background.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn of(mut from: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let collected = Self::default();
        let into = collected.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.0.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        (collected, thread)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A `tail` or `firehose` that runs.
pub struct Reader {
    child: Mutex<Child>,
    output: Collected,
    errors: Collected,
    threads: Vec<JoinHandle<()>>,
}

impl Reader {
    /// Starts it and waits until its subscription stands.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, reads_output) = Collected::of(child.stdout.take().unwrap());
        let (errors, reads_errors) = Collected::of(child.stderr.take().unwrap());
        let reader = Self {
            child: Mutex::new(child),
            output,
            errors,
            threads: vec![reads_output, reads_errors],
        };
        wait_until("the reader is subscribed", || {
            assert!(!reader.is_done(), "it ended: {}", reader.errors());
            reader.errors().contains("reading from")
        });
        reader
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// What it said on standard error so far.
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    /// Whether it has ended.
    pub fn is_done(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits until it printed this.
    pub fn wait_for(&self, text: &str) {
        wait_until(text, || self.output().contains(text));
    }

    /// Waits until it said this on standard error.
    pub fn wait_for_error(&self, text: &str) {
        wait_until(text, || self.errors().contains(text));
    }

    /// Sends it a signal, by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.lock().unwrap().id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end: output, errors, exit code.
    pub fn finish(mut self) -> (String, String, Option<i32>) {
        wait_until("the reader ends", || self.is_done());
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let code = self.child.lock().unwrap().wait().unwrap().code();
        (self.output(), self.errors(), code)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _gone_already = child.kill().is_err();
            let _reaped = child.wait().is_ok();
        }
    }
}

/// An `up` with a state folder of its own.
pub struct Up {
    child: Child,
    stdin: Option<ChildStdin>,
    banner: String,
    errors: Collected,
    args: Vec<String>,
    _temp: tempfile::TempDir,
    dir: PathBuf,
}

impl Up {
    /// Starts it and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("state");
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, stdin, banner, errors) = launch(&dir, &args);
        Self {
            child,
            stdin,
            banner,
            errors,
            args,
            _temp: temp,
            dir,
        }
    }

    /// Starts it again, in the same folder.
    pub fn start_again(&mut self) {
        let (child, stdin, banner, errors) = launch(&self.dir, &self.args);
        (self.child, self.stdin, self.banner, self.errors) = (child, stdin, banner, errors);
    }

    /// A command that finds this one.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = loggregator(args);
        command.env("LOGGREGATOR_STATE_DIR", &self.dir);
        command
    }

    /// A `tail` or `firehose` of this one.
    pub fn reader(&self, args: &[&str]) -> Reader {
        Reader::start(self.command(args))
    }

    /// Its state folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it printed at the start.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Its standard input.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().unwrap()
    }

    /// Its addresses.
    pub fn endpoints(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.dir.join("endpoints.json")).unwrap()).unwrap()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C; waits for its end: exit code, and what it said.
    pub fn interrupt(&mut self) -> (Option<i32>, String) {
        let sent = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let mut code = None;
        wait_until("it ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        (code.unwrap().code(), self.errors.text())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _gone_already = self.child.kill().is_err();
        let _reaped = self.child.wait().is_ok();
    }
}

fn launch(dir: &Path, args: &[String]) -> (Child, Option<ChildStdin>, String, Collected) {
    let mut child = loggregator(["up", "--state-dir", dir.to_str().unwrap()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (errors, _thread) = Collected::of(child.stderr.take().unwrap());
    let mut banner = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !banner.contains("Ctrl-C") {
        let read = lines.read_line(&mut banner).unwrap();
        assert!(read > 0, "it ended: {banner}{}", errors.text());
    }
    let stdin = child.stdin.take();
    (child, stdin, banner, errors)
}

/// Standard base64.
pub fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|letter| *letter == byte).unwrap();
        bits = (bits << 6) | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}
