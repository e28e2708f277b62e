//! Dead letters as an operator sees them: shown, brought back, thrown away, and never lost by looking.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use commissaire::{
    Address, Backoff, Bus, Context, Key, Message, RetryPolicy, RpcError, Running, Service, Source,
};
use commissaire_integration::{
    Failure, Kind, Outcome, PATIENCE, Signal, Site, alone, each_bus, ensure, long, until, within,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

each_bus!(
    dead_letters_are_shown_brought_back_and_thrown_away,
    a_letter_that_dies_at_once_again_is_brought_back_once_a_run_and_three_times_in_all,
    a_signal_ends_bringing_back_between_two_letters,
    many_letters_are_held_within_bounds_and_all_brought_back,
);

/// A wall to be painted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wall {
    number: u32,
}

commissaire::job! {
    /// Paints a wall.
    pub(crate) Paint = "jobs.paint": Wall
}

/// Paints, where there is paint.
#[derive(Debug, Default)]
struct Painter {
    has_paint: AtomicBool,
    painted: Mutex<BTreeSet<u32>>,
    runs: Mutex<u32>,
}

type Shared = Arc<Painter>;

impl Painter {
    fn runs(&self) -> u32 {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn paint(painter: Arc<Shared>, wall: Wall, _: Context) -> Result<(), RpcError> {
    *painter.runs.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    if !painter.has_paint.load(Ordering::Relaxed) {
        return Err(RpcError::new(1, "the paint has run out"));
    }
    painter.painted.lock().unwrap_or_else(PoisonError::into_inner).insert(wall.number);
    Ok(())
}

/// A painter with no paint, whose first failure ends a job.
async fn painter(bus: &Arc<dyn Bus>) -> Outcome<(Arc<Painter>, Running)> {
    let painter = Arc::new(Painter::default());
    let once = RetryPolicy {
        max_attempts: 1,
        max_crashes: 3,
        backoff: Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) },
        ..RetryPolicy::default()
    };
    let service = Service::new("painter", painter.clone()).job(Paint, paint).retry(once);
    Ok((painter, service.start(bus.clone()).await?))
}

/// Runs `commissaire dlq` with these arguments; its lines, when it has ended with `code`.
async fn dlq(site: &Site, code: i32, arguments: &[&str]) -> Outcome<Vec<String>> {
    let ended = site.cli(&["dlq"])?.args(arguments).run().await?.expect(code)?;
    Ok(ended.out.lines().map(str::to_owned).collect())
}

/// The dead letters of the walls, as records, by their ids: those that were given back may come in another order.
async fn letters(site: &Site, more: &[&str]) -> Outcome<Vec<Value>> {
    let order = site.cli(&["dlq", "ls", "queue", "jobs.paint", "--json"])?.args(more);
    let ended = order.run().await?;
    ensure!(matches!(ended.code, Some(0 | 5)), "{ended:#?}");
    let read = |line: &str| Ok(serde_json::from_str(line).map_err(std::io::Error::from)?);
    let mut letters: Vec<Value> = ended.out.lines().map(read).collect::<Outcome<_>>()?;
    letters.sort_by_key(|letter| letter["id"].to_string());
    Ok(letters)
}

/// Leaves `count` walls, and waits until so many are dead letters.
async fn leave(site: &Site, painter: &Painter, count: u32) -> Outcome {
    for number in 0..count {
        let wall = format!(r#"{{"number": {number}}}"#);
        site.cli(&["enqueue", "jobs.paint", &wall])?.run().await?.expect(0)?;
    }
    until("every wall was tried", PATIENCE, async || painter.runs() == count).await?;
    dead(site, count as usize).await
}

async fn dead(site: &Site, count: usize) -> Outcome {
    let mut found = 0;
    until(format_args!("there are {count} dead letters"), PATIENCE, async || {
        found = letters(site, &[]).await.map_or(0, |letters| letters.len());
        found == count
    })
    .await
    .map_err(|failure| failure.in_step(format!("there are {found}")))
}

async fn dead_letters_are_shown_brought_back_and_thrown_away(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    dlq(&site, 5, &["ls", "queue", "jobs.paint"]).await?;
    let bus = site.join().await?;
    let (painter, running) = painter(&bus).await?;
    leave(&site, &painter, 6).await?;
    site.cli(&["enqueue", "jobs.paint", r#"{"number": 7, "colour":  "blue"}"#])?.run().await?.expect(0)?;
    dead(&site, 7).await?;
    let doctor = site.cli(&["doctor"])?.run().await?;
    let told = doctor.out.contains("dead letters of queue jobs.paint: 7") || kind == Kind::Amqp;
    ensure!(told && doctor.code == Some(1) || kind == Kind::Amqp, "{doctor:#?}");

    // Looking changes nothing.
    let all = letters(&site, &[]).await?;
    for letter in &all {
        ensure!(letter["origin"] == "queue jobs.paint" && letter["attempts"] == 1, "{letter}");
    }
    for (more, count) in [
        (["--filter", "cause=rejected"], 1),
        (["--filter", "has run out"], 6),
        (["--filter", "jobs.paint"], 7),
        (["--filter", "cause=crashes"], 0),
        (["--limit", "2"], 2),
    ] {
        let found = letters(&site, &more).await?;
        ensure!(found.len() == count, "{more:?}: {found:#?}");
    }
    let table = dlq(&site, 0, &["ls", "queue jobs.paint"]).await?;
    ensure!(table.len() == 8 && table[0].starts_with("ID "), "{table:#?}");
    let rejected = letters(&site, &["--filter", "cause=rejected"]).await?.remove(0);
    ensure!(rejected["body"]["params"]["colour"] == "blue", "{rejected}");
    let id = rejected["id"].as_str().ok_or_else(|| Failure::new("a letter has no id"))?.to_owned();
    let shown = dlq(&site, 0, &["show", &id, "queue", "jobs.paint"]).await?.join("\n");
    let shown: Value = serde_json::from_str(&shown).map_err(std::io::Error::from)?;
    ensure!(shown == rejected, "shown is\n{shown}\nlisted was\n{rejected}");
    dlq(&site, 5, &["show", "nobody", "queue", "jobs.paint"]).await?;
    let would = dlq(&site, 0, &["redrive", "queue", "jobs.paint", "--dry-run", "--json"]).await?;
    ensure!(would.len() == 7, "{would:#?}");
    ensure!(letters(&site, &[]).await? == all, "the letters are not what they were");

    painter.has_paint.store(true, Ordering::Relaxed);
    let origin = ["redrive", "queue", "jobs.paint", "--filter"];
    let said = dlq(&site, 0, &[&origin[..], &["has run out"]].concat()).await?;
    ensure!(said[0].starts_with("6 of 7 "), "{said:?}");
    until("all walls are painted", PATIENCE, async || {
        painter.painted.lock().unwrap_or_else(PoisonError::into_inner).len() == 6
    })
    .await?;
    ensure!(letters(&site, &[]).await?.len() == 1, "another letter than the rejected one is left");

    let purge = ["purge", "queue", "jobs.paint"];
    dlq(&site, 64, &purge).await?;
    dlq(&site, 0, &[&purge[..], &["--dry-run"]].concat()).await?;
    let said = dlq(&site, 0, &[&purge[..], &["--yes", "--json"]].concat()).await?;
    let sum: Value = serde_json::from_str(&said[0]).map_err(std::io::Error::from)?;
    ensure!(sum["purged"] == 1 && sum["looked_at"] == 1, "{sum}");
    ensure!(letters(&site, &[]).await?.is_empty(), "there are letters left");
    dlq(&site, 5, &[&purge[..], &["--yes"]].concat()).await?;
    running.drain(Duration::from_secs(1)).await;
    Ok(bus.close().await?)
}

async fn a_letter_that_dies_at_once_again_is_brought_back_once_a_run_and_three_times_in_all(
    kind: Kind,
) -> Outcome {
    let site = Site::on(kind).await?;
    let bus = site.join().await?;
    let (painter, running) = painter(&bus).await?;
    leave(&site, &painter, 2).await?;
    let redrive = ["redrive", "queue", "jobs.paint", "--json"];
    for round in 1..=3_u64 {
        let said = dlq(&site, 0, &redrive).await?;
        let sum: Value = serde_json::from_str(&said[0]).map_err(std::io::Error::from)?;
        ensure!(sum["redriven"] == 2 && sum["skipped"] == 0, "round {round}: {sum}");
        dead(&site, 2).await?;
        let redriven: Vec<_> =
            letters(&site, &[]).await?.iter().map(|one| one["redriven"].as_u64()).collect();
        ensure!(redriven == [Some(round); 2], "round {round}: brought back {redriven:?} times");
    }
    let said = dlq(&site, 5, &redrive).await?;
    let sum: Value = serde_json::from_str(&said[0]).map_err(std::io::Error::from)?;
    ensure!(sum["redriven"] == 0 && sum["skipped"] == 2, "{sum}");
    ensure!(painter.runs() == 2 * 4, "{} runs", painter.runs());
    dlq(&site, 0, &[&redrive[..], &["--again", "--limit", "1"]].concat()).await?;
    until("one ran again", PATIENCE, async || painter.runs() == 2 * 4 + 1).await?;
    running.drain(Duration::from_secs(1)).await;
    Ok(bus.close().await?)
}

async fn a_signal_ends_bringing_back_between_two_letters(kind: Kind) -> Outcome {
    const LETTERS: u32 = 8;
    let site = Site::on(kind).await?;
    let bus = site.join().await?;
    let (painter, running) = painter(&bus).await?;
    leave(&site, &painter, LETTERS).await?;
    painter.has_paint.store(true, Ordering::Relaxed);
    let redrive = site.cli(&["dlq", "redrive", "queue", "jobs.paint", "--rate", "2/s"])?.start()?;
    until("two are brought back", PATIENCE, async || painter.runs() >= LETTERS + 2).await?;
    redrive.signal(Signal::INT)?;
    let ended = redrive.ended().await?.expect(130)?;
    let back: u32 = ended.out.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    ensure!((2..LETTERS).contains(&back), "{ended:#?}");
    dead(&site, (LETTERS - back) as usize).await?;
    until("what was brought back is painted", PATIENCE, async || painter.runs() == LETTERS + back).await?;
    running.drain(Duration::from_secs(1)).await;
    Ok(bus.close().await?)
}

async fn many_letters_are_held_within_bounds_and_all_brought_back(kind: Kind) -> Outcome {
    const PARTS: usize = 16;
    /// The most that a command holds.
    const MOST: usize = 10_000;
    let _machine = alone().await;
    let many = long("dead letters", 2_000, 12_000);
    let site = Site::on(kind).await?;
    let bus = site.join().await?;
    let mut dying = JoinSet::new();
    for part in 0..PARTS {
        let bus = bus.clone();
        dying.spawn(async move {
            let key = Key::new("jobs.paint")?;
            let mut jobs = bus.subscribe(Source::Queue(key.clone()), 1).await?;
            for number in (part..many).step_by(PARTS) {
                let body =
                    format!(r#"{{"jsonrpc": "2.0", "method": "paint", "params": {{"number": {number}}}}}"#);
                bus.publish(Message::new(Address::Queue(key.clone()), body)?).await?;
                let job = jobs.next_delivery().await.ok_or_else(|| Failure::new("the queue ended"))?;
                job.term("attempts", "the paint has run out").await?;
            }
            Outcome::Ok(())
        });
    }
    within("all die", PATIENCE * 4, dying.join_all()).await?.into_iter().collect::<Outcome>()?;

    let begun = Instant::now();
    let listed = letters(&site, &[]).await?;
    println!("{} letters listed in {:?}", listed.len(), begun.elapsed());
    ensure!(listed.len() == many.min(MOST), "{} of {many} are listed", listed.len());
    let ids: BTreeSet<_> = listed.iter().filter_map(|letter| letter["id"].as_str()).collect();
    ensure!(ids.len() == listed.len(), "a letter is listed twice");
    let begun = Instant::now();
    let sum = dlq(&site, 0, &["redrive", "queue", "jobs.paint", "--json"]).await?;
    println!("all brought back in {:?}", begun.elapsed());
    let sum: Value = serde_json::from_str(&sum[0]).map_err(std::io::Error::from)?;
    ensure!(sum["redriven"] == many, "{sum}");
    let (painter, running) = painter(&bus).await?;
    painter.has_paint.store(true, Ordering::Relaxed);
    let painted = || painter.painted.lock().unwrap_or_else(PoisonError::into_inner).len();
    until("all walls are painted", PATIENCE, async || painted() == many).await?;
    dlq(&site, 5, &["ls", "queue", "jobs.paint"]).await?;
    running.drain(Duration::from_secs(1)).await;
    Ok(bus.close().await?)
}
