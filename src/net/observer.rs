//! Reports of what becomes of connections, for the counters.

use std::net::IpAddr;

use bytes::Bytes;

use super::connection_limit::NoSlot;

/// Why a connection was turned away, or ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// All places are taken.
    Full,
    /// Its address has its share of them.
    Share,
    /// A trusted proxy did not say who is calling.
    ProxyHeader,
    /// There was no TLS handshake.
    Handshake,
    /// The client certificate is missing, or the check refused it.
    Certificate,
    /// It spoke HTTP/2 in a way that only costs, or did not read its answers.
    Misuse,
}

impl TurnedAway {
    /// A stable word for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Share => "address",
            Self::ProxyHeader => "proxy_header",
            Self::Handshake => "handshake",
            Self::Certificate => "client_certificate",
            Self::Misuse => "misuse",
        }
    }
}

impl From<NoSlot> for TurnedAway {
    fn from(why: NoSlot) -> Self {
        match why {
            NoSlot::Full => Self::Full,
            NoSlot::Share => Self::Share,
        }
    }
}

/// Told of every connection, for the counters.
pub trait ConnectionObserver: Send + Sync + 'static {
    /// One has come in.
    fn opened(&self);
    /// One has gone.
    fn closed(&self);
    /// One was turned away.
    fn turned_away(&self, why: TurnedAway);
    /// A handshake failed because of the client certificate, for this cause. [`Self::turned_away`] counts it.
    fn certificate_refused(&self, peer: IpAddr, cause: &str);
    /// What whoever finds all places taken is told, as it stands on the wire.
    fn full_answer(&self) -> Option<Bytes>;
}
