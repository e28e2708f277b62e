//! `commissaire doctor`: what is to be known of the bus, and what is wrong with it.

mod finding;
mod report;

use std::time::Duration;

use clap::Args;
use commissaire::{
    BusUri, Connection as State, Error, ErrorKind, Guarantees, Survey, app::Exit, config::Requirement,
    connect,
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    Failed,
    connection::{CLIENT, Connection},
    output::print,
};
use finding::{Finding, find};

/// How long the broker may take to tell of itself.
const LIMIT: Duration = Duration::from_secs(30);

/// Tell what the bus promises, what is on it, and what is wrong with it
#[derive(Debug, Args)]
#[command(after_help = "\
Changes nothing and takes no message out. What a broker does not tell is `unknown`, which is not the same as well.

It is a finding where the broker is not set up as the bus needs it, where `require` asks for more than the bus gives,
where there are dead letters, a consumer that does not consume, or a queue with jobs that nobody takes, and where a
durable subscription has been without a reader for half of the time after which it is removed.

Exit codes: 0 no finding, 1 findings, 3 the bus cannot be reached.")]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What the doctor knows of a bus that it reached.
struct Report {
    uri: BusUri,
    exchange: String,
    given: Guarantees,
    state: State,
    survey: Survey,
    findings: Vec<Finding>,
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let examined = self.examine().await;
        let report = match examined {
            Ok(report) => report,
            Err(error) if !is_unreachable(&error) => return Err(error.into()),
            Err(error) if self.json => {
                print(&json!({ "reachable": false, "error": error.chain() }).to_string())?;
                return Err(Failed::Said(Exit::Unreachable));
            }
            Err(error) => {
                print(&format!("the bus cannot be reached: {}", error.chain()))?;
                return Err(Failed::Said(Exit::Unreachable));
            }
        };
        if self.json {
            print(&report.to_json()?)?;
        } else {
            report.print()?;
        }
        if report.findings.is_empty() { Ok(()) } else { Err(Failed::Said(Exit::Failed)) }
    }

    async fn examine(&self) -> Result<Report, Error> {
        let (uri, config) = self.connection.target()?;
        let options = config.bus_options(CLIENT);
        // Not refused for what is required: telling of it is what a doctor is for.
        let bus = connect(&uri, &options, commissaire_transports::ALL).await?;
        let (given, state) = (bus.guarantees(), bus.connection().now());
        let surveyed = timeout(LIMIT, bus.survey())
            .await
            .unwrap_or_else(|_| Err(Error::timeout("the survey of the bus", LIMIT)));
        let closed = bus.close().await;
        let survey = match surveyed {
            Err(error) if is_unreachable(&error) => return Err(error),
            Err(error) => Survey {
                broker: "unknown".to_owned(),
                faults: vec![format!("the broker does not tell what is on it: {}", error.chain())],
                ..Survey::default()
            },
            Ok(survey) => survey,
        };
        closed?;
        let required: &[Requirement] = &config.common().require.0;
        let findings = find(&survey, &given, &state, required);
        Ok(Report { uri, exchange: options.exchange.to_string(), given, state, survey, findings })
    }
}

fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Closed)
}
