//! Tests of configured sources.

mod certificates;
mod compile;
mod handshakes;
