//! The real parts together; one binary, a file for each thing that is promised.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "a test that fails says what the gateway said")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod admin;
mod batches;
mod cli;
mod cluster;
mod config;
mod contradictions;
mod crash;
mod deliver;
mod dropin;
mod encrypted;
mod fence;
mod fetch;
mod framing;
mod fuzz;
mod http2;
mod inbox;
mod keys;
mod layers;
mod limits;
mod listener;
mod load;
mod map;
mod operate;
mod order;
mod pace;
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
mod shares;
mod standing;
mod strangers;
mod terminal;
mod text;
mod threats;
mod upload;
mod wait;
mod world;
