//! The framework's data types, over their public faces, with random and hostile input.

mod access;
mod bytes;
mod envelopes;
mod headers;
mod keys;
mod patterns;
mod uris;
