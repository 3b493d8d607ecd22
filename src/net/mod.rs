//! Sockets: the accept loop of the listeners, and the one outgoing HTTP client.

pub mod client;
pub mod cores;
pub mod listen;
mod stall;
pub mod swap;

pub use client::{Client, ClientError, SendError};
pub use cores::Cores;
pub use listen::{Door, ListenOptions, Peer};
pub use swap::Swap;
