//! What a service is started with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Failure, state_dir};
use crate::{bus::Bus, config::Config, error::Result, metrics::Metrics};

/// How long begun work may take when a program is told to end and nothing else is said.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What a service is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The bus to serve on.
    pub bus: Arc<dyn Bus>,
    /// The service's configuration.
    pub config: Config,
    /// Where to count.
    pub metrics: Metrics,
    /// By which to say that it cannot go on.
    pub failure: Failure,
}

/// The directory in which the service `name` keeps its data: that of its configuration, else `NAME` in the user's state
/// directory.
pub fn data_dir(config: &Config, name: &str) -> Result<PathBuf> {
    match &config.common().data_dir {
        Some(dir) => Ok(dir.join(name)),
        None => Ok(state_dir()?.join(name)),
    }
}
