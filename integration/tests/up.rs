//! `commissaire up`: everything in one process, found by the other commands.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use commissaire_integration::{Outcome, PATIENCE, Place, Signal, ensure, resident_kib, until};

/// The most memory of an `up` that does nothing.
const IDLE_KIB: u64 = 10 * 1024;
/// The longest time until an `up` on the memory bus is ready, beyond what starting any program takes. A build without
/// optimization gets more.
const READY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 300 } else { 100 });

fn mode(path: &Path) -> Outcome<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[tokio::test]
async fn up_says_which_services_are_ready_and_then_that_all_are() -> Outcome {
    let place = Place::new()?;
    let up = place.up(&[]).await?;
    ensure!(
        up.out()
            == [
                "storage ready",
                "investigator ready",
                "watcher ready",
                "containermgr ready",
                "clusterexec ready",
                "simple ready",
                "ready"
            ],
        "it said {:?}",
        up.out()
    );
    up.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn up_runs_only_the_services_that_it_is_told_to() -> Outcome {
    let place = Place::new()?;
    let up = place.up(&["--only", "simple"]).await?;
    ensure!(up.out() == ["simple ready", "ready"], "it said {:?}", up.out());
    place.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0)?;
    place.cli(&["call", "storage.store"])?.run().await?.expect(2).map(drop)
}

#[tokio::test]
async fn a_service_that_does_not_exist_is_refused_with_those_that_do() -> Outcome {
    let place = Place::new()?;
    let ended = place.cli(&["up", "--only", "simpel", "--data-dir", "data"])?.run().await?.expect(64)?;
    ended.tells(&["simpel", "storage", "simple"])?;
    ensure!(!place.data().exists(), "it made the data directory before it knew what to do");
    Ok(())
}

#[tokio::test]
async fn nobody_else_can_reach_the_bus_or_read_the_data() -> Outcome {
    let place = Place::new()?;
    let _up = place.up(&[]).await?;
    let socket = place.data().join("bus.sock");
    ensure!(fs::metadata(&socket)?.file_type().is_socket(), "{} is no socket", socket.display());
    ensure!(mode(&socket)? == 0o600, "the socket has mode {:o}", mode(&socket)?);
    ensure!(mode(&place.data())? == 0o700, "the data directory has mode {:o}", mode(&place.data())?);
    let storage = place.data().join("storage");
    ensure!(mode(&storage)? == 0o700, "the store's directory has mode {:o}", mode(&storage)?);
    for file in fs::read_dir(&storage)? {
        let path = file?.path();
        ensure!(mode(&path)? & 0o077 == 0, "{} has mode {:o}", path.display(), mode(&path)?);
    }
    Ok(())
}

#[tokio::test]
async fn commands_of_the_same_user_find_the_bus_by_themselves() -> Outcome {
    let place = Place::new()?;
    let up = place.up(&[]).await?;
    let mut listen = place.cli(&["listen", "notify.#", "--count", "1", "--timeout", "30s"])?.start()?;
    listen.logs("listening", |line| line == "listening").await?;
    let ended = place.cli(&["call", "simple.add", r#"{"x": 2, "y": 3}"#])?.run().await?.expect(0)?;
    ensure!(ended.out == "5\n", "2 + 3 = {:?}", ended.out);
    place.cli(&["publish", "notify.site.opened", r#"{"by": "me"}"#])?.run().await?.expect(0)?;
    let heard = listen.ended().await?.expect(0)?.json()?;
    ensure!(heard["key"] == "notify.site.opened" && heard["body"]["by"] == "me", "heard {heard}");

    up.terminate().await?.expect(0)?;
    let alone = place.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(3)?;
    alone.tells(&["commissaire up", "--bus-uri"])
}

#[tokio::test]
async fn a_service_program_joins_the_bus_of_a_running_up_by_itself() -> Outcome {
    let place = Place::new()?;
    let _up = place.up(&["--only", "storage"]).await?;
    let mut simple = place.order("commissaire-simple-service")?.start()?;
    simple.logs("ready", |line| line.contains(" ready ")).await?;
    place.cli(&["call", "simple.wordy_add", "[2, 3]"])?.run().await?.expect(0)?;
    simple.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn up_ends_well_when_it_is_told_to() -> Outcome {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new()?;
        let up = place.up(&[]).await?;
        up.signal(signal)?;
        up.ended().await?.expect(0)?;
        let socket = place.data().join("bus.sock");
        ensure!(!socket.exists(), "after {signal:?} the socket is still there");
        // What it keeps can be taken up again.
        place.up(&[]).await?.terminate().await?.expect(0)?;
    }
    Ok(())
}

#[tokio::test]
async fn up_ends_well_even_when_it_is_told_to_while_it_starts() -> Outcome {
    for service in ["storage ready", "simple ready"] {
        let place = Place::new()?;
        let mut up = place.cli(&["up", "--data-dir"])?.arg(place.data()).start()?;
        up.says(service, |line| line == service).await?;
        up.terminate().await?.expect(0)?;
        ensure!(!place.data().join("bus.sock").exists(), "after {service:?} the socket is still there");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_up_in_the_same_directory_is_refused_and_the_first_goes_on() -> Outcome {
    let place = Place::new()?;
    let _first = place.up(&[]).await?;
    let second = place.cli(&["up", "--data-dir"])?.arg(place.data()).run().await?.expect(78)?;
    second.tells(&["another process", "bus.sock"])?;
    ensure!(!second.out.contains("ready"), "the second said {:?}", second.out);
    place.cli(&["call", "storage.store"])?.run().await?.expect(0).map(drop)
}

#[tokio::test]
async fn an_up_that_was_killed_does_not_keep_the_next_from_starting() -> Outcome {
    let place = Place::new()?;
    place.up(&[]).await?.kill().await?;
    let left = place.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(3)?;
    left.tells(&["commissaire up"])?;
    let _up = place.up(&[]).await?;
    place.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0).map(drop)
}

#[tokio::test]
async fn up_is_ready_at_once_and_small() -> Outcome {
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        // The control: what starting this program takes on this machine now.
        let control = Place::new()?.cli(&["--version"])?.start()?;
        let begun = control.started();
        control.ended().await?.expect(0)?;
        best.0 = best.0.min(begun.elapsed());

        let place = Place::new()?;
        let mut up = place.up(&[]).await?;
        let ready = up.says("ready", |line| line == "ready").await?;
        best.1 = best.1.min(ready - up.started());
        let mut kib = u64::MAX;
        until("the idle process is small", PATIENCE, async || {
            kib = resident_kib(up.pid()).unwrap_or(u64::MAX);
            kib < IDLE_KIB
        })
        .await
        .map_err(|failure| failure.in_step(format!("{kib} KiB are resident")))?;
    }
    let (control, ready) = best;
    println!("ready after {ready:?}; any program takes {control:?}");
    ensure!(ready <= control + READY, "ready after {ready:?}, where any program takes {control:?}");
    Ok(())
}
