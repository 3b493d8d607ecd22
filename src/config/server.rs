//! `[server]`: the public listener.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Located, Section, size};
use crate::model::Block;

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Address for third parties.
    pub listen: SocketAddr,
    /// The address by which they know it, without a slash at the end.
    pub public_url: String,
    /// The largest body where neither the source nor its provider says.
    pub max_body: u64,
    /// The largest request head.
    pub max_head: usize,
    /// Time limit for a request head, and for a TLS handshake.
    pub head_timeout: Duration,
    /// Time that a connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// Time for which a caller may accept no byte of its answer.
    pub write_stall: Duration,
    /// Time for which a body may make no progress.
    pub body_stall: Duration,
    /// Time limit for a whole body.
    pub body_timeout: Duration,
    /// The slowest that a body may come after its first ten seconds, in bytes a second.
    pub min_body_rate: u64,
    /// Most memory for all bodies together.
    pub max_held: Located<u64>,
    /// Most connections at the same time.
    pub max_connections: usize,
    /// Most connections from one address.
    pub max_connections_per_address: usize,
    /// Most requests in work at the same time.
    pub max_requests: usize,
    /// Proxies whose statements about callers are trusted.
    pub trusted_proxies: Vec<Block>,
    /// The header in which they do.
    pub forwarded: Forwarding,
    /// True if these proxies begin connections with a PROXY header.
    pub proxy_protocol: bool,
    /// True if HTTP/2 is accepted without TLS.
    pub http2_cleartext: bool,
    /// The certificate, where TLS is spoken.
    pub tls: Option<TlsFiles>,
    /// Time that a shutdown may take.
    pub drain_timeout: Duration,
}

/// The header in which proxies name their callers. They pass the others on as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
    /// `X-Real-IP`
    XRealIp,
    /// They write none.
    None,
}

/// `[server.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those it hangs on.
    pub cert: Located<PathBuf>,
    /// Its key.
    pub key: Located<PathBuf>,
    /// Client certificates, where the listener asks for them.
    pub clients: Option<ClientAuth>,
}

/// Client certificates at the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// CA certificates that client certificates are checked against.
    pub ca: Located<PathBuf>,
    /// True if a connection without a client certificate is refused.
    pub is_required: bool,
    /// Revocation lists of these CAs.
    pub crl: Option<Located<PathBuf>>,
}

impl Server {
    /// Settings of this section that are read at the start only. All others hold from a reload on.
    pub const AT_START: &[&str] = &[
        "drain_timeout",
        "forwarded",
        "head_timeout",
        "http2_cleartext",
        "idle_timeout",
        "listen",
        "max_connections",
        "max_connections_per_address",
        "max_head",
        "max_requests",
        "proxy_protocol",
        "tls.cert",
        "tls.client_auth",
        "tls.client_ca",
        "tls.client_crl",
        "tls.key",
        "trusted_proxies",
        "write_stall",
    ];

    pub(super) fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let listen = section.parsed("listen", "an address and port like \"127.0.0.1:8080\"");
        let public_url = public_url(section);
        let (max_body, max_head) = (section.bytes("max_body"), section.bytes("max_head"));
        let head_timeout = section.duration("head_timeout");
        let (idle_timeout, write_stall) = (
            section.duration("idle_timeout"),
            section.duration("write_stall"),
        );
        let (body_stall, body_timeout) = (
            section.duration("body_stall"),
            section.duration("body_timeout"),
        );
        let (min_body_rate, max_held) = (section.bytes("min_body_rate"), section.bytes("max_held"));
        let max_connections = size(section, "max_connections");
        let max_connections_per_address = size(section, "max_connections_per_address");
        let max_requests = size(section, "max_requests");
        let trusted_proxies = section.blocks("trusted_proxies").unwrap_or_default();
        let forwarded = section.one_of(
            "forwarded",
            &[
                ("x-forwarded-for", Forwarding::XForwardedFor),
                ("forwarded", Forwarding::Forwarded),
                ("x-real-ip", Forwarding::XRealIp),
                ("none", Forwarding::None),
            ],
        );
        let (proxy_protocol, http2_cleartext) = (
            section.bool("proxy_protocol"),
            section.bool("http2_cleartext"),
        );
        if let Some(on) = proxy_protocol.as_ref().filter(|on| on.value)
            && trusted_proxies.is_empty()
        {
            section.problems().error_hint(
                &on.place,
                "server.proxy_protocol has nobody to believe",
                "name the proxies in server.trusted_proxies, for example [\"10.0.0.0/8\"]",
            );
        }
        let tls = section
            .section("tls")
            .map(|section| TlsFiles::read(&section, base));
        let drain_timeout = section.duration("drain_timeout");
        Some(Self {
            listen: listen?.value,
            public_url: public_url.unwrap_or_default(),
            max_body: max_body?.value,
            max_head: usize::try_from(max_head?.value).unwrap_or(usize::MAX),
            head_timeout: head_timeout?.value,
            idle_timeout: idle_timeout?.value,
            write_stall: write_stall?.value,
            body_stall: body_stall?.value,
            body_timeout: body_timeout?.value,
            min_body_rate: min_body_rate?.value,
            max_held: max_held?,
            max_connections: max_connections?,
            max_connections_per_address: max_connections_per_address?,
            max_requests: max_requests?,
            trusted_proxies,
            forwarded: forwarded?.value,
            proxy_protocol: proxy_protocol?.value,
            http2_cleartext: http2_cleartext?.value,
            tls: match tls {
                Some(files) => Some(files?),
                None => None,
            },
            drain_timeout: drain_timeout?.value,
        })
    }
}

impl TlsFiles {
    pub(super) fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let cert = section.required_text("cert", "name the file of the certificate, as PEM");
        let key = section.required_text("key", "name the file of the certificate's key, as PEM");
        Some(Self {
            cert: cert?.map(|file| base.join(file)),
            key: key?.map(|file| base.join(file)),
            clients: ClientAuth::read(section, base),
        })
    }
}

impl ClientAuth {
    /// Reads `client_ca`, `client_auth` and `client_crl`.
    fn read(section: &Section<'_>, base: &Path) -> Option<Self> {
        let ca = section.text("client_ca").filter(|file| !file.is_empty());
        let mode = section.one_of("client_auth", &[("request", false), ("require", true)]);
        let crl = section.text("client_crl").filter(|file| !file.is_empty());
        let Some(ca) = ca else {
            for (key, place) in [
                ("client_auth", mode.map(|mode| mode.place)),
                ("client_crl", crl.map(|crl| crl.place)),
            ] {
                if let Some(place) = place {
                    section.problems().error_hint(
                        &place,
                        format!("{} has no effect without client_ca", section.path(key)),
                        "name the file of the CA that signs client certificates: client_ca = \"tls/clients.pem\"",
                    );
                }
            }
            return None;
        };
        Some(Self {
            ca: ca.map(|file| base.join(file)),
            is_required: mode.is_some_and(|mode| mode.value),
            crl: crl.map(|crl| crl.map(|file| base.join(file))),
        })
    }
}

fn public_url(section: &Section<'_>) -> Option<String> {
    let written = section.text("public_url")?;
    let text = written.value.trim_end_matches('/');
    if text.is_empty() {
        return None;
    }
    let good = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    if good && super::address::has_login(text) {
        section.problems().error_hint(
            &written.place,
            "server.public_url has a name or a password in it",
            "it stands in every link that is given away: write the address alone",
        );
        return None;
    }
    if !good {
        section.problems().error_hint(
            &written.place,
            "server.public_url is no address",
            "write what third parties call, for example \"https://hooks.example.com\"",
        );
        return None;
    }
    Some(text.to_owned())
}
