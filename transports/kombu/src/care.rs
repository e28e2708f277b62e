//! Care for what lies at the server: moves what is due, takes over what others left, makes again what is gone, and says that
//! this process lives and that long work goes on.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    bus::Core,
    letter,
    link::DEAF,
    script::Script,
    tap::Tap,
    value::{bytes, int, items, pairs, text},
    wire::{Fault, Wire, no_error},
};

/// How long a process counts as living that says nothing, and how often ours speaks.
pub(crate) const LIFE: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_secs(1);
/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked whether bindings are still there.
const VERIFY: Duration = Duration::from_secs(2);
/// How often messages in hand are said to be worked on, at the most, and what others left is looked for.
const KEEP: Duration = Duration::from_secs(10);
/// How long a process must be seen to be gone before what it had is taken: longer after our connection was made, for it may
/// still be making its own.
const GONE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// The most messages that one script touches.
const MOST: usize = 200;

struct Care {
    core: Arc<Core>,
    /// Since when which process is seen to be gone.
    gone: HashMap<String, Instant>,
    /// The connection that all this was seen through, and since when.
    wire: Option<(Wire, Instant)>,
}

pub(crate) fn start(core: Arc<Core>) {
    let care = Care { core: core.clone(), gone: HashMap::new(), wire: None };
    tokio::spawn(async move { core.end.run_until_cancelled(care.run()).await });
}

impl Care {
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let core = self.core.clone();
        let keep = KEEP.min(core.names.layout().visibility / 3);
        let long_ago = Instant::now().checked_sub(KEEP);
        let mut last = [long_ago; 4];
        let mut due = |at: usize, every: Duration, now: bool| {
            let due = now || last[at].is_none_or(|last| last.elapsed() >= every);
            if due {
                last[at] = Some(Instant::now());
            }
            due
        };
        loop {
            let (anew, forgotten) = tokio::select! {
                _ = tick.tick() => (false, false),
                () = core.ears.anew.notified() => (true, false),
                () = core.forgotten.notified() => (false, true),
            };
            let Some(wire) = core.main.now() else {
                if core.main.up().await.is_none() {
                    return;
                }
                core.ears.anew.notify_one();
                continue;
            };
            let new = self.wire.as_ref().is_none_or(|(known, _)| !known.is(&wire));
            if new {
                self.wire = Some((wire.clone(), Instant::now()));
                self.gone.clear();
            }
            let (anew, forgotten) = (anew || new, forgotten || new);
            // A fault here is met again at the next tick, or the connection is down anyway.
            let done: Result<(), Fault> = async {
                if due(0, BEAT, anew) {
                    core.beat(&wire, None).await?;
                    self.reap(&wire).await?;
                }
                if due(1, VERIFY, anew) {
                    verify(&core, &wire).await?;
                }
                if anew {
                    await_again(&core);
                }
                if due(2, keep, false) {
                    keep_all(&core, &wire).await?;
                    restore_old(&core, &wire).await?;
                }
                if due(3, KEEP, forgotten) {
                    look_back(&core, &wire).await?;
                }
                move_due(&core, &wire).await
            }
            .await;
            if let Err(fault) = done {
                if fault.is("NOSCRIPT") {
                    let _ = wire.load(DEAF).await;
                }
                tracing::debug!(?fault, "care for queues was put off");
                sleep(TICK).await;
                if anew {
                    core.ears.anew.notify_one();
                }
            }
        }
    }

    /// Takes over what processes left that died, and clears away what ends with them.
    async fn reap(&mut self, wire: &Wire) -> Result<(), Fault> {
        let (core, names) = (&self.core, &self.core.names);
        let processes = wire.ask(redis::cmd("SMEMBERS").arg(names.own("processes", "")), DEAF).await?;
        let others: Vec<String> =
            items(processes).into_iter().filter_map(text).filter(|id| *id != core.id).collect();
        let mut pipeline = Pipeline::new();
        for id in &others {
            pipeline.cmd("EXISTS").arg(names.own("live", id));
        }
        let living = wire.ask_all(&pipeline, DEAF).await?;
        let absent: HashSet<&String> =
            others.iter().zip(living).filter(|(_, lives)| int(lives) == Some(0)).map(|(id, _)| id).collect();
        self.gone.retain(|id, _| absent.contains(id));
        for id in &absent {
            self.gone.entry((*id).clone()).or_insert_with(Instant::now);
        }
        let settled = self.wire.as_ref().is_some_and(|(_, since)| since.elapsed() > GONE.1);
        let grace = if settled { GONE.0 } else { GONE.1 };
        let dead: Vec<String> = self
            .gone
            .iter()
            .filter(|(_, since)| since.elapsed() >= grace)
            .map(|(id, _)| id.clone())
            .collect();
        for id in dead {
            let held = wire.ask(redis::cmd("HGETALL").arg(names.own("hand", &id)), DEAF).await?;
            let held: Vec<(String, String)> =
                pairs(held).into_iter().filter_map(|(tag, queue)| Some((text(tag)?, text(queue)?))).collect();
            if !held.is_empty() {
                tracing::info!(
                    process = id,
                    messages = held.len(),
                    "a process died: others get what it had in hand"
                );
            }
            give_back(core, wire, &id, held, true).await?;
            let [table, permanent] = names.bindings(names.exchange());
            let keys = [
                names.own("live", &id),
                names.own("hand", &id),
                names.own("ends", &id),
                table,
                permanent,
                names.own("v", ""),
                names.own("made", ""),
                names.own("processes", ""),
            ];
            let mut command = Script::Reap.over(wire.digests(), &keys);
            command.arg(&id).arg(&names.layout().sep).arg(&names.layout().prefix);
            wire.ask(&command, DEAF).await?;
        }
        Ok(())
    }
}

/// Brings what `process` holds back to its queues; `again`: as what came back from a consumer that died.
async fn give_back(
    core: &Core,
    wire: &Wire,
    process: &str,
    held: Vec<(String, String)>,
    again: bool,
) -> Result<(), Fault> {
    let names = &core.names;
    let [unacked, index] = names.unacked();
    for some in held.chunks(MOST) {
        let tags: Vec<&str> = some.iter().map(|(tag, _)| tag.as_str()).collect();
        let notes = items(wire.ask(redis::cmd("HMGET").arg(&unacked).arg(&tags), DEAF).await?);
        let mut pipeline = Pipeline::new();
        // The last that was taken goes back first, so that they stand in their order again.
        for ((tag, queue), note) in some.iter().zip(notes).rev() {
            let end = crate::listen::note_end(queue);
            let raw = bytes(note)
                .and_then(|note| Some(note.strip_prefix(b"[")?.strip_suffix(end.as_bytes())?.to_vec()))
                .unwrap_or_default();
            let raw = if again { letter::again(&raw).unwrap_or(raw) } else { raw };
            let list = names.list_of(queue, letter::priority(&raw));
            let keys = [unacked.as_str(), &index, &names.own("hand", process), &list];
            let mut command = Script::Restore.over(wire.digests(), &keys);
            command.arg(tag).arg(raw);
            pipeline.add_command(command);
        }
        for answer in wire.ask_all(&pipeline, DEAF).await? {
            no_error(answer)?;
        }
    }
    core.ears.stir_all();
    Ok(())
}

/// What this process holds at the server and does not know of: its answer was lost with a connection.
async fn look_back(core: &Core, wire: &Wire) -> Result<(), Fault> {
    let _nobody_takes = core.taking.write().await;
    let held = wire.ask(redis::cmd("HGETALL").arg(core.names.own("hand", &core.id)), DEAF).await?;
    let known = core.held().clone();
    let forgotten = pairs(held)
        .into_iter()
        .filter_map(|(tag, queue)| Some((text(tag)?, text(queue)?)))
        .filter(|(tag, _)| !known.contains(tag))
        .collect();
    give_back(core, wire, &core.id, forgotten, false).await
}

/// Makes again what an administrator, or an accident, has taken away of what is read here.
async fn verify(core: &Core, wire: &Wire) -> Result<(), Fault> {
    let taps: Vec<Arc<Tap>> =
        core.ears.taps().into_iter().filter(|tap| tap.feed().is_some_and(|feed| !feed.is_closed())).collect();
    for tap in taps {
        match core.declare(wire, &tap, true).await {
            // What cannot be had of one queue must not stop the others.
            Err(fault) if fault.is_final() => {
                tracing::error!(queue = tap.queue, ?fault, "it cannot be consumed");
                tap.consuming(false);
            }
            made => {
                made?;
                tap.consuming(true);
            }
        }
    }
    Ok(())
}

/// Looks for the replies that may have come while nothing was heard.
fn await_again(core: &Core) {
    for name in core.replies.awaited() {
        core.ears.stir(&core.names.list(&name));
    }
    for tap in core.ears.taps() {
        core.ears.stir(&core.names.list(&tap.queue));
    }
}

/// Says of all that is in hand that it is worked on, so that no Kombu program takes it back.
async fn keep_all(core: &Core, wire: &Wire) -> Result<(), Fault> {
    let Some(now) = wire.clock() else { return Ok(()) };
    let tags: Vec<String> = core.held().iter().cloned().collect();
    let [_, index] = core.names.unacked();
    let mut pipeline = Pipeline::new();
    for tags in tags.chunks(MOST) {
        let command = pipeline.cmd("ZADD").arg(&index).arg("XX");
        for tag in tags {
            command.arg(now as f64 / 1e3).arg(tag);
        }
    }
    for answer in wire.ask_all(&pipeline, DEAF).await? {
        no_error(answer)?;
    }
    Ok(())
}

/// Brings back what Kombu programs had in hand and have not acknowledged in time, as each of them would.
async fn restore_old(core: &Core, wire: &Wire) -> Result<(), Fault> {
    let names = &core.names;
    let Some(now) = wire.clock() else { return Ok(()) };
    let [unacked, index] = names.unacked();
    let before = now as f64 / 1e3 - names.layout().visibility.as_secs_f64();
    let mut command = redis::cmd("ZRANGEBYSCORE");
    command.arg(&index).arg(0).arg(before).arg("LIMIT").arg(0).arg(MOST);
    let old: Vec<String> = items(wire.ask(&command, DEAF).await?).into_iter().filter_map(text).collect();
    if old.is_empty() {
        return Ok(());
    }
    let mut taking = redis::cmd("SET");
    taking.arg(names.mutex()).arg(&core.id).arg("NX").arg("PX").arg(300_000);
    if matches!(wire.ask(&taking, DEAF).await?, Value::Nil) {
        return Ok(());
    }
    let restored = restore(core, wire, &unacked, &index, &old).await;
    // Nobody else removes it while we are at work; we are at it for seconds.
    wire.ask(redis::cmd("DEL").arg(names.mutex()), DEAF).await?;
    restored
}

async fn restore(core: &Core, wire: &Wire, unacked: &str, index: &str, old: &[String]) -> Result<(), Fault> {
    let names = &core.names;
    let notes = items(wire.ask(redis::cmd("HMGET").arg(unacked).arg(old), DEAF).await?);
    let mut tables = BTreeMap::new();
    for (tag, note) in old.iter().zip(notes) {
        let note: Option<(Box<serde_json::value::RawValue>, String, String)> =
            text(note).and_then(|note| serde_json::from_str(&note).ok());
        let Some((raw, exchange, key)) = note else {
            // Nobody can bring it back; without this it would be looked at for ever.
            wire.ask(redis::cmd("ZREM").arg(index).arg(tag), DEAF).await?;
            continue;
        };
        let raw = raw.get().as_bytes();
        let queues = if exchange.is_empty() {
            vec![key]
        } else {
            if !tables.contains_key(&exchange) {
                let [table, _] = names.bindings(&exchange);
                let members = wire.ask(redis::cmd("SMEMBERS").arg(table), DEAF).await?;
                tables.insert(
                    exchange.clone(),
                    crate::bindings::Bindings::read(names, Value::Nil, members, Value::Nil),
                );
            }
            tables[&exchange].back(&key).into_iter().map(str::to_owned).collect()
        };
        if queues.is_empty() {
            continue;
        }
        let mut keys = vec![unacked.to_owned(), index.to_owned(), String::new()];
        keys.extend(queues.iter().map(|queue| names.list_of(queue, letter::priority(raw))));
        let mut command = Script::Restore.over(wire.digests(), &keys);
        command.arg(tag).arg(letter::again(raw).unwrap_or_else(|| raw.to_vec()));
        if int(&wire.ask(&command, DEAF).await?) == Some(1) {
            tracing::info!(
                exchange,
                queues = queues.join(", "),
                "a message came back that a program had not acknowledged"
            );
        }
    }
    core.ears.stir_all();
    Ok(())
}

/// Brings back what has rested long enough.
async fn move_due(core: &Core, wire: &Wire) -> Result<(), Fault> {
    let names = &core.names;
    let mut queues: Vec<String> =
        core.ears.taps().iter().filter(|tap| tap.is_kept()).map(|tap| tap.queue.clone()).collect();
    queues.sort_unstable();
    queues.dedup();
    while !queues.is_empty() {
        let mut pipeline = Pipeline::new();
        for queue in &queues {
            let keys = [names.own("z", queue), names.own("b", queue), names.list(queue)];
            let mut command = Script::Move.over(wire.digests(), &keys);
            command.arg(MOST);
            pipeline.add_command(command);
        }
        let mut more = Vec::new();
        for (queue, answer) in queues.into_iter().zip(wire.ask_all(&pipeline, DEAF).await?) {
            let moved = int(&no_error(answer)?).unwrap_or(0);
            if moved > 0 {
                core.ears.stir(&names.list(&queue));
            }
            if moved >= MOST as i64 {
                more.push(queue);
            }
        }
        queues = more;
    }
    Ok(())
}

/// Gives back all that is in hand, and takes this process out of the books.
pub(crate) async fn leave(core: &Core, wire: &Wire) -> Result<(), Fault> {
    let names = &core.names;
    let held = wire.ask(redis::cmd("HGETALL").arg(names.own("hand", &core.id)), DEAF).await?;
    let held = pairs(held).into_iter().filter_map(|(tag, queue)| Some((text(tag)?, text(queue)?))).collect();
    give_back(core, wire, &core.id, held, false).await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("DEL").arg(names.own("live", &core.id)).arg(names.own("hand", &core.id));
    pipeline.cmd("DEL").arg(names.own("ends", &core.id));
    pipeline.cmd("SREM").arg(names.own("processes", "")).arg(&core.id);
    wire.ask_all(&pipeline, DEAF).await.map(drop)
}
