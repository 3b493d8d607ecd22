//! TLS at the public door: a certificate and its key from files, and others in their place while it serves.
//!
//! What is promised: a handshake shows the certificate of the moment; files that cannot be used leave the one before
//! as it is, and say what is wrong with which file.

use std::fmt;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How HTTP/2 is called in a handshake.
const H2: &[u8] = b"h2";

/// A listener's certificate. Clones share it.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    shown: Arc<CurrentCertificate>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}", file = file.display())]
pub struct TlsError {
    /// The file that is wrong.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// The certificate of the moment.
struct CurrentCertificate {
    certificate: PathBuf,
    key: PathBuf,
    pair: ArcSwap<CertifiedKey>,
    /// The files as they were last looked at.
    seen: Mutex<FileStamps>,
    provider: Arc<CryptoProvider>,
}

/// When each of both files was written, and how long it is.
type FileStamps = [Option<(SystemTime, u64)>; 2];

impl ServerTls {
    /// Reads both files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let seen = [look(certificate), look(key)];
        let pair = read(certificate, key, &provider)?;
        let shown = Arc::new(CurrentCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            pair: ArcSwap::from_pointee(pair),
            seen: Mutex::new(seen),
            provider: provider.clone(),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError {
                file: certificate.to_owned(),
                what: error.to_string(),
            })?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            shown,
        })
    }

    /// Reads both files again when one of them has changed since; says whether there is another certificate now.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let CurrentCertificate {
            certificate,
            key,
            pair,
            seen,
            provider,
        } = &*self.shown;
        let now = [look(certificate), look(key)];
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is gone is being replaced.
        if *seen == now || now.contains(&None) {
            return Ok(false);
        }
        *seen = now;
        drop(seen);
        pair.store(Arc::new(read(certificate, key, provider)?));
        Ok(true)
    }

    /// The files it is read from.
    pub fn files(&self) -> (&Path, &Path) {
        (&self.shown.certificate, &self.shown.key)
    }

    /// Does a handshake; says whether the other end wants HTTP/2.
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
    ) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
        let stream = self.acceptor.accept(socket).await?;
        let wants_2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        Ok((stream, wants_2))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("certificate", &self.shown.certificate)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurrentCertificate")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.load_full())
    }
}

fn look(file: &Path) -> Option<(SystemTime, u64)> {
    let data: Metadata = std::fs::metadata(file).ok()?;
    Some((data.modified().ok()?, data.len()))
}

fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let wrong = |file: &Path, what: String| TlsError {
        file: file.to_owned(),
        what,
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "there is no certificate in it".into()));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    CertifiedKey::from_der(chain, secret, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            wrong(key, "it is not the key of the certificate".into())
        }
        other => wrong(certificate, other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tls = ServerTls::load(&certificate, &key).unwrap();
        let first = tls.shown.pair.load_full();
        assert!(!tls.reload().unwrap(), "nothing has changed");

        two.0.push_str("\n\n");
        write(&(two.0.clone(), one.1.clone()));
        let error = tls.reload().unwrap_err().to_string();
        assert!(
            error.contains("key.pem: it is not the key of the certificate"),
            "{error}"
        );
        assert!(Arc::ptr_eq(&first, &tls.shown.pair.load_full()));

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
        assert_ne!(first.cert, tls.shown.pair.load_full().cert);
    }

    #[test]
    fn files_that_are_no_pair_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        assert_eq!(
            ServerTls::load(&certificate, &key).unwrap_err().file,
            certificate
        );
        std::fs::write(&certificate, pair().0).unwrap();
        assert_eq!(ServerTls::load(&certificate, &key).unwrap_err().file, key);
    }
}
