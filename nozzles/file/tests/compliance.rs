//! The compliance suite against a real file.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

use std::path::PathBuf;

use loggregator_nozzle::compliance::{self, Behaviour, Peer};
use loggregator_nozzle::{Kinds, Rendered};
use loggregator_nozzle_file::FileKind;
use tempfile::TempDir;

/// A file; it is away when a folder stands in its place.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn file(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn aside(&self) -> PathBuf {
        self.dir.path().join("aside")
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
                std::fs::rename(self.file(), self.aside()).unwrap();
                std::fs::create_dir(self.file()).unwrap();
            }
            Behaviour::Healthy if self.aside().exists() => {
                std::fs::remove_dir(self.file()).unwrap();
                std::fs::rename(self.aside(), self.file()).unwrap();
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
    let peer = || async {
        Disk {
            dir: tempfile::tempdir().unwrap(),
        }
    };
    let left_out = compliance::run(&kinds, "file", peer).await;
    // A file takes all or nothing, at once, and whatever it is given.
    assert_eq!(
        left_out,
        ["retries", "partial", "acknowledged", "poisoned", "restart"]
    );
}
