//! TLS to the database, by the library that the rest of the gateway uses.
//!
//! The connector is our own. `tokio-postgres-rustls` 0.14 links `der` and `x509-cert` a second time, in older versions.
//! `tokio-postgres-rustls-improved` 0.17 refuses an address without a host name: a Unix socket could not be used. Both
//! bind the password exchange to the certificate, which can fail behind a proxy that ends TLS and opens its own.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Inner;

/// Makes encrypted connections.
#[derive(Clone)]
pub(super) struct PostgresTls {
    config: Arc<ClientConfig>,
}

impl PostgresTls {
    /// With `verify` the server has to prove its name by a usual certificate or one in `ca_file`; without it anybody
    /// who can stand between is believed, as with libpq.
    pub(super) fn new(verify: bool, ca_file: Option<&Path>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = if verify {
            let mut roots = RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            };
            if let Some(path) = ca_file {
                let at = |error: &dyn Error| format!("sslrootcert {}: {error}", path.display());
                for certificate in
                    CertificateDer::pem_file_iter(path).map_err(|error| at(&error))?
                {
                    roots
                        .add(certificate.map_err(|error| at(&error))?)
                        .map_err(|error| at(&error))?;
                }
            }
            builder.with_root_certificates(roots)
        } else {
            let anybody = Anybody(supported(&provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(anybody))
        };
        Ok(Self {
            config: Arc::new(config.with_no_client_auth()),
        })
    }
}

fn supported(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

impl MakeTlsConnect<Socket> for PostgresTls {
    type Stream = PostgresStream;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Connect> {
        // The path of a socket is no name, and nothing is encrypted over it.
        let name = ServerName::try_from(domain)
            .ok()
            .map(|name| name.to_owned());
        Ok(Connect {
            connector: TlsConnector::from(Arc::clone(&self.config)),
            name,
        })
    }
}

/// One connection to be made.
pub(super) struct Connect {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for Connect {
    type Stream = PostgresStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<PostgresStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let no_name = || {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the server's host is no name to be proved",
                )
            };
            let name = self.name.ok_or_else(no_name)?;
            self.connector
                .connect(name, socket)
                .await
                .map(|stream| PostgresStream(Box::new(stream)))
        })
    }
}

/// An encrypted connection.
pub(super) struct PostgresStream(Box<Inner<Socket>>);

impl TlsStream for PostgresStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for PostgresStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for PostgresStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Believes every certificate, but has the server show that it holds the key to it.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
