//! Calls, many of them, both ways; what they cost, and what they leave behind.

use std::time::Duration;

use commissaire::{Client, Key};
use commissaire_integration::{Failure, Outcome, alone, ensure, within};
use commissaire_simple::{Add, Sum};
use serde_json::{Value, json, value::RawValue};
use tokio::task::JoinSet;

use super::{LONG, keys, lines, long, peer, ready, redis, site};

const CALLS: usize = 10_000;
/// What each call may cost, and what it costs between two programs written with Kombu.
const COMMANDS: f64 = 8.0;

#[tokio::test]
async fn kombu_programs_call_our_storage_from_eight_threads() -> Outcome {
    let _machine = alone().await;
    let mut site = site("").await?;
    let data = site.place.data().display().to_string();
    let _storage = site.service("storage", &["--data-dir", &data]).await?;
    let record = json!({"name": "web", "hostset": ["10.0.0.7"]});
    let params = json!({"model_type_name": "Cluster", "model_json_data": record});
    site.cli(&["call", "storage.save", &params.to_string()])?.run().await?.expect(0)?;
    let full = json!({
        "name": "web", "status": "", "network": "default", "hostset": ["10.0.0.7"], "container_manager": "",
    });
    let task = json!({
        "calls": CALLS, "threads": 8, "key": "storage.get", "params": params, "result": full,
    });
    let ended = long(peer(&mut site, "calls", &task)?.start()?).await?.expect(0)?;
    let told = lines(&ended)?.pop().unwrap_or_default();
    println!("Kombu called storage: {told}");
    ensure!(told["done"] == CALLS && told["wrongs"] == 0, "of {CALLS} calls: {told}");
    // What the callers bind for their replies they leave there, whoever answers; ours leaves nothing.
    let left: Vec<String> =
        keys(&mut site).await?.into_iter().filter(|key| key.starts_with("response-")).collect();
    ensure!(left.is_empty(), "replies are left: {left:?}");
    Ok(())
}

#[tokio::test]
async fn ours_calls_a_kombu_service_and_leaves_no_key_behind() -> Outcome {
    let _machine = alone().await;
    let mut site = site("").await?;
    let service = ready(&mut site, "service", &json!({"name": "pysvc"})).await?;
    let before = keys(&mut site).await?;
    let bus = site.join().await?;
    let client = Client::new(bus.clone()).with_timeout(LONG);
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let client = client.clone();
        callers.spawn(async move {
            for number in (caller..CALLS).step_by(8) {
                let params = RawValue::from_string(json!({"x": number, "y": 1}).to_string())
                    .map_err(std::io::Error::from)?;
                let sum = client.call_raw(Key::new("pysvc.add")?, Some(params)).await?;
                ensure!(sum.get() == (number + 1).to_string(), "{number} + 1 = {}", sum.get());
            }
            Outcome::Ok(())
        });
    }
    for done in within("all calls", LONG, callers.join_all()).await? {
        done?;
    }
    let error = client.call_raw(Key::new("pysvc.fail")?, None).await.err();
    let code = error.as_ref().and_then(|error| error.remote()).map(|remote| remote.code);
    ensure!(code == Some(-20000), "a Kombu service's error came as {error:?}");
    bus.close().await?;
    drop(service);
    let mut left = keys(&mut site).await?;
    left.retain(|key| !before.contains(key));
    ensure!(left.is_empty(), "{CALLS} calls left {} keys behind: {:?}", left.len(), left.first());
    Ok(())
}

#[tokio::test]
async fn a_call_costs_a_fifth_of_what_it_costs_the_reference() -> Outcome {
    const FEW: usize = 1_000;
    let _machine = alone().await;
    let mut site = site("").await?;
    let (here, there) = (site.join().await?, site.join().await?);
    let running = commissaire_simple::service().start(here.clone()).await?;
    let client = Client::new(there.clone());
    client.call(Add, &Sum { x: 0, y: 0 }).await?;
    let mut monitor = ready(&mut site, "monitor", &json!({"mark": "enough"})).await?;
    for number in 0..FEW {
        let x = i64::try_from(number).unwrap_or_default();
        ensure!(client.call(Add, &Sum { x, y: 1 }).await? == x + 1, "{number} + 1");
    }
    redis(&mut site, &["ECHO", "enough"]).await?;
    monitor.says("counts", |line| line.contains("connections")).await?;
    let counts: Value =
        monitor.out().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let sum = |place: &str| -> Outcome<f64> {
        let counts =
            counts[place].as_object().ok_or_else(|| Failure::new(format!("no {place}: {counts}")))?;
        Ok(counts.values().filter_map(Value::as_f64).sum())
    };
    let (sent, within) = (sum("connections")? / FEW as f64, sum("scripts")? / FEW as f64);
    println!("a call is {sent} commands, and {within} within scripts: {counts}");
    ensure!(sent >= 3.0, "fewer commands than a call has steps: {counts}");
    ensure!(sent + within <= COMMANDS, "a call is {sent} commands, and {within} within scripts: {counts}");
    running.drain(Duration::from_secs(1)).await;
    here.close().await?;
    there.close().await?;
    let left = keys(&mut site).await?;
    ensure!(left.iter().all(|key| key == "bus:{commissaire}:k1:v:"), "keys are left: {left:?}");
    Ok(())
}
