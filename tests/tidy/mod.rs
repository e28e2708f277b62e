//! The tree keeps its own rules: who imports whom, sizes, names, pages.

mod manifests;
mod pages;
mod sources;
mod tree;
