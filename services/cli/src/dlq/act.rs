//! `commissaire dlq redrive` and `purge`: what ends dead letters.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::Args;
use commissaire::{DeadLetter, Delivery, app::Exit};
use serde_json::json;
use tokio::time::Instant;

use super::{
    list::{Choice, nothing, print_letter, tell_end},
    origin::{Place, Places},
    walk::{End, Walk},
};
use crate::{
    Failed,
    connection::Connection,
    input::{self, confirm},
    output::{complain, print},
};

/// How often a letter is brought back without --again.
const MOST_REDRIVES: u32 = 3;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);

/// Bring letters back to where they died, as new but for their ids
#[derive(Debug, Args)]
#[command(after_help = "\
Letters are brought back one by one, in the order in which they died, each at most once, and no more than there were at
the begin. The letter is stored again before the dead one is forgotten.")]
pub(super) struct Redrive {
    #[command(flatten)]
    choice: Choice,
    /// So many letters in a second at most
    #[arg(long, value_name = "N/s", value_parser = input::rate)]
    rate: Option<Duration>,
    /// Also letters that were brought back 3 times and died again
    #[arg(long)]
    again: bool,
    /// Only print which letters would be brought back
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Throw letters away for good
#[derive(Debug, Args)]
pub(super) struct Purge {
    #[command(flatten)]
    choice: Choice,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    /// Only print which letters would be thrown away
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What is done to each letter.
#[derive(Clone, Copy)]
enum Act {
    Redrive { again: bool },
    Purge,
}

/// What is to be done.
struct Work {
    act: Act,
    choice: Choice,
    dry_run: bool,
    json: bool,
    /// The least time between two letters.
    pace: Option<Duration>,
    connection: Connection,
}

/// What was done.
#[derive(Default)]
struct Tally {
    done: u64,
    skipped: u64,
}

impl Redrive {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let Self { choice, rate, again, dry_run, json, connection } = self;
        Work { act: Act::Redrive { again }, choice, dry_run, json, pace: rate, connection }
            .run(|_| Ok(()))
            .await
    }
}

impl Purge {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let Self { choice, yes, dry_run, json, connection } = self;
        let sure = yes || dry_run;
        let filtered = if choice.filter.is_empty() { "" } else { "chosen " };
        let ask = |place: &Place| {
            let letters =
                place.letters.map_or_else(|| "all".to_owned(), |letters| format!("up to {letters}"));
            let what = format!("throw {letters} {filtered}dead letters of {} away for good", place.origin);
            if sure { Ok(()) } else { confirm(&what) }
        };
        Work { act: Act::Purge, choice, dry_run, json, pace: None, connection }.run(ask).await
    }
}

impl Work {
    /// Does it, once `agreed`.
    async fn run(self, agreed: impl FnOnce(&Place) -> Result<(), Failed>) -> Result<(), Failed> {
        if self.choice.origin.is_empty() {
            return Err(commissaire::Error::invalid(
                "say of what: `queue KEY` or `durable NAME` (commissaire dlq ls shows where there are dead letters)",
            )
            .into());
        }
        let bus = self.connection.open().await?;
        let place = Places::of(&*bus).await?.find(&self.choice.origin)?;
        if place.letters == Some(0) {
            bus.close().await?;
            return Err(nothing(&place));
        }
        agreed(&place)?;
        let mut walk = Walk::begin(bus.clone(), &place).await?;
        let mut tally = Tally::default();
        let outcome = self.work(&mut walk, &place, &mut tally).await;
        let looked_at = walk.looked_at();
        let end = walk.finish();
        let closed = bus.close().await;
        self.sum_up(&tally, &place, looked_at, end)?;
        outcome?;
        closed?;
        match (end, tally.done) {
            (Some(End::Told), _) => Err(Failed::Said(Exit::Interrupted)),
            (_, 0) => Err(Failed::Said(Exit::Nothing)),
            _ => Ok(()),
        }
    }

    async fn work(&self, walk: &mut Walk, place: &Place, tally: &mut Tally) -> Result<(), Failed> {
        let mut next = Instant::now();
        let mut progress = Progress::new(place);
        while tally.done < self.choice.limit.unwrap_or(u64::MAX)
            && let Some((delivery, letter)) = walk.next().await?
        {
            if !self.choice.takes(&letter) {
                walk.keep(delivery);
                continue;
            }
            if matches!(self.act, Act::Redrive { again: false }) && letter.redriven >= MOST_REDRIVES {
                tally.skipped += 1;
                walk.keep(delivery);
                continue;
            }
            if let Some(pace) = self.pace {
                if !walk.rest(next).await {
                    walk.keep(delivery);
                    break;
                }
                next = Instant::now() + pace;
            }
            self.settle(delivery, &letter, walk, tally).await?;
            tally.done += 1;
            progress.tell(walk.looked_at());
        }
        progress.wipe();
        Ok(())
    }

    async fn settle(
        &self,
        delivery: Delivery,
        letter: &DeadLetter,
        walk: &mut Walk,
        tally: &Tally,
    ) -> Result<(), Failed> {
        if self.dry_run {
            print_letter(letter, self.json, tally.done == 0)?;
            walk.keep(delivery);
            return Ok(());
        }
        match self.act {
            Act::Redrive { .. } => delivery.redrive().await?,
            Act::Purge => delivery.ack().await?,
        }
        Ok(())
    }

    fn sum_up(&self, tally: &Tally, place: &Place, looked_at: u64, end: Option<End>) -> Result<(), Failed> {
        let Tally { done, skipped } = *tally;
        let word = match self.act {
            Act::Redrive { .. } => "redriven",
            Act::Purge => "purged",
        };
        let would = if self.dry_run { "would be " } else { "" };
        let mut text = format!(
            "{done} of {looked_at} dead letters of {} that were looked at {would}{word}",
            place.origin
        );
        if skipped > 0 {
            text.push_str(&format!(
                "; {skipped} not, they were brought back {MOST_REDRIVES} times (--again)"
            ));
        }
        if self.dry_run || !self.json {
            // Standard output has the letters.
            if self.dry_run { complain(&text) } else { print(&text)? }
        } else {
            let sum = json!({
                "origin": place.origin.to_string(),
                word: done,
                "skipped": skipped,
                "looked_at": looked_at,
                "more": end != Some(End::All),
            });
            print(&sum.to_string())?;
        }
        tell_end(end, place);
        Ok(())
    }
}

/// How far long work is, on standard error where that is a terminal.
struct Progress {
    of: String,
    next: Option<Instant>,
    told: bool,
}

impl Progress {
    fn new(place: &Place) -> Self {
        let of = place.letters.map_or_else(String::new, |letters| format!(" of {letters}"));
        let next = io::stderr().is_terminal().then(|| Instant::now() + TELL);
        Self { of, next, told: false }
    }

    fn tell(&mut self, done: u64) {
        let now = Instant::now();
        if self.next.is_some_and(|next| next <= now) {
            self.next = Some(now + TELL);
            self.told = true;
            let _ = write!(io::stderr(), "\r{done}{} dead letters", self.of);
        }
    }

    fn wipe(&mut self) {
        if self.told {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
