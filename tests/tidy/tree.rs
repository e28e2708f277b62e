//! Reading the tree.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A text file of the tree; its path is relative to the top.
pub(super) struct Text {
    pub(super) path: String,
    pub(super) content: String,
}

/// The top of the tree.
pub(super) fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All text files, without what is built and without git's own.
pub(super) fn texts() -> Vec<Text> {
    let mut texts = Vec::new();
    collect(&top(), &mut texts);
    assert!(texts.len() > 20, "only {} files were found: is this the whole tree?", texts.len());
    texts
}

/// The text files whose names end so.
pub(super) fn texts_of(endings: &[&str]) -> Vec<Text> {
    texts().into_iter().filter(|text| endings.iter().any(|ending| text.path.ends_with(ending))).collect()
}

/// The folders right under `path`, by name.
pub(super) fn folders(path: &str) -> Vec<String> {
    let entries =
        fs::read_dir(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}")).map(Result::unwrap);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn collect(folder: &Path, texts: &mut Vec<Text>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            collect(&path, texts);
        } else if let Ok(content) = fs::read_to_string(&path) {
            let path = path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned();
            texts.push(Text { path, content });
        }
    }
}
