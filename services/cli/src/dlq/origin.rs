//! Which dead letters: those of a queue or of a durable subscription.

use std::time::Duration;

use commissaire::{Bus, Declared, Error, Key, Origin, Result, Survey, Token};

use crate::output::complain;

/// Dead letters of one place, and what the broker tells of them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where they come from.
    pub(crate) origin: Origin,
    /// How many there are; `None` where the broker does not tell.
    pub(crate) letters: Option<u64>,
    /// How long the oldest has been there.
    pub(crate) oldest: Option<Duration>,
}

/// Dead letters as the broker shows them now.
#[derive(Debug)]
pub(crate) struct Places {
    /// Where there are some, or may be.
    pub(crate) known: Vec<Place>,
    /// Whether the broker tells everything; else there may be more.
    pub(crate) complete: bool,
}

impl Places {
    /// Asks the broker.
    pub(crate) async fn of(bus: &dyn Bus) -> Result<Self> {
        let Survey { declared, unknown, .. } = bus.survey().await?;
        let known = declared.iter().filter_map(place).filter(|place| place.letters != Some(0)).collect();
        Ok(Self { known, complete: unknown.is_empty() })
    }

    /// The place that `words` name: `queue KEY`, `durable NAME`, or KEY or NAME alone.
    pub(crate) fn find(&self, words: &[String]) -> Result<Place> {
        let words: Vec<&str> = words.iter().flat_map(|word| word.split(' ')).collect();
        let named = match words[..] {
            ["queue", key] => Origin::Queue(Key::new(key)?),
            ["durable", name] => Origin::Durable(Token::new(name)?),
            [short] => return self.find_short(short),
            _ => return Err(Error::invalid("ORIGIN is `queue KEY` or `durable NAME`")),
        };
        let known = self.known.iter().find(|place| place.origin == named).cloned();
        Ok(known.unwrap_or_else(|| {
            // A broker that tells everything would have named it.
            let letters = self.complete.then_some(0);
            Place { origin: named, letters, oldest: None }
        }))
    }

    fn find_short(&self, short: &str) -> Result<Place> {
        let fits = |origin: &Origin| match origin {
            Origin::Queue(key) => key.as_str() == short,
            Origin::Durable(name) => name.as_str() == short,
        };
        let found: Vec<&Place> = self.known.iter().filter(|place| fits(&place.origin)).collect();
        match found[..] {
            [one] => Ok(one.clone()),
            [] => {
                // Nothing is known to have died there; of which sort it would be does not matter.
                let origin = Origin::Queue(Key::new(short)?);
                if !self.complete {
                    complain(&format!(
                        "this broker does not tell everything: `queue {short}` or `durable {short}` is looked at all \
                         the same"
                    ));
                }
                Ok(Place { origin, letters: Some(0), oldest: None })
            }
            _ => Err(Error::invalid(format!(
                "{short} has dead letters as a queue and as a durable subscription: write `queue {short}` or \
                 `durable {short}`"
            ))),
        }
    }
}

fn place(declared: &Declared) -> Option<Place> {
    let origin = declared.what.origin()?;
    // What somebody has in hand comes back when that is over.
    let letters = declared.waiting.map(|waiting| waiting + declared.in_hand.unwrap_or(0));
    Some(Place { origin, letters, oldest: declared.oldest })
}
