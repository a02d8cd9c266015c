//! The compliance suite against a real file.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

use std::path::PathBuf;

use loggregator_nozzle::compliance::{self, Behaviour, Peer};
use loggregator_nozzle::{Kinds, Rendered};
use loggregator_nozzle_file::FileKind;
use tempfile::TempDir;

/// A file in a folder; it is away while the folder is called otherwise. It comes back in one step: in between nobody could make
/// another file in its place.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("here")).unwrap();
        Disk { dir }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.folder("here").join("out")
    }
}

impl Peer for Disk {
    fn config(&self) -> String {
        format!("path = {:?}\nformat = \"text\"", self.file())
    }

    fn scratch(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn can(&self, how: &Behaviour) -> bool {
        matches!(how, Behaviour::Healthy | Behaviour::Away)
    }

    async fn behave(&self, how: Behaviour) {
        match how {
            Behaviour::Away => {
                std::fs::rename(self.folder("here"), self.folder("away")).unwrap();
            }
            Behaviour::Healthy if self.folder("away").exists() => {
                std::fs::rename(self.folder("away"), self.folder("here")).unwrap();
            }
            _ => {}
        }
    }

    async fn received(&self) -> Vec<Rendered> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let line = |line: &str| Rendered {
            fields: Vec::new(),
            body: line.to_owned().into(),
        };
        text.lines().map(line).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_complies() {
    let kinds = Kinds::new().with(FileKind);
    let peer = || async { Disk::new() };
    let left_out = compliance::run(&kinds, "file", peer).await;
    // A file takes all or nothing, at once, and whatever it is given.
    assert_eq!(
        left_out,
        ["retries", "partial", "acknowledged", "poisoned", "restart"]
    );
}
