//! Prints the tables of `integration/RESILIENCE.md` from the reports of campaigns.
//!
//!     cargo run -p commissaire-integration --bin resilience -- FOLDER
//!
//! FOLDER is the one that COMMISSAIRE_REPORTS named when they ran. The exit code is 1 where a report is not well, or
//! there is none.

use std::{collections::BTreeMap, fs, io, path::Path, process::ExitCode};

use serde_json::Value;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: resilience FOLDER (the one that COMMISSAIRE_REPORTS named)");
        return ExitCode::from(64);
    };
    match read(Path::new(&folder)) {
        Ok(reports) if reports.is_empty() => {
            eprintln!("no report in {}: run campaigns with COMMISSAIRE_REPORTS set to it", folder.display());
            ExitCode::FAILURE
        }
        Ok(reports) => {
            print!("{}\n{}", counts(&reports), times(&reports));
            if reports.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("reading the reports in {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// The reports, those of one plan together.
fn read(folder: &Path) -> io::Result<Vec<Value>> {
    let mut reports = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.ends_with("-history.json") {
            reports.push(serde_json::from_slice::<Value>(&fs::read(&path)?)?);
        }
    }
    reports.sort_by_key(|report| (faults(report), report["bus"].to_string()));
    Ok(reports)
}

fn is_well(report: &Value) -> bool {
    report["failure"].is_null()
        && report["found"]["breaches"].as_object().is_some_and(serde_json::Map::is_empty)
}

/// What each campaign came to, a line each.
fn counts(reports: &[Value]) -> String {
    let mut text = "| done | broker | acknowledged | lost | unexpected | twice (allowed) | in doubt, of these delivered | calls: answered, failed | end |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for report in reports {
        let found = &report["found"];
        let breach = |name: &str| found["breaches"][name]["count"].as_u64().unwrap_or(0);
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} ({}) | {}, {} | {}, {} | {} |\n",
            faults(report),
            broker(report),
            thousands(&found["published"]),
            breach("lost"),
            breach("unexpected"),
            thousands(&found["duplicates"]),
            thousands(&found["explained"]),
            thousands(&found["unknown"]),
            thousands(&found["recovered"]),
            thousands(&found["answered"]),
            found["failed"].as_u64().unwrap_or(0) + found["doubtful"].as_u64().unwrap_or(0),
            if is_well(report) { "well" } else { "NOT WELL" },
        ));
    }
    text
}

/// How soon faults were noticed, and how soon everything went on after them.
fn times(reports: &[Value]) -> String {
    let mut met: BTreeMap<(String, String), Vec<(Option<u64>, u64)>> = BTreeMap::new();
    for report in reports {
        for struck in report["struck"].as_array().into_iter().flatten() {
            let back = ["published", "delivered", "answered", "connected"];
            let back = back.iter().filter_map(|time| struck[time].as_u64()).max().unwrap_or(0);
            let bus = report["bus"].as_str().unwrap_or_default().to_owned();
            let times = met.entry((fault(&struck["blow"]), bus)).or_default();
            times.push((struck["noticed"].as_u64(), back));
        }
    }
    let mut text =
        "| fault | bus | times | noticed after, at most | everything went on after, median | at most |\n\
                    |---|---|---|---|---|---|\n"
            .to_owned();
    for ((fault, bus), mut times) in met {
        times.sort_by_key(|(_, back)| *back);
        let noticed = times.iter().filter_map(|(noticed, _)| *noticed).max();
        let (median, most) = (times[times.len() / 2].1, times[times.len() - 1].1);
        let noticed = noticed.map_or("-".to_owned(), seconds);
        text.push_str(&format!(
            "| {fault} | {bus} | {} | {noticed} | {} | {} |\n",
            times.len(),
            seconds(median),
            seconds(most),
        ));
    }
    text
}

/// What was done in a campaign: `10 × kill -9`.
fn faults(report: &Value) -> String {
    let mut done: Vec<(String, usize)> = Vec::new();
    for blow in report["plan"]["blows"].as_array().into_iter().flatten() {
        let fault = fault(blow);
        match done.last_mut() {
            Some((last, times)) if *last == fault => *times += 1,
            _ => done.push((fault, 1)),
        }
    }
    let said =
        |(fault, times): (String, usize)| if times == 1 { fault } else { format!("{times} × {fault}") };
    let done: Vec<String> = done.into_iter().map(said).collect();
    let over = report["plan"]["publishers"].as_u64().unwrap_or(0);
    format!("{} under {over} publishers and {} workers", done.join(", "), report["plan"]["workers"])
}

fn fault(blow: &Value) -> String {
    if blow == "kill" {
        return "kill -9 of the broker".to_owned();
    }
    let Some((name, what)) = blow.as_object().and_then(|blow| blow.iter().next()) else {
        return blow.to_string();
    };
    match name.as_str() {
        "stop" => format!("SIGSTOP of the broker for {what} s"),
        "blackhole" => format!("blackhole for {what} s"),
        "half_open" if what[0] == "out" => format!("nothing comes from the broker for {} s", what[1]),
        "half_open" => format!("nothing reaches the broker for {} s", what[1]),
        "cut" if what == "reset" => "all connections are cut (RST)".to_owned(),
        "cut" => "all connections are cut (FIN)".to_owned(),
        "sever" => format!("{what} cuts in the middle of frames"),
        "flip" => format!("{what} bits turned over"),
        "bad" => format!("{} for {} s", traffic(&what[0]), what[1]),
        _ => blow.to_string(),
    }
}

fn traffic(traffic: &Value) -> String {
    let delay = traffic["delay"]["nanos"].as_u64().unwrap_or(0) / 1_000_000;
    let mut said = Vec::new();
    if delay > 0 {
        said.push(format!("all comes {delay} ms later"));
    }
    if let Some(rate) = traffic["rate"].as_u64() {
        said.push(format!("{rate} bytes a second"));
    }
    if let Some(slice) = traffic["slice"].as_u64() {
        said.push(format!("slices of {slice} bytes"));
    }
    said.join(", ")
}

fn broker(report: &Value) -> String {
    let name = report["broker"].as_str().unwrap_or_default();
    name.split(" (").next().unwrap_or_default().split(" at ").next().unwrap_or_default().to_owned()
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1_000, millis % 1_000 / 100)
}

fn thousands(number: &Value) -> String {
    let digits = number.as_u64().unwrap_or(0).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
