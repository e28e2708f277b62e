//! The doctor's words.

use commissaire::{Connection, Declared, Error, What};
use serde_json::json;

use super::Report;
use crate::{
    Failed,
    output::print,
    subscription::print_subscriptions,
    table::{count, oldest, plain, print_table},
};

impl Report {
    pub(super) fn print(&self) -> Result<(), Failed> {
        let line = |name: &str, text: &str| print(&format!("{name:11} {}", plain(text)));
        line("bus", &format!("{}, exchange {}", self.uri, self.exchange))?;
        line("broker", &self.survey.broker)?;
        match &self.state {
            Connection::Up => line("connection", "up")?,
            Connection::Down { why } => line("connection", &format!("lost: {why}"))?,
        }
        print("\nPROMISES")?;
        for (promise, kept) in self.given.in_words() {
            print(&format!("  {promise}: {}", kept.replace('*', "")))?;
        }
        let (subscriptions, others): (Vec<&Declared>, Vec<&Declared>) =
            self.survey.declared.iter().partition(|declared| matches!(declared.what, What::Durable(_)));
        print("")?;
        if self.survey.declared.is_empty() {
            print("nothing is declared")?;
        }
        print_declared(&others)?;
        if !others.is_empty() && !subscriptions.is_empty() {
            print("")?;
        }
        print_subscriptions(&subscriptions)?;
        if !self.survey.unknown.is_empty() {
            print("\nUNKNOWN")?;
            self.survey.unknown.iter().try_for_each(|unknown| print(&format!("  {}", plain(unknown))))?;
        }
        if self.findings.is_empty() {
            return print("\nnothing wrong was found");
        }
        print("\nFINDINGS")?;
        for found in &self.findings {
            print(&plain(&format!("  {}: {}", found.about, found.what)))?;
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Result<String, Failed> {
        let promises = json!({
            "durability": self.given.durability.to_string(),
            "shared": self.given.shared,
            "replies_kept": self.given.replies_kept,
            "republish_window_seconds": self.given.republish_window.map(|window| window.as_secs_f64()),
            "shared_ledger": self.given.shared_ledger,
            "longest_run_seconds": self.given.longest_run.map(|run| run.as_secs_f64()),
        });
        let connection = match &self.state {
            Connection::Up => json!({ "up": true }),
            Connection::Down { why } => json!({ "up": false, "why": why }),
        };
        let report = json!({
            "reachable": true,
            "healthy": self.findings.is_empty(),
            "bus": self.uri.to_string(),
            "exchange": self.exchange,
            "connection": connection,
            "promises": promises,
            "survey": self.survey,
            "findings": self.findings,
        });
        serde_json::to_string(&report)
            .map_err(|e| Error::malformed("the report cannot be written as JSON").because(e).into())
    }
}

/// A table of all but durable subscriptions.
fn print_declared(found: &[&Declared]) -> Result<(), Failed> {
    let rows: Vec<_> = found
        .iter()
        .map(|declared| {
            [
                declared.what.to_string(),
                count(declared.waiting),
                count(declared.in_hand),
                count(declared.resting),
                oldest(declared),
                count(declared.consumers),
                count(declared.deaf),
            ]
        })
        .collect();
    print_table(["DECLARED", "WAITING", "IN HAND", "RESTING", "OLDEST", "CONSUMERS", "DEAF"], &rows)
}
