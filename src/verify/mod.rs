//! Proofs of origin: a `[verify]` table compiled into a [`Scheme`], and requests judged by it.
//!
//! How a provider signs is data (`config/providers`), compiled when the configuration is read; no provider's name stands
//! in this module. Every problem of a table comes out at once. Nothing here reads a file, a socket or a clock: time is an
//! argument, and the certificates that requests name are handed in by [`crate::source`].

mod challenge;
mod client_certificate;
mod dry_run;
mod explain;
mod forward_auth;
mod inputs;
mod judge;
mod keys;
mod lint;
mod proof_error;
mod redact;
mod request;
mod scheme;
mod shared_secret;
mod sign;
mod signature;
mod template;
#[cfg(test)]
pub(crate) mod tests;

pub use self::challenge::ChallengeResponse;
pub(crate) use self::challenge::{Challenge, allowed_methods};
pub(crate) use self::client_certificate::accepted_as;
pub use self::dry_run::{CheckConfig, DryRun, DryRunResult};
pub use self::forward_auth::Prepared;
pub(crate) use self::forward_auth::{ForwardAuth, ServiceVerdict};
pub(crate) use self::judge::certificate::WantedCertificate;
pub(crate) use self::judge::forward_auth::ForwardAuthProof;
pub(crate) use self::judge::streamed::StreamedCheck;
pub(crate) use self::keys::mac::same;
pub use self::keys::pair::KeyPair;
pub use self::lint::reasons;
pub use self::redact::RedactedRequest;
pub(crate) use self::redact::redacted;
pub(crate) use self::request::inflate::inflated as inflated_body;
pub use self::request::inflate::most_inflated;
pub use self::scheme::Scheme;
pub(crate) use self::scheme::compile::compile_source;
pub use self::sign::Signer;
