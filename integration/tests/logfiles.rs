//! Files of the log that are turned over, and moved away.

use std::{fs, time::Duration};

use commissaire::logging::{Level, Logging, LoggingSection};
use commissaire_integration::{Failure, Outcome, ensure};
use serde_json::json;
use tempfile::TempDir;
use tracing_subscriber::layer::SubscriberExt;

use crate::logging::files;

#[test]
fn a_file_is_turned_over_when_its_time_has_come() -> Outcome {
    let dir = TempDir::new()?;
    let path = dir.path().join("timed.log");
    let section = json!({
        "handlers": {"file": {
            "class": "logging.handlers.TimedRotatingFileHandler", "filename": path, "when": "S", "backupCount": 2, "utc": true
        }},
        "root": {"handlers": ["file"]}
    });
    // Not what this handler made: they stay.
    for other in ["timed.log.old", "timed.log.2026-11-22", "other.log.2026-11-22_10-00-00"] {
        fs::write(dir.path().join(other), "")?;
    }
    let section: LoggingSection = serde_json::from_value(section).map_err(std::io::Error::from)?;
    let logging =
        Logging::new(&section, Level::INFO, Level::ALL).map_err(|e| Failure::new(format!("{e:?}")))?;
    let begin = std::time::SystemTime::now();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(logging), || {
        for n in 0..5 {
            tracing::info!("line {n}");
            std::thread::sleep(Duration::from_millis(1050));
        }
    });
    let all = files(dir.path(), false)?;
    let timed: Vec<(&String, &String)> =
        all.iter().filter(|(name, _)| name.starts_with("timed.log.2") && name.len() == 29).collect();
    ensure!(timed.len() == 2 && all.len() == 6, "{all:?}");
    ensure!(
        timed[0].1 == "line 2\n" && timed[1].1 == "line 3\n" && all["timed.log"] == "line 4\n",
        "{all:?}"
    );
    // Each has the time at which it began.
    for (number, (name, _)) in timed.into_iter().enumerate() {
        let seconds =
            begin.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs() + 2 + number as u64;
        let near = (0..3).any(|more| name.ends_with(&format!("-{:02}", (seconds + more - 1) % 60)));
        ensure!(near, "{name} is of another time than {seconds}");
    }
    Ok(())
}

#[test]
fn what_somebody_moved_away_is_no_reason_to_lose_a_line() -> Outcome {
    for (class, more) in [
        ("logging.handlers.RotatingFileHandler", json!({"maxBytes": 40, "backupCount": 3})),
        ("logging.handlers.TimedRotatingFileHandler", json!({"when": "S", "backupCount": 3})),
    ] {
        let dir = TempDir::new()?;
        let path = dir.path().join("some.log");
        let mut handler = json!({"class": class, "filename": path});
        for (name, value) in more.as_object().into_iter().flatten() {
            handler[name] = value.clone();
        }
        let section = json!({"handlers": {"file": handler}, "root": {"handlers": ["file"]}});
        let section: LoggingSection = serde_json::from_value(section).map_err(std::io::Error::from)?;
        let logging =
            Logging::new(&section, Level::INFO, Level::ALL).map_err(|e| Failure::new(format!("{e:?}")))?;
        let away = dir.path().join("away");
        let moved = tracing::subscriber::with_default(tracing_subscriber::registry().with(logging), || {
            let tell = |n: u32| {
                std::thread::sleep(Duration::from_millis(if class.contains("Timed") { 1050 } else { 0 }));
                tracing::info!("some line that is long: {n:05}");
            };
            (0..3).for_each(tell);
            let before = files(dir.path(), false)?;
            fs::rename(&path, &away)?;
            (3..6).for_each(tell);
            Ok::<_, Failure>(before)
        })?;
        let all = files(dir.path(), false)?;
        // What was there stays, until it is too old.
        let text: String = all.values().map(String::as_str).collect();
        ensure!((2..6).all(|n| text.contains(&format!("{n:05}"))), "{class}: {moved:?} became {all:?}");
        ensure!(fs::read_to_string(&path)?.contains("00005"), "{class}: {all:?}");
    }
    Ok(())
}
