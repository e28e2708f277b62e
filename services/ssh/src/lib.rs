//! How the services of Commissaire reach hosts, and what they run there.
//!
//! * [`Ssh`] logs in to a [`Target`]: the private key stays in memory, the host's key is checked, each step has its time
//!   limit, and there are never more connections than the [`SshOptions`] say.
//! * A [`Session`] runs [`Script`]s and writes files, as root where that is wanted.
//! * A [`Failure`] says what went wrong in a [`FailureKind`] that programs can tell apart, and in words.
//! * [`os`] is what each kind of operating system is told to do, as data.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use commissaire_ssh::{Credentials, Script, Ssh, SshOptions, Target};
//! let ssh = Ssh::new(&SshOptions::default())?;
//! let target = Target {
//!     address: "10.0.0.7".into(),
//!     user: "fedora".into(),
//!     credentials: Credentials::of_file("id_ed25519".as_ref())?,
//!     pinned: Vec::new(),
//! };
//! let session = ssh.connect(&target).await?;
//! let output = session.run(&Script::new("systemctl is-system-running").as_root()).await?;
//! println!("{} ({})", output.out.trim(), output.ending());
//! session.close().await;
//! # Ok(()) }
//! ```

mod authenticate;
mod credentials;
mod dial;
mod engine;
mod failure;
mod handshake;
mod known_hosts;
mod limits;
mod options;
pub mod os;
mod output;
mod script;
mod session;
mod trust;

pub use credentials::{Credentials, file_text};
pub use engine::{Ssh, Target};
pub use failure::{Failure, FailureKind};
pub use options::{HostKeys, Jump, SshOptions};
pub use output::Output;
pub use script::Script;
pub use session::Session;
pub use trust::host_key;
