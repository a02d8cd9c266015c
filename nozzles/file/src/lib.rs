//! The simplest destination: a file, or standard output, one line per event.
//!
//! A file that is moved away or removed, as log rotation does it, is opened anew before the next batch. A batch that could
//! not be written whole, because the disk is full, is taken back before it is tried again, so that no line is torn.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::format::Format;
use loggregator_nozzle::{
    Batch, BoxFuture, Context, Delivery, Destination, DynDestination, Event, Kind, Limits, Plan,
    Reason, Rendered, StartError,
};
use serde::Deserialize;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _, Stdout};
use tokio::sync::Mutex;

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
                Out::Stdout(tokio::io::stdout())
            } else {
                Out::File(open(&self.path).await.map_err(failed)?)
            };
            let destination: Arc<dyn DynDestination> = Arc::new(Lines {
                config: self.clone(),
                out: Mutex::new(out),
            });
            Ok(destination)
        })
    }
}

enum Out {
    Stdout(Stdout),
    File(File),
}

struct Lines {
    config: Config,
    out: Mutex<Out>,
}

impl Destination for Lines {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let mut lines = Vec::with_capacity(batch.bytes() * 2);
        for event in batch.events() {
            self.config.format.write(&mut lines, event);
            lines.push(b'\n');
        }
        let mut out = self.out.lock().await;
        let written = match &mut *out {
            Out::Stdout(stdout) => match stdout.write_all(&lines).await {
                Ok(()) => stdout.flush().await,
                failed => failed,
            },
            Out::File(file) => self.append(file, &lines).await,
        };
        match written {
            Ok(()) => Delivery::All,
            Err(error) => Delivery::Retry {
                why: Reason::new("write", format!("{}: {error}", self.config.path.display())),
                after: None,
            },
        }
    }
}

impl Lines {
    /// Appends all of it or nothing.
    async fn append(&self, file: &mut File, lines: &[u8]) -> io::Result<()> {
        if !is_at(file, &self.config.path).await {
            *file = open(&self.config.path).await?;
        }
        let before = file.seek(SeekFrom::End(0)).await?;
        let written = match file.write_all(lines).await {
            // A file of tokio hands on what it was given later; only now are errors known.
            Ok(()) => file.flush().await,
            failed => failed,
        };
        if let Err(error) = written {
            file.set_len(before).await?;
            return Err(error);
        }
        if self.config.sync {
            file.sync_data().await?;
        }
        Ok(())
    }
}

async fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await
}

/// Whether the open file is the one that stands at `path`.
async fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
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
