//! The master key: the file that opens the secrets of the places.
//!
//! Each place has a key of its own that its secrets are sealed with, and holds it wrapped by the master key. So a new
//! master key changes one row of a place, at once for all secrets, and none for services that are at work.
//!
//! A rotation makes the new key in a file beside, wraps the keys of all places with it, and then gives it its name.
//! Whatever ends it in between, each place opens with one of the two files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use commissaire::{Error, Result};
use zeroize::Zeroizing;

use super::seal::Sealer;

const LENGTH: usize = 32;
const NAME: &str = "master.key";
/// The master key that is to be, while a rotation is under way.
const NEXT: &str = "master.key.next";
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

/// The sealer of `place`, which holds `wrapped`: the key that its secrets are sealed with, wrapped by the master key in
/// `dir`. A place that holds none yet gets a new one, which it is to keep, and the folder a master key if it has none. A
/// place that has one refuses any other master key.
pub(super) fn sealer(dir: &Path, place: &str, wrapped: Option<&[u8]>) -> Result<Sealer> {
    make_dir(dir)?;
    let path = dir.join(NAME);
    let shown = path.display();
    let current = read(&path)?;
    let Some(wrapped) = wrapped else {
        let master = match current {
            Some(master) => master,
            None => make(dir, &path)?,
        };
        return Sealer::new(dir, new_key()?, &master);
    };
    if let Some(sealer) = current.as_ref().and_then(|master| Sealer::unwrap(dir, wrapped, master)) {
        return Ok(sealer);
    }
    // A rotation ended before the new key had its name.
    let next = read(&dir.join(NEXT))?;
    if let Some(sealer) = next.and_then(|master| Sealer::unwrap(dir, wrapped, &master)) {
        tracing::warn!(
            "the rotation of master key {shown} was not finished: say `commissaire storage rotate-key` again"
        );
        return Ok(sealer);
    }
    Err(Error::config(match current {
        None => format!(
            "master key {shown} is missing: the secrets in {place} are sealed with it; restore it from a backup, or copy it from another machine that uses them"
        ),
        Some(_) => format!(
            "master key {shown} is not the one that the secrets in {place} are sealed with: restore that one from a backup; if it was rotated on another machine, copy it from there"
        ),
    }))
}

/// The key that takes the place of the master key in `dir`, at [`finish_rotation`]: made, if it is not there yet.
pub(super) fn next(dir: &Path) -> Result<Zeroizing<[u8; LENGTH]>> {
    let path = dir.join(NEXT);
    match read(&path)? {
        Some(key) => Ok(key),
        None => make(dir, &path),
    }
}

/// Gives the [`next`] key of `dir` its name.
pub(crate) fn finish_rotation(dir: &Path) -> Result<()> {
    let renamed = fs::rename(dir.join(NEXT), dir.join(NAME));
    renamed.and_then(|()| File::open(dir)?.sync_all()).map_err(|e| {
        let path = dir.join(NEXT);
        Error::config(format!("master key {} cannot be renamed to {NAME}: {e}", path.display()))
    })
}

fn new_key() -> Result<Zeroizing<[u8; LENGTH]>> {
    let mut key = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *key)
        .map_err(|e| Error::config(format!("the system gives no random numbers: {e}")))?;
    Ok(key)
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
    let key = new_key()?;
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
