//! One parser under libFuzzer; `SLUICEGATE_FUZZ` says which. One binary for all: they share their code.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::{Parser, find};

static PARSER: LazyLock<&'static Parser> = LazyLock::new(|| {
    let name = std::env::var("SLUICEGATE_FUZZ").unwrap_or_default();
    find(&name).unwrap_or_else(|| panic!("SLUICEGATE_FUZZ={name:?} names no parser; see fuzz/src/lib.rs"))
});

fuzz_target!(|input: &[u8]| PARSER.feed(input));
