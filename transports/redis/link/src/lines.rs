//! The connections of a bus together: it is connected while all that are in use are.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use commissaire::{ConnectionWatch, Connectivity};

/// See the module.
#[derive(Debug)]
pub struct Lines {
    lost: Mutex<BTreeSet<&'static str>>,
    connectivity: Connectivity,
}

impl Lines {
    /// Connected to `place`.
    pub fn new(place: &str) -> Self {
        Self { lost: Mutex::default(), connectivity: Connectivity::new(place) }
    }

    /// `line` is lost, or cannot be made.
    pub fn lost(&self, line: &'static str, why: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.insert(line) {
            self.connectivity.down(why);
        }
    }

    /// `line` is there.
    pub fn back(&self, line: &'static str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.remove(line) && lost.is_empty() {
            self.connectivity.up();
        }
    }

    /// Whether all of them are there, now and from now on.
    pub fn watch(&self) -> ConnectionWatch {
        self.connectivity.watch()
    }
}
