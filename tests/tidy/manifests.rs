//! Who may import whom, read from all manifests.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::tree::{Text, texts_of, top};

/// Which clients of brokers there are, and the only folders whose crates may name them.
const BROKERS: &[(&str, &[&str])] = &[
    ("redis", &["transports/redis", "transports/redis/link", "transports/kombu"]),
    ("fred", &[]),
    ("lapin", &["transports/amqp"]),
    ("amqprs", &[]),
    ("async-nats", &["transports/nats"]),
    ("nats", &[]),
    ("rdkafka", &[]),
];

struct Crate {
    /// Its folder, `""` for the framework.
    folder: String,
    name: String,
    /// What it needs to be used, and what it needs for its tests.
    normal: BTreeSet<String>,
    tests: BTreeSet<String>,
}

impl Crate {
    /// What it needs of our own crates.
    fn ours(&self) -> BTreeSet<&str> {
        self.normal.iter().map(String::as_str).filter(|name| name.starts_with("commissaire")).collect()
    }

    fn clients(&self) -> BTreeSet<&str> {
        let clients = BROKERS.iter().map(|(client, _)| *client);
        clients.filter(|client| self.normal.contains(*client) || self.tests.contains(*client)).collect()
    }
}

/// The manifests of the workspace: all but those of crates that stand alone for their tools.
fn manifests() -> Vec<Text> {
    let all = texts_of(&["Cargo.toml"]);
    let alone = ["integration/fuzz/Cargo.toml", "integration/loom/Cargo.toml"];
    all.into_iter().filter(|text| !alone.contains(&&*text.path)).collect()
}

fn crates() -> Vec<Crate> {
    let manifests = manifests().into_iter();
    let crates: Vec<Crate> = manifests
        .map(|text| {
            let table: Table = text.content.parse().unwrap_or_else(|e| panic!("{}: {e}", text.path));
            let name = table["package"]["name"].as_str().unwrap().to_owned();
            let folder = text.path.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned();
            let of = |kinds: &[&str]| {
                let mut names = BTreeSet::new();
                let targets = table.get("target").and_then(Value::as_table).into_iter().flatten();
                let tables = targets.filter_map(|(_, target)| target.as_table()).chain([&table]);
                for dependencies in tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)))
                {
                    names.extend(dependencies.as_table().unwrap().iter().map(|(name, value)| {
                        value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()
                    }));
                }
                names
            };
            let normal = of(&["dependencies", "build-dependencies"]);
            Crate { folder, name, normal, tests: of(&["dev-dependencies"]) }
        })
        .collect();
    for folder in ["", "transports", "transports/memory", "services/api", "services/cli", "integration"] {
        assert!(
            crates.iter().any(|found| found.folder == folder),
            "no crate in {folder:?}: is this the whole tree?"
        );
    }
    crates
}

#[test]
fn each_crate_imports_only_what_its_place_allows() {
    for found in crates() {
        let ours = found.ours();
        let allowed = |name: &str| match found.folder.as_str() {
            "" => false,
            "transports" => name == "commissaire" || is_in(name, "transports"),
            "services/cli" | "integration" => true,
            "services/api" => name == "commissaire",
            // What both transports over Redis need to reach their server.
            "transports/redis" | "transports/kombu" => {
                ["commissaire", "commissaire-redis-link"].contains(&name)
            }
            folder if folder.starts_with("transports/") => name == "commissaire",
            // The SSH crate is shared by services as `api` is.
            folder if folder.starts_with("services/") => {
                ["commissaire", "commissaire-api", "commissaire-ssh", "commissaire-transports"]
                    .contains(&name)
            }
            other => panic!("{other}: no rule says what a crate here may import"),
        };
        let wrong: Vec<_> = ours.into_iter().filter(|name| !allowed(name)).collect();
        assert!(wrong.is_empty(), "{} ({}) imports {wrong:?}", found.name, found.folder);
    }
}

fn is_in(name: &str, folder: &str) -> bool {
    let last = name.strip_prefix("commissaire-").unwrap_or(name);
    top().join(folder).join(last).join("Cargo.toml").exists()
}

#[test]
fn a_broker_client_stands_in_its_transport_only() {
    for found in crates() {
        let clients = found.clients();
        assert!(
            clients.len() <= 1,
            "{} ({}) has more than one broker client: {clients:?}",
            found.name,
            found.folder
        );
        for (client, folders) in BROKERS.iter().filter(|(client, _)| clients.contains(client)) {
            assert!(folders.contains(&&*found.folder), "{} ({}) imports {client}", found.name, found.folder);
        }
    }
    let users = |client| crates().into_iter().filter(move |found| found.clients().contains(client)).count();
    assert_eq!(users("redis"), 3);
}

#[test]
fn only_the_main_of_a_service_sees_the_table_of_transports() {
    let table = concat!("commissaire", "_transports");
    for text in texts_of(&[".rs"]).iter().filter(|text| text.path.starts_with("services/")) {
        let main = text.path.ends_with("src/main.rs");
        let free = main || text.path.starts_with("services/cli/") || text.path.contains("/tests/");
        assert!(free || !text.content.contains(table), "{} names the table of transports", text.path);
    }
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    for text in manifests() {
        let table: Table = text.content.parse().unwrap();
        let lints = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        assert_eq!(lints, Some(true), "{}: [lints] workspace = true is missing", text.path);
        for key in ["version", "edition", "license", "rust-version"] {
            let value = table["package"].get(key).and_then(|value| value.get("workspace"));
            assert_eq!(
                value.and_then(Value::as_bool),
                Some(true),
                "{}: {key}.workspace = true is missing",
                text.path
            );
        }
    }
}

#[test]
fn cargo_finds_from_the_root_each_program_that_the_readme_runs() {
    let read = |path: &str| texts_of(&[path]).into_iter().find(|text| text.path == path).unwrap().content;
    let root: Table = read("Cargo.toml").parse().unwrap();
    let members: BTreeSet<&str> =
        root["workspace"]["default-members"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let readme = read("README.md");
    let runs = readme.lines().filter(|line| line.starts_with("cargo run") && line.contains("--bin"));
    let mut run = 0;
    for line in runs {
        let bin = line.split_once("--bin ").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap();
        let named = |text: &Text| text.content.contains(&format!("[[bin]]\nname = \"{bin}\""));
        let found = manifests().into_iter().find(named).unwrap_or_else(|| panic!("no program {bin}"));
        assert!(members.contains(found.path.trim_end_matches("/Cargo.toml")), "{line}");
        run += 1;
    }
    assert!(run > 0, "the README runs nothing");
}
