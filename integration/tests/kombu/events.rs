//! Events with patterns, both ways.

use std::collections::BTreeSet;

use commissaire::{Address, Key, Message, Pattern, Source, Token};
use commissaire_integration::{Outcome, PATIENCE, ensure, until, within};
use serde_json::{Value, json};

use super::{publish, ready, site};

/// Keys, and those of the patterns after them that cover each for Kombu.
const KEYS: [&str; 6] =
    ["t.a", "t.a.b", "t.a.b.c", "t.x.b", "notify.storage.Host.created", "notify.storage.Cluster.deleted"];
const PATTERNS: [&str; 5] = ["t.*", "t.#", "t.*.b", "notify.storage.*.deleted", "#"];

fn covered(pattern: &str) -> Outcome<BTreeSet<String>> {
    let parsed = Pattern::new(pattern)?;
    let mut covered = BTreeSet::new();
    for key in KEYS {
        if parsed.matches(&Key::new(key)?) {
            covered.insert(key.to_owned());
        }
    }
    Ok(covered)
}

#[tokio::test]
async fn a_kombu_consumer_hears_what_its_patterns_cover() -> Outcome {
    let mut site = site("").await?;
    let bus = site.join().await?;
    let mut listeners = Vec::new();
    for pattern in PATTERNS {
        listeners.push((pattern, ready(&mut site, "listen", &json!({"patterns": [pattern]})).await?));
    }
    for key in KEYS {
        bus.publish(Message::new(Address::Topic(Key::new(key)?), json!({"of": key}).to_string())?).await?;
    }
    for (pattern, mut listener) in listeners {
        let wanted = covered(pattern)?;
        let heard = |lines: Vec<String>| -> Vec<(String, Value)> {
            let values = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let keys =
                values.filter_map(|told| Some((told["key"].as_str()?.to_owned(), told["body"].clone())));
            keys.collect()
        };
        until("a Kombu consumer hears all", PATIENCE, async || heard(listener.out()).len() >= wanted.len())
            .await?;
        ensure!(!listener.has_ended(), "the consumer of {pattern} ended");
        let all = heard(listener.out());
        let keys: BTreeSet<String> = all.iter().map(|(key, _)| key.clone()).collect();
        ensure!(keys == wanted && all.len() == wanted.len(), "{pattern} heard {all:?}");
        ensure!(all.iter().all(|(key, body)| body["of"] == **key), "{pattern} heard {all:?}");
    }
    Ok(())
}

#[tokio::test]
async fn ours_hear_what_a_kombu_program_announces() -> Outcome {
    let mut site = site("").await?;
    let bus = site.join().await?;
    let mut subscriptions = Vec::new();
    for (at, pattern) in PATTERNS.into_iter().enumerate() {
        let parsed = vec![Pattern::new(pattern)?];
        let sources =
            [Source::Topic(parsed.clone()), Source::Durable(Token::new(format!("keeps-{at}"))?, parsed)];
        for source in sources {
            subscriptions.push((pattern, bus.subscribe(source, 64).await?));
        }
    }
    // What ends them; `t` is covered by `t.#`, though Kombu itself would say that it is not.
    let hidden = bus.subscribe(Source::Topic(vec![Pattern::new("end.#")?]), 4).await?;
    let mut all: Vec<(&str, Value)> = KEYS.iter().map(|key| (*key, json!({"of": key}))).collect();
    all.push(("end", json!({"of": "end"})));
    publish(&mut site, &all).await?;
    let mut hidden = hidden;
    let end = within("an event", PATIENCE, hidden.next_delivery()).await?;
    ensure!(end.is_some_and(|end| end.message().address().name() == "end"), "`end.#` does not cover `end`");
    for (pattern, mut subscription) in subscriptions {
        let mut wanted = covered(pattern)?;
        if pattern == "#" {
            wanted.insert("end".to_owned());
        }
        let mut heard = BTreeSet::new();
        for _ in 0..wanted.len() {
            let delivery = within("an event", PATIENCE, subscription.next_delivery()).await?;
            let Some(delivery) = delivery else { break };
            let key = delivery.message().address().name();
            ensure!(
                delivery.message().body() == &json!({"of": key}).to_string().replace(':', ": "),
                "{key}: another body"
            );
            heard.insert(key);
            delivery.ack().await?;
        }
        ensure!(heard == wanted, "{pattern} heard {heard:?}");
    }
    bus.close().await?;
    Ok(())
}
