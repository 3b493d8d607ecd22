//! Observer of connections: reports to the counters how connections begin and end.

use std::net::IpAddr;

use bytes::Bytes;

use super::connection_limit::NoSlot;

/// Reason why the listener refused a connection or ended it.
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

/// Observer of connections, for the counters.
pub trait ConnectionObserver: Send + Sync + 'static {
    /// One has come in.
    fn opened(&self);
    /// One has gone.
    fn closed(&self);
    /// One was turned away.
    fn turned_away(&self, why: TurnedAway);
    /// A handshake failed because of the client certificate, for this cause. [`Self::turned_away`] counts it.
    fn certificate_refused(&self, peer: IpAddr, cause: &str);
    /// The answer to a caller that gets no slot, as it stands on the wire.
    fn full_answer(&self) -> Option<Bytes>;
}
