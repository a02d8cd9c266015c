//! Links between the pages of this repository lead somewhere.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::path::{Path, PathBuf};

fn pages(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The targets of `[text](target)` that are files of this repository, without their `#fragment`.
fn file_links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .filter_map(|target| target.split('#').next())
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = Vec::new();
    pages(&root, &mut all);
    let mut checked = 0;
    for page in &all {
        let text = std::fs::read_to_string(page).unwrap();
        for target in file_links(&text) {
            checked += 1;
            let path = page.parent().unwrap().join(target);
            assert!(path.exists(), "{}: no such file: {target}", page.display());
        }
    }
    assert!(
        checked > 20,
        "only {checked} links found in {} pages",
        all.len()
    );
}
