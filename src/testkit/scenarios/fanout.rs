//! Copies for everybody who wants one: events, control messages, replies.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use rand::RngExt;

use super::each_once;
use crate::{
    address::{Address, Inbox},
    pattern::Pattern,
    subscription::Source,
    testkit::{
        Outcome, Reader, Stage,
        target::{body, event, key, patterns, reply, text, token},
        wait::{Failure, ensure},
    },
};

/// Pattern, keys that it covers, keys that it does not cover.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("a", &["a"], &["b", "a.b", "A"]),
    ("a.b", &["a.b"], &["a", "a.b.c", "a.c", "b.a", "ab"]),
    ("*", &["a", "b", "ab"], &["a.b"]),
    ("#", &["a", "a.b", "a.b.c", "x.y.z.a.b.c"], &[]),
    ("a.*", &["a.b", "a.c", "a.a"], &["a", "a.b.c", "b.a"]),
    ("*.b", &["a.b", "x.b"], &["b", "a.b.c", "x.a.b"]),
    ("*.*", &["a.b", "b.a"], &["a", "a.b.c"]),
    ("a.#", &["a", "a.b", "a.b.c", "a.a"], &["b", "b.a", "ab"]),
    ("#.b", &["b", "a.b", "x.a.b"], &["a", "a.b.c", "ab"]),
    ("a.#.c", &["a.c", "a.b.c", "a.b.x.c", "a.c.c"], &["a", "c", "a.b", "a.c.x"]),
    ("a.*.c", &["a.b.c", "a.c.c"], &["a.c", "a.b.x.c"]),
    ("a.*.#", &["a.b", "a.b.c", "a.c"], &["a", "b.a"]),
    ("a.#.*", &["a.b", "a.b.c"], &["a", "b"]),
    ("*.#", &["a", "a.b", "x.y.z.a.b.c"], &[]),
    ("#.*", &["a", "a.b", "b"], &[]),
    ("#.#", &["a", "a.b", "a.b.c"], &[]),
    ("*.*.#", &["a.b", "a.b.c"], &["a", "b"]),
    ("#.b.#", &["b", "a.b", "a.b.c", "b.a", "x.a.b"], &["a", "a.c", "ab"]),
    ("#.a.#.b.#", &["a.b", "x.a.b", "a.b.c", "x.y.z.a.b.c"], &["a", "b", "b.a"]),
    ("#.a.b", &["a.b", "x.a.b"], &["a.b.c", "b", "a"]),
    ("a.b.#", &["a.b", "a.b.c", "a.b.x.c"], &["a", "a.c"]),
    ("a.*.*.c", &["a.b.x.c"], &["a.b.c", "a.c"]),
    ("*.b.*", &["a.b.c"], &["a.b", "b", "a.b.x.c"]),
    ("a.#.b.#.c", &["a.b.c", "a.b.x.c"], &["a.c", "a.b"]),
    ("a_-1.#", &["a_-1", "a_-1.B_-2"], &["a", "a_-2"]),
    ("*.B_-2", &["a_-1.B_-2"], &["a_-1", "a_-1.b_-2"]),
];

pub(crate) async fn patterns_match_as_the_table_says(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let keys: BTreeSet<&str> = TABLE.iter().flat_map(|(_, yes, no)| yes.iter().chain(*no)).copied().collect();
    let cases: usize = TABLE.iter().map(|(_, yes, no)| yes.len() + no.len()).sum();
    ensure!(cases >= 60, "the table has only {cases} cases");

    let mut readers = Vec::new();
    for (at, (pattern, yes, no)) in TABLE.iter().enumerate() {
        let parsed = Pattern::new(pattern)?;
        for (keys, wanted) in [(yes, true), (no, false)] {
            let wrong = keys.iter().find(|text| parsed.matches(&key(text)) != wanted);
            ensure!(wrong.is_none(), "Pattern::matches is wrong on {pattern} and {wrong:?}");
        }
        let ephemeral = Source::Topic(vec![parsed.clone()]);
        let durable = Source::Durable(token(&format!("table-{at}")), vec![parsed.clone()]);
        for source in [ephemeral, durable] {
            readers.push((at, parsed.clone(), stage.reader(&here, source, 500).await?));
        }
    }
    for key in &keys {
        stage.publish(&there, event(key, *key)).await?;
    }
    // Then one more that each covers, to see that nothing else was on its way.
    for (at, (_, yes, _)) in TABLE.iter().enumerate() {
        stage.publish(&there, event(yes[0], format!("end {at}"))).await?;
    }
    for (at, pattern, reader) in &mut readers {
        let end = format!("end {at}");
        let wanted: Vec<&str> = keys.iter().copied().filter(|text| pattern.matches(&key(text))).collect();
        let mut got = Vec::new();
        loop {
            let message = reader.take().await?;
            let text = body(&message);
            if text == end {
                break;
            }
            if !text.starts_with("end ") {
                got.push(text);
            }
        }
        got.sort();
        ensure!(got == wanted, "{reader}: {got:?} came where {wanted:?} was to come");
    }
    Ok(())
}

pub(crate) async fn patterns_that_overlap_deliver_a_message_once(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let all = || patterns(&["o.#", "o.*", "#", "o.one", "*.one", "o.one"]);
    let ephemeral = stage.reader(&here, Source::Topic(all()), 100).await?;
    let durable = stage.reader(&here, Source::Durable(token("overlap"), all()), 100).await?;
    for number in 0..50 {
        stage.publish(&there, event("o.one", number.to_string())).await?;
    }
    stage.publish(&there, event("other", "end")).await?;
    for mut reader in [ephemeral, durable] {
        let mut got = reader.take_bodies(50).await?;
        reader.expect("end").await?;
        got.sort_by_key(|text| text.parse::<u32>().unwrap_or(u32::MAX));
        each_once("events to overlapping patterns", 50, got)?;
    }
    Ok(())
}

pub(crate) async fn every_subscription_gets_a_copy(stage: Arc<Stage>) -> Outcome {
    const EVENTS: usize = 500;
    let mut readers = Vec::new();
    for number in 0..20 {
        let bus = stage.bus().await?;
        let source = match number % 2 {
            0 => Source::Topic(patterns(&["copies.#"])),
            _ => Source::Durable(token(&format!("copies-{number}")), patterns(&["copies.*"])),
        };
        readers.push(stage.reader(&bus, source, 600).await?);
    }
    let publisher = stage.bus().await?;
    let events = (0..EVENTS).map(|number| event("copies.one", number.to_string())).collect();
    let reading = try_join_all(readers.iter_mut().map(async |reader| {
        let got = reader.take_bodies(EVENTS).await?;
        each_once(&reader.to_string(), EVENTS, got)
    }));
    futures_util::try_join!(reading, stage.publish_all(&publisher, events))?;
    stage.publish(&publisher, event("copies.one", "end")).await?;
    for reader in &mut readers {
        reader.expect("end").await?;
    }
    Ok(())
}

pub(crate) async fn ephemeral_subscriptions_get_nothing_from_before(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut first = stage.reader(&here, Source::Topic(patterns(&["#"])), 10).await?;
    stage.publish(&there, event("e.one", "before")).await?;
    first.expect("before").await?;
    drop(first);
    stage.publish(&there, event("e.one", "between")).await?;
    let mut second = stage.reader(&here, Source::Topic(patterns(&["#"])), 10).await?;
    stage.publish(&there, event("e.one", "after")).await?;
    second.expect("after").await
}

pub(crate) async fn an_event_that_nobody_wants_is_well(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    stage.publish(&there, event("e.nobody", "unheard")).await?;
    stage.publish(&there, text(Address::Control(key("nobody")), "unheard")).await?;
    stage.publish(&there, reply(Inbox::random(), "unheard")).await?;
    let source = Source::Durable(token("late"), patterns(&["e.#"]));
    let mut late = stage.reader(&here, source, 10).await?;
    stage.publish(&there, event("e.nobody", "heard")).await?;
    late.expect("heard").await
}

pub(crate) async fn control_reaches_every_instance(stage: Arc<Stage>) -> Outcome {
    let publisher = stage.bus().await?;
    let mut readers = Vec::new();
    for service in ["calc", "calc", "calc", "calc.deep", "other"] {
        let bus = stage.bus().await?;
        readers.push((service, stage.reader(&bus, Source::Control(key(service)), 100).await?));
    }
    for service in ["calc", "calc.deep", "other"] {
        for number in 0..20 {
            let message = text(Address::Control(key(service)), format!("{service} {number}"));
            stage.publish(&publisher, message).await?;
        }
        stage.publish(&publisher, text(Address::Control(key(service)), "end")).await?;
    }
    for (service, reader) in &mut readers {
        for number in 0..20 {
            reader.expect(&format!("{service} {number}")).await?;
        }
        reader.expect("end").await?;
    }
    Ok(())
}

pub(crate) async fn an_inbox_gets_only_its_own(stage: Arc<Stage>) -> Outcome {
    let publisher = stage.bus().await?;
    let mut random = stage.random();
    let mut readers: Vec<(Inbox, usize, Reader)> = Vec::new();
    for _ in 0..5 {
        let (bus, inbox) = (stage.bus().await?, Inbox::random());
        readers.push((inbox, 0, stage.reader(&bus, Source::Inbox(inbox), 300).await?));
    }
    for _ in 0..200 {
        let at = random.random_range(0..readers.len());
        let (inbox, count, _) = &mut readers[at];
        stage.publish(&publisher, reply(*inbox, count.to_string())).await?;
        *count += 1;
    }
    for (inbox, ..) in &readers {
        stage.publish(&publisher, reply(*inbox, "end").with_ttl(Duration::from_secs(60))).await?;
    }
    for (inbox, count, reader) in &mut readers {
        let mut got = Vec::new();
        loop {
            let message = reader.take().await?;
            ensure!(
                *message.address() == Address::Inbox(*inbox),
                "{inbox} got a reply to {}",
                message.address()
            );
            match body(&message) {
                end if end == "end" => break,
                text => got.push(text),
            }
        }
        each_once("replies", *count, got).map_err(|failure: Failure| failure.in_step(inbox))?;
    }
    Ok(())
}
