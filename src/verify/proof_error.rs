//! Reason why a request is not proved.

use crate::model::OriginFault;

/// The fault, and a sentence for the operator.
pub(crate) type ProofError = (OriginFault, String);

/// Error for a part of the request that the check needs and that is absent or cannot be read.
pub(crate) fn missing(what: String) -> ProofError {
    (OriginFault::MissingPart, what)
}

/// Error for a signature or a token that is not written as its provider writes it.
pub(crate) fn malformed(what: impl Into<String>) -> ProofError {
    (OriginFault::MalformedSignature, what.into())
}

/// Error for a request that carries no signature.
pub(crate) fn no_signature() -> ProofError {
    (
        OriginFault::MissingSignature,
        "there is no signature".into(),
    )
}
