//! Configuration files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{Place, json, layer::Layer};
use crate::error::{Error, Result};

/// Which file to read.
#[derive(Debug, Clone)]
pub enum ConfigFile {
    /// Read if it is there.
    Default(PathBuf),
    /// Must be there; `-` is standard input.
    Named(PathBuf),
}

impl ConfigFile {
    /// The file of the service `name`: the one that was named, else `/etc/commissaire/NAME.conf`.
    pub fn of(name: &str, named: Option<PathBuf>) -> Self {
        match named {
            Some(path) => Self::Named(path),
            None => Self::Default(PathBuf::from(format!("/etc/commissaire/{name}.conf"))),
        }
    }

    pub(super) fn read(&self) -> Result<Option<Layer>> {
        let (path, must) = match self {
            Self::Default(path) => (path, false),
            Self::Named(path) => (path, true),
        };
        let standard_input = path == Path::new("-");
        let file = if standard_input { "standard input".to_owned() } else { path.display().to_string() };
        let text = if standard_input { read_standard_input() } else { fs::read_to_string(path) };
        match text {
            Ok(text) => parse(&file, &text).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must => Ok(None),
            Err(e) => Err(Error::config(format!("cannot read configuration file {file}: {e}")).because(e)),
        }
    }
}

/// All of it; from the second time on, what it was.
fn read_standard_input() -> io::Result<String> {
    static READ: OnceLock<String> = OnceLock::new();
    if let Some(text) = READ.get() {
        return Ok(text.clone());
    }
    let text = io::read_to_string(io::stdin())?;
    Ok(READ.get_or_init(|| text).clone())
}

/// What a file of this text sets: one JSON object, hyphens in names taken as underscores, but for the names of actors, of
/// routing keys and of loggers.
pub(super) fn parse(file: &str, text: &str) -> Result<Layer> {
    let place = |line, column| Place::File { file: file.to_owned(), line, column };
    json::parse(&format!("configuration file {file}"), text, place)
}
