//! Durable subscriptions that nobody reads: they are seen, end by themselves, and say so.

use std::time::Duration;

use commissaire_integration::{Failure, Kind, Outcome, PATIENCE, Site, each_bus, ensure, until};
use serde_json::Value;

each_bus!(
    a_forgotten_subscription_ends_by_itself_and_one_that_is_read_does_not,
    a_subscription_can_be_removed
);

/// The variable by which programs are told how soon.
const EXPIRY: &str = "COMMISSAIRE_SUBSCRIPTION_EXPIRY_SECONDS";

/// The durable subscription `name`, as it is listed.
async fn listed(site: &Site, name: &str) -> Outcome<Option<Value>> {
    let ended = site.cli(&["subscription", "ls", "--json"])?.run().await?.expect(0)?;
    for line in ended.out.lines() {
        let found: Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
        if found["what"]["durable"] == name {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn a_forgotten_subscription_ends_by_itself_and_one_that_is_read_does_not(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let mut simple = site.order("commissaire-simple-service")?.env(EXPIRY, "2").start()?;
    simple.logs("ready", |line| line.contains(" ready ")).await?;
    let listen =
        |arguments: &[&str]| Ok::<_, Failure>(site.cli(&["listen"])?.args(arguments).env(EXPIRY, "2"));
    let mut told = listen(&["bus.subscription.expired", "--count", "1", "--timeout", "1m"])?.start()?;
    told.logs("listening", |line| line == "listening").await?;
    let mut reader = listen(&["notify.#", "--durable", "read"])?.start()?;
    reader.logs("listening", |line| line == "listening").await?;
    let first = listen(&["notify.#", "--durable", "forgotten", "--timeout", "0s"])?;
    first.run().await?.expect(0)?;
    for number in 0..3 {
        let body = number.to_string();
        site.cli(&["publish", "notify.x", &body])?.run().await?.expect(0)?;
    }

    let event = told.ended().await?.expect(0)?.json()?;
    let body = &event["body"];
    ensure!(body["name"] == "forgotten", "{event}");
    ensure!(body["idle_seconds"].as_u64().is_some_and(|idle| idle >= 2), "{event}");
    ensure!(body["messages"] == 3 || body["messages"].is_null(), "{event}");
    ensure!(body["patterns"][0] == "notify.#" || body["patterns"].is_null(), "{event}");
    simple.logs("the removal", |line| line.contains("WARN") && line.contains("forgotten")).await?;
    ensure!(listed(&site, "forgotten").await?.is_none(), "it is still there");

    // The other one was there for longer than that, and is not disturbed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    site.cli(&["publish", "notify.last", "1"])?.run().await?.expect(0)?;
    reader.says("the last event", |line| line.contains("notify.last")).await?;
    for process in [reader, simple] {
        process.terminate().await?.expect(0)?;
    }
    Ok(())
}

async fn a_subscription_can_be_removed(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let listen = site.cli(&["listen", "notify.#", "--durable", "audit", "--timeout", "0s"])?;
    listen.run().await?.expect(0)?;
    site.cli(&["publish", "notify.x", "1"])?.run().await?.expect(0)?;
    let told = listed(&site, "audit").await?.ok_or_else(|| Failure::new("it is not listed"))?;
    ensure!(told["waiting"] == 1 || told["waiting"].is_null(), "{told}");
    ensure!(told["expires_after_seconds"] == 604_800.0 || told["expires_after_seconds"].is_null(), "{told}");

    let rm = |more: &[&str]| Ok::<_, Failure>(site.cli(&["subscription", "rm", "audit"])?.args(more));
    rm(&[])?.run().await?.expect(64)?.tells(&["--yes"])?;
    rm(&["--yes", "--idle", "1d"])?.run().await?.expect(5)?;
    rm(&["--yes"])?.run().await?.expect(0)?;
    until("it is not listed", PATIENCE, async || matches!(listed(&site, "audit").await, Ok(None))).await?;
    rm(&["--yes"])?.run().await?.expect(5)?;
    // Nothing of it comes back with the name.
    let again = site.cli(&["listen", "notify.#", "--durable", "audit", "--timeout", "1s"])?.run().await?;
    ensure!(again.expect(0)?.out.is_empty(), "an event of the old subscription came");
    Ok(())
}
