//! One fast binary: the framework over `memory://`, its data types, and the tidiness of the tree.

#![allow(clippy::unwrap_used)]

mod app;
mod conformance;
mod data;
mod faults;
mod service;
mod tidy;
