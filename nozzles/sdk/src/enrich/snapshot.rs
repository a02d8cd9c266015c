//! Names on disk, so that a nozzle that starts knows what the one before it knew.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::guid;
use crate::event::Names;

/// The file in the nozzle's folder.
pub(super) const FILE: &str = "names.json";
/// Another form of the file has another number.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// When the Cloud Controller last answered, in seconds since 1970.
    answered: u64,
}

/// One app: a line of the file.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    id: String,
    confirmed: u64,
    #[serde(borrow)]
    app: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    space_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    space: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    org_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    org: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<(String, String)>,
}

/// Apps with their names and when they were confirmed, and when the Cloud Controller last answered.
pub(super) struct Snapshot {
    pub answered: u64,
    pub apps: Vec<(u128, Names, u64)>,
}

/// Writes a file beside the old one, waits until it is on the disk, and puts it in the old one's place.
pub(super) fn save(
    folder: &Path,
    answered: u64,
    apps: &[(u128, Arc<Names>, u64)],
) -> io::Result<()> {
    let (file, beside) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
    let mut out = BufWriter::new(create(&beside)?);
    serde_json::to_writer(
        &mut out,
        &Head {
            version: VERSION,
            answered,
        },
    )?;
    out.write_all(b"\n")?;
    for (id, names, confirmed) in apps {
        let line = Line {
            id: guid::text(*id),
            confirmed: *confirmed,
            app: names.app.as_str().into(),
            space_id: names.space_id.as_str().into(),
            space: names.space.as_str().into(),
            org_id: names.org_id.as_str().into(),
            org: names.org.as_str().into(),
            labels: names.labels.clone(),
            annotations: names.annotations.clone(),
        };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(&beside, &file)
}

/// Only the nozzle's user may read it: annotations may be anything.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Reads the file, as far as it can be read; `None` when there is none, or of another form.
pub(super) fn load(folder: &Path) -> io::Result<Option<Snapshot>> {
    let text = match fs::read_to_string(folder.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    let head = lines
        .next()
        .and_then(|head| serde_json::from_str::<Head>(head).ok());
    let Some(Head {
        version: VERSION,
        answered,
    }) = head
    else {
        return Ok(None);
    };
    let app = |line: &str| {
        let line: Line<'_> = serde_json::from_str(line).ok()?;
        let names = Names {
            app: line.app.into_owned(),
            space_id: line.space_id.into_owned(),
            space: line.space.into_owned(),
            org_id: line.org_id.into_owned(),
            org: line.org.into_owned(),
            labels: line.labels,
            annotations: line.annotations,
        };
        Some((guid::parse(&line.id)?, names, line.confirmed))
    };
    Ok(Some(Snapshot {
        answered,
        apps: lines.filter_map(app).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_comes_back_and_damage_costs_what_it_hit() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(load(folder).unwrap().is_none());
        let names = |app: &str| Names {
            app: app.to_owned(),
            space: "a \"space\"\n".to_owned(),
            labels: vec![("k".to_owned(), "v".to_owned())],
            ..Names::default()
        };
        let apps: Vec<_> = (1..4)
            .map(|id| (id, Arc::new(names(&format!("app-{id}"))), 100 + id as u64))
            .collect();
        for _ in 0..2 {
            save(folder, 77, &apps).unwrap();
        }
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
        let loaded = load(folder).unwrap().unwrap();
        let expected: Vec<_> = apps
            .iter()
            .map(|(id, names, at)| (*id, Names::clone(names), *at))
            .collect();
        assert_eq!((loaded.answered, loaded.apps), (77, expected.clone()));

        let file = folder.join(FILE);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("app-2\"", "app-2")).unwrap();
        assert_eq!(
            load(folder).unwrap().unwrap().apps,
            [expected[0].clone(), expected[2].clone()]
        );
        fs::write(&file, &text[..text.len() - 5]).unwrap();
        assert_eq!(load(folder).unwrap().unwrap().apps, expected[..2]);
        for odd in ["", "\u{0}", "{\"version\":2,\"answered\":1}\n"] {
            fs::write(&file, odd).unwrap();
            assert!(load(folder).unwrap().is_none(), "{odd:?}");
        }
    }
}
