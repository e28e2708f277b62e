//! Reading an archive: the whole of it, and everything that is wrong with it, before anything is done.

use std::io::BufRead;

use commissaire::{Error, Result};
use commissaire_api::{
    model::{Kept, Model},
    sealed::{Purpose, SealKey},
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{End, Entry, FORMAT, Head, Records, number};

/// How many faults are told.
const MOST: usize = 20;

/// What is in the archive `name`: of each record the last line. Without `key` secrets are left out.
pub fn read(name: &str, mut from: impl BufRead, key: Option<&SealKey>) -> Result<Records> {
    let mut records = Records::new();
    let mut faults = Vec::new();
    let (mut text, mut number_of_line, mut count, mut ended) = (String::new(), 0_u64, 0_u64, false);
    loop {
        text.clear();
        let read = from.read_line(&mut text);
        if read.map_err(|e| Error::config(format!("{name}: cannot be read: {e}")))? == 0 {
            break;
        }
        number_of_line += 1;
        let at = |what: String| format!("{name}:{number_of_line}: {what}");
        if number_of_line == 1 {
            let head: Option<Head> = serde_json::from_str(&text).ok();
            let head =
                head.ok_or_else(|| Error::config(at("this is no archive of Commissaire".to_owned())))?;
            if head.commissaire_archive != FORMAT {
                let found = head.commissaire_archive;
                return Err(Error::config(at(format!(
                    "the archive has format {found}, this program reads {FORMAT}"
                ))));
            }
            continue;
        }
        if ended {
            faults.push(at("stands behind the end".to_owned()));
            break;
        }
        if let Ok(End { end }) = serde_json::from_str(&text) {
            ended = true;
            if end != count {
                faults.push(at(format!("{count} lines of records are there, and it says {end}")));
            }
            continue;
        }
        count += 1;
        match entry(&text, key) {
            Ok(Some((place, Some(json)))) => drop(records.insert(place, json)),
            Ok(Some((place, None))) => drop(records.remove(&place)),
            Ok(None) => {}
            Err(what) => faults.push(at(what)),
        }
    }
    if !ended && faults.is_empty() {
        faults.push(format!("{name}: is not whole: it ends after line {number_of_line}; export it again"));
    }
    if faults.is_empty() {
        return Ok(records);
    }
    let more = faults.len().saturating_sub(MOST);
    faults.truncate(MOST);
    if more > 0 {
        faults.push(format!("and {more} faults more"));
    }
    Err(Error::config(faults.join("\n")))
}

type Place = (usize, String);

/// Which record, and what it is, if it is not gone; `None`: a secret that nobody opens.
fn entry(text: &str, key: Option<&SealKey>) -> Result<Option<(Place, Option<Zeroizing<Vec<u8>>>)>, String> {
    let entry: Entry = serde_json::from_str(text).map_err(|_| "is no line of an archive".to_owned())?;
    let model = Model::find(&entry.model).filter(|model| model.kept != Kept::Nowhere);
    let model = model.ok_or_else(|| format!("{:?} is no model that is stored", entry.model))?;
    let named = |what: &str| format!("{} {:?}: {what}", model.name, entry.key);
    let place = (number(model), entry.key.clone());
    let json = match (&entry.record, &entry.sealed, entry.deleted) {
        (None, None, true) => return Ok(Some((place, None))),
        (Some(record), None, false) if model.kept == Kept::Plain => {
            Zeroizing::new(record.text().as_bytes().to_vec())
        }
        // A record with the secrets that are in it; without the key it is there without them.
        (Some(record), Some(sealed), false) if model.kept == Kept::Plain && model.holds_secrets() => {
            match key {
                Some(key) => {
                    key.open(Purpose::Archive, model, sealed).map_err(|why| named(&why.to_string()))?
                }
                None => Zeroizing::new(record.text().as_bytes().to_vec()),
            }
        }
        (None, Some(sealed), false) if model.kept == Kept::Sealed => {
            let Some(key) = key else { return Ok(None) };
            key.open(Purpose::Archive, model, sealed).map_err(|why| named(&why.to_string()))?
        }
        _ => return Err(named("has to be a record, or sealed if it is a secret, or deleted")),
    };
    let given: Value = serde_json::from_slice(&json).map_err(|_| named("is not JSON"))?;
    let record = model.check(given).map_err(|faults| named(&faults.to_string()))?;
    if model.key_of(&record) != Some(entry.key.as_str()) {
        return Err(named("has another key within"));
    }
    let json = serde_json::to_vec(&record).map_err(|_| named("is not JSON"))?;
    Ok(Some((place, Some(Zeroizing::new(json)))))
}
