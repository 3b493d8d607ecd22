//! The parts, built from a `Config`, started and drained.
