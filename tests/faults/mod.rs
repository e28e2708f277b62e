//! What the tests of faults are made of can be trusted.

mod differential;
mod history;
mod load;
mod proxy;
mod simulation;
