//! Replies: they go to who asked, and to nobody else.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    address::{Address, Inbox},
    error::Error,
    jsonrpc::RpcError,
    message::{Message, header},
    service::{Context, Service},
    subscription::Source,
    testkit::{
        Outcome, Stage,
        target::{call, event, job, key, patterns, reply, text},
        wait::ensure,
    },
};

#[derive(Serialize, Deserialize)]
struct Text {
    text: String,
}

crate::method! {
    /// Gives back what it gets.
    Echo = "echo.say": Text => String, idempotent
}

async fn echo(_: Arc<()>, params: Text, _: Context) -> Result<String, RpcError> {
    Ok(params.text)
}

/// A call to the service above, whose reply is to go to `reply`, whatever that is.
fn asking(reply: &str) -> Result<Message, Error> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"say","params":{"text":"answer"}}"#;
    call("echo.say", body).with(header::REPLY, reply)
}

pub(crate) async fn a_forged_reply_address_reaches_nobody(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let victim = Inbox::random();
    let mut readers = [
        stage.reader(&there, Source::Queue(key("jobs.victim")), 1).await?,
        stage.reader(&there, Source::Topic(patterns(&["#"])), 10).await?,
        stage.reader(&there, Source::Control(key("jobs.victim")), 1).await?,
        stage.reader(&there, Source::Inbox(victim), 1).await?,
    ];
    let mine = Inbox::random();
    let mut replies = stage.reader(&there, Source::Inbox(mine), 10).await?;
    // One at a time, so that the last answer comes after all others.
    let service = Service::new("echo", ()).method(Echo, echo).concurrency(1).start(here.clone()).await?;
    let victim = victim.to_string();
    let forged = [
        "jobs.victim",
        "queue jobs.victim",
        "",
        "*",
        ">",
        "#",
        "$JS.API.STREAM.PURGE.x",
        "../jobs.victim",
        &victim.to_uppercase(),
        &format!(" {victim}"),
        &format!("{victim}0"),
        &victim[1..],
        &format!("inbox {victim}"),
    ];
    // Digits alone are the same in upper case, and then it is no forgery.
    for address in forged.into_iter().filter(|address| *address != victim) {
        stage.publish(&there, asking(address)?).await?;
    }
    stage.publish(&there, asking(&mine.to_string())?).await?;
    let answer = replies.take_body().await?;
    ensure!(answer.contains("answer"), "a call among forged ones was answered {answer:?}");
    let end = [
        job("jobs.victim", "end"),
        event("e.end", "end"),
        text(Address::Control(key("jobs.victim")), "end"),
        text(Address::Inbox(victim.parse()?), "end"),
    ];
    for (reader, end) in readers.iter_mut().zip(end) {
        stage.publish(&there, end).await?;
        reader.expect("end").await?;
    }
    service.drain(Duration::from_secs(1)).await;
    Ok(())
}

pub(crate) async fn replies_that_nobody_awaits_disturb_nobody(stage: Arc<Stage>) -> Outcome {
    const CALLS: usize = 100;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut service = stage.reader(&here, Source::Service(key("calc")), 4).await?;
    let mine = Inbox::random();
    let mut replies = stage.reader(&there, Source::Inbox(mine), 10).await?;
    for number in 0..CALLS {
        let gone = Inbox::random();
        if number % 10 == 0 {
            // One that was there when it asked.
            let asker = stage.reader(&there, Source::Inbox(gone), 1).await?;
            stage.publish(&there, call("calc.add", gone.to_string())).await?;
            drop(asker);
        } else {
            stage.publish(&there, call("calc.add", gone.to_string())).await?;
        }
        stage.publish(&there, call("calc.add", mine.to_string())).await?;
        for _ in 0..2 {
            let asked: Inbox = service.take_body().await?.parse()?;
            stage.publish(&here, reply(asked, number.to_string())).await?;
        }
        replies.expect(&number.to_string()).await?;
    }
    Ok(())
}
