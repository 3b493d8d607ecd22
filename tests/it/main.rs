//! The real parts together; one binary, a file for each thing that is promised.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod inbox;
