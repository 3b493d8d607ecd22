//! Renewal of the certificate that callers are shown.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::net::ServerTls;

/// Interval between two looks for a renewed certificate.
const LOOK_FOR_CERTIFICATE: Duration = Duration::from_secs(5);

/// Looks for another certificate in the place of the one that is shown; at once when told to, and else now and then.
pub(super) async fn renew(tls: Option<ServerTls>, mut told: mpsc::Receiver<()>) {
    let Some(tls) = tls else { return };
    while let Ok(Some(())) | Err(_) = tokio::time::timeout(LOOK_FOR_CERTIFICATE, told.recv()).await
    {
        let files = tls.files();
        let (cert, key) = (&*files.cert, &*files.key);
        match tls.reload() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(cert = %cert.display(), "another certificate is shown from now on")
            }
            Err(error) => {
                tracing::error!(%error, key = %key.display(), "certificate not taken, the one before stays")
            }
        }
    }
}
