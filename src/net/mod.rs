//! Sockets: the listeners' accept loop, and the one outgoing HTTP client.

pub mod client;

pub use client::{Client, ClientError, SendError};
