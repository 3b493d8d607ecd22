//! Proof by a client certificate: the TLS listener has checked it, and the source accepts it by `client_certs`.

use super::inputs::SchemeInputs;
use super::proof_error::ProofError;
use crate::config::{Located, Section};
use crate::model::{CertificatePattern, ClientCertificate, OriginFault};

/// Reads what the scheme `client-cert` needs.
pub(super) fn read(
    section: &Section<'_>,
    given: &SchemeInputs<'_>,
) -> Option<Vec<Located<CertificatePattern>>> {
    if let Some(secret) = given.secrets.first() {
        section.problems().error_hint(
            &secret.place,
            "a source whose callers show client certificates has no secrets of its own",
            "remove secrets, or choose the scheme that needs them",
        );
        return None;
    }
    if given.client_certs.is_empty() {
        section.problems().error_hint(
            given.source.1,
            format!(
                "source {} does not say which client certificates it accepts",
                given.source.0
            ),
            "set client_certs = [\"dns:NAME\"], or [\"any\"] for every certificate of the CA",
        );
        return None;
    }
    Some(given.client_certs.to_vec())
}

/// The pattern that accepts a certificate, as the operator wrote it.
pub(crate) fn accepted_as<'p>(
    patterns: &'p [Located<CertificatePattern>],
    shown: Option<&ClientCertificate>,
) -> Result<&'p str, ProofError> {
    let Some(certificate) = shown else {
        return Err((
            OriginFault::MissingSignature,
            "the caller showed no client certificate".into(),
        ));
    };
    patterns
        .iter()
        .find(|pattern| pattern.accepts(certificate))
        .map(|pattern| pattern.value.as_str())
        .ok_or_else(|| {
            (
                OriginFault::WrongSecret,
                format!("client_certs does not accept the client certificate {certificate}"),
            )
        })
}
