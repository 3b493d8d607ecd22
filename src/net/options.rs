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
    /// Longest time for a head, and for a handshake.
    pub head_timeout: Duration,
    /// Longest idle time between two requests.
    pub idle_timeout: Duration,
    /// Longest time that the other end may read nothing of what is written to it.
    pub write_stall: Duration,
    /// Proxies that are believed when they name their callers.
    pub trusted: Arc<[Block]>,
    /// The header in which they do.
    pub forwarded: Forwarding,
    /// True if those proxies begin every connection with a PROXY header.
    pub proxy_protocol: bool,
    /// The certificate, where the listener speaks TLS.
    pub tls: Option<ServerTls>,
    /// True if HTTP/2 is spoken without TLS to callers that begin with it.
    pub http2_cleartext: bool,
    /// Longest time for open connections to end after a stop.
    pub drain: Duration,
}
