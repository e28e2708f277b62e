//! The master key: the file that secret records are sealed with.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use commissaire::{Error, Result};
use redb::{Database, ReadableDatabase};
use zeroize::Zeroizing;

use super::{
    file::{Problem, sync_dir},
    seal::Sealer,
    tables::SEALED,
};

const LENGTH: usize = 32;
/// The row of the sealed table that tells whether a key is the one of this store. No record has an empty model.
const CHECK: (&str, &str) = ("", "check");

/// The sealer with the key of `dir`. A new store gets a new key; a store that has one refuses any other.
pub(super) fn sealer(dir: &Path, store: &Path, database: &Database) -> Result<Sealer> {
    let path = dir.join("master.key");
    let broken = |error: redb::Error| Problem::from(error).explain(store);
    let check = read_check(database).map_err(broken)?;
    let key = match (read(&path)?, &check) {
        (Some(key), _) => key,
        (None, None) => make(dir, &path)?,
        (None, Some(_)) => {
            return Err(Error::config(format!(
                "master key {} is missing: the secrets in {} are sealed with it; restore it from a backup",
                path.display(),
                store.display()
            )));
        }
    };
    let sealer = Sealer::new(&key);
    match check {
        Some(check) if sealer.open(CHECK.0, CHECK.1, &check).is_none() => Err(Error::config(format!(
            "master key {} is not the one that the secrets in {} are sealed with: restore that one from a backup",
            path.display(),
            store.display()
        ))),
        Some(_) => Ok(sealer),
        None => {
            let check = sealer
                .seal(CHECK.0, CHECK.1, b"commissaire")
                .ok_or_else(|| Error::config("the system gives no random numbers"))?;
            write_check(database, &check).map_err(broken)?;
            Ok(sealer)
        }
    }
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
    let draft = dir.join("master.key.new");
    write_new(&draft, path, &*key)
        .and_then(|()| sync_dir(dir))
        .map_err(|e| Error::config(format!("master key {} cannot be made: {e}", path.display())))?;
    Ok(key)
}

/// Writes `draft` and gives it the name `path`, which fails when that exists.
fn write_new(draft: &Path, path: &Path, key: &[u8]) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::hard_link(draft, path)?;
    fs::remove_file(draft)
}

fn read_check(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let sealed = database.begin_read()?.open_table(SEALED)?;
    Ok(sealed.get(CHECK)?.map(|row| row.value().1.to_vec()))
}

fn write_check(database: &Database, check: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(SEALED)?.insert(CHECK, (0, check))?;
    Ok(transaction.commit()?)
}
