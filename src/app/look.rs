//! Looking at a configuration without using it.

use std::io;

use clap::Args;

use crate::config::{Config, write};

/// The options to look at the configuration and stop.
#[derive(Debug, Clone, Copy, Args)]
pub struct LookFlags {
    /// Read and check the configuration, and stop: exit status 0, or 78
    #[arg(long)]
    check_config: bool,
    /// Print the effective configuration, each value with where it was set and what it overrode, and stop; secrets are hidden
    #[arg(long)]
    show_config: bool,
    /// The same as JSON, one member a line
    #[arg(long, requires = "show_config")]
    json: bool,
}

impl LookFlags {
    /// Shows `config` if that is all that is wanted. Returns whether it is.
    pub fn done(self, config: &Config) -> bool {
        if self.show_config {
            print_config(config, None, self.json);
        }
        self.show_config || self.check_config
    }
}

/// Prints the members of `config`, or those at and below `member` (`logging.root`). Returns how many there are.
pub fn print_config(config: &Config, member: Option<&str>, json: bool) -> usize {
    let mut settings = config.settings();
    if let Some(member) = member {
        let wanted: Vec<String> = member.split('.').map(|name| name.replace('-', "_")).collect();
        settings.retain(|setting| setting.member.join(".") == member || setting.member.starts_with(&wanted));
    }
    let mut out = io::stdout().lock();
    // Whoever reads no further knows enough.
    let _ = if json {
        settings.iter().try_for_each(|setting| {
            serde_json::to_writer(&mut out, setting)?;
            io::Write::write_all(&mut out, b"\n")
        })
    } else {
        write(&settings, &mut out)
    };
    settings.len()
}
