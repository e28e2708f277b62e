//! How the transports over Redis reach their server: `bus_uri` as an address, dialling with TLS, connections that are made
//! again when they break, and whether the server is fit. What is carried there, each transport says for itself.

// In reading order.
pub mod address;
pub mod fitness;
pub mod ledger;
pub mod lines;
pub mod link;
pub mod script;
pub mod value;
pub mod wire;
