//! The section `logging` does what Python's `logging.config.dictConfig` does: both are given the same sections and the
//! same events, and the same lines must come to the same places. Digits count as equal where there is a time in a line.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use commissaire::logging::{Level, Logging, LoggingSection};
use commissaire_integration::{Failure, Outcome, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tracing_subscriber::layer::SubscriberExt;

/// Who tells something, in the order in which it is told.
const NAMES: [&str; 6] = ["workshop", "workshop.bench", "workshop.bench.vice", "shed", "shed.door", "garden"];

/// Tells of `$target` once at each level, and once more with a long text.
macro_rules! tell {
    ($($target:literal)*) => {$(
        tracing::debug!(target: $target, "debug of {}", $target);
        tracing::info!(target: $target, "info of {}", $target);
        tracing::warn!(target: $target, "warning of {}: 100%", $target);
        tracing::error!(target: $target, "error of {}", $target);
    )*};
}

const PYTHON: &str = r#"
import json, logging, logging.config, os, sys
for folder, section, rounds in json.load(sys.stdin):
    os.chdir(folder)
    out = open("stdout", "w"); err = open("stderr", "w")
    sys.stdout, sys.stderr = out, err
    logging.config.dictConfig(section)
    for _ in range(rounds):
        for name in NAMES:
            logger = logging.getLogger(name)
            logger.debug("debug of %s", name)
            logger.info("info of %s", name)
            logger.warning("warning of %s: 100%%", name)
            logger.error("error of %s", name)
    logging.shutdown()
    out.close(); err.close()
    logging.root.handlers.clear()
    logging.Logger.manager.loggerDict.clear()
"#;

/// In a process of its own: tells all of it once a round as the section in the file says.
#[test]
fn child() {
    let Ok(rounds) = env::var("LOGGING_ROUNDS") else { return };
    let section: LoggingSection = serde_json::from_str(&fs::read_to_string("section").unwrap()).unwrap();
    let logging = Logging::new(&section, Level::WARNING, Level::ALL).unwrap();
    println!("BEGIN");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(logging), || {
        for _ in 0..rounds.parse().unwrap() {
            tell!("workshop" "workshop.bench" "workshop.bench.vice" "shed" "shed.door" "garden");
        }
    });
    std::process::exit(0);
}

/// The files in `folder`, by their names, with digits made equal where `times` are in them.
pub(crate) fn files(folder: &Path, times: bool) -> Outcome<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let text = if times { text.replace(|c: char| c.is_ascii_digit(), "9") } else { text };
        if name != "section" {
            files.insert(name, text);
        }
    }
    Ok(files)
}

/// Has Python tell all as each of `given` says: a folder, a section, and how many times.
fn python(given: &Value) -> Outcome {
    let script = PYTHON.replace("NAMES", &format!("{NAMES:?}"));
    let mut python = Command::new("python3").args(["-c", &script]).stdin(Stdio::piped()).spawn()?;
    let mut input = python.stdin.take().ok_or_else(|| Failure::new("no input"))?;
    input.write_all(given.to_string().as_bytes())?;
    drop(input);
    ensure!(python.wait()?.success(), "Python refuses one of {given:#}");
    Ok(())
}

/// Tells all as the section in `folder` says, so many times.
fn tell_as(folder: &Path, rounds: usize) -> Outcome<Output> {
    let output = Command::new(env::current_exe()?)
        .args(["logging::child", "--exact", "--nocapture", "--test-threads=1"])
        .current_dir(folder)
        .env("LOGGING_ROUNDS", rounds.to_string())
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(output)
}

/// Gives each section to both, and compares.
fn compare(sections: &[(Value, usize)]) -> Outcome {
    let dir = TempDir::new()?;
    let mut given = Vec::new();
    for (number, (section, rounds)) in sections.iter().enumerate() {
        let (theirs, ours) =
            (dir.path().join(format!("{number}-python")), dir.path().join(format!("{number}-ours")));
        fs::create_dir(&theirs)?;
        fs::create_dir(&ours)?;
        fs::write(ours.join("section"), section.to_string())?;
        given.push(json!([theirs, section, rounds]));
    }
    python(&given.into())?;
    for (number, (section, rounds)) in sections.iter().enumerate() {
        let (theirs, ours) =
            (dir.path().join(format!("{number}-python")), dir.path().join(format!("{number}-ours")));
        let output = tell_as(&ours, *rounds)?;
        let out = String::from_utf8_lossy(&output.stdout);
        let (_, out) = out.split_once("BEGIN\n").ok_or_else(|| Failure::new("it did not begin"))?;
        fs::write(ours.join("stdout"), out)?;
        fs::write(ours.join("stderr"), &output.stderr)?;
        let times = section.to_string().contains("asctime");
        let (theirs, ours) = (files(&theirs, times)?, files(&ours, times)?);
        ensure!(theirs == ours, "{section:#}\nPython: {theirs:#?}\nours: {ours:#?}");
    }
    Ok(())
}

#[test]
fn sections_like_those_of_its_documentation_do_what_they_do_in_python() -> Outcome {
    // One logger with a handler of its own that keeps its events for itself (Logging HOWTO, "Configuring Logging").
    let alone = json!({
        "version": 1,
        "formatters": {"plain": {"format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s"}},
        "handlers": {"screen": {
            "class": "logging.StreamHandler", "level": "DEBUG", "formatter": "plain", "stream": "ext://sys.stdout"
        }},
        "loggers": {"workshop": {"level": "DEBUG", "handlers": ["screen"], "propagate": false}},
        "root": {"level": "DEBUG", "handlers": ["screen"]}
    });
    // What is bad to one stream, all to another and to a file (Logging Cookbook, "Custom handling of levels").
    let streams = json!({
        "version": 1, "disable_existing_loggers": false,
        "formatters": {"plain": {"format": "%(levelname)-8s - %(message)s"}},
        "handlers": {
            "out": {"class": "logging.StreamHandler", "level": "INFO", "formatter": "plain", "stream": "ext://sys.stdout"},
            "err": {"class": "logging.StreamHandler", "level": "ERROR", "formatter": "plain", "stream": "ext://sys.stderr"},
            "all": {"class": "logging.FileHandler", "formatter": "plain", "filename": "all.log", "mode": "w"}
        },
        "root": {"level": "DEBUG", "handlers": ["err", "out", "all"]}
    });
    // A file for all, one for a logger, one for errors (Logging Cookbook, "Logging to a single file from multiple processes").
    let files = json!({
        "version": 1,
        "formatters": {
            "detailed": {"format": "%(asctime)s %(name)-15s %(levelname)-8s %(processName)-10s %(message)s"}
        },
        "handlers": {
            "screen": {"class": "logging.StreamHandler", "level": "INFO"},
            "all": {"class": "logging.FileHandler", "filename": "all.log", "mode": "w", "formatter": "detailed"},
            "shed": {"class": "logging.FileHandler", "filename": "shed.log", "mode": "w", "formatter": "detailed"},
            "bad": {
                "class": "logging.FileHandler", "filename": "bad.log", "mode": "w", "level": "ERROR", "formatter": "detailed"
            }
        },
        "loggers": {"shed": {"handlers": ["shed"]}},
        "root": {"level": "DEBUG", "handlers": ["screen", "all", "bad"]}
    });
    // A file that is turned over by its size (logging.config, "Dictionary Schema Details").
    let turned = json!({
        "version": 1,
        "formatters": {
            "brief": {"format": "%(message)s"},
            "precise": {
                "format": "%(asctime)s %(levelname)-8s %(name)-15s %(message)s", "datefmt": "%Y-%m-%d %H:%M:%S"
            }
        },
        "handlers": {
            "screen": {
                "class": "logging.StreamHandler", "formatter": "brief", "level": "INFO", "stream": "ext://sys.stdout"
            },
            "file": {
                "class": "logging.handlers.RotatingFileHandler", "formatter": "precise", "filename": "turned.log",
                "maxBytes": 1024, "backupCount": 3
            }
        },
        "root": {"level": "DEBUG", "handlers": ["screen", "file"]}
    });
    compare(&[(alone, 1), (streams, 1), (files, 2), (turned, 7)])
}

/// A section that says anything of what there is.
fn any(random: &mut StdRng) -> Value {
    const LEVELS: [&str; 7] = ["NOTSET", "DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL"];
    const FORMATS: [&str; 6] = [
        "%(message)s",
        "%(name)s %(levelname)s: %(message)s",
        "%(levelno)d|%(levelno)5s|%(levelno)-4d|%(levelno)04d|%(message)s",
        "%(name)20s|%(name)-25s|%(name).4s|%(message)s",
        "%% %(message)s %%(name)s",
        "%(asctime)s,%(msecs)03d %(created)f %(message)s",
    ];
    let mut formatters = json!({});
    let mut handlers = json!({});
    let names = ["a", "b", "c", "d"];
    for name in names {
        let format = FORMATS[random.random_range(0..FORMATS.len())];
        formatters[name] = json!({"format": format});
        if random.random_bool(0.3) {
            formatters[name]["datefmt"] = "%d.%m.%Y %H:%M:%S".into();
        }
        let mut handler = match random.random_range(0..5) {
            0 => json!({"class": "logging.StreamHandler"}),
            1 => json!({"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}),
            2 => json!({"class": "logging.NullHandler"}),
            3 => json!({
                "class": "logging.handlers.RotatingFileHandler", "filename": format!("{name}.log"),
                // Of a size that one line alone has, Pythons turn an empty file over or do not.
                "maxBytes": if random.random_bool(0.2) { 0 } else { random.random_range(200..600) }, "backupCount": random.random_range(0..4)
            }),
            _ => json!({"class": "logging.FileHandler", "filename": format!("{name}.log")}),
        };
        if random.random_bool(0.5) {
            handler["level"] = LEVELS[random.random_range(0..LEVELS.len())].into();
        }
        if random.random_bool(0.8) {
            handler["formatter"] = names[random.random_range(0..names.len())].into();
        }
        handlers[name] = handler;
    }
    let mut logger = |level: f64| {
        let mut logger = json!({});
        if random.random_bool(level) {
            logger["level"] = LEVELS[random.random_range(0..LEVELS.len())].into();
        }
        let own: Vec<&str> = names.into_iter().filter(|_| random.random_bool(0.3)).collect();
        logger["handlers"] = own.into();
        (logger, random.random_bool(0.5), random.random_bool(0.6))
    };
    let mut loggers = json!({});
    for name in NAMES {
        let (mut one, propagate, named) = logger(0.5);
        one["propagate"] = propagate.into();
        if named {
            loggers[name] = one;
        }
    }
    let (root, ..) = logger(1.0);
    json!({
        "version": 1, "disable_existing_loggers": false,
        "formatters": formatters, "handlers": handlers, "loggers": loggers, "root": root
    })
}

/// What `take` takes while Python tells all, and while we do.
fn packets(take: impl Fn() -> Vec<Vec<u8>> + Sync, section: &Value) -> Outcome<(Vec<Vec<u8>>, Vec<Vec<u8>>)> {
    let dir = TempDir::new()?;
    // A socket holds but a few: they are taken as they come.
    let during = |tell: &dyn Fn() -> Outcome| {
        std::thread::scope(|scope| {
            let taking = scope.spawn(&take);
            tell()?;
            taking.join().map_err(|_| Failure::new("taking panicked"))
        })
    };
    let theirs = during(&|| python(&json!([[dir.path(), section, 1]])))?;
    ensure!(theirs.len() >= 4 * NAMES.len(), "Python sent only {theirs:?}");
    fs::write(dir.path().join("section"), section.to_string())?;
    let ours = during(&|| {
        let output = tell_as(dir.path(), 1)?;
        ensure!(output.stderr.is_empty(), "{output:?}");
        Ok(())
    })?;
    Ok((theirs, ours))
}

/// All that `receive` receives, from the first packet to a silence.
fn until_silent(receive: impl Fn(&mut [u8]) -> std::io::Result<usize>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    for _ in 0..20 {
        while let Ok(length) = receive(&mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        if !all.is_empty() {
            break;
        }
    }
    all
}

#[test]
fn the_systems_log_is_told_what_python_tells_it() -> Outcome {
    let section = |address: Value, more: &[(&str, &str)]| {
        let mut section = json!({
            "version": 1,
            "formatters": {"plain": {"format": "%(name)s: %(message)s"}},
            "handlers": {"log": {
                "class": "logging.handlers.SysLogHandler", "address": address, "facility": "local3", "formatter": "plain"
            }},
            "root": {"level": "DEBUG", "handlers": ["log"]}
        });
        for (name, value) in more {
            section["handlers"]["log"][*name] = (*value).into();
        }
        section
    };
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    udp.set_read_timeout(Some(Duration::from_millis(500)))?;
    let port = udp.local_addr()?.port();
    let (theirs, ours) =
        packets(|| until_silent(|buffer| udp.recv(buffer)), &section(json!(["127.0.0.1", port]), &[]))?;
    ensure!(theirs == ours, "over UDP Python sends {theirs:?}, we {ours:?}");

    let dir = TempDir::new()?;
    let path = dir.path().join("log");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (theirs, ours) = packets(|| until_silent(|buffer| socket.recv(buffer)), &section(json!(path), &[]))?;
    ensure!(theirs == ours, "over a socket Python sends {theirs:?}, we {ours:?}");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let take = || {
        let mut all = Vec::new();
        // Who never comes is not waited for.
        for _ in 0..100 {
            if let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_nonblocking(false).and_then(|()| stream.read_to_end(&mut all));
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        all.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    };
    let stream = section(json!(["127.0.0.1", port]), &[("socktype", "ext://socket.SOCK_STREAM")]);
    let (theirs, ours) = packets(take, &stream)?;
    ensure!(theirs == ours, "over TCP Python sends {theirs:?}, we {ours:?}");
    Ok(())
}

#[test]
fn any_section_does_what_it_does_in_python() -> Outcome {
    let seed: u64 =
        env::var("COMMISSAIRE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("logging: 40 sections from seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let sections: Vec<(Value, usize)> = (0..40).map(|_| (any(&mut random), 3)).collect();
    compare(&sections)
}
