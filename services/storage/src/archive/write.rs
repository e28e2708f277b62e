//! Writing an archive.

use std::io::Write;

use commissaire::{Error, Result};
use commissaire_api::{
    model::Kept,
    sealed::{PublicSealKey, Purpose},
    storage::Data,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    End, Entry, FORMAT, Head, Progress,
    walk::{Item, Walk, without_secrets},
};
use crate::routes::Routes;

/// Writes all records of `routes` to `out`: as they were at one moment, for each place. With `seal_to` secrets as well,
/// sealed to that key. How many lines of records it has.
pub async fn export(
    routes: &Routes,
    mut out: impl Write,
    seal_to: Option<&PublicSealKey>,
    progress: &mut Progress<'_>,
) -> Result<u64> {
    let head = Head {
        commissaire_archive: FORMAT,
        at: commissaire::time::timestamp(),
        places: routes.id().to_string(),
        secrets: seal_to.is_some(),
    };
    line(&mut out, &head)?;
    let mut count = 0;
    for mut walk in Walk::all(routes, seal_to.is_some()) {
        while let Some(items) = walk.next().await? {
            for item in items {
                line(&mut out, &entry(item, seal_to)?)?;
                count += 1;
            }
            progress(count);
        }
    }
    line(&mut out, &End { end: count })?;
    out.flush().map_err(|e| cannot(&e))?;
    Ok(count)
}

fn entry(item: Item, seal_to: Option<&PublicSealKey>) -> Result<Entry> {
    let Item { model, key, json } = item;
    let mut entry =
        Entry { model: model.name.to_owned(), key, record: None, sealed: None, deleted: json.is_none() };
    let Some(json) = json else { return Ok(entry) };
    let odd = || Error::malformed(format!("{} {:?} cannot be written as JSON", model.name, entry.key));
    let safe = without_secrets(model, &json);
    if model.kept == Kept::Sealed || safe.is_some() {
        let sealed = seal_to.and_then(|key| key.seal(Purpose::Archive, model, &json));
        entry.sealed = Some(sealed.ok_or_else(|| Error::config("the key to seal secrets to is none"))?);
    }
    if model.kept != Kept::Sealed {
        let text = str::from_utf8(safe.as_ref().unwrap_or(&json)).map_err(|_| odd())?.to_owned();
        entry.record = Some(Data(RawValue::from_string(text).map_err(|_| odd())?));
    }
    Ok(entry)
}

fn line(out: &mut impl Write, what: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec(what).map_err(|e| Error::malformed("an archive's line").because(e))?;
    text.push(b'\n');
    out.write_all(&text).map_err(|e| cannot(&e))
}

fn cannot(error: &std::io::Error) -> Error {
    Error::unavailable(format!("the archive cannot be written: {error}"))
}
