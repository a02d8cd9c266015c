//! Tokens from a file.
//!
//! One token a line, then what it may read, separated by blanks or commas: `doppler.firehose` (everything), or
//! application ids. Empty lines and lines that begin with `#` are skipped:
//!
//! ```text
//! # token                       may read
//! 5f0c…                         doppler.firehose
//! 91ab…                         6d254438-cc3b-44a6-b2e6-343ca92deb5f, web-shop
//! ```
//!
//! The file is looked at again every few seconds and read when it changed; one that cannot be read or understood leaves
//! the tokens of before in force, and is logged and counted.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{AccessControl, Allowed, Credentials, Denied, Verdict};

/// The scope that opens the firehose.
const FIREHOSE: &str = "doppler.firehose";

/// The largest token file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A token file that cannot be used. Never holds a token.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("token file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is larger than 16 MiB.
    #[error("token file {path}: {bytes} bytes, more than the {MAX_FILE_BYTES} that are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A line has a token but does not say what it may read.
    #[error(
        "token file {path}, line {line}: a token without `{FIREHOSE}` or application ids behind it"
    )]
    NoGrant {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The same token stands in two lines.
    #[error("token file {path}, line {line}: the token of line {first} again")]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The later line, counted from 1.
        line: usize,
        /// The earlier line.
        first: usize,
    },
}

/// [`AccessControl`] by the tokens of a file; see the module's text for its form.
pub struct TokenFile {
    path: PathBuf,
    tokens: ArcSwap<Vec<Grant>>,
    reloads: AtomicU64,
    failures: AtomicU64,
}

struct Grant {
    token: Box<[u8]>,
    firehose: bool,
    apps: BTreeSet<String>,
}

/// What tells that a file changed: its time and its size.
type Version = (Option<SystemTime>, u64);

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or a line is not understood.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, TokenFileError> {
        let path = path.into();
        let tokens = load(&path)?;
        Ok(Arc::new(Self {
            path,
            tokens: ArcSwap::from_pointee(tokens),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }))
    }

    /// Looks at the file every `every` and takes over what changed, until `stop`.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut seen = version(&self.path).await;
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            let now = version(&self.path).await;
            if now == seen {
                continue;
            }
            seen = now;
            let path = self.path.clone();
            match tokio::task::spawn_blocking(move || load(&path)).await {
                Ok(Ok(tokens)) => {
                    info!(path = %self.path.display(), tokens = tokens.len(), "token file read again");
                    self.tokens.store(Arc::new(tokens));
                    self.reloads.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => {
                    warn!(%error, "changed token file not usable, the tokens of before stay in force");
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                // The runtime is going down.
                Err(_) => return,
            }
        }
    }

    /// How often a changed file was taken over, and how often it could not be.
    pub fn reloads(&self) -> (u64, u64) {
        (
            self.reloads.load(Ordering::Relaxed),
            self.failures.load(Ordering::Relaxed),
        )
    }

    /// Judges a token. Every known token is compared, each in a time that does not depend on where they differ.
    fn judge(
        &self,
        who: &Credentials,
        token: Option<&[u8]>,
        allows: impl Fn(&Grant) -> bool,
        otherwise: Denied,
    ) -> Result<Allowed, Denied> {
        let token = token.ok_or_else(|| who.missing())?;
        let mut found = Err(Denied::Refused);
        for grant in self.tokens.load().iter() {
            if same(token, &grant.token) {
                found = if allows(grant) {
                    Ok(Allowed::default())
                } else {
                    Err(otherwise.clone())
                };
            }
        }
        found
    }
}

impl AccessControl for TokenFile {
    fn firehose<'a>(&'a self, who: &'a Credentials) -> Verdict<'a> {
        let verdict = self.judge(
            who,
            who.admin_token(),
            |grant| grant.firehose,
            Denied::Refused,
        );
        Box::pin(std::future::ready(verdict))
    }

    /// Who may read the firehose may read every application. The id need not be a GUID: it names what the file names.
    fn app_stream<'a>(&'a self, app_id: &'a str, who: &'a Credentials) -> Verdict<'a> {
        let allows = |grant: &Grant| grant.firehose || grant.apps.contains(app_id);
        let verdict = self.judge(who, who.app_token(), allows, Denied::NotFound);
        Box::pin(std::future::ready(verdict))
    }

    /// Who may not read the firehose may read those of its applications that it names.
    fn sources<'a>(&'a self, source_ids: &'a [String], who: &'a Credentials) -> Verdict<'a> {
        let allows = |grant: &Grant| {
            let listed = || source_ids.iter().all(|id| grant.apps.contains(id));
            grant.firehose || (!source_ids.is_empty() && listed())
        };
        let verdict = self.judge(who, who.app_token(), allows, Denied::NotFound);
        Box::pin(std::future::ready(verdict))
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.load().len();
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .field("tokens", &tokens)
            .finish_non_exhaustive()
    }
}

async fn version(path: &Path) -> Option<Version> {
    let meta = tokio::fs::metadata(path).await.ok()?;
    Some((meta.modified().ok(), meta.len()))
}

fn load(path: &Path) -> Result<Vec<Grant>, TokenFileError> {
    let failed = |source| TokenFileError::Read {
        path: path.to_owned(),
        source,
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.len() > MAX_FILE_BYTES {
        return Err(TokenFileError::TooLarge {
            path: path.to_owned(),
            bytes: meta.len(),
        });
    }
    warn_if_shared(path, &meta);
    parse(path, &std::fs::read_to_string(path).map_err(failed)?)
}

#[cfg(unix)]
fn warn_if_shared(path: &Path, meta: &std::fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        warn!(path = %path.display(), mode = format!("{mode:o}"), "token file is open to every user of this machine");
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path, _: &std::fs::Metadata) {}

fn parse(path: &Path, text: &str) -> Result<Vec<Grant>, TokenFileError> {
    let mut grants = Vec::new();
    let mut lines_of = std::collections::HashMap::new();
    for (i, line) in text.lines().enumerate() {
        let mut words = line
            .split([' ', '\t', ',', '\r'])
            .filter(|word| !word.is_empty());
        let Some(token) = words.next().filter(|token| !token.starts_with('#')) else {
            continue;
        };
        if let Some(first) = lines_of.insert(token, i + 1) {
            return Err(TokenFileError::Duplicate {
                path: path.to_owned(),
                line: i + 1,
                first,
            });
        }
        let (scopes, apps): (Vec<_>, Vec<_>) = words.partition(|word| *word == FIREHOSE);
        if scopes.is_empty() && apps.is_empty() {
            return Err(TokenFileError::NoGrant {
                path: path.to_owned(),
                line: i + 1,
            });
        }
        grants.push(Grant {
            token: token.as_bytes().into(),
            firehose: !scopes.is_empty(),
            apps: apps.into_iter().map(str::to_owned).collect(),
        });
    }
    Ok(grants)
}

/// Equality in a time that depends on the length of `given` only.
fn same(given: &[u8], known: &[u8]) -> bool {
    if known.is_empty() {
        return false;
    }
    let mut difference = usize::from(given.len() != known.len());
    for (i, byte) in given.iter().enumerate() {
        difference |= usize::from(byte ^ known[i % known.len()]);
        difference = std::hint::black_box(difference);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(text: &str) -> Credentials {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", text.parse().unwrap());
        Credentials::from_headers(&headers)
    }

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    const FILE: &str =
        "# tokens\n\nadmin  doppler.firehose\nshop app-1, app-2\nboth\tapp-3 doppler.firehose\n";

    #[tokio::test]
    async fn tokens_open_what_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        write(&path, FILE);
        let file = TokenFile::open(&path).unwrap();
        let none = Credentials::from_headers(&http::HeaderMap::new());

        assert_eq!(file.firehose(&none).await, Err(Denied::NoToken));
        assert_eq!(
            file.firehose(&bearer("bearer admin")).await,
            Ok(Allowed::default())
        );
        assert_eq!(
            file.firehose(&bearer("admin")).await,
            Ok(Allowed::default())
        );
        assert_eq!(
            file.firehose(&bearer("bearer both")).await,
            Ok(Allowed::default())
        );
        assert_eq!(
            file.firehose(&bearer("Bearer admin")).await,
            Err(Denied::Refused)
        );
        assert_eq!(
            file.firehose(&bearer("bearer shop")).await,
            Err(Denied::Refused)
        );
        assert_eq!(
            file.firehose(&bearer("bearer admi")).await,
            Err(Denied::Refused)
        );
        assert_eq!(
            file.firehose(&bearer("bearer adminadmin")).await,
            Err(Denied::Refused)
        );
        assert_eq!(
            file.firehose(&bearer("bearer ")).await,
            Err(Denied::Refused)
        );

        assert_eq!(file.app_stream("app-1", &none).await, Err(Denied::NoToken));
        assert_eq!(
            file.app_stream("app-1", &bearer("bearer nobody")).await,
            Err(Denied::Refused)
        );
        assert_eq!(
            file.app_stream("app-2", &bearer("Bearer shop")).await,
            Ok(Allowed::default())
        );
        assert_eq!(
            file.app_stream("app-3", &bearer("bearer shop")).await,
            Err(Denied::NotFound)
        );
        assert_eq!(
            file.app_stream("anything", &bearer("bearer admin")).await,
            Ok(Allowed::default())
        );
    }

    #[test]
    fn bad_lines_are_errors_that_name_the_line_and_no_token() {
        let error = parse(Path::new("f"), "a doppler.firehose\ns3cret\n")
            .err()
            .unwrap();
        assert!(matches!(error, TokenFileError::NoGrant { line: 2, .. }));
        assert!(!error.to_string().contains("s3cret"));
        let error = parse(Path::new("f"), "s3cret x\n\ns3cret y\n")
            .err()
            .unwrap();
        assert!(matches!(
            error,
            TokenFileError::Duplicate {
                line: 3,
                first: 1,
                ..
            }
        ));
        assert!(!error.to_string().contains("s3cret"));
        assert!(matches!(
            TokenFile::open("/nonexistent/tokens"),
            Err(TokenFileError::Read { .. })
        ));
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        write(&path, "one doppler.firehose\n");
        let file = TokenFile::open(&path).unwrap();
        let stop = CancellationToken::new();
        let watch = tokio::spawn(Arc::clone(&file).watch(Duration::from_millis(5), stop.clone()));

        // Written until seen: the watcher may not have taken its first look yet.
        let until = |wanted: fn((u64, u64)) -> bool, text: &'static str| {
            let (file, path) = (Arc::clone(&file), path.clone());
            async move {
                let mut filler = String::new();
                while !wanted(file.reloads()) {
                    filler.push_str("#\n");
                    write(&path, &format!("{filler}{text}"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        until(|(good, _)| good > 0, "two doppler.firehose\n").await;
        assert_eq!(
            file.firehose(&bearer("bearer two")).await,
            Ok(Allowed::default())
        );
        assert_eq!(
            file.firehose(&bearer("bearer one")).await,
            Err(Denied::Refused)
        );

        until(|(_, bad)| bad > 0, "two\n").await;
        assert_eq!(
            file.firehose(&bearer("bearer two")).await,
            Ok(Allowed::default())
        );

        stop.cancel();
        watch.await.unwrap();
    }

    #[test]
    fn debug_shows_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        write(&path, "s3cret doppler.firehose\n");
        assert!(!format!("{:?}", TokenFile::open(&path).unwrap()).contains("s3cret"));
    }
}
