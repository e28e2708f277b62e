//! `commissaire dlq ls` and `show`.

use clap::Args;
use commissaire::{DeadLetter, Error, app::Exit};
use serde_json::json;

use super::{
    filter::Filter,
    origin::{Place, Places},
    walk::{End, Walk},
};
use crate::{
    Failed,
    connection::Connection,
    output::{complain, print},
    table::{count, plain, print_table, time},
};

/// Show where there are dead letters; with ORIGIN, the letters there
#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    choice: Choice,
    /// Print JSON, one object a line: all that is known of a letter, headers and body included
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Show a letter with its headers and its body, as JSON
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The letter's id
    id: String,
    /// Look only here: `queue KEY`, `durable NAME`, or KEY or NAME alone
    #[arg(num_args = 0..=2)]
    origin: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Which letters are meant.
#[derive(Debug, Args)]
pub(super) struct Choice {
    /// Where they died: `queue KEY`, `durable NAME`, or KEY or NAME alone
    #[arg(num_args = 0..=2)]
    pub(super) origin: Vec<String>,
    /// Only letters that died of `cause=WORD` (attempts, crashes, rejected, malformed), or whose id or key is TEXT, or
    /// whose last failure holds TEXT; given more than once, all must hold
    #[arg(long, value_name = "cause=WORD|TEXT")]
    pub(super) filter: Vec<Filter>,
    /// At most so many letters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
}

impl Choice {
    pub(super) fn takes(&self, letter: &DeadLetter) -> bool {
        self.filter.iter().all(|filter| filter.takes(letter))
    }
}

impl Ls {
    pub(super) async fn run(self) -> Result<(), Failed> {
        if self.choice.origin.is_empty() && (!self.choice.filter.is_empty() || self.choice.limit.is_some()) {
            return Err(Error::invalid("--filter and --limit choose among the letters of an ORIGIN").into());
        }
        let bus = self.connection.open().await?;
        let places = Places::of(&*bus).await?;
        if self.choice.origin.is_empty() {
            let known = self.print_places(&places);
            bus.close().await?;
            return known;
        }
        let place = places.find(&self.choice.origin)?;
        let mut walk = Walk::begin(bus.clone(), &place).await?;
        let printed = self.print_letters(&mut walk).await;
        let end = walk.finish();
        bus.close().await?;
        let printed = printed?;
        tell_end(end, &place);
        match (end, printed) {
            (Some(End::Told), _) => Err(Failed::Said(Exit::Interrupted)),
            (_, 0) => Err(nothing(&place)),
            _ => Ok(()),
        }
    }

    async fn print_letters(&self, walk: &mut Walk) -> Result<u64, Failed> {
        let mut printed = 0;
        while printed < self.choice.limit.unwrap_or(u64::MAX)
            && let Some((delivery, letter)) = walk.next().await?
        {
            walk.keep(delivery);
            if self.choice.takes(&letter) {
                print_letter(&letter, self.json, printed == 0)?;
                printed += 1;
            }
        }
        Ok(printed)
    }

    fn print_places(&self, places: &Places) -> Result<(), Failed> {
        if self.json {
            for place in &places.known {
                let oldest = place.oldest.map(|oldest| oldest.as_secs_f64());
                let origin = place.origin.to_string();
                print(
                    &json!({ "origin": origin, "letters": place.letters, "oldest_seconds": oldest })
                        .to_string(),
                )?;
            }
        } else {
            let rows: Vec<_> = places
                .known
                .iter()
                .map(|place| [place.origin.to_string(), count(place.letters), time(place.oldest)])
                .collect();
            print_table(["ORIGIN", "LETTERS", "OLDEST"], &rows)?;
        }
        if !places.known.is_empty() {
            return Ok(());
        }
        complain(if places.complete {
            "no dead letters"
        } else {
            "no dead letters are known; `commissaire doctor` says what this broker does not tell"
        });
        Err(Failed::Said(Exit::Nothing))
    }
}

impl Show {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let bus = self.connection.open().await?;
        let places = Places::of(&*bus).await?;
        let among = if self.origin.is_empty() { places.known } else { vec![places.find(&self.origin)?] };
        let mut found = 0;
        for place in &among {
            let mut walk = Walk::begin(bus.clone(), place).await?;
            while let Some((delivery, letter)) = walk.next().await? {
                let is_it = letter.id.as_ref() == Some(&self.id);
                walk.keep(delivery);
                if is_it {
                    print(&written(&letter, true)?)?;
                    found += 1;
                    break;
                }
            }
            tell_end(walk.finish(), place);
        }
        bus.close().await?;
        if found > 0 {
            return Ok(());
        }
        complain(&format!("commissaire: no dead letter has the id {:?}", self.id));
        Err(Failed::Said(Exit::Nothing))
    }
}

/// One line for a letter, under a head where it is the first.
pub(super) fn print_letter(letter: &DeadLetter, json: bool, first: bool) -> Result<(), Failed> {
    if json {
        return print(&written(letter, false)?);
    }
    let row = |id: &str, at: &str, cause: &str, attempts: &str, rest: &str| {
        print(plain(&format!("{id:36}  {at:19}  {cause:9}  {attempts:>4}  {rest}")).trim_end())
    };
    if first {
        row("ID", "LAST FAILURE (UTC)", "CAUSE", "RUNS", "SENT TO AND WHY IT FAILED")?;
    }
    let (at, reason) =
        letter.last_failure.as_ref().map_or(("", ""), |last| (last.at.as_str(), last.reason.as_str()));
    row(
        letter.id.as_deref().unwrap_or("-"),
        at.get(..19).unwrap_or(at),
        letter.cause.as_deref().unwrap_or("-"),
        &letter.attempts.to_string(),
        &format!("{}  {reason}", letter.address),
    )
}

/// Says what a walk that did not see everything has left out.
pub(super) fn tell_end(end: Option<End>, place: &Place) {
    let origin = &place.origin;
    match end {
        None | Some(End::All | End::Told) => {}
        Some(End::Full) => complain(&format!(
            "there are more dead letters of {origin}: no more than 10,000 letters or 256 MiB are held at one time"
        )),
        Some(End::Missing(count)) => complain(&format!(
            "{count} more dead letters of {origin} did not come: another program has them in hand, or had when it \
             died; try again in a minute"
        )),
    }
}

/// That nothing was found.
pub(super) fn nothing(place: &Place) -> Failed {
    complain(&format!("no such dead letter of {}", place.origin));
    Failed::Said(Exit::Nothing)
}

fn written(letter: &DeadLetter, pretty: bool) -> Result<String, Error> {
    let text = if pretty { serde_json::to_string_pretty(letter) } else { serde_json::to_string(letter) };
    text.map_err(|e| Error::malformed("a dead letter cannot be written as JSON").because(e))
}
