//! The real parts together; one binary, a file for each thing that is promised.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::print_stderr,
    reason = "a test that fails says what the gateway said"
)]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod admin;
mod ask;
mod backup;
mod batches;
mod cli;
mod client_certificate;
mod cluster;
mod config;
mod contradictions;
mod crash;
mod deliver;
mod dropin;
mod encrypted;
mod fence;
mod fetch;
mod first_hour;
mod framing;
mod front;
mod fuzz;
mod hop;
mod http2;
mod inbox;
mod keys;
mod layers;
mod limits;
mod listener;
mod load;
mod map;
mod once;
mod operate;
mod order;
mod owed;
mod pace;
mod payloads;
mod postgres;
mod providers;
mod proxy;
mod query;
mod readme;
mod receive;
mod reconcile;
mod refuse;
mod reload;
mod replayed;
mod replicas;
mod reply;
mod rotation;
mod shares;
mod snapshots;
mod standing;
mod strangers;
mod terminal;
mod text;
mod threats;
mod unmappable;
mod upload;
mod upstream_key;
mod wait;
mod words;
mod world;
