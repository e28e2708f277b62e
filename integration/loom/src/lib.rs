//! What threads of the framework share, in models that try all ways in which they can meet. See README.md.

// The product's unit tests are not for here.
#![cfg(not(test))]

pub mod client;
pub mod metrics;
pub mod service;
mod stand_in;
pub mod subscription;

/// How often a thread is interrupted at the most: where all ways are too many, those with few changes between threads
/// are tried. Most that goes wrong needs no more.
type Bound = Option<usize>;
const ALL: Bound = None;
const MANY: Bound = Some(3);
const SOME: Bound = Some(2);

fn check(bound: Bound, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    builder.check(model);
}
