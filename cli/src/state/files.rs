//! Files that only their owner may read, replaced as a whole.

use super::StateError;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes `bytes` so that a reader sees the old file or the new one, never half of it, and nobody but the owner sees any.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // A left-over with wider permissions would keep them.
    remove_if_there(&fresh)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(StateError::io("cannot write", &fresh))?;
    std::fs::rename(&fresh, path).map_err(StateError::io("cannot replace", path))
}

/// Removes a file; that it is not there is as good.
pub(super) fn remove_if_there(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}
