//! The simplest destination: a file, or standard output, one JSON object per line.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use loggregator_envelope::json;
use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::{
    Batch, BoxFuture, Context, Delivery, Destination, DynDestination, Event, Kind, Limits, Plan,
    Reason, Rendered, StartError,
};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
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
}

impl Kind for FileKind {
    fn name(&self) -> &'static str {
        "file"
    }

    fn about(&self) -> &'static str {
        "a file or standard output, one JSON object per line"
    }

    fn example(&self) -> &'static str {
        "[[destination]]\nname = \"stdout\"\n[destination.file]\npath = \"-\"\n"
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        let config: Config = section.read()?;
        Ok(Box::new(config))
    }
}

impl Plan for Config {
    fn guarantee(&self) -> String {
        "at least once: an event counts as delivered when the operating system has taken it"
            .to_owned()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let mut body = Vec::new();
        json::write_envelope(&mut body, event.envelope());
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
            let out: Box<dyn tokio::io::AsyncWrite + Send + Unpin> = if self.path.as_os_str() == "-"
            {
                Box::new(tokio::io::stdout())
            } else {
                let mut options = tokio::fs::OpenOptions::new();
                let file = options.create(true).append(true).open(&self.path).await;
                Box::new(file.map_err(failed)?)
            };
            let destination: Arc<dyn DynDestination> = Arc::new(File {
                out: Mutex::new(out),
            });
            Ok(destination)
        })
    }
}

struct File {
    out: Mutex<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
}

impl Destination for File {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let mut lines = Vec::new();
        for event in batch.events() {
            json::write_envelope(&mut lines, event.envelope());
            lines.push(b'\n');
        }
        let mut out = self.out.lock().await;
        let written = out.write_all(&lines).await;
        match written.and(out.flush().await) {
            Ok(()) => Delivery::All,
            Err(error) => Delivery::Retry {
                why: Reason::new("write", error.to_string()),
                after: None,
            },
        }
    }
}
