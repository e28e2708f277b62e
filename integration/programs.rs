//! The programs of this build, beside the tests that start them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use commissaire::testkit::{Failure, Outcome};

/// The command that makes them.
const BUILD: &str = "cargo build --workspace --all-features --bins";

/// The program `name`. Fails when it is not there, or when it was not built from the sources as they are.
pub(crate) fn find(name: &str) -> Outcome<PathBuf> {
    let tests = std::env::current_exe()?;
    // target/PROFILE/deps/integration-HASH
    let folder = tests.parent().and_then(Path::parent);
    let program = folder.map(|folder| folder.join(name)).filter(|program| program.is_file());
    let Some(program) = program else {
        return Err(Failure::new(format!("the program {name} is not built: run `{BUILD}` first")));
    };
    match newer_source(&program)? {
        None => Ok(program),
        Some(source) => Err(Failure::new(format!(
            "the program {name} is older than {}: run `{BUILD}` first",
            source.display()
        ))),
    }
}

/// A source that was changed after `program` was built and before these tests began. Cargo writes which they are beside
/// the program: `PROGRAM: SOURCE SOURCE …`, with spaces escaped.
fn newer_source(program: &Path) -> Outcome<Option<PathBuf>> {
    let built = fs::metadata(program)?.modified()?;
    let list = fs::read_to_string(program.with_extension("d"))?;
    let sources = list.split_once(": ").map(|(_, sources)| sources).unwrap_or_default();
    let sources = sources.trim().replace("\\ ", "\0");
    let began = fs::metadata("/proc/self")?.modified()?;
    let is_newer = |source: &PathBuf| {
        let changed = fs::metadata(source).and_then(|meta| meta.modified());
        changed.is_ok_and(|changed: SystemTime| changed > built && changed <= began)
    };
    Ok(sources.split(' ').map(|source| PathBuf::from(source.replace('\0', " "))).find(is_newer))
}
