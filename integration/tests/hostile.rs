//! Input that nobody should send: refused before it is on the wire, and the service goes on.

use commissaire::{Address, Inbox, Key, MAX_MESSAGE, MAX_RECEIVED, Message, Pattern, Source, header};
use commissaire_integration::{
    Ended, Failure, Kind, Outcome, PATIENCE, Site, each_bus, ensure, resident_kib, within,
};

each_bus!(
    what_cannot_be_sent_is_refused_and_the_service_still_answers,
    whatever_is_on_the_wire_a_service_answers_with_an_error_and_goes_on,
);

/// How much a service may grow by what it refuses.
const GROWTH_KIB: u64 = 8 * 1024;

/// Refused by the program itself: exit code 64, one line, no quotation of the whole.
fn refused(ended: Ended, parts: &[&str]) -> Outcome {
    let ended = ended.expect(64)?;
    ensure!(ended.out.is_empty() && ended.err.len() < 500, "it said {} bytes: {ended:?}", ended.err.len());
    ended.tells(parts)
}

async fn what_cannot_be_sent_is_refused_and_the_service_still_answers(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _simple = site.service("simple", &[]).await?;
    let bus = site.join().await?;
    let all = Source::Topic(vec![Pattern::new("#")?]);
    let mut wire = bus.subscribe(all, 16).await?;

    let large = format!("[2, {}3]", " ".repeat(MAX_RECEIVED - 6));
    let larger = format!("[2, {}3]", " ".repeat(2 * MAX_RECEIVED));
    let text = format!("\"{}\"", "a".repeat(MAX_RECEIVED));
    for input in [&large, &larger, &text] {
        refused(site.cli(&["call", "simple.add", "-"])?.input(input.as_bytes()).run().await?, &["bytes"])?;
        refused(site.cli(&["enqueue", "jobs.add", "-"])?.input(input.as_bytes()).run().await?, &["bytes"])?;
        refused(site.cli(&["publish", "notify.x", "-"])?.input(input.as_bytes()).run().await?, &["bytes"])?;
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    refused(site.cli(&["call", "simple.add", "-"])?.input(deep).run().await?, &["nested deeper"])?;
    let wide: Vec<String> = (0..20_000).map(|n| format!("\"k{n}\":0")).collect();
    let wide = format!("{{{}}}", wide.join(","));
    refused(site.cli(&["call", "simple.add", "-"])?.input(wide).run().await?, &["members"])?;
    refused(site.cli(&["call", "simple.add", r#"{"x":1,"x":2,"y":3}"#])?.run().await?, &["twice"])?;
    for key in ["simple.*", "simple.#", "*", "simple.add ", "simple..add", "simple.\u{e4}dd", "simple.>", ""]
    {
        for command in ["call", "publish", "enqueue"] {
            refused(site.cli(&[command, key, "[2, 3]"])?.run().await?, &["key"])?;
        }
    }

    site.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0)?;
    let own = Message::new(Address::Topic(Key::new("notify.own")?), "1")?;
    bus.publish(own).await?;
    let first = wire.next_delivery().await.map(|delivery| delivery.message().address().name());
    ensure!(first.as_deref() == Some("notify.own"), "{first:?} went over the wire");
    Ok(bus.close().await?)
}

async fn whatever_is_on_the_wire_a_service_answers_with_an_error_and_goes_on(kind: Kind) -> Outcome {
    const TIMES: usize = 100;
    let site = Site::on(kind).await?;
    let simple = site.service("simple", &[]).await?;
    let bus = site.join().await?;
    let inbox = Inbox::random();
    let mut answers = bus.subscribe(Source::Inbox(inbox), 64).await?;
    let request =
        |params: &str| format!(r#"{{"jsonrpc": "2.0", "id": 1, "method": "add", "params": {params}}}"#);
    let members: Vec<String> = (0..20_000).map(|n| format!("\"k{n}\":0")).collect();
    let many = vec![request("[1, 2]"); 1_000];
    let bodies: [(i64, Vec<u8>); 9] = [
        (-32700, Vec::new()),
        (-32700, b"{nonsense".to_vec()),
        (-32700, vec![0xff; 1_000]),
        (-32700, vec![b'['; MAX_MESSAGE / 2]),
        (-32600, b"[]".to_vec()),
        (-32600, request(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))).into()),
        (-32600, request(&format!("{{{}}}", members.join(","))).into()),
        (-32600, format!("[{}]", many.join(",")).into()),
        (-32602, request(&format!("[\"{}\", 1]", "a".repeat(MAX_MESSAGE / 2))).into()),
    ];
    let mut before = 0;
    for round in 0..TIMES {
        if round == TIMES / 10 {
            // By now it has the buffers that it works with.
            before = resident_kib(simple.pid())?;
        }
        for (code, body) in &bodies {
            let message = Message::new(Address::Service(Key::new("simple.add")?), body.clone())?
                .with(header::REPLY, inbox.to_string())?
                .with(header::CORRELATION, "0")?
                .with_ttl(PATIENCE);
            bus.publish(message).await?;
            let what = format!("the answer to {} bytes, {code}", body.len());
            let answer = within(&what, PATIENCE, answers.next_delivery()).await?;
            let answer = answer.ok_or_else(|| Failure::new("the inbox ended"))?;
            let answer: serde_json::Value =
                serde_json::from_slice(answer.message().body()).map_err(std::io::Error::from)?;
            // Both are true of text that is too deep before it turns out to be no JSON.
            let deep = *code == -32700 && answer["error"]["code"] == -32600;
            ensure!(answer["error"]["code"] == *code || deep, "{what}: {answer}");
        }
    }
    let after = resident_kib(simple.pid())?;
    println!("{before} KiB before, {after} KiB after");
    ensure!(after <= before + GROWTH_KIB, "it grew from {before} to {after} KiB");
    site.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0)?;
    Ok(bus.close().await?)
}
