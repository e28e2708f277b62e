//! Durable subscriptions: they live on the broker, under a name.

use std::{sync::Arc, time::Duration};

use super::{each_once, same, share_out};
use crate::{
    address::Origin,
    message::header,
    subscription::Source,
    testkit::{
        Outcome, Stage,
        target::{event, patterns, token},
        wait::ensure,
    },
};

fn named(name: &str, wanted: &[&str]) -> Source {
    Source::Durable(token(name), patterns(wanted))
}

pub(crate) async fn a_durable_subscription_keeps_while_its_reader_is_away(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, named("away", &["e.#"]), 10).await?;
    stage.publish(&there, event("e.first", "first")).await?;
    reader.expect("first").await?;
    reader.close();
    ensure!(reader.next_or_end().await?.is_none(), "a closed subscription went on");
    drop(reader);
    let events = (0..300).map(|number| event("e.kept", number.to_string())).collect();
    stage.publish_all(&there, events).await?;
    stage.publish(&there, event("other", "not wanted")).await?;
    let mut reader = stage.reader(&here, named("away", &["e.#"]), 10).await?;
    let got = reader.take_bodies(300).await?;
    each_once("events kept for a durable subscription", 300, got)?;
    stage.publish(&there, event("e.last", "last")).await?;
    reader.expect("last").await
}

pub(crate) async fn readers_of_one_durable_name_share(stage: Arc<Stage>) -> Outcome {
    let publisher = stage.bus().await?;
    let mut readers = Vec::new();
    for name in ["shared", "shared", "alone"] {
        let bus = stage.bus().await?;
        readers.push(stage.reader(&bus, named(name, &["e.#"]), 5).await?);
    }
    let (shared, alone) = readers.split_at_mut(2);
    let events = (0..400).map(|number| event("e.one", number.to_string())).collect();
    let (shared, alone, ()) = futures_util::try_join!(
        share_out(shared, 400),
        share_out(alone, 400),
        stage.publish_all(&publisher, events),
    )?;
    let least = shared.iter().map(Vec::len).min();
    ensure!(least >= Some(8), "of 400 shared events one of two readers got {least:?}");
    each_once("events to two readers of one name", 400, shared.into_iter().flatten())?;
    each_once("events to the one reader of its name", 400, alone.into_iter().flatten())
}

pub(crate) async fn a_durable_subscription_takes_the_new_patterns(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut old = stage.reader(&here, named("change", &["old.#", "both"]), 1).await?;
    stage.publish(&there, event("old.one", "old")).await?;
    stage.publish(&there, event("new.one", "not wanted yet")).await?;
    stage.publish(&there, event("both", "end")).await?;
    old.expect("old").await?;
    old.expect("end").await?;
    old.close();
    ensure!(old.next_or_end().await?.is_none(), "a closed subscription went on");
    drop(old);
    let mut new = stage.reader(&here, named("change", &["new.*", "both"]), 1).await?;
    stage.publish(&there, event("old.one", "no longer wanted")).await?;
    stage.publish(&there, event("new.one", "new")).await?;
    stage.publish(&there, event("both", "end")).await?;
    new.expect("new").await?;
    new.expect("end").await
}

pub(crate) async fn a_durable_dead_letter_names_its_subscription(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, named("picky", &["e.#"]), 1).await?;
    let mut fellow = stage.reader(&here, named("fellow", &["e.#"]), 1).await?;
    let sent = event("e.one.two", "bad").with("x-kept", "yes")?;
    stage.publish(&there, sent.clone()).await?;
    reader.next().await?.nack(Duration::ZERO, "first").await?;
    reader.next().await?.term("rejected", "never").await?;
    let origin = Origin::Durable(token("picky"));
    let mut dead = stage.reader(&there, Source::DeadLetters(origin.clone()), 1).await?;
    let letter = dead.take().await?;
    let added = [header::FAILED, header::FIRST_FAILURE, header::LAST_FAILURE, header::DEAD, header::ORIGIN];
    same(&sent, &letter, &added)?;
    let found = [header::DEAD, header::ORIGIN, header::FAILED].map(|name| letter.headers().get(name));
    let named = origin.to_string();
    ensure!(found == [Some("rejected"), Some(&*named), Some("2")], "the dead letter says {found:?}");
    // The other subscription is not touched by it.
    let message = fellow.take().await?;
    same(&sent, &message, &[])
}
