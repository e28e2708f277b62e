//! One bus with programs written with Kombu: the real ones, as the reference uses it.

mod answers;
mod calls;
mod events;
mod faults;
mod work;

use std::{path::PathBuf, time::Duration};

use commissaire_integration::{
    Broker, Ended, Failure, Kind, Order, Outcome, Place, Process, Server, Site, ensure, within,
};
use serde_json::{Value, json};

/// How long many calls may take on a busy machine.
const LONG: Duration = Duration::from_secs(240);

/// A home with a bus as Kombu programs use it, which `options` of the `bus_uri` say more of. Its server writes nothing to the
/// disk: nothing kills it here, and a call between Kombu programs would wait for the disk some twenty times.
async fn site(options: &str) -> Outcome<Site> {
    let server = Server::redis(&[]).await?;
    let uri = format!("kombu+{}/0?durability=relaxed{options}", server.uri());
    Ok(Site::of(Place::new()?, Broker::Server(Kind::Redis, server), Some(uri)))
}

/// Where integration/run.sh puts what comes from the Python package index.
fn tools() -> Outcome<PathBuf> {
    let exe = std::env::current_exe()?;
    let tools = exe.ancestors().nth(3).map(|target| target.join("tools/python"));
    tools
        .filter(|tools| tools.join("kombu").is_dir())
        .ok_or_else(|| Failure::new("Kombu is not there: integration/run.sh fetches it"))
}

/// The Kombu program that does `what` on the bus of `site`.
fn peer(site: &mut Site, what: &str, task: &Value) -> Outcome<Order> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kombu/peer.py");
    let uri = format!("{}/0", site.broker.server()?.uri());
    let order = Order::installed("python3").args(["-u", "-B", script, what, &uri, &task.to_string()]);
    Ok(order.env("PYTHONPATH", tools()?))
}

/// The same, once it is ready.
async fn ready(site: &mut Site, what: &str, task: &Value) -> Outcome<Process> {
    let mut process = peer(site, what, task)?.start()?;
    process.says("ready", |line| line == r#"{"ready": true}"#).await?;
    Ok(process)
}

/// All that it printed.
fn lines(ended: &Ended) -> Outcome<Vec<Value>> {
    ended.out.lines().map(|line| Ok(serde_json::from_str(line).map_err(std::io::Error::from)?)).collect()
}

/// The answers to `asked`, one after another.
async fn ask(site: &mut Site, asked: &[Value]) -> Outcome<Vec<Value>> {
    let input: String = asked.iter().map(|one| format!("{one}\n")).collect();
    let ended = peer(site, "ask", &json!({}))?.input(input).run().await?.expect(0)?;
    let answers = lines(&ended)?;
    ensure!(answers.len() == asked.len(), "{} calls had {} ends", asked.len(), answers.len());
    Ok(answers)
}

/// Publishes `messages`: keys and bodies.
async fn publish(site: &mut Site, messages: &[(&str, Value)]) -> Outcome {
    let input: String =
        messages.iter().map(|(key, body)| format!("{}\n", json!({"key": key, "body": body}))).collect();
    let ended = peer(site, "publish", &json!({}))?.input(input).run().await?.expect(0)?;
    ensure!(lines(&ended)? == [json!({"published": messages.len()})], "published {}", ended.out);
    Ok(())
}

/// What the server itself answers.
async fn redis(site: &mut Site, command: &[&str]) -> Outcome<Value> {
    let task = json!({"commands": [command]});
    let ended = peer(site, "redis", &task)?.run().await?.expect(0)?;
    Ok(lines(&ended)?.pop().unwrap_or_default()["answer"].clone())
}

/// The keys at the server that are not those of programs which are still there.
async fn keys(site: &mut Site) -> Outcome<Vec<String>> {
    let all = redis(site, &["KEYS", "*"]).await?;
    let texts = all.as_array().cloned().unwrap_or_default();
    Ok(texts.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Waits for a process that has much to do.
async fn long(process: Process) -> Outcome<Ended> {
    // Its own bound is for what takes seconds.
    let mut process = process;
    within("a Kombu program ends", LONG, async {
        while !process.has_ended() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await?;
    process.ended().await
}
