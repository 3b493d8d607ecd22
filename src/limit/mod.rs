//! How much, how fast.
