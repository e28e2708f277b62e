//! What a program measures of itself, and what the kernel measures of it.

use std::{collections::BTreeMap, fs};

use commissaire::testkit::{Failure, Outcome};

use crate::http::get;

/// The metrics of a program: values by name and labels, as they are written.
#[derive(Debug)]
pub struct Measures(BTreeMap<String, f64>);

impl Measures {
    /// Those of the program whose admin address is `place`.
    pub async fn of(place: &str) -> Outcome<Self> {
        let answer = get(place, "/metrics").await?;
        if answer.status != 200 {
            return Err(Failure::new(format!("/metrics of {place}: {answer:?}")));
        }
        Self::read(&answer.body)
    }

    /// Reads the text format: comments, then `NAME{LABEL="VALUE",…} NUMBER`, each name and labels once, `# EOF` at the end.
    pub fn read(text: &str) -> Outcome<Self> {
        let odd = |line: &str| Failure::new(format!("{line:?} is no line of metrics"));
        if !text.ends_with("# EOF\n") {
            return Err(Failure::new("the metrics have no end"));
        }
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').ok_or_else(|| odd(line))?;
            let value: f64 = value.parse().map_err(|_| odd(line))?;
            if !name.starts_with("commissaire_") || name.contains('{') != name.ends_with('}') {
                return Err(odd(line));
            }
            if values.insert(name.to_owned(), value).is_some() {
                return Err(Failure::new(format!("{name:?} stands twice in the metrics")));
            }
        }
        Ok(Self(values))
    }

    /// The sum of all whose name is `commissaire_NAME` and whose labels hold each of `labels`; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("commissaire_{name}");
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let fits = |key: &str| {
            let (own, labels) = key.split_once('{').unwrap_or((key, ""));
            own == name && wanted.iter().all(|label| labels.contains(label))
        };
        self.0.iter().filter(|(key, _)| fits(key)).map(|(_, value)| value).sum()
    }
}

/// How much memory of the process is in RAM, in KiB, pages of its program's file apart: a debug build has many times those
/// of a release.
pub fn resident_kib(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Failure::new(format!("no RssAnon of process {pid}")))
}
