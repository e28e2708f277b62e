//! JSON as a layer: its members, each with its line and column.

use std::collections::BTreeMap;

use figment::value::Value;

use super::{
    Place,
    layer::{Layer, Path},
};
use crate::error::{Error, Result};

/// The sections whose members hold names that are kept as they are: of actors, of routing keys, of loggers.
const VERBATIM: [&str; 2] = ["access", "logging"];

/// Reads the text of `name`: one JSON object, hyphens in names taken as underscores. `place` makes a place of a line and
/// a column.
pub(super) fn parse(name: &str, text: &str, place: impl Fn(usize, usize) -> Place) -> Result<Layer> {
    crate::jsonrpc::check(text.as_bytes()).map_err(|e| {
        let what = e.message.trim_start_matches("parse error: ").trim_start_matches("invalid request: ");
        Error::config(format!("{name}: {what}"))
    })?;
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| Error::config(format!("{name}: line {} column {}", e.line(), e.column())))?;
    if !value.is_object() {
        return Err(Error::config(format!("{name}: line 1 column 1: must be one JSON object")));
    }
    let mut scan = Scan { text: text.as_bytes(), at: 0, line: 1, column: 1, places: BTreeMap::new() };
    scan.value(&mut Path::new());
    let members = underscored(value, &mut Path::new()).map_err(|twice| {
        let (line, column) = scan.places.get(&twice).copied().unwrap_or((1, 1));
        let (place, member) = (place(line, column), twice.join("."));
        Error::config(format!("{place}: member {member:?} is set twice: hyphens equal underscores"))
    })?;
    let odd = || Error::config(format!("{name} holds what cannot be configured"));
    let members = Value::serialize(members).ok().and_then(Value::into_dict).ok_or_else(odd)?;
    let places = scan.places.into_iter().map(|(path, (line, column))| (path, place(line, column)));
    Ok(Layer::new(name, members, places.collect()))
}

/// The name of a member of the object at `path`.
fn spelt(path: &[String], name: &str) -> String {
    let within = path.first().is_some_and(|section| VERBATIM.contains(&section.as_str()));
    if within && path.len() == 2 { name.to_owned() } else { name.replace('-', "_") }
}

/// `value` with its names as we spell them; fails with the path of a member that is there twice.
fn underscored(value: serde_json::Value, path: &mut Path) -> Result<serde_json::Value, Path> {
    use serde_json::{Map, Value};
    match value {
        Value::Object(members) => {
            let mut spelled = Map::new();
            for (name, value) in members {
                path.push(spelt(path, &name));
                let value = underscored(value, path)?;
                let name = path.last().cloned().unwrap_or_default();
                if spelled.insert(name, value).is_some() {
                    return Err(path.clone());
                }
                path.pop();
            }
            Ok(Value::Object(spelled))
        }
        Value::Array(items) => {
            let mut spelled = Vec::with_capacity(items.len());
            for (at, item) in items.into_iter().enumerate() {
                path.push(at.to_string());
                spelled.push(underscored(item, path)?);
                path.pop();
            }
            Ok(Value::Array(spelled))
        }
        other => Ok(other),
    }
}

/// Walks over text that is JSON, and notes where each member and each element begins.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
    column: usize,
    places: BTreeMap<Path, (usize, usize)>,
}

impl Scan<'_> {
    fn value(&mut self, path: &mut Path) {
        self.space();
        match self.peek() {
            Some(b'{') => self.within(b'}', |scan, _| {
                let place = (scan.line, scan.column);
                let name = scan.string();
                path.push(spelt(path, &name));
                scan.places.insert(path.clone(), place);
                scan.space();
                scan.step();
                scan.value(path);
                path.pop();
            }),
            Some(b'[') => self.within(b']', |scan, at| {
                path.push(at.to_string());
                scan.places.insert(path.clone(), (scan.line, scan.column));
                scan.value(path);
                path.pop();
            }),
            Some(b'"') => drop(self.string()),
            _ => {
                while self.peek().is_some_and(|byte| !b",]} \t\r\n".contains(&byte)) {
                    self.step();
                }
            }
        }
    }

    /// Reads what stands between brackets with commas between.
    fn within(&mut self, end: u8, mut one: impl FnMut(&mut Self, usize)) {
        self.step();
        for at in 0.. {
            self.space();
            match self.peek() {
                None => return,
                Some(byte) if byte == end => return self.step(),
                Some(b',') => self.step(),
                Some(_) => {}
            }
            self.space();
            if self.peek() != Some(end) {
                one(self, at);
            }
        }
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.step();
        while let Some(byte) = self.peek().filter(|byte| *byte != b'"') {
            self.step();
            if byte == b'\\' {
                self.step();
            }
        }
        self.step();
        serde_json::from_slice(self.text.get(start..self.at).unwrap_or_default()).unwrap_or_default()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.step();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn step(&mut self) {
        match self.peek() {
            Some(b'\n') => (self.line, self.column) = (self.line + 1, 1),
            // What goes on with a character is no column.
            Some(byte) if byte & 0xc0 != 0x80 => self.column += 1,
            _ => {}
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, path: &[&str]) -> String {
        let place = |line, column| Place::File { file: "f".into(), line, column };
        let layer = parse("f", text, place).unwrap();
        let path: Path = path.iter().map(|name| (*name).to_owned()).collect();
        layer.place(&path).unwrap().to_string()
    }

    #[test]
    fn every_member_and_element_has_its_line_and_column() {
        let text =
            "{\n  \"a-b\": [1, {\"c\\\"\": null}\n],\n\"ü\": {\"x\": \"}\", \"y\": -1.5e3},\t\"z\": true}";
        for (path, says) in [
            (&["a_b"][..], "f:2:3"),
            (&["a_b", "0"], "f:2:11"),
            (&["a_b", "1"], "f:2:14"),
            (&["a_b", "1", "c\""], "f:2:15"),
            (&["ü"], "f:4:1"),
            (&["ü", "x"], "f:4:7"),
            (&["ü", "y"], "f:4:17"),
            (&["z"], "f:4:31"),
            (&["ü", "unknown"], "f:4:1"),
        ] {
            assert_eq!(place(text, path), says, "{path:?}");
        }
    }

    #[test]
    fn the_names_of_actors_and_loggers_are_kept() {
        let text = r#"{"access": {"allow-x": {"a-b": []}}, "logging": {"handlers": {"my-file": {"backup-count": 1}}}}"#;
        assert_eq!(place(text, &["access", "allow_x", "a-b"]), "f:1:25");
        assert_eq!(place(text, &["logging", "handlers", "my-file", "backup_count"]), "f:1:75");
    }

    #[test]
    fn one_member_in_two_spellings_is_refused() {
        let text = "{\"x\": {\n \"a-b\": 1,\n \"a_b\": 2}}";
        let error = parse("f", text, |line, column| Place::File { file: "f".into(), line, column });
        let error = error.err().unwrap().to_string();
        assert!(error.contains("f:3:2") && error.contains("\"x.a_b\""), "{error}");
    }
}
