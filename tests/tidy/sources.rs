//! Rules on the text of sources.

use std::{collections::BTreeSet, fs};

use super::tree::{texts, texts_of, top};

/// The end of a file.
const MOST_LINES: usize = 400;

#[test]
fn no_source_file_is_longer_than_it_may_be() {
    let long: Vec<String> = texts_of(&[".rs", ".lua"])
        .iter()
        .map(|text| (text.content.lines().count(), &text.path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{MOST_LINES} lines are the end: {long:?}");
}

#[test]
fn every_rust_file_says_first_what_it_is() {
    let silent = texts_of(&[".rs"]).into_iter().filter(|text| !text.content.starts_with("//! "));
    let silent: Vec<String> = silent.map(|text| text.path).collect();
    assert!(silent.is_empty(), "no `//!` line at the top: {silent:?}");
}

#[test]
fn the_top_level_holds_only_what_belongs_there() {
    let allowed: BTreeSet<&str> = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "transports",
        "services",
        "etc",
        "tests",
        "integration",
        "README.md",
        "LICENSE",
        "target",
    ]
    .into();
    let strange: Vec<String> = fs::read_dir(top())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&**name))
        .collect();
    assert!(strange.is_empty(), "does not belong at the top: {strange:?}");
    for name in ["Cargo.lock", "README.md", "LICENSE"] {
        assert!(top().join(name).is_file(), "{name} is missing");
    }
}

#[test]
fn no_path_of_a_developers_machine_is_in_the_tree() {
    let roots = ["home", "root", "work", "Users"].map(|name| format!("/{name}/"));
    let mut found = Vec::new();
    for text in texts() {
        for (number, line) in text.content.lines().enumerate() {
            // The same within a longer path, as in a URL, is not the root of one.
            let begins = |root: &String| {
                line.match_indices(&**root).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && !"}._-~".contains(c))
                })
            };
            if roots.iter().any(begins) {
                found.push(format!("{}:{}: {}", text.path, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn features_are_asked_for_in_the_table_and_at_the_testkit_and_etcd_only() {
    let mut found = Vec::new();
    for text in texts_of(&[".rs"]).iter().filter(|text| text.path != "transports/lib.rs") {
        for line in text.content.lines() {
            let asks = line.contains("cfg") && line.contains(concat!("feature", " ="));
            let gate =
                text.path == "src/lib.rs" && line.trim() == concat!("#[cfg(feature", " = \"testkit\")]");
            let etcd = text.path == "src/config/mod.rs" && line.contains(concat!("feature", " = \"etcd\""));
            if asks && !gate && !etcd {
                found.push(format!("{}: {}", text.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_channel_is_bounded() {
    let unbounded =
        [concat!("unbounded", "_channel"), concat!("mpsc::", "unbounded"), concat!("flume::", "unbounded")];
    for text in texts_of(&[".rs"]) {
        let found = unbounded.iter().find(|name| text.content.contains(**name));
        assert!(found.is_none(), "{} uses {found:?}", text.path);
    }
}

#[test]
fn nothing_unsafe_and_no_lint_of_it_is_lifted() {
    let words = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
        concat!("allow(unsafe", "_code)"),
    ];
    for text in texts_of(&[".rs"]) {
        let found = words.iter().find(|word| text.content.contains(**word));
        assert!(found.is_none(), "{} has {found:?}", text.path);
    }
}
