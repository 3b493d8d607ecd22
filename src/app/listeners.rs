//! The sockets: bound at the start, served with what the configuration allows, and told of in the log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::model::Roles;
use crate::net::{ConnectionObserver, ListenOptions, ServerTls, TurnedAway, descriptors};

/// Connections at the admin listener at once. They take of what is kept back from the public one.
const ADMIN_CONNECTIONS: usize = 32;

/// The sockets of a gateway.
#[derive(Debug)]
pub struct Listeners {
    /// Socket for third parties; absent without the ingress role.
    pub public: Option<TcpListener>,
    /// Socket for operators.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds what these roles need.
    pub async fn bind(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, key: &str| {
            TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} ({key}); is another program there, or another sluicegate?")
            })
        };
        Ok(Self {
            public: match roles.ingress {
                true => Some(bind(config.server.listen, "server.listen").await?),
                false => None,
            },
            admin: bind(config.admin.listen, "admin.listen").await?,
        })
    }
}

/// Options of the public listener.
pub(super) fn public_options(config: &Config, tls: Option<ServerTls>) -> ListenOptions {
    let server = &config.server;
    ListenOptions {
        max_connections: descriptors::room_for_connections(server.max_connections),
        max_connections_per_address: server.max_connections_per_address,
        max_head: server.max_head,
        head_timeout: server.head_timeout,
        idle_timeout: server.idle_timeout,
        write_stall: server.write_stall,
        trusted: server.trusted_proxies.as_slice().into(),
        forwarded: server.forwarded,
        proxy_protocol: server.proxy_protocol,
        tls,
        http2_cleartext: server.http2_cleartext,
        drain: server.drain_timeout,
    }
}

/// Options of the admin listener, which has few callers and no proxy before it.
pub(super) fn admin_options(public: ListenOptions) -> ListenOptions {
    ListenOptions {
        max_connections: ADMIN_CONNECTIONS,
        max_connections_per_address: ADMIN_CONNECTIONS / 2,
        drain: Duration::from_millis(500),
        trusted: Arc::default(),
        proxy_protocol: false,
        tls: None,
        http2_cleartext: false,
        ..public
    }
}

/// Most addresses that are logged at the start; `sluicegate source list` has all of them.
const ADDRESSES: usize = 50;

/// Logs the addresses to give to each provider.
pub(super) fn tell_addresses(config: &Config, public: SocketAddr) {
    let base = match config.server.public_url.as_str() {
        "" => {
            tracing::info!(
                "server.public_url is not set: these addresses are reached from this machine alone"
            );
            format!("http://{public}")
        }
        url => url.to_owned(),
    };
    for source in config.sources.iter().take(ADDRESSES) {
        let (name, provider) = (&source.name, &source.provider.value);
        tracing::info!(
            source = name,
            provider,
            address = format!("{base}/hooks/{name}"),
            "an address to give away"
        );
    }
    if let Some(more) = config
        .sources
        .len()
        .checked_sub(ADDRESSES)
        .filter(|more| *more > 0)
    {
        tracing::info!(
            more,
            "more sources have addresses; sluicegate source list names them"
        );
    }
}

/// Connections at the admin listener are few and not counted.
pub(super) struct Unwatched;

impl ConnectionObserver for Unwatched {
    fn opened(&self) {}
    fn closed(&self) {}
    fn turned_away(&self, _: TurnedAway) {}
    fn certificate_refused(&self, _: IpAddr, _: &str) {}
    fn full_answer(&self) -> Option<Bytes> {
        None
    }
}
