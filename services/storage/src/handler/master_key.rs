//! The master key: the file that secret records are sealed with.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use commissaire::{Error, Result};
use commissaire_api::sealed::SealKey;
use zeroize::Zeroizing;

use super::seal::Sealer;

const LENGTH: usize = 32;
/// How the names of keys begin that are not whole yet.
const DRAFT: &str = "master.key.new";
/// Makes the directory, for its owner only.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::config(format!("directory {} cannot be made: {e}: see data_dir", dir.display())))
}

/// What is sealed to tell whether a key is the one of a place, and for which record. No record has an empty model.
const CHECK: &[u8] = b"commissaire";
const OF: (&str, &str) = ("", "check");

/// The sealer with the key of `dir` for the secrets in `place`, which holds `check`; and what it is to hold, if that is
/// `None`. A new place takes any key, and gets a new one where there is none; one that has a key refuses any other.
pub(super) fn sealer(dir: &Path, place: &str, check: Option<&[u8]>) -> Result<(Sealer, Option<Vec<u8>>)> {
    make_dir(dir)?;
    let path = dir.join("master.key");
    let shown = path.display();
    let key = match (read(&path)?, check) {
        (Some(key), _) => key,
        (None, None) => make(dir, &path)?,
        (None, Some(_)) => {
            return Err(Error::config(format!(
                "master key {shown} is missing: the secrets in {place} are sealed with it; restore it from a backup, or copy it from another machine that uses them"
            )));
        }
    };
    let sealer = Sealer::new(&key);
    match check {
        Some(check) if sealer.open(OF.0, OF.1, check).is_none() => Err(Error::config(format!(
            "master key {shown} is not the one that the secrets in {place} are sealed with: restore that one from a backup"
        ))),
        Some(_) => Ok((sealer, None)),
        None => {
            let check = sealer.seal(OF.0, OF.1, CHECK);
            let check = check.ok_or_else(|| Error::config("the system gives no random numbers"))?;
            Ok((sealer, Some(check)))
        }
    }
}

/// The secret of the services that have this key: what is sealed to them on the bus is opened with it.
pub(crate) fn service_key(dir: &Path) -> Result<SealKey> {
    make_dir(dir)?;
    let path = dir.join("master.key");
    let key = match read(&path)? {
        Some(key) => key,
        None => make(dir, &path)?,
    };
    Ok(SealKey::of(&*key))
}

/// The key in the file; `None` if there is no file. Refused when others could read it.
fn read(path: &Path) -> Result<Option<Zeroizing<[u8; LENGTH]>>> {
    let shown = path.display();
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::config(format!("master key {shown} cannot be read: {error}"))),
    };
    let about =
        file.metadata().map_err(|e| Error::config(format!("master key {shown} cannot be read: {e}")))?;
    let mode = about.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(Error::config(format!(
            "master key {shown} has mode {mode:04o}, so that others may have read it: chmod 0600, and think of a new key"
        )));
    }
    let user = rustix::process::geteuid().as_raw();
    if about.uid() != user {
        return Err(Error::config(format!(
            "master key {shown} belongs to user {}, this service runs as {user}: chown it, or run as its owner",
            about.uid()
        )));
    }
    let mut key = Zeroizing::new([0; LENGTH]);
    if !about.is_file() || about.len() != LENGTH as u64 || file.read_exact(&mut *key).is_err() {
        return Err(Error::config(format!(
            "master key {shown} is not a file of {LENGTH} bytes: restore it from a backup"
        )));
    }
    Ok(Some(key))
}

/// A new key in a new file, never in the place of another. The file is whole when it appears.
fn make(dir: &Path, path: &Path) -> Result<Zeroizing<[u8; LENGTH]>> {
    let mut key = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *key)
        .map_err(|e| Error::config(format!("the system gives no random numbers: {e}")))?;
    let draft = dir.join(format!("{DRAFT}{}", std::process::id()));
    let failed = |e| Error::config(format!("master key {} cannot be made: {e}", path.display()));
    let made = write_new(&draft, path, &*key).and_then(|()| fs::File::open(dir)?.sync_all());
    // Once there is a key no draft is of use, whoever made it.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if path.exists() && entry.file_name().to_string_lossy().starts_with(DRAFT) {
            let _ = fs::remove_file(entry.path());
        }
    }
    match made {
        Ok(()) => Ok(key),
        // Another service has made it at the same moment.
        Err(error) if path.exists() => read(path)?.ok_or_else(|| failed(error)),
        Err(error) => Err(failed(error)),
    }
}

/// Writes `draft` and gives it the name `path`, which fails when that exists.
fn write_new(draft: &Path, path: &Path, key: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::hard_link(draft, path)
}
