//! The NATS transport of commissaire.
