//! The simplest destination: a file, or standard output, one line per event.
//!
//! A file that is moved away or removed, as log rotation does it, is opened anew before the next batch. A batch that could
//! not be written whole, because the disk is full, is taken back before it is tried again, so that no line is torn.

mod appender;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::format::Format;
use loggregator_nozzle::{
    Batch, BoxFuture, Context, Delivery, Destination, DynDestination, Event, Kind, Limits, Plan,
    Reason, Rendered, StartError,
};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncWriteExt as _, Stdout};

use appender::Appender;

/// Memory for the lines of a batch that is bigger than this is not kept.
const KEPT: usize = 8 << 20;

/// The kind `file`.
#[derive(Debug, Clone, Copy)]
pub struct FileKind;

/// `[destination.file]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file, appended to; `-` is standard output.
    path: PathBuf,
    /// How an event is written.
    #[serde(default)]
    format: Format,
    /// Whether a batch counts as delivered only when the disk has it.
    #[serde(default)]
    sync: bool,
}

impl Config {
    fn is_stdout(&self) -> bool {
        self.path == Path::new("-")
    }
}

impl Kind for FileKind {
    fn name(&self) -> &'static str {
        "file"
    }

    fn about(&self) -> &'static str {
        "a file or standard output, one line per event: JSON, logfmt or text"
    }

    fn example(&self) -> &'static str {
        r#"[[destination]]
name = "archive"
[destination.file]
path = "archive.ndjson"   # appended to; "-" is standard output
format = "json"           # json, envelope (protobuf JSON, lossless), logfmt, text
sync = false              # true: delivered only when the disk has it
"#
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        let config: Config = section.read()?;
        if config.path.as_os_str().is_empty() {
            return Err(section.error("path", "is empty; `-` is standard output"));
        }
        if config.sync && config.is_stdout() {
            return Err(section.error("sync", "standard output cannot be synchronised"));
        }
        Ok(Box::new(config))
    }
}

impl Plan for Config {
    fn guarantee(&self) -> String {
        let when = match (self.is_stdout(), self.sync) {
            (true, _) => "the reader of standard output has taken it",
            (_, true) => "the disk has it",
            _ => {
                "the operating system has it; what a crash of the machine costs is up to the file system"
            }
        };
        format!("At least once: an event counts as delivered when {when}.")
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let mut body = Vec::new();
        self.format.write(&mut body, event);
        Ok(vec![Rendered {
            fields: Vec::new(),
            body: body.into(),
        }])
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        Box::pin(async move {
            let failed = |source: io::Error| StartError {
                destination: context.name.clone(),
                what: format!("cannot open {}", self.path.display()),
                source: Some(source.into()),
            };
            let out = if self.is_stdout() {
                Out::Stdout(tokio::sync::Mutex::new(tokio::io::stdout()))
            } else {
                let (path, sync) = (self.path.clone(), self.sync);
                let opened = tokio::task::spawn_blocking(move || Appender::open(&path, sync));
                let opened = opened.await.unwrap_or_else(|error| Err(error.into()));
                Out::File(Arc::new(Mutex::new(opened.map_err(failed)?)))
            };
            let destination: Arc<dyn DynDestination> = Arc::new(Lines {
                config: self.clone(),
                out,
                spare: Mutex::default(),
            });
            Ok(destination)
        })
    }
}

enum Out {
    Stdout(tokio::sync::Mutex<Stdout>),
    /// Locked where it may block. An attempt that was given up may still write: the next one waits for it.
    File(Arc<Mutex<Appender>>),
}

struct Lines {
    config: Config,
    out: Out,
    /// Memory for the lines of the next batch.
    spare: Mutex<Vec<u8>>,
}

impl Destination for Lines {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let mut lines = std::mem::take(&mut *self.spare.lock());
        lines.clear();
        for event in batch.events() {
            self.config.format.write(&mut lines, event);
            lines.push(b'\n');
        }
        let written = match &self.out {
            Out::Stdout(stdout) => {
                let mut stdout = stdout.lock().await;
                let written = stdout.write_all(&lines).await;
                match written {
                    Ok(()) => stdout.flush().await,
                    failed => failed,
                }
            }
            Out::File(file) => {
                let file = Arc::clone(file);
                let appended = tokio::task::spawn_blocking(move || {
                    let written = file.lock().append(&lines);
                    (written, lines)
                });
                match appended.await {
                    Ok((written, back)) => {
                        lines = back;
                        written
                    }
                    Err(error) => return failed(&self.config, &error),
                }
            }
        };
        if lines.capacity() <= KEPT {
            *self.spare.lock() = lines;
        }
        match written {
            Ok(()) => Delivery::All,
            Err(error) => failed(&self.config, &error),
        }
    }
}

fn failed(config: &Config, error: &dyn std::fmt::Display) -> Delivery {
    Delivery::Retry {
        why: Reason::new("write", format!("{}: {error}", config.path.display())),
        after: None,
    }
}

#[cfg(test)]
mod tests {
    use loggregator_client::message;
    use loggregator_nozzle::BufferIdentity;
    use loggregator_service::Lifecycle;
    use loggregator_service::metrics::Metrics;
    use prost::Message as _;

    use super::*;

    fn batch(lines: &[&'static str]) -> Batch {
        let event = |line: &&'static str| {
            let envelope = message::log(*line).source("s", "0").build();
            Event::new(0, 0, envelope.encode_to_vec().into())
        };
        Batch::new(lines.iter().map(event).collect(), 0)
    }

    async fn started(config: &str) -> Arc<dyn DynDestination> {
        let plan = FileKind.plan(&Section::from_text(config).unwrap()).unwrap();
        let context = Context {
            nozzle: "n".to_owned(),
            name: "d".to_owned(),
            metrics: Metrics::new(),
            lifecycle: Lifecycle::new(),
            buffer: BufferIdentity::new("b"),
            state_dir: None,
        };
        plan.start(context).await.unwrap()
    }

    fn texts(path: &Path) -> Vec<String> {
        let lines = std::fs::read_to_string(path).unwrap();
        let text = |line: &str| line.rsplit_once("out ").unwrap().1.to_owned();
        lines.lines().map(text).collect()
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let config = format!("path = {:?}\nformat = \"text\"", path.display().to_string());
        let destination = started(&config).await;
        assert_eq!(
            destination.deliver(&batch(&["a", "b"])).await,
            Delivery::All
        );
        let old = dir.path().join("old");
        std::fs::rename(&path, &old).unwrap();
        assert_eq!(destination.deliver(&batch(&["c"])).await, Delivery::All);
        assert_eq!(
            (texts(&old), texts(&path)),
            (vec!["a".into(), "b".into()], vec!["c".into()])
        );
    }

    #[tokio::test]
    async fn a_full_disk_is_a_reason_to_try_again() {
        let destination = started("path = \"/dev/full\"").await;
        let Delivery::Retry { why, .. } = destination.deliver(&batch(&["a"])).await else {
            panic!("it was written");
        };
        assert_eq!(why.code, "write");
        assert!(why.detail.contains("No space left"), "{why}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_named_pipe_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let reader = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap())
        };
        let config = format!("path = {:?}\nformat = \"text\"", path.display().to_string());
        let destination = started(&config).await;
        for lines in [&["a", "b"][..], &["c"]] {
            assert_eq!(destination.deliver(&batch(lines)).await, Delivery::All);
        }
        drop(destination);
        assert_eq!(reader.await.unwrap().lines().count(), 3);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let error = |text: &str| {
            let section = Section::from_text(text).unwrap();
            FileKind.plan(&section).unwrap_err().errors[0]
                .message
                .clone()
        };
        assert_eq!(error("path = \"\""), "is empty; `-` is standard output");
        assert_eq!(
            error("path = \"-\"\nsync = true"),
            "standard output cannot be synchronised"
        );
        assert_eq!(
            error("path = \"x\"\nformat = \"xml\""),
            "`xml` is none of `json`, `envelope`, `logfmt`, `text`"
        );
        assert_eq!(error("paht = \"x\""), "is missing");
    }
}
