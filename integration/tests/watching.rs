//! Hosts are watched: what dies is told, what comes back is told, and a fault of ours is not taken for one of theirs.

use std::time::{Duration, Instant};

use commissaire_integration::{Fleet, Outcome, Place, Process, ensure, left_out, until};
use serde_json::{Value, json};

use crate::hosts::{Control, host, start_up};

/// Short, so that a test sees several.
const INTERVAL: f64 = 4.0;

fn config() -> Value {
    json!({"watcher": {"interval_seconds": INTERVAL, "full_every": 3}})
}

fn intervals(count: f64) -> Duration {
    Duration::from_secs_f64(INTERVAL * count)
}

/// Hosts that are added as they are, and called good.
async fn good(control: &Control) -> Outcome {
    let key = control.fleet.key_file().display().to_string();
    let addresses = control.addresses();
    let mut arguments = vec!["add", "--key", &key, "--facts-only"];
    arguments.extend(addresses.iter().map(String::as_str));
    control.host(0, &arguments).await?;
    let records: Vec<Value> =
        addresses.iter().map(|address| json!({"address": address, "status": "active"})).collect();
    save(&control.place, json!({"model_type_name": "Host", "model_json_data": records})).await
}

async fn save(place: &Place, record: Value) -> Outcome {
    let order = place.cli(&["call", "storage.save", &record.to_string()])?;
    order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(0).map(drop)
}

/// The addresses with this status.
async fn with_status(place: &Place, status: &str) -> Outcome<Vec<String>> {
    let listed = host(place, 0, &["list", "--json", "--status", status]).await?;
    let address = |line: &str| -> Option<String> {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(value["address"].as_str()?.to_owned())
    };
    Ok(listed.out.lines().filter_map(address).collect())
}

async fn listen(place: &Place) -> Outcome<Process> {
    let order = place.cli(&["listen", "notify.watcher.*"])?.env("COMMISSAIRE_BUS_URI", place.socket_uri());
    let mut ears = order.start()?;
    ears.logs("listening", |line| line == "listening").await?;
    Ok(ears)
}

fn heard(ears: &Process, state: &str) -> Vec<Value> {
    let events = ears.out().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    events.map(|event| event["body"].clone()).filter(|body| body["state"] == state).collect()
}

#[tokio::test]
async fn what_dies_is_unreachable_and_what_comes_back_is_what_it_was() -> Outcome {
    let control = Control::over(&["fedora"; 12], config()).await?;
    good(&control).await?;
    let ears = listen(&control.place).await?;
    let place = &control.place;
    tokio::time::sleep(intervals(1.2)).await;
    let dead = [2, 5];
    let expected: Vec<String> = dead.iter().map(|at| control.fleet.address(*at)).collect();
    for machine in dead {
        control.fleet.control("blackhole", machine, &[]).await?;
    }
    let began = Instant::now();
    until("they are unreachable", intervals(4.0), async || {
        with_status(place, "unreachable").await.is_ok_and(|found| found == expected)
    })
    .await?;
    let took = began.elapsed();
    ensure!(took <= intervals(2.0) + Duration::from_secs(1), "it took {took:?} to see that they are down");
    ensure!(with_status(place, "active").await?.len() == 10, "others are not as they were");
    let shown = control.show(2).await?;
    let watch = &shown["state"]["watch"];
    ensure!(watch["down"] == true && watch["cause"] == "timed_out" && watch["was"] == "active", "{watch}");
    for machine in dead {
        control.fleet.control("unblackhole", machine, &[]).await?;
    }
    let began = Instant::now();
    until("they are back", intervals(4.0), async || {
        with_status(place, "active").await.is_ok_and(|found| found.len() == 12)
    })
    .await?;
    let took = began.elapsed();
    ensure!(took <= intervals(1.0) + Duration::from_secs(1), "it took {took:?} to see that they are back");
    let told: Vec<_> = heard(&ears, "down")
        .iter()
        .chain(&heard(&ears, "up"))
        .map(|event| event["address"].clone())
        .collect();
    ensure!(told.len() == 4 && heard(&ears, "braked").is_empty(), "{told:?}");

    // A reboot that nobody has planned is told, and is no failure when it is short.
    let before = control.fleet.boot_id(0).await?;
    control.fleet.control("crash", 0, &[]).await?;
    control.fleet.rebooted(0, &before).await?;
    until("the reboot is told", intervals(6.0), async || !heard(&ears, "rebooted").is_empty()).await?;
    // One that is planned is not.
    let upgrade = json!({"model_type_name": "ClusterRestart", "model_json_data": {
        "name": "c", "status": "in_process", "in_process": [control.fleet.address(1)]}});
    save(place, upgrade).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    control.fleet.control("off", 1, &[]).await?;
    tokio::time::sleep(intervals(3.0)).await;
    ensure!(
        with_status(place, "unreachable").await?.is_empty(),
        "a host that may be away is called unreachable"
    );
    control.fleet.control("on", 1, &[]).await?;
    ensure!(heard(&ears, "rebooted").len() == 1, "{:?}", heard(&ears, "rebooted"));
    Ok(())
}

#[tokio::test]
async fn when_most_are_gone_at_once_nothing_is_written() -> Outcome {
    let control = Control::over(&["fedora"; 10], config()).await?;
    good(&control).await?;
    let ears = listen(&control.place).await?;
    tokio::time::sleep(intervals(1.2)).await;
    for machine in 0..6 {
        control.fleet.control("partition", machine, &[]).await?;
    }
    until("the brake", intervals(4.0), async || !heard(&ears, "braked").is_empty()).await?;
    tokio::time::sleep(intervals(3.0)).await;
    ensure!(with_status(&control.place, "active").await?.len() == 10, "a status was written");
    ensure!(heard(&ears, "braked").len() == 1 && heard(&ears, "down").is_empty(), "{:?}", ears.out());
    for machine in 0..6 {
        control.fleet.control("heal", machine, &[]).await?;
    }
    until("the brake is off", intervals(8.0), async || !heard(&ears, "released").is_empty()).await?;
    tokio::time::sleep(intervals(2.0)).await;
    ensure!(with_status(&control.place, "active").await?.len() == 10, "a status was written");
    Ok(())
}

#[tokio::test]
async fn a_check_is_made_at_once_and_says_what_is_wrong() -> Outcome {
    // Nobody's turn comes by itself.
    let config = json!({"watcher": {"interval_seconds": 86_400}});
    let control = Control::over(&["fedora", "fedora"], config).await?;
    good(&control).await?;
    let address = control.fleet.address(0);
    let well = control.host(0, &["check", "--json", &address]).await?.json()?;
    ensure!(well["well"] == true && well["boot_id"] == control.fleet.boot_id(0).await?, "{well}");
    control.fleet.control("rehost-key", 0, &[]).await?;
    control.fleet.wait_up(0).await?;
    let changed = control.host(1, &["check", "--json", &address]).await?.json()?;
    ensure!(changed["cause"] == "host_key", "{changed}");
    let unknown = control.host(1, &["check", "10.0.0.1"]).await?;
    unknown.tells(&["there is no host \"10.0.0.1\""])?;
    // As the first Commissaire asked for it.
    let record =
        json!({"address": control.fleet.address(1), "last_check": "2016-11-22T12:00:00.000000"}).to_string();
    let order = control.place.cli(&["enqueue", "jobs.watcher", &record])?;
    let checks = async || -> Outcome<u64> {
        let order = control.place.cli(&["call", "watcher.status"])?;
        let told =
            order.env("COMMISSAIRE_BUS_URI", control.place.socket_uri()).run().await?.expect(0)?.json()?;
        Ok(told["shards"].as_array().into_iter().flatten().filter_map(|shard| shard["checks"].as_u64()).sum())
    };
    let before = checks().await?;
    order.env("COMMISSAIRE_BUS_URI", control.place.socket_uri()).run().await?.expect(0)?;
    until("it is looked at", Duration::from_secs(10), async || {
        checks().await.is_ok_and(|now| now == before + 1)
    })
    .await?;
    // Another interval holds at once.
    control.reconfigure(&json!({"watcher": {"interval_seconds": 1, "tries": 2}}))?;
    until("turns come by themselves", Duration::from_secs(10), async || {
        checks().await.is_ok_and(|now| now > before + 5)
    })
    .await?;
    // What is removed is not looked at any more.
    control.host(0, &["rm", "--yes", &address]).await?;
    control.host(1, &["check", &address]).await?;
    ensure!(control.host(0, &["list", "--json"]).await?.out.lines().count() == 1, "it is still there");
    Ok(())
}

#[tokio::test]
async fn instances_share_the_hosts_and_take_over_from_one_that_dies() -> Outcome {
    let fleet = Fleet::start(&["fedora"; 8]).await?;
    let place = Place::new()?;
    let up = start_up(&fleet, &place, json!({}), &["--only", "storage,investigator"]).await?;
    let control = Control { fleet, place, up };
    good(&control).await?;
    let (fleet, place) = (&control.fleet, &control.place);
    let file = place.path().join("watcher.conf");
    std::fs::write(&file, config()["watcher"].to_string())?;
    let service = || {
        let order = place.order("commissaire-watcher-service")?.arg("-c").arg(&file);
        fleet.within(order.env("COMMISSAIRE_BUS_URI", place.socket_uri())).start()
    };
    let (first, second) = (service()?, service()?);
    let share = async || -> Outcome<Vec<u64>> {
        let order = place.cli(&["call", "storage.list", r#"["WatchShards"]"#])?;
        let listed = order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(0)?.json()?;
        let mut held = std::collections::BTreeMap::<String, u64>::new();
        for record in listed.as_array().into_iter().flatten() {
            *held.entry(record["instance"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(held.into_values().collect())
    };
    until("both have half of them", Duration::from_secs(40), async || {
        share().await.is_ok_and(|held| held == [8, 8])
    })
    .await?;
    first.kill().await?;
    let killed = Instant::now();
    until("one has all of them", Duration::from_secs(60), async || {
        let order = place.cli(&["call", "watcher.status"]);
        let Ok(order) = order else { return false };
        let told = order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await;
        let told = told.and_then(|ended| ended.json()).unwrap_or_default();
        let shards = told["shards"].as_array().into_iter().flatten();
        shards.filter(|shard| shard["instance"] == told["instance"]).count() == 16
    })
    .await?;
    let took = killed.elapsed();
    ensure!(took <= Duration::from_secs(23), "it took {took:?} until one had all of them");
    for machine in 0..2 {
        fleet.control("off", machine, &[]).await?;
    }
    until("the dead are found by the one that is left", Duration::from_secs(30), async || {
        with_status(place, "unreachable").await.is_ok_and(|found| found.len() == 2)
    })
    .await?;
    second.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn of_two_hundred_some_die_and_then_most_are_cut_off() -> Outcome {
    if left_out("of_two_hundred_some_die_and_then_most_are_cut_off") {
        return Ok(());
    }
    let seconds = 10;
    let config = json!({"watcher": {"interval_seconds": seconds, "full_every": 3}});
    let control = Control::over(&["fedora"; 200], config).await?;
    good(&control).await?;
    let interval = Duration::from_secs(seconds);
    let place = &control.place;
    let ears = listen(place).await?;
    tokio::time::sleep(interval * 3 / 2).await;
    let dead: Vec<usize> = (0..10).map(|at| at * 17 + 3).collect();
    let mut expected: Vec<String> = dead.iter().map(|at| control.fleet.address(*at)).collect();
    expected.sort();
    for machine in &dead {
        control.fleet.control("blackhole", *machine, &[]).await?;
    }
    let began = Instant::now();
    until("ten are unreachable", interval * 4, async || {
        with_status(place, "unreachable").await.is_ok_and(|found| found == expected)
    })
    .await?;
    let took = began.elapsed();
    ensure!(took <= interval * 2 + Duration::from_secs(1), "it took {took:?} to see that they are down");
    ensure!(with_status(place, "active").await?.len() == 190, "others are not as they were");
    for machine in &dead {
        control.fleet.control("unblackhole", *machine, &[]).await?;
    }
    let began = Instant::now();
    until("they are back", interval * 4, async || {
        with_status(place, "active").await.is_ok_and(|found| found.len() == 200)
    })
    .await?;
    let took = began.elapsed();
    ensure!(took <= interval + Duration::from_secs(1), "it took {took:?} to see that they are back");
    ensure!((heard(&ears, "down").len(), heard(&ears, "up").len()) == (10, 10), "{:?}", ears.out());
    // Three of five are cut off at once.
    for machine in 0..120 {
        control.fleet.control("partition", machine, &[]).await?;
    }
    until("the brake", interval * 4, async || !heard(&ears, "braked").is_empty()).await?;
    tokio::time::sleep(interval * 3).await;
    ensure!(with_status(place, "active").await?.len() == 200, "a status was written");
    ensure!((heard(&ears, "braked").len(), heard(&ears, "down").len()) == (1, 10), "{:?}", ears.out());
    for machine in 0..120 {
        control.fleet.control("heal", machine, &[]).await?;
    }
    until("the brake is off", interval * 8, async || !heard(&ears, "released").is_empty()).await?;
    tokio::time::sleep(interval * 2).await;
    let active = with_status(place, "active").await?.len();
    ensure!(
        active == 200,
        "when the brake was off {} statuses were written: {:?}",
        200 - active,
        heard(&ears, "down")
    );
    Ok(())
}
