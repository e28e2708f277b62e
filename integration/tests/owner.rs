//! An embedded store has one owner: of two storage services on a bus one gives way.

use std::fs;

use commissaire_integration::{Kind, Order, Outcome, PATIENCE, Process, Site, each_bus, ensure, long, until};

each_bus!(
    a_second_store_on_the_bus_is_refused_and_the_first_goes_on,
    a_copy_of_the_store_is_refused_as_well,
    of_two_stores_that_start_at_once_at_most_one_stays,
);

fn storage(site: &Site, folder: &str) -> Outcome<Order> {
    let data = site.place.path().join(folder);
    Ok(site.order("commissaire-storage-service")?.arg("--data-dir").arg(data))
}

/// Which store answers.
async fn store(site: &Site) -> Outcome<String> {
    let answer = site.cli(&["call", "storage.store"])?.run().await?.expect(0)?.json()?;
    Ok(answer["store"].to_string())
}

async fn a_second_store_on_the_bus_is_refused_and_the_first_goes_on(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let one = site.place.path().join("one").display().to_string();
    let first = site.service("storage", &["--data-dir", &one]).await?;
    let known = store(&site).await?;
    for _ in 0..3 {
        let second = storage(&site, "two")?.run().await?.expect(78)?;
        second.tells(&["is on this bus already", known.trim_matches('"'), "bus_exchange"])?;
        ensure!(store(&site).await? == known, "another store answers");
    }
    // In a name space of its own it is welcome.
    let mut apart = storage(&site, "two")?.args(["--bus-exchange", "apart"]).start()?;
    apart.logs("ready", |line| line.contains(" ready ")).await?;
    ensure!(store(&site).await? == known, "another store answers");
    first.terminate().await?.expect(0).map(drop)
}

async fn a_copy_of_the_store_is_refused_as_well(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let one = site.place.path().join("one").display().to_string();
    site.service("storage", &["--data-dir", &one]).await?.terminate().await?.expect(0)?;
    let (from, to) = (site.place.path().join("one/storage"), site.place.path().join("two/storage"));
    fs::create_dir_all(&to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    let _first = site.service("storage", &["--data-dir", &one]).await?;
    storage(&site, "two")?.run().await?.expect(78)?.tells(&["another copy"])?;
    // The same directory twice is refused whatever the bus is.
    storage(&site, "one")?.args(["--bus-exchange", "apart"]).run().await?.expect(78)?;
    store(&site).await.map(drop)
}

async fn of_two_stores_that_start_at_once_at_most_one_stays(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    for round in 0..long("races of two storage services", 4, 40) {
        let mut both = [storage(&site, "one")?.start()?, storage(&site, "two")?.start()?];
        until("one of two gives way", PATIENCE, async || both.iter_mut().any(Process::has_ended))
            .await
            .map_err(|failure| {
                failure.in_step(format!("round {round}: {:#?}", both.each_ref().map(Process::err)))
            })?;
        let [one, two] = both;
        let (mut left, mut gone) = (Vec::new(), Vec::new());
        for mut process in [one, two] {
            if process.has_ended() { gone.push(process) } else { left.push(process) }
        }
        for process in gone {
            process.ended().await?.expect(78)?.tells(&["is on this bus already"])?;
        }
        println!("round {round}: {} stayed", left.len());
        for mut process in left {
            // It may still have to hear that it is the younger one; if not, it answers.
            let mut ended = false;
            until("the other answers or gives way", PATIENCE, async || {
                ended = process.has_ended();
                ended || store(&site).await.is_ok()
            })
            .await?;
            if ended {
                process.ended().await?.expect(78)?;
            } else {
                process.logs("ready", |line| line.contains(" ready ")).await?;
                process.terminate().await?.expect(0)?;
            }
        }
    }
    Ok(())
}
