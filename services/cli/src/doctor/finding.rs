//! What is wrong with a bus, and what to do about it.

use std::time::Duration;

use commissaire::{
    Connection, Declared, Guarantees, Survey, What, app::unmet, config::Requirement, time::span,
};
use serde::Serialize;

/// How long jobs may wait while nobody is known to take them.
const LONG: Duration = Duration::from_secs(60);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// With what: `broker`, or what is declared there.
    pub(super) about: String,
    /// What it is, and what to do about it.
    pub(super) what: String,
}

/// All that is wrong with the bus.
pub(super) fn find(
    survey: &Survey,
    given: &Guarantees,
    state: &Connection,
    required: &[Requirement],
) -> Vec<Finding> {
    let broker = |what: String| Finding { about: "broker".to_owned(), what };
    let mut found: Vec<Finding> = survey.faults.iter().cloned().map(broker).collect();
    if let Connection::Down { why } = state {
        found.push(broker(format!("the connection is lost: {why}")));
    }
    for one in unmet(required, given) {
        found.push(broker(format!("{} is required, but {}", one.name(), one.lacks())));
    }
    for declared in &survey.declared {
        found.extend(
            wrong_with(declared).into_iter().map(|what| Finding { about: declared.what.to_string(), what }),
        );
    }
    found
}

fn wrong_with(declared: &Declared) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(deaf) = declared.deaf.filter(|deaf| *deaf > 0) {
        wrong.push(format!("{deaf} of its consumers take nothing: look after their programs"));
    }
    let waiting = declared.waiting.unwrap_or(0);
    match &declared.what {
        What::DeadQueue(_) | What::DeadDurable(_) => {
            let letters = waiting + declared.in_hand.unwrap_or(0);
            if letters > 0
                && let Some(origin) = declared.what.origin()
            {
                wrong.push(format!("{letters}: look at them with `commissaire dlq ls {origin}`"));
            }
        }
        What::Queue(_) if waiting > 0 && is_left(declared) => {
            wrong.push(format!(
                "{waiting} waiting, and nobody takes them: start the service that does such jobs"
            ));
        }
        What::Durable(name) => {
            if let (Some(idle), Some(most)) = (declared.idle, declared.expires_after)
                && idle >= most / 2
            {
                wrong.push(format!(
                    "nobody has read it for {}, and after {} it is removed with what it holds: start its reader, or \
                     say `commissaire subscription rm {name}`",
                    span(idle),
                    span(most)
                ));
            }
        }
        What::Queue(_) | What::Service(_) => {}
    }
    wrong
}

/// Whether nobody takes what waits there: nobody is there, or, where the broker does not tell, nobody has had anything in
/// hand for long.
fn is_left(declared: &Declared) -> bool {
    match declared.consumers {
        Some(consumers) => consumers == 0,
        None => declared.in_hand == Some(0) && declared.oldest.is_some_and(|oldest| oldest >= LONG),
    }
}
