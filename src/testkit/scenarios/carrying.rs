//! What goes in comes out: headers, bytes, sizes, name spaces.

use std::{sync::Arc, time::Duration};

use rand::{Rng, RngExt};

use super::same;
use crate::{
    address::{Address, Inbox},
    error::ErrorKind,
    message::{MAX_HEADER_NAME, MAX_HEADER_VALUE, MAX_MESSAGE, Message, MessageId, header},
    subscription::Source,
    testkit::{
        Failure, Outcome, Stage,
        target::{body, call, event, job, key, patterns, reply, text, token},
        wait::ensure,
    },
};

/// A source and an address that reaches it, for each way to consume.
fn routes() -> Vec<(Source, Address)> {
    let inbox = Inbox::random();
    vec![
        (Source::Service(key("calc")), Address::Service(key("calc.add"))),
        (Source::Queue(key("jobs.carry")), Address::Queue(key("jobs.carry"))),
        (Source::Topic(patterns(&["e.*.x"])), Address::Topic(key("e.one.x"))),
        (Source::Durable(token("keeper"), patterns(&["d.#"])), Address::Topic(key("d.one.two"))),
        (Source::Control(key("calc")), Address::Control(key("calc"))),
        (Source::Inbox(inbox), Address::Inbox(inbox)),
    ]
}

pub(crate) async fn every_kind_of_address_carries_headers_and_bytes(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut random = stage.random();
    for (source, address) in routes() {
        let mut reader = stage.reader(&here, source, 4).await?;
        let long_name = "n".repeat(MAX_HEADER_NAME);
        let visible: String = (b' '..=b'~').map(char::from).collect();
        for size in [0, 1, 100, 10_000, 100_000] {
            let mut bytes = vec![0; size];
            random.fill_bytes(&mut bytes);
            let sent = Message::new(address.clone(), bytes)?
                .with_ttl(Duration::from_secs(60))
                .with(header::REPLY, Inbox::random().to_string())?
                .with(header::TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")?
                .with("x-visible", &visible)?
                .with("x-empty", "")?
                .with("x-spaces", "  at both ends  ")?
                .with(long_name.clone(), "v".repeat(MAX_HEADER_VALUE))?;
            stage.publish(&there, sent.clone()).await?;
            same(&sent, &reader.take().await?, &[])?;
        }
        let many = (0..50).try_fold(Message::new(address, "many")?, |message, n| {
            message.with(format!("x-{n}"), random.random::<u64>().to_string())
        })?;
        stage.publish(&there, many.clone()).await?;
        same(&many, &reader.take().await?, &[])?;
    }
    Ok(())
}

pub(crate) async fn every_byte_value_survives_in_a_body(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let all: Vec<u8> = (0..=255).collect();
    let bodies = [
        all.clone(),
        all.iter().rev().copied().collect(),
        all.iter().copied().filter(|byte| *byte >= 0x80).collect(),
        vec![0; 64],
        vec![0xff; 64],
        b"\r\n\r\n*3\r\n$3\r\nSET\r\n".to_vec(),
        b"\0{\"a\":\0}\x1b[31m".to_vec(),
    ];
    for (source, address) in routes() {
        let mut reader = stage.reader(&here, source, 1).await?;
        for bytes in &bodies {
            let sent = Message::new(address.clone(), bytes.clone())?;
            stage.publish(&there, sent.clone()).await?;
            same(&sent, &reader.take().await?, &[])?;
        }
    }
    Ok(())
}

pub(crate) async fn the_largest_message_passes_and_a_larger_one_is_refused(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let reason = "ü\u{1b}".repeat(400);
    for (source, address) in routes() {
        let id = MessageId::new();
        let largest = (0..=MAX_MESSAGE)
            .rev()
            .find(|size| Message::with_id(id, address.clone(), vec![b'x'; *size]).is_ok());
        let Some(largest) = largest else { return Err(Failure::new("no size is allowed")) };
        ensure!(largest > MAX_MESSAGE - 1024, "only {largest} bytes pass");
        let refused = Message::new(address.clone(), vec![b'x'; largest + 1]).err();
        let kind = refused.as_ref().map(|e| (e.kind().clone(), e.may_have_executed()));
        ensure!(kind == Some((ErrorKind::TooLarge, false)), "a body over the limit gave {refused:?}");

        let settled = matches!(source, Source::Queue(_) | Source::Durable(..));
        let mut reader = stage.reader(&here, source, 1).await?;
        let sent = Message::with_id(id, address, vec![b'x'; largest])?;
        stage.publish(&there, sent.clone()).await?;
        let delivery = reader.next().await?;
        same(&sent, delivery.message(), &[])?;
        if settled {
            // What the bus itself adds must fit as well.
            delivery.nack(Duration::ZERO, &reason).await?;
            let again = reader.take().await?;
            ensure!(
                again.failed() == 1,
                "the largest message came again with {} failed runs",
                again.failed()
            );
        } else {
            delivery.ack().await?;
        }
    }
    Ok(())
}

pub(crate) async fn exchanges_do_not_see_each_other(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.other_bus().await?);
    let inbox = Inbox::random();
    let mut service = stage.reader(&there, Source::Service(key("calc")), 8).await?;
    let mut queue = stage.reader(&there, Source::Queue(key("jobs.same")), 8).await?;
    let mut topic = stage.reader(&there, Source::Topic(patterns(&["#"])), 8).await?;
    let mut durable = stage.reader(&there, Source::Durable(token("same"), patterns(&["#"])), 8).await?;
    let mut control = stage.reader(&there, Source::Control(key("calc")), 8).await?;
    let mut replies = stage.reader(&there, Source::Inbox(inbox), 8).await?;

    let stray = here.publish(call("calc.add", "stray")).await.err();
    ensure!(
        stray.as_ref().is_some_and(|e| *e.kind() == ErrorKind::NoResponders),
        "a call reached another exchange: {stray:?}"
    );
    for (bus, body) in [(&here, "stray"), (&there, "mine")] {
        stage.publish(bus, job("jobs.same", body)).await?;
        stage.publish(bus, event("e.one", body)).await?;
        stage.publish(bus, text(Address::Control(key("calc")), body)).await?;
        stage.publish(bus, reply(inbox, body)).await?;
    }
    stage.publish(&there, call("calc.add", "mine")).await?;
    for reader in [&mut service, &mut queue, &mut topic, &mut durable, &mut control, &mut replies] {
        reader.expect("mine").await?;
    }
    let mut mine = stage.reader(&here, Source::Queue(key("jobs.same")), 1).await?;
    let kept = mine.take().await?;
    ensure!(body(&kept) == "stray", "the queue of the first exchange held {:?}", body(&kept));
    Ok(())
}
