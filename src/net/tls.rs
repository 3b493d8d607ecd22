//! TLS at the public listener: the certificate that it shows, and the client certificates that it asks for.
//!
//! Promises: a handshake uses the files as they are at that moment. Files that cannot be used leave the ones before in
//! place, and the error names the file. A client certificate is checked in full at every handshake: where client
//! certificates are asked for, no TLS session is resumed, so that neither an expired certificate nor a CA or a revocation
//! list of before counts any longer.

use std::fmt;
use std::fs::Metadata;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{ClientAuth, TlsFiles};
use crate::model::ClientCertificate;

/// Name of HTTP/2 in a handshake (ALPN).
const H2: &[u8] = b"h2";

/// TLS of a listener. Clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<TlsState>);

/// A file that TLS cannot use.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}", file = file.display())]
pub struct TlsError {
    /// The file that is wrong.
    pub file: PathBuf,
    /// The reason.
    pub what: String,
}

struct TlsState {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// The files as they were last looked at.
    seen: Mutex<Vec<FileStamp>>,
    provider: Arc<CryptoProvider>,
}

/// Time of the last change of a file, and its length; `None` while the file is missing.
type FileStamp = Option<(SystemTime, u64)>;

/// A connection after its handshake.
pub(super) struct Handshaken {
    pub(super) stream: TlsStream<TcpStream>,
    /// True if the caller chose HTTP/2.
    pub(super) speaks_2: bool,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

/// A handshake that failed.
pub(super) enum HandshakeError {
    /// The client certificate is missing, or the check refused it.
    Certificate(String),
    /// Any other cause.
    Other(Error),
}

impl ServerTls {
    /// Reads all files.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let seen = stamps(files);
        let current = server_config(files, &provider)?;
        Ok(Self(Arc::new(TlsState {
            files: files.clone(),
            current: ArcSwap::from_pointee(current),
            seen: Mutex::new(seen),
            provider,
        })))
    }

    /// Reads all files again if one of them has changed; true if the new ones are in use from now on.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let now = stamps(&self.0.files);
        let mut seen = self.0.seen.lock();
        // A file that is missing is being replaced.
        if *seen == now || now.contains(&None) {
            return Ok(false);
        }
        *seen = now;
        drop(seen);
        let next = server_config(&self.0.files, &self.0.provider)?;
        self.0.current.store(Arc::new(next));
        Ok(true)
    }

    /// The files that it is read from.
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// Does a handshake.
    pub(super) async fn accept(&self, socket: TcpStream) -> Result<Handshaken, HandshakeError> {
        let acceptor = TlsAcceptor::from(self.0.current.load_full());
        let stream = acceptor.accept(socket).await.map_err(handshake_error)?;
        let session = stream.get_ref().1;
        let speaks_2 = session.alpn_protocol() == Some(H2);
        let certificate = match session.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(der) => Some(Arc::new(ClientCertificate::read(der).ok_or_else(|| {
                HandshakeError::Certificate("the names in the certificate cannot be read".into())
            })?)),
        };
        Ok(Handshaken {
            stream,
            speaks_2,
            certificate,
        })
    }
}

/// Tells a failed check of the client certificate from every other error.
fn handshake_error(error: Error) -> HandshakeError {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(
            cause @ (rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_)),
        ) => HandshakeError::Certificate(cause.to_string()),
        _ => HandshakeError::Other(error),
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("certificate", &self.0.files.cert.value)
            .finish_non_exhaustive()
    }
}

/// The state of each file, in a fixed order.
fn stamps(files: &TlsFiles) -> Vec<FileStamp> {
    let clients = files.clients.as_ref();
    let of_clients = clients
        .into_iter()
        .flat_map(|clients| std::iter::once(&clients.ca).chain(&clients.crl));
    [&files.cert, &files.key]
        .into_iter()
        .chain(of_clients)
        .map(|file| stamp(file))
        .collect()
}

fn stamp(file: &Path) -> FileStamp {
    let data: Metadata = std::fs::metadata(file).ok()?;
    Some((data.modified().ok()?, data.len()))
}

fn wrong(file: &Path, what: impl Into<String>) -> TlsError {
    TlsError {
        file: file.to_owned(),
        what: what.into(),
    }
}

fn server_config(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let pair = certified_key(&files.cert, &files.key, provider)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.cert, error.to_string()))?;
    let builder = match &files.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    if files.clients.is_some() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn certified_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    CertifiedKey::from_der(chain, secret, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong(key, "it is not the key of the certificate"),
        other => wrong(certificate, other.to_string()),
    })
}

/// All certificates of a PEM file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let all = all.map_err(|error| wrong(file, error.to_string()))?;
    if all.is_empty() {
        return Err(wrong(file, "there is no certificate in it"));
    }
    Ok(all)
}

/// The check of client certificates. With revocation lists, every certificate of a chain must be covered by one, and a
/// list that is out of date refuses all.
fn verifier(
    clients: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&clients.ca)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(&clients.ca, error.to_string()))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(file) = &clients.crl {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_file_iter(&**file).and_then(Iterator::collect);
        let lists = lists.map_err(|error| wrong(file, error.to_string()))?;
        if lists.is_empty() {
            return Err(wrong(file, "there is no revocation list in it"));
        }
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if !clients.is_required {
        builder = builder.allow_unauthenticated();
    }
    let file = clients.crl.as_ref().unwrap_or(&clients.ca);
    builder
        .build()
        .map_err(|error| wrong(file, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::{Located, Place};

    fn files(certificate: &Path, key: &Path) -> TlsFiles {
        let located = |file: &Path| Located {
            value: file.to_owned(),
            place: Place {
                file: "t".into(),
                line: 0,
            },
        };
        TlsFiles {
            cert: located(certificate),
            key: located(key),
            clients: None,
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn another_certificate_is_taken_and_a_broken_one_leaves_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        let write = |pair: &(String, String)| {
            std::fs::write(&certificate, &pair.0).unwrap();
            std::fs::write(&key, &pair.1).unwrap();
        };
        let (one, mut two) = (pair(), pair());
        write(&one);
        let tls = ServerTls::load(&files(&certificate, &key)).unwrap();
        let first = tls.0.current.load_full();
        assert!(!tls.reload().unwrap(), "nothing has changed");

        two.0.push_str("\n\n");
        write(&(two.0.clone(), one.1.clone()));
        let error = tls.reload().unwrap_err().to_string();
        assert!(
            error.contains("key.pem: it is not the key of the certificate"),
            "{error}"
        );
        assert!(Arc::ptr_eq(&first, &tls.0.current.load_full()));

        write(&("nothing".into(), two.1.clone() + "\n"));
        assert!(
            tls.reload()
                .unwrap_err()
                .to_string()
                .contains("cert.pem: there is no certificate")
        );
        std::fs::remove_file(&certificate).unwrap();
        assert!(
            !tls.reload().unwrap(),
            "a file that is gone is being replaced"
        );

        write(&(two.0.clone() + "\n", two.1.clone() + "\n\n"));
        assert!(tls.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &tls.0.current.load_full()));
    }

    #[test]
    fn files_that_are_no_pair_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        assert_eq!(
            ServerTls::load(&files(&certificate, &key))
                .unwrap_err()
                .file,
            certificate
        );
        std::fs::write(&certificate, pair().0).unwrap();
        assert_eq!(
            ServerTls::load(&files(&certificate, &key))
                .unwrap_err()
                .file,
            key
        );
    }
}
