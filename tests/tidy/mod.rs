//! The tree keeps its own rules: who imports whom, sizes, names, pages.

mod manifests;
mod pages;
mod promises;
mod sources;
mod tree;
