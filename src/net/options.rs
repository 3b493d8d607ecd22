//! Settings of a listener.

use std::sync::Arc;
use std::time::Duration;

use super::tls::ServerTls;
use crate::config::Forwarding;
use crate::model::Block;

/// Settings of a listener.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address (IPv6: one /64), trusted proxies apart.
    pub max_connections_per_address: usize,
    /// The largest request head.
    pub max_head: usize,
    /// How long a head may take, and a handshake.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// How long the other end may take nothing of what is being written to it.
    pub write_stall: Duration,
    /// Proxies that are believed when they name their callers.
    pub trusted: Arc<[Block]>,
    /// The header in which they do.
    pub forwarded: Forwarding,
    /// Whether those proxies begin every connection with a PROXY header.
    pub proxy_protocol: bool,
    /// The certificate, where the listener speaks TLS.
    pub tls: Option<ServerTls>,
    /// Whether HTTP/2 is spoken without TLS to whoever begins with it.
    pub http2_cleartext: bool,
    /// How long open connections may take to end after a stop.
    pub drain: Duration,
}
