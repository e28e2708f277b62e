//! What whole programs promise, on each bus, with faults.

mod alarms;
mod calls;
mod campaign;
mod disks;
mod dlq;
mod doctor;
mod examples;
mod forgotten;
mod health;
mod hostile;
mod jobs;
mod network;
mod outage;
mod owner;
mod pauses;
mod requirements;
mod resting;
mod saver;
mod secrets;
mod sharing;
mod storage;
mod survival;
mod switching;
mod tls;
mod up;
mod upkeep;
