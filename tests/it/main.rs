//! The real parts together; one binary, a file for each thing that is promised.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "a test that fails says what the gateway said")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod admin;
mod cli;
mod config;
mod contradictions;
mod crash;
mod deliver;
mod dropin;
mod inbox;
mod layers;
mod map;
mod order;
mod providers;
mod proxy;
mod readme;
mod receive;
mod refuse;
mod reload;
mod upload;
mod wait;
mod world;
