//! Tests of schemes as the shipped providers and inline tables write them.

mod key_pairs;
mod requests;
pub(crate) mod support;
