//! Sockets: the accept loop of the listeners, and the one outgoing HTTP client.

mod chunk;
pub mod client;
mod client_address;
mod connection;
mod connection_limit;
pub mod descriptors;
pub mod download;
pub mod guard;
mod h2_guard;
mod head;
mod http1_filter;
pub mod listen;
mod loop_guard;
mod observer;
mod options;
pub mod per_core;
mod proxy_protocol;
pub mod reloadable;
mod replayable_body;
mod reuse;
mod stream;
pub mod tls;
mod write_timeout;

pub use client::{Client, ClientError, SendError};
pub use client_address::{AddressOwner, Peer};
pub use download::{Download, DownloadBounds, DownloadError};
pub use head::HeadFault;
pub use loop_guard::LoopGuard;
pub use observer::{ConnectionObserver, TurnedAway};
pub use options::ListenOptions;
pub use per_core::PerCore;
pub use reloadable::Reloadable;
pub use tls::{ServerTls, TlsError};
