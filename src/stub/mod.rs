//! A stand-in for the upstream's API, for trying out and for tests.
