//! What is kept of a campaign: its report, and its history where it was not well.

use std::{fs, path::PathBuf};

use commissaire::testkit::{History, Outcome};

use crate::Report;

/// Writes `report` into the folder that COMMISSAIRE_REPORTS names, if it names one. Where not all was well the history
/// is written beside it, or into a file of its own for temporary ones, and its path is printed.
pub(crate) fn keep(report: &Report, history: &History) -> Outcome {
    let folder = std::env::var_os("COMMISSAIRE_REPORTS").map(PathBuf::from);
    let name = format!("{}-{:016x}-{:08x}", report.bus, report.plan.seed, rand::random::<u32>());
    if let Some(folder) = &folder {
        fs::create_dir_all(folder)?;
        let text = serde_json::to_vec_pretty(report).map_err(std::io::Error::from)?;
        fs::write(folder.join(format!("{name}.json")), text)?;
    }
    if report.well() {
        return Ok(());
    }
    let path = folder.unwrap_or_else(std::env::temp_dir).join(format!("{name}-history.json"));
    fs::write(&path, serde_json::to_vec(&history.events()).map_err(std::io::Error::from)?)?;
    println!("the history is in {}", path.display());
    Ok(())
}
