//! The units for systemd.

use std::{fs, path::Path, process::Command};

use commissaire_integration::{Failure, Lateness, Outcome, Place, Server, ensure};
use tempfile::TempDir;

/// What their exposure may be at most, as `systemd-analyze security` puts it: 0 is none, 10 is a program as root.
const EXPOSURE: f64 = 2.5;

fn units() -> Outcome<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/systemd");
    let mut units = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        units.push((name, fs::read_to_string(path)?));
    }
    ensure!(units.len() >= 2, "there are only {units:?}");
    Ok(units)
}

#[test]
fn systemd_finds_nothing_wrong_with_them() -> Outcome {
    let dir = TempDir::new()?;
    for (name, text) in units()? {
        let path = dir.path().join(&name);
        // Where the programs are installed is not here.
        fs::write(&path, text.replace("/usr/bin/commissaire-", "/bin/true commissaire-"))?;
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output()?;
        let said = String::from_utf8_lossy(&verified.stderr);
        // What is wrong with units of this machine is not ours.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("commissaire")).collect();
        ensure!(verified.status.success() && ours.is_empty(), "{name}: {said}");
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&path)
            .output()?;
        let said = String::from_utf8_lossy(&security.stdout);
        let line = said.lines().rev().find(|line| line.contains("Overall exposure level"));
        let line = line.ok_or_else(|| Failure::new(format!("{name}: {security:?}")))?;
        println!("{name}: {line}");
        let level = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        ensure!(level.is_some_and(|level| level <= EXPOSURE), "{name}: {said}");
    }
    Ok(())
}

/// The messages to a supervisor, until it has had one with `last`.
async fn told(socket: &tokio::net::UnixDatagram, last: &str) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !all.iter().any(|message: &String| message.contains(last)) {
        let received = commissaire_integration::within(
            last,
            commissaire_integration::PATIENCE,
            socket.recv(&mut buffer),
        );
        let length = received.await??;
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    Ok(all)
}

#[tokio::test]
async fn a_supervisor_is_told_when_it_is_ready_when_it_reads_its_configuration_and_that_it_lives() -> Outcome
{
    let redis = Server::redis(&[]).await?;
    let place = Place::new()?;
    let path = place.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path)?;
    let order = place.order("commissaire-simple-service")?.args(["--bus-uri", &redis.uri()]);
    let service = order.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").start()?;
    let ready = told(&socket, "READY=1").await?;
    ensure!(ready.iter().any(|message| message.contains("STATUS=serving on redis://")), "{ready:?}");
    // Three signs of life at least in each time that is allowed, but for how late this machine is.
    let lateness = Lateness::watch();
    for _ in 0..10 {
        let began = std::time::Instant::now();
        told(&socket, "WATCHDOG=1").await?;
        let (took, late) = (began.elapsed(), lateness.worst());
        ensure!(
            took < std::time::Duration::from_millis(300) + 10 * late,
            "{took:?}, and a timer was late by {late:?}"
        );
    }
    service.signal(commissaire_integration::Signal::HUP)?;
    let reloading = told(&socket, "RELOADING=1").await?;
    ensure!(reloading.last().is_some_and(|message| message.contains("MONOTONIC_USEC=")), "{reloading:?}");
    told(&socket, "READY=1").await?;
    let ended = service.terminate().await?.expect(0)?;
    told(&socket, "STOPPING=1").await?;
    ensure!(!ended.err.contains("systemd"), "{ended:?}");
    Ok(())
}
