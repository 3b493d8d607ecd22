//! Tests of configured sources.

mod compile;
mod handshakes;
