//! Tests of the storage service: the store by itself, and the service on a bus.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod archive;
mod common;
mod crash;
mod custodia;
mod etcd;
mod file;
mod full_disk;
mod keepers;
mod kept_secrets;
mod leases;
mod openbao;
mod owner;
mod places;
mod records;
mod relay;
mod rotation;
mod sealed;
mod secrets;
mod service;
mod several;
mod speed;
mod typed;
mod views;
