//! A user's home that is nobody's: where programs of one test keep what they keep.

use std::path::{Path, PathBuf};

use commissaire::testkit::Outcome;
use tempfile::TempDir;

use crate::process::{Order, Process};

/// A home with a state directory and a data directory in it; gone when dropped.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Outcome<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("home");
        let dir = match std::env::var_os("COMMISSAIRE_TEST_DIR") {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        Ok(Self { dir })
    }

    /// The home.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory that [`up`](Self::up) uses. It is not made here.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The socket of an [`up`](Self::up) in the data directory, as a `bus_uri`.
    pub fn socket_uri(&self) -> String {
        format!("unix://{}", self.data().join("bus.sock").display())
    }

    /// The program `name` in this home.
    pub fn order(&self, name: &str) -> Outcome<Order> {
        let order = Order::new(name)?.within(self.path());
        Ok(order.env("HOME", self.path()).env("XDG_STATE_HOME", self.path().join("state")))
    }

    /// `commissaire` with these arguments in this home.
    pub fn cli(&self, arguments: &[&str]) -> Outcome<Order> {
        Ok(self.order("commissaire")?.args(arguments))
    }

    /// `commissaire up` with these arguments in the data directory; returns when it is ready.
    pub async fn up(&self, arguments: &[&str]) -> Outcome<Process> {
        let order = self.cli(&["up", "--data-dir"])?.arg(self.data()).args(arguments);
        let mut up = order.start()?;
        up.says("ready", |line| line == "ready").await?;
        Ok(up)
    }
}
