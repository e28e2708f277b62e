//! Pages that must be true: READMEs of transports, the code map, what the conformance suite runs on.

use std::collections::BTreeSet;

use commissaire::testkit::{Need, SCENARIOS};

use super::tree::{folders, texts, texts_of, top};

fn page(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The text under the first heading that has `word`, up to the next heading.
fn section<'a>(page: &'a str, word: &str) -> Option<Vec<&'a str>> {
    let is_heading = |line: &str| line.starts_with('#');
    let mut lines = page.lines().skip_while(|line| !(is_heading(line) && line.to_lowercase().contains(word)));
    lines.next()?;
    Some(lines.take_while(|line| !is_heading(line)).collect())
}

#[test]
fn every_transport_has_a_page_of_its_promises_and_options() {
    for name in folders("transports") {
        let readme = page(&format!("transports/{name}/README.md"));
        let promises =
            section(&readme, "promise").unwrap_or_else(|| panic!("transports/{name}: no promises"));
        let rows = promises.iter().filter(|line| line.starts_with('|')).count();
        assert!(rows >= 4, "transports/{name}/README.md: the table of promises has {rows} lines");

        let options = page(&format!("transports/{name}/src/options.rs"));
        let named = names(&options);
        assert!(!named.is_empty(), "transports/{name}/src/options.rs names no scheme");
        let missing: Vec<_> = named.iter().filter(|option| !readme.contains(**option)).collect();
        assert!(missing.is_empty(), "transports/{name}/README.md does not name {missing:?}");
    }
}

/// The texts in all lists of texts, `&["a", "b"]`: schemes and options.
fn names(source: &str) -> BTreeSet<&str> {
    let lists = source.split("&[\"").skip(1).filter_map(|rest| rest.split(']').next());
    lists.flat_map(|list| list.trim_end_matches(['"', ',']).split("\", \"")).collect()
}

#[test]
fn lists_of_names_are_read_as_such() {
    let source = r#"const A: &[&str] = &["one", "two"]; x.options(&["three"])"#;
    assert_eq!(names(source), ["one", "two", "three"].into());
}

#[test]
fn every_transport_is_a_row_of_the_table_and_a_member_of_the_workspace() {
    let (table, workspace) = (page("transports/lib.rs"), page("Cargo.toml"));
    for name in folders("transports") {
        assert!(
            table.contains(&format!("commissaire_{name}::DRIVER")),
            "transports/lib.rs has no row for {name}"
        );
        assert!(
            workspace.contains(&format!("\"transports/{name}\"")),
            "the workspace has no member transports/{name}"
        );
    }
}

#[test]
fn every_scenario_runs_on_two_transports_at_least() {
    let call = concat!("conformance", "!(");
    let mut suites = Vec::new();
    for text in texts_of(&[".rs"]).iter().filter(|text| text.path.starts_with("transports/")) {
        for arguments in text.content.split(call).skip(1) {
            // `TARGET, commissaire_NAME::DRIVER.promises`, or `NAME_DRIVER` of a crate with more than one.
            let promises =
                arguments.split(");").next().and_then(|all| all.split(',').nth(1)).unwrap_or_default();
            let driver = promises.trim().strip_suffix(".promises").and_then(|path| path.rsplit_once("::"));
            let (of, row) =
                driver.unwrap_or_else(|| panic!("{}: {promises:?} is no DRIVER.promises", text.path));
            let name = match row.strip_suffix("_DRIVER") {
                Some(name) => name.to_lowercase(),
                None => of.trim_start_matches("commissaire_").to_owned(),
            };
            let found = commissaire_transports::ALL.iter().find(|driver| driver.name == name);
            let found = found.unwrap_or_else(|| panic!("{}: there is no driver {name}", text.path));
            suites.push((text.path.clone(), found.promises));
        }
    }
    for name in folders("transports") {
        let own = format!("transports/{name}/");
        assert!(suites.iter().any(|(path, _)| path.starts_with(&own)), "{own}: runs no conformance suite");
    }
    for scenario in SCENARIOS {
        let runs = |promises| scenario.needs == Need::Time || scenario.needs.missing(promises).is_none();
        let runs = suites.iter().filter(|(_, promises)| runs(promises)).count();
        assert!(runs >= 2, "{} runs on {runs} transports", scenario.name);
    }
}

#[test]
fn every_entry_of_the_code_map_exists() {
    let readme = page("README.md");
    let Some(map) = section(&readme, "code map") else { return };
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut fenced = false;
    let mut entries = Vec::new();
    for line in map {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let depth = line.len() - line.trim_start().len();
            parents.retain(|(indent, _)| *indent < depth);
            let parent = parents.last().map(|(_, path)| path.clone()).unwrap_or_default();
            // Names stand before the gap; an explanation behind it.
            let names = line.trim().split("  ").next().unwrap_or_default().split_whitespace();
            for name in names.filter(|name| name.ends_with('/') || name.contains('.')) {
                entries.push(format!("{parent}{name}"));
                parents.push((depth, format!("{parent}{name}")));
            }
        } else {
            let quoted = line.split('`').skip(1).step_by(2);
            entries
                .extend(quoted.filter(|name| name.contains('/') && !name.contains(' ')).map(str::to_owned));
        }
    }
    assert!(entries.len() >= 5, "the code map has only {entries:?}");
    let gone: Vec<_> = entries.iter().filter(|entry| !top().join(entry).exists()).collect();
    assert!(gone.is_empty(), "the code map names what does not exist: {gone:?}");
}

#[test]
fn every_program_that_a_page_starts_is_made_here() {
    let programs: BTreeSet<String> = texts_of(&["Cargo.toml"])
        .iter()
        .flat_map(|text| {
            let table: toml::Table = text.content.parse().unwrap();
            let bins = table.get("bin").and_then(|bins| bins.as_array().cloned()).unwrap_or_default();
            bins.iter().filter_map(|bin| bin["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        })
        .collect();
    for text in texts().iter().filter(|text| text.path.ends_with(".service")) {
        for line in text.content.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let program =
                line.split_whitespace().next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            assert!(programs.contains(program), "{} starts {program:?}: there is {programs:?}", text.path);
        }
    }
}

#[test]
fn every_link_within_the_tree_leads_somewhere() {
    let mut broken = Vec::new();
    for text in texts_of(&[".md"]) {
        let folder = top().join(&text.path).parent().map(std::path::Path::to_owned).unwrap_or_default();
        for target in text.content.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let within = !path.is_empty() && !path.contains(':') && !path.contains(' ');
            if within && !folder.join(path).exists() {
                broken.push(format!("{}: {target}", text.path));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:?}");
}
