//! Sockets: the accept loop of the listeners, and the one outgoing HTTP client.

mod again;
mod chunk;
pub mod client;
mod connection;
pub mod cores;
pub mod descriptors;
pub mod download;
mod frames;
pub mod guard;
mod head;
pub mod listen;
mod mark;
mod peer;
mod places;
mod preface;
mod reuse;
mod screen;
mod stall;
mod stream;
pub mod swap;
pub mod tls;

pub use client::{Client, ClientError, SendError};
pub use cores::Cores;
pub use download::{Bounds, Download, DownloadError};
pub use head::Fault;
pub use listen::{Door, ListenOptions, TurnedAway};
pub use mark::Mark;
pub use peer::{Peer, Standing};
pub use swap::Swap;
pub use tls::{Tls, TlsError};
