//! Faults of a multipart body.

/// Most parts of a body.
pub const PARTS: usize = 100;

/// Reason why a multipart body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartFault {
    /// The content type names no boundary, or one that cannot be.
    #[error("the multipart body has no good boundary")]
    Boundary,
    /// The body is cut off, or is not multipart.
    #[error("the multipart body is badly made or not whole")]
    NotWhole,
    /// The head of a part is too large.
    #[error("the head of a part is too large")]
    HeadTooLarge,
    /// The head of a part is invalid.
    #[error("the head of a part is badly made")]
    Head,
    /// The body has too many parts.
    #[error("the body has more than {PARTS} parts")]
    Parts,
    /// The transfer encoding is unknown.
    #[error("a part has an unknown Content-Transfer-Encoding")]
    Encoding,
    /// The bytes are not encoded as the part's head says.
    #[error("a part is not encoded the way its Content-Transfer-Encoding says")]
    Encoded,
}
