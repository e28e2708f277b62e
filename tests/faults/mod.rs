//! What the tests of faults are made of can be trusted.

mod history;
mod load;
mod proxy;
